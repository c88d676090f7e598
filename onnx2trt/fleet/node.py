"""What is done on a node: start processes there, wait for them, read what they say. Knows nothing of Ray."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.signals import ENDING
from onnx2trt.fleet.outcome import LOG_LINES, Outcome, of_result

PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def with_the_package() -> str:
    """PYTHONPATH of a process that shall find this package, which may be a clone that nobody has installed."""
    return os.pathsep.join(filter(None, (PACKAGE_ROOT, os.environ.get("PYTHONPATH"))))


FROM_OUTSIDE = tuple(128 + number for number in ENDING)  # exit codes of the command


def convert(folder: str, engine: str, words: Sequence[str], hide_gpus: bool) -> Outcome:
    """Run the command in `folder`, in a process of its own that ends with this one.

    Returns:
        What it said; "lost" where it was ended from outside, so that nobody knows what it would have said.
    """
    started = time.monotonic()
    try:
        code, out, said = _run("leash", [engine, *words, "--json", "-"], folder, hide_gpus)
    except ConversionError as error:
        return Outcome("failed", int(error.code), message=error.message, hint=error.hint, node=_host())
    took = {"node": _host(), "seconds": round(time.monotonic() - started, 3)}
    if code < 0 or code in FROM_OUTSIDE:
        return Outcome(
            "lost", int(ExitCode.MACHINE), message=f"the conversion was ended from outside (exit code {code})", log=_end(said), **took
        )
    try:
        outcome = of_result(json.loads(out))
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"the command ended with code {code} and left no result"
        return Outcome("failed", code or int(ExitCode.UNFORESEEN), message=message, log=_end(said), **took)
    return replace(outcome, log=_end(said) if outcome.failed else [], **took)


def find_unchanged(folder: str, commands: Sequence[Sequence[str]], hide_gpus: bool) -> dict[int, Outcome]:
    """Which conversions would only repeat an earlier one: all of them seen by one process.

    Returns:
        Place among the commands -> outcome. What is not there, a process that died on the way included, the command itself decides.
    """
    try:
        _, out, _ = _run("decide", [], folder, hide_gpus, json.dumps(commands))
    except ConversionError:
        return {}
    found = {}
    for line in out.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # the line in which it died
            told = json.loads(line)
            found[told["place"]] = replace(of_result(told["result"], "unchanged"), node=_host())
    return found


def _run(module: str, words: list[str], folder: str, hide_gpus: bool, text: str = "") -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a module of this room.

    Raises:
        ConversionError: MACHINE, where it cannot be started.
    """
    environment = {**os.environ, "PYTHONPATH": with_the_package(), **({"CUDA_VISIBLE_DEVICES": ""} if hide_gpus else {})}
    with _lifeline() as end:
        command = [sys.executable, "-m", f"onnx2trt.fleet.{module}", str(end), *words]
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                pass_fds=(end,),
                stdin=subprocess.PIPE if text else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at the terminal reaches the driver alone, which ends us
            )
        except OSError as error:
            raise ConversionError(
                f"on {_host()}: {error.strerror}: {error.filename}",
                hint=f"The plan's folder, {folder}, must be there on every node under the same name.",
                code=ExitCode.MACHINE,
            ) from None
        try:
            out, said = process.communicate(text.encode() if text else None)
        except BaseException:
            process.terminate()
            raise
    return process.returncode, out.decode(errors="replace"), said.decode(errors="replace")


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """The end of a pipe that a child reads; its other end is this process's alone, and closed when it dies, however."""
    end, own = os.pipe()
    try:
        yield end
    finally:
        os.close(end)
        os.close(own)


def _end(said: str) -> list[str]:
    return said.splitlines()[-LOG_LINES:]


def _host() -> str:
    return os.uname().nodename
