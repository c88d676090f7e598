"""Candidates that most kinds of the second table share: what rounding does, and what a user would miss."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, alive, dead, half, mean_of, noisy, outputs

NOISE = (30.0, 38.0, 45.0)  # dB below the standard deviation of each quantity


def ulp(values: np.ndarray) -> np.ndarray:
    """The next number above each."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def eight_bits(values: np.ndarray, axes) -> np.ndarray:
    """As an INT8 tensor with a scale and a zero point for each quantity."""
    low, high = values.min(axes, keepdims=True), values.max(axes, keepdims=True)
    scale = np.maximum(high - low, 1e-12) / 255
    return (np.rint((values - low) / scale) * scale + low).astype(np.float32)


def near(random, values: np.ndarray, axes, whole: bool = True) -> dict[str, np.ndarray]:
    """Harmless ones.

    Args:
        axes: over which one quantity is spread, the samples among them.
        whole: all values are of one kind, so that one INT8 scale may be for all of them.
    """
    found = {f"noise of {db:g} dB": noisy(random, values, db, axes) for db in NOISE}
    if whole:
        found["white noise of 33 dB"] = noisy(random, values, 33, None)
    return found | {"one ulp": ulp(values), "FP16": half(values), "8 bits": eight_bits(values, axes)}


def far(values: np.ndarray, features: int | None = None) -> dict[str, np.ndarray]:
    """Harmful ones of values of any kind.

    Args:
        features: the axis of channels, columns or features, the samples being axis 0.
    """
    bad = {"zero": values * 0, "times 0.6": values * 0.6, "negative": -values}
    if len(values) > 1:
        bad |= {"constant": mean_of(values), "samples mixed up": np.roll(values, 1, 0)}
    if features is not None and values.shape[features] > 1 and (len(values) > 1 or values.ndim > 2):
        axes = tuple(axis for axis in range(values.ndim) if axis != features)
        bad["one of the features zero"] = dead(values, alive(values, features, axes), features)
        bad["features in another order"] = np.flip(values, features).copy()
    return bad


def of(values: np.ndarray, good: dict, bad: dict, name: str = "y", dtype=np.float32) -> Kind:
    """A kind with one output of this type."""

    def given(found):
        return outputs(**{name: np.asarray(found).astype(dtype)})

    return Kind(given(values), {what: given(found) for what, found in good.items()}, {what: given(found) for what, found in bad.items()})


def of_several(reference: dict, good: dict[str, dict], bad: dict[str, dict], batched: bool = True) -> Kind:
    """A kind with several outputs; a candidate names those that differ."""

    def given(found):
        full = {name: found.get(name, values) for name, values in reference.items()}
        return outputs(**{name: values.astype(reference[name].dtype) for name, values in full.items()})

    made = Kind(given({}), {what: given(found) for what, found in good.items()}, {what: given(found) for what, found in bad.items()})
    made.batched = batched
    return made
