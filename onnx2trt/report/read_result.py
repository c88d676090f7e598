"""The result of an earlier run out of the file beside its engine, which may be damaged, or written by somebody else."""

from __future__ import annotations

from onnx2trt.base.side_files import NotTaken, check_types, read_json
from onnx2trt.report.result import Result, intact
from onnx2trt.report.table import parts

ODD = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError)  # what its parts raise where they are of other types


class OddResult(NotTaken):
    """It speaks of an engine, but not as a conversion writes it."""


def read_result(path: str) -> tuple[Result, bool | None]:
    """(a result that can be shown, whether it is as it was sealed; None where it carries no seal)

    Raises:
        OSError: the file cannot be read; FileNotFoundError where there is none.
        NotTaken: it is no result with an engine; the message says why.
    """
    record = read_json(path)
    engine = record.get("engine") if isinstance(record, dict) else None
    if not isinstance(engine, dict) or not isinstance(engine.get("sha256"), str):
        raise NotTaken("it is no result of a conversion that made an engine")
    try:
        result = Result.from_dict(record)
        check_types(result)
        parts(result.to_dict())  # of what is a list or a dict, this alone knows what must be in it
        return result, intact(record)
    except ODD as error:
        raise OddResult(f"it is no result of a conversion ({error})") from None
