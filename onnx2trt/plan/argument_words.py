"""Arguments as words that a command line takes: the inverse of argument_types.py. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator


def flag_of(dest: str) -> str:
    """'min_shapes' -> '--min-shapes'."""
    return f"--{dest.replace('_', '-')}"


def words_of(dest: str, value) -> Iterator[str]:
    """The words that the parser makes this value of; one for each time that the flag is given.

    Args:
        dest: name in the parsed arguments.
        value: neither True nor False.
    """
    for one in value if isinstance(value, list) else [value]:
        yield WORDS.get(dest, _plain)(one)


def _plain(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _crossed(sizes: tuple[int, ...]) -> str:
    """(1, 3, 8, 8) -> '1x3x8x8'."""
    return "x".join(map(str, sizes))


def _shapes(shapes) -> str:
    return ",".join(f"{name}:{_crossed(sizes)}" for name, sizes in shapes)


def _bounds(entries) -> str:
    """Of each name three rows of sizes, or of values."""
    return ",".join(":".join([name, *map(_crossed, rows)]) for name, rows in entries)


def _profile(profile) -> str:
    return f"{profile[0]}={_bounds(profile[1])}"


def _bindings(entries) -> str:
    return ",".join(map("=".join, entries))


def _pairs(entries) -> str:
    return ",".join(map(":".join, entries))


# name in the parsed arguments -> text of one value
WORDS = {
    **dict.fromkeys(("min_shapes", "opt_shapes", "max_shapes"), _shapes),
    **dict.fromkeys(("layer_precisions", "io_types"), _pairs),
    "imgsz": _crossed,
    "shape_values": _bounds,
    "profile": _profile,
    "bind_input": _bindings,
}
