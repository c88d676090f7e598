"""Exit codes and the one exception that a user is meant to see."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique


@unique
class ExitCode(IntEnum):
    """The code names the thing at fault, so that a CI script can branch on it."""

    OK = 0
    UNFORESEEN = 1  # a defect of ours; the message asks for a report
    USAGE = 2  # flags wrong by themselves, or not fitting the model's shapes (argparse uses 2 as well)
    MODEL = 3  # the --onnx file
    MACHINE = 4  # not possible on this machine or with this library
    CALIBRATION = 5  # calibration data or cache
    BUILD = 6  # TensorRT could not build the engine
    VALIDATION = 7  # validation, accuracy, delivered precision, test data
    OUTPUT = 8  # files that we write
    SIGHUP = 129  # 128 + signal number, as shells report it
    SIGINT = 130
    SIGTERM = 143


class ConversionError(Exception):
    """A failure explained to the user: what failed with the values seen, what to do next, who is at fault.

    Args:
        message: one or more sentences; names the file, node, tensor or value.
        hint: the next step, as a sentence; empty where there is none.
        code: the exit code of the process.

    Attributes:
        found: field of the result -> value, of what was found before the failure and is worth showing with it.
    """

    def __init__(self, message: str, *, hint: str = "", code: ExitCode):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = ExitCode(code)
        self.found: dict = {}


class AccuracyError(ConversionError):
    """Outputs that differ from the model's by more than was allowed.

    Args:
        drop_percent: by how much; None where they are not even finite.
    """

    def __init__(self, message: str, *, hint: str, drop_percent: float | None):
        super().__init__(message, hint=hint, code=ExitCode.VALIDATION)
        self.drop_percent = drop_percent


@contextmanager
def having_found(found: dict) -> Iterator[None]:
    """Whatever fails in the block, these fields of the result are known all the same; the block may add to them."""
    try:
        yield
    except ConversionError as error:
        error.found = {**found, **error.found}
        raise


MEMORY_HINT = "Free memory, or use a smaller batch."
# what the system has refused, of whatever call -> the code, what to do; the sentence is the system's
REFUSED = {
    errno.EMFILE: (ExitCode.MACHINE, "Allow more open files: ulimit -n 1024."),
    errno.ENFILE: (ExitCode.MACHINE, "The whole system has too many open files: end other programs."),
    errno.EAGAIN: (ExitCode.MACHINE, "Allow more processes and threads (ulimit -u), or end other programs."),
    errno.ENOMEM: (ExitCode.MACHINE, MEMORY_HINT),
    errno.ENOSPC: (ExitCode.OUTPUT, "Free some space, or let TMPDIR name a folder that has some."),
    errno.EDQUOT: (ExitCode.OUTPUT, "The disk quota is used up: free some space."),
    errno.EFBIG: (ExitCode.OUTPUT, "The file size limit (ulimit -f) is smaller than the file."),
    errno.EROFS: (ExitCode.OUTPUT, "The file system is read-only."),
    errno.EIO: (ExitCode.MACHINE, "A disk or a network file system has failed: look at the system's log."),
}
# how libraries put it: C++, ONNX Runtime, OpenCV; a thread needs addresses for its stack
NO_MEMORY = re.compile("bad_?alloc|bad allocation|failed to allocate|cannot allocate memory|can't start new thread", re.IGNORECASE)
OTHERWISE = (ExitCode.MACHINE, "Somebody may have removed or changed a file meanwhile; else run again with --verbose, and report it.")


def unforeseen(error: BaseException) -> ConversionError:
    """An exception that nobody explained: what the machine has refused in its words, anything else as one that says so."""
    from onnx2trt.base.memory import limited  # only where something has failed

    starved = isinstance(error, SystemError) and limited()  # Python's own words where it could not even make the exception
    if isinstance(error, MemoryError) or starved or NO_MEMORY.search(str(error)):
        return ConversionError("out of memory", hint=limited() or MEMORY_HINT, code=ExitCode.MACHINE)
    if isinstance(error, OSError) and error.errno is not None:
        known = errno.ENOSPC if "No usable temporary directory" in str(error) else error.errno  # in a file that Python tries to write there
        code, hint = REFUSED.get(known, OTHERWISE)
        return ConversionError(str(error).partition("] ")[2] or str(error), hint=hint, code=code)
    if isinstance(error, ImportError):
        while error.__cause__:  # numpy wraps it into a page of advice
            error = error.__cause__
        return ConversionError(
            f"a library cannot be loaded: {error}",
            hint=limited() or "Install it again; if it speaks of open files, allow more of them: ulimit -n 1024.",
            code=ExitCode.MACHINE,
        )
    return ConversionError(
        f"unforeseen {type(error).__name__}: {error}",
        hint="Run again with --verbose for the traceback, and report it.",
        code=ExitCode.UNFORESEEN,
    )


def in_words(error: Exception) -> str:
    """Why optional work came to nothing, for a warning."""
    return error.message if isinstance(error, ConversionError) else f"{type(error).__name__}: {error}"


class DataError(Exception):
    """One data file cannot be used; the message says why, without the file's name. Some of a folder may be skipped."""
