"""One run in a child process, for the command and for the Python interface alike: its result, however it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass

from onnx2trt.base import files
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.side_files import check_replaceable
from onnx2trt.process.supervision import Interrupted, Supervisor, restore_terminal
from onnx2trt.report.result import Result, to_json

MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


@dataclass
class Ended:
    """How a run has ended."""

    result: Result
    table: str = ""  # for people, as the child made it
    json_written: bool = False  # --json has its name already
    lost: tuple[str, ...] = ()  # warnings of the end, which nobody has seen yet
    interrupted: int | None = None  # by this signal


def run_supervised(arguments: list[str], json_path: str | None = None) -> Ended:
    """Run the command with these arguments in a child process.

    Args:
        json_path: --json; of a success it is written before any file gets its name: where there is no room for it, none is replaced.
    """
    supervisor, started, written = Supervisor(), time.monotonic(), []

    def add_json(outcome: dict) -> list[tuple[str, str]]:
        if outcome["result"]["exit_code"] == 0 and json_path and json_path != "-":
            written.append(_json_file(json_path, Result.from_dict(outcome["result"])))
        return [(temporary.path, temporary.final) for temporary in written]

    warning_flags = [part for option in sys.warnoptions for part in ("-W", option)]
    ended = Ended(Result())
    try:
        outcome = supervisor.run([sys.executable, *warning_flags, MAIN, *arguments], add_json)
        lost = tuple(f"there is no report: {message}" for message in outcome["lost"])  # nothing else is optional
        # written once more where something is to be added
        ended = Ended(Result.from_dict(outcome["result"]), outcome["table"], bool(written) and not lost, lost)
        ended.result.warnings += lost
        ended.result.seal()
    except Interrupted as interrupt:
        ended.interrupted, name = interrupt.signum, signal.Signals(interrupt.signum).name
        ended.result.fail(
            ConversionError(f"interrupted by {name} during stage '{supervisor.stage}'", code=ExitCode(128 + interrupt.signum))
        )
    except ConversionError as error:
        for temporary in written:
            temporary.discard()
        ended.result.fail(error)
    if ended.result.status == "failed":
        restore_terminal()
    ended.result.timings_s.setdefault("total", round(time.monotonic() - started, 3))
    return ended


def write_json(path: str | None, ended: Ended) -> ConversionError | None:
    """Write --json unless it is written already, or goes to stdout.

    Returns:
        Why it could not be written, where that is not the failure that the result speaks of.
    """
    if not path or path == "-" or ended.json_written:
        return None
    try:
        if ended.result.exit_code:
            check_replaceable(path)
        files.write_atomically(path, to_json(ended.result).encode())
    except ConversionError as error:
        known = ended.result.error
        return None if known and known.message == error.message else error
    return None


def _json_file(path: str, result: Result) -> files.Temporary:
    """A temporary beside --json, with all of it."""
    temporary = files.Temporary(path)
    try:
        temporary.write(to_json(result).encode())
    except ConversionError:
        temporary.discard()
        raise
    return temporary
