"""A child process for each conversion, forked from one that has all libraries loaded: a crash costs one model, and starting one 20 ms."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .attempt import main_of_child
from .case import Case
from .classes import NO_RESULT, OUT_OF_TIME


@dataclass
class _Child:
    case: Case
    precision: str
    pid: int
    started: float
    data: bytes = b""
    late: bool = False


def warm() -> None:
    """Load in this process what each child would load."""
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    import onnx2trt.pipeline.convert
    import onnx2trt.pipeline.validate
    import onnx2trt.report.table
    import onnx2trt.worker  # noqa: F401
    from onnx2trt.trt.library import load_library

    load_library("auto")


def run(jobs: Iterable[tuple[Case, str]], at_once: int, limit: Callable[[Case], float]) -> Iterator[tuple[Case, str, dict]]:
    """Results as they come, in no order.

    Args:
        at_once: processes.
        limit: seconds that a conversion of a model may take; then it is ended.

    Yields:
        (case, precision, what attempt returned, or {"crash": signal or why else there is none, "stage", "seconds", "peak_mb"})
    """
    with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:  # what crashes leave behind goes with it
        tempfile.tempdir = scratch
        try:
            yield from _run(iter(jobs), at_once, limit)
        finally:
            tempfile.tempdir = None


def _run(waiting: Iterator[tuple[Case, str]], at_once: int, limit: Callable[[Case], float]) -> Iterator[tuple[Case, str, dict]]:
    running: dict[int, _Child] = {}
    while True:
        while len(running) < at_once and (job := next(waiting, None)):
            pipe, child = _start(*job)
            running[pipe] = child
        if not running:
            return
        for pipe in select.select(list(running), [], [], 1.0)[0]:
            block = os.read(pipe, 2**16)
            running[pipe].data += block
            if not block:
                child = running.pop(pipe)
                os.close(pipe)
                yield child.case, child.precision, _end(child)
        for child in running.values():
            if time.monotonic() - child.started > limit(child.case):
                child.late = True
                os.kill(child.pid, signal.SIGKILL)


def _start(case: Case, precision: str) -> tuple[int, _Child]:
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        main_of_child(case, precision, writing)
    os.close(writing)
    return reading, _Child(case, precision, pid, time.monotonic())


def _end(child: _Child) -> dict:
    _, status, usage = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    lines = [json.loads(line) for line in child.data.splitlines(keepends=True) if line.endswith(b"\n")]
    if lines and "seconds" in lines[-1]:
        return lines[-1]
    stage = lines[-1]["stage"] if lines else ""
    crash = OUT_OF_TIME if child.late else signal.Signals(-code).name if code < 0 else NO_RESULT
    seconds = time.monotonic() - child.started
    return {"crash": crash, "stage": stage, "seconds": round(seconds, 3), "peak_mb": round(usage.ru_maxrss / 1024, 1)}
