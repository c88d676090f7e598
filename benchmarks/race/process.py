"""A command with a time limit, in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

GRACE = 15.0  # seconds to end by itself: TensorRT does not listen while it times a kernel


def run(command: list, folder: Path, log: Path, limit: float, environment: dict[str, str] | None = None) -> tuple[str, float]:
    """Run a command in `folder`, with all that it says in a file.

    Args:
        limit: seconds; then it is ended.

    Returns:
        What went wrong, with the last lines that it said, empty where nothing did; and the seconds that it took.
    """
    started = time.monotonic()
    with open(log, "wb") as said:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            code = process.wait(max(limit, 0.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    seconds = time.monotonic() - started
    if code == 0:
        return "", seconds
    why = f"ended after {limit:.0f} s" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{why}: {tail(log)}", seconds


def tail(log: Path, size: int = 600) -> str:
    """The last that a command said, in one line."""
    return " | ".join(line for line in log.read_text(errors="replace")[-size:].splitlines() if line.strip())


def _end(process: subprocess.Popen) -> None:
    """With all that it has started; politely first, so that it can take its own children along."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
