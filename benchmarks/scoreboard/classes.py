"""What came of a conversion, as one word for the table."""

from __future__ import annotations

CONVERTED, LIBRARY, OURS, WRONG, CRASHED = "converted", "refused by the library too", "refused by us", "wrong", "crashed"
CLASSES = (CONVERTED, LIBRARY, OURS, WRONG, CRASHED)
UNFORESEEN = 1  # exit code of a defect of ours


def outcome(found: dict, library: dict) -> str:
    """
    Args:
        found: of the conversion (attempt.attempt, or a crash).
        library: of the bare library on the untouched model.
    """
    if found.get("exit") == 0:
        return WRONG if found.get("right") is False else CONVERTED
    if library.get("crash") or not library.get("taken"):
        return LIBRARY
    return CRASHED if found.get("crash") or found["exit"] == UNFORESEEN else OURS
