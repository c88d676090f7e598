"""Inputs as the user reads them: their shapes, and those that are constants. Of a result as JSON has it."""

from __future__ import annotations


def shape_range(profile: dict) -> str:
    """The shapes of an input, and its values where they decide about shapes, as in a profile of the result."""

    def between(bounds: dict) -> str:
        words = ["x".join(map(str, bounds[bound])) or "scalar" for bound in ("min", "opt", "max")]
        return words[0] if len(set(words)) == 1 else "min {} opt {} max {}".format(*words)

    values = profile.get("values")
    return between(profile) + (f", values {between(values)}" if values else "")


def bound_inputs(model: dict | None) -> list[str]:
    """The inputs of a model that are constants, each with its value as typed."""
    return [f"{entry['name']} = {entry['value']}  fixed by --bind-input" for entry in (model or {}).get("bound") or ()]


def profile_texts(result: dict) -> list[str]:
    """One for each of several optimization profiles: its shapes, and how long the engine takes at its usual ones."""
    texts = []
    for row in result["optimization_profiles"]:
        shapes = ", ".join(f"{entry['name']} {shape_range(entry)}" for entry in row["inputs"])
        texts.append(f"{row['name']}  {shapes}" + (f"  p50 {row['p50_ms']:.3f} ms" if row["p50_ms"] is not None else ""))
    return texts
