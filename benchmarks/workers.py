"""Jobs of a benchmark, each measured in a process of its own that is held to a number of CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path


def run(worker: Generator) -> None:
    """Run a worker to its end and print its seconds and its peak memory as JSON; what stands before its `yield` is not timed."""
    import resource

    next(worker)
    started, cpu = time.perf_counter(), time.process_time()
    for _ in worker:
        raise AssertionError("a worker stops once")
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}))


def measured(file: str, arguments: list[str], threads: int, python: str = sys.executable) -> dict[str, float]:
    """What run() prints in a fresh process of this benchmark, held to `threads` CPUs: all libraries size their pools by them.

    Args:
        python: the interpreter, of another environment where a peer needs one.
    """

    def hold() -> None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    command = [python, str(Path(file).resolve()), "--worker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=hold)
    if done.returncode:
        raise RuntimeError(f"worker {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
