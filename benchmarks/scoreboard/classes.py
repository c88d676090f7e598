"""What came of a conversion, as one word for the table."""

from __future__ import annotations

import re

CONVERTED, LIBRARY, INACCURATE = "converted", "refused by the library too", "refused as inaccurate"
NOTHING = "nothing to quantize"  # what INT8 could compute is next to nothing beside recurrent layers
OURS, WRONG, LATE, CRASHED = "refused by us", "wrong", "out of time", "crashed"
CLASSES = (CONVERTED, LIBRARY, INACCURATE, NOTHING, OURS, WRONG, LATE, CRASHED)
GOOD = (CONVERTED, LIBRARY, INACCURATE, NOTHING)
UNFORESEEN, MODEL, VALIDATION = 1, 3, 7  # exit codes of a defect of ours, of what is wrong with a model, and of a verdict
RECURRENT = "of the work is in recurrent layers"  # in the message of a refusal of INT8
NO_RESULT = "no result"  # of a process that ended by itself, without a signal
OUT_OF_TIME = "not done in time"  # of a process that was ended for the time that it took
ACCURACY = "--max-accuracy-drop"  # in the message of a refusal that measurements stand behind
OUT_OF_RANGE = ("of FP16's largest", "below FP16's normal range")  # in the hint of one where what was measured is out of FP16's range


def outcome(found: dict, library: dict) -> str:
    """
    Args:
        found: of the conversion (attempt.attempt, or a crash).
        library: of the bare library on the untouched model.
    """
    if found.get("exit") == 0:
        return WRONG if found.get("right") is False else CONVERTED
    if OUT_OF_TIME in (found.get("crash"), library.get("crash")):
        return LATE
    if found.get("exit") == UNFORESEEN or library.get("crash") == NO_RESULT:  # an error of ours in trying the library proves nothing
        return CRASHED
    if found.get("exit") == VALIDATION and (ACCURACY in found["message"] or any(words in found.get("hint", "") for words in OUT_OF_RANGE)):
        return INACCURATE
    if found.get("exit") == MODEL and RECURRENT in found["message"]:
        return NOTHING
    if library.get("crash") or not library.get("taken"):
        return LIBRARY
    return CRASHED if found.get("crash") else OURS


def reason(row: dict) -> str:
    """Why a row is no success, without what differs from model to model: names, numbers, paths."""
    library = row["library"]
    if row["class"] == LIBRARY:
        if library.get("crash"):
            return f"the library itself crashes ({library['crash']})"
        if library.get("types"):
            return f"types: {', '.join(library['types'])}"
        if library.get("operators") and library["refused_at"] == "parse":
            return f"operator {', '.join(library['operators'])}"
        return f"{library['refused_at']}: {_plain(library['message'])}"
    if row.get("crash"):
        return f"{row['crash']} in stage {row['stage']}"
    return _plain(row.get("why") or row["message"])


def _plain(text: str) -> str:
    """The first line, or two where that only says what follows, with names and numbers blanked."""
    lines = text.strip().splitlines() or ["no reason was given"]
    line = " ".join(part.strip() for part in lines[: 1 + (lines[0].endswith((":", "onnx")))])
    line = re.sub(r"IBuilder::buildSerializedNetwork: Error Code \d+: ", "", line)
    line = re.sub(r"/\S+", "FILE", line)
    return re.sub(r"(?<![A-WYZa-wyz_\d])\d+(\.\d+)?", "#", re.sub(r"'[^']*'", "'…'", line))[:160]
