"""The result beside an engine that an earlier run has written."""

from __future__ import annotations

import hashlib

from onnx2trt.base.files import feed
from onnx2trt.base.side_files import NotTaken
from onnx2trt.report.read_result import OddResult, read_result
from onnx2trt.report.result import Result

DONE = ("validated", "simulated", "not_validated")


def read_former(engine: str, side: str) -> tuple[Result | None, str]:
    """(result beside the engine, why there is none)"""
    sha256 = hash_file(engine)
    if sha256 is None:
        return None, f"there is no {engine} yet"
    try:
        former, sealed = read_result(side)
    except OddResult as error:
        return None, f"{side} does not say what {engine} was made from, or that it was in order ({error})"
    except (OSError, NotTaken) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return None, f"{side}, which would say how {engine} was made, is missing or damaged ({why})"
    if former.engine.sha256 != sha256:
        return None, f"{engine} is not the file that {side} speaks of"
    if sealed is False:
        return None, f"{side} is damaged, or was changed by hand"
    if not sealed or former.model is None or former.status not in DONE or former.exit_code != 0:
        return None, f"{side} does not say what {engine} was made from, or that it was in order"
    return former, ""


def hash_file(path: str) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        feed(digest, path)
        return digest.hexdigest()
    except (OSError, ValueError):  # the latter of a name that is none, with a null in it
        return None
