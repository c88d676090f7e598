"""The result beside an engine that an earlier run has written."""

from __future__ import annotations

import hashlib
import json

from onnx2trt.base.files import feed
from onnx2trt.report.result import Result, intact

DONE = ("validated", "simulated", "not_validated")


def read_former(engine: str, side: str) -> tuple[Result | None, str]:
    """(result beside the engine, why there is none)"""
    sha256 = hash_file(engine)
    if sha256 is None:
        return None, f"there is no {engine} yet"
    try:
        with open(side, encoding="utf-8") as stream:
            record = json.load(stream)
        built = record["engine"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, f"{side}, which would say how {engine} was made, is missing or damaged"
    if built != sha256:
        return None, f"{engine} is not the file that {side} speaks of"
    try:
        former = Result.from_dict(record)
        sealed = intact(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        former, sealed = None, None
    if sealed is False:
        return None, f"{side} is damaged, or was changed by hand"
    if not sealed or former.status not in DONE or former.exit_code != 0:
        return None, f"{side} does not say what {engine} was made from, or that it was in order"
    return former, ""


def hash_file(path: str) -> str | None:
    """SHA-256 of a file; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        feed(digest, path)
        return digest.hexdigest()
    except OSError:
        return None
