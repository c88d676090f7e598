"""One conversion, in a process of its own that pool.py has forked: what the command would do, and whether the result is right."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from onnx2trt.process.channel import Channel

from . import judge, raw
from .case import Case

RAW = "library"  # as a precision: the bare library on the untouched model
MESSAGE = 2000  # characters of an error that are kept


class _Left(BaseException):
    """The pipeline has ended; no Exception, as worker.py would take it for a failure."""


class _Kept(Channel):
    """A channel that keeps the last message, renames files itself, and tells the parent of stages, so that it knows where a crash was."""

    def __init__(self, pipe: int) -> None:
        super().__init__(os.open(os.devnull, os.O_WRONLY))
        self._pipe = pipe
        self.result: dict = {}

    def stage(self, name: str) -> None:
        _tell(self._pipe, {"stage": name})

    def publish(self, *finished: tuple[str, str], required: bool = True) -> None:
        for temporary, final in finished:
            os.replace(temporary, final)

    def done(self, result: dict, files, table: str, optional=()) -> None:
        self.result = result
        self.publish(*files, *optional)

    def leave(self, code: int) -> None:
        raise _Left


def attempt(case: Case, precision: str, pipe: int) -> dict:
    """Convert, or ask the bare library, and tell what came of it.

    Args:
        pipe: file descriptor to the parent, for the stages.

    Returns:
        exit, message, hint, seconds, peak_mb, and of a success: delivered, status, int8_mac_share, and what judge.judge returns;
        of the bare library: taken, message.
    """
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        os.chdir(folder)
        tempfile.tempdir = folder
        started = time.monotonic()
        found = raw.take(case) if precision == RAW else _convert(case, precision, pipe)
        seconds, peak = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if found.get("exit") == 0:
            found |= judge.judge(case, precision, Path("prepared.onnx"), Path("model.engine"))
        os.chdir("/")
    return {**found, "seconds": round(seconds, 3), "peak_mb": round(peak, 1)}


def words_of(case: Case, precision: str) -> list[str]:
    """The command line, as a user would write it."""
    words = ["--onnx", str(case.path), "--output", "model.engine", "--precision", precision, "--save-onnx", "prepared.onnx", "--quiet"]
    data = Path(case.folder) / "data"
    calibration = [f"--calibration-dir={data}"] if precision == "int8" and data.is_dir() else []
    return [*words, *case.flags, *calibration]


def _convert(case: Case, precision: str, pipe: int) -> dict:
    from onnx2trt.plan.arguments import build_parser
    from onnx2trt.plan.rules import flag_problem
    from onnx2trt.worker import work

    args = build_parser().parse_args(words_of(case, precision))
    problem = flag_problem(args)
    if problem:
        return {"exit": 2, "message": problem, "hint": ""}
    channel = _Kept(pipe)
    with contextlib.suppress(_Left):
        work(args, channel)
    result = channel.result
    error = result.get("error") or {}
    found = {"exit": result["exit_code"], "message": error.get("message", "")[:MESSAGE], "hint": error.get("hint", "")[:MESSAGE]}
    known = result.get("precision") or {}
    return {
        **found,
        "status": result.get("status"),
        "delivered": known.get("delivered"),
        "int8_mac_share": known.get("int8_mac_share"),
        "warnings": [text[:300] for text in result.get("warnings") or []][:5],
    }


def main_of_child(case: Case, precision: str, pipe: int) -> None:
    """All of a forked process; never returns."""
    try:
        _tell(pipe, attempt(case, precision, pipe))
    finally:
        os._exit(0)  # not through the teardown of libraries; the parent sees that no result has come


def _tell(pipe: int, message: dict) -> None:
    data = json.dumps(message, ensure_ascii=True, default=str).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]
