"""Exit codes and the one exception that a user is meant to see."""

from __future__ import annotations

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


def unforeseen(error: BaseException) -> ConversionError:
    """An exception that nobody explained, as one that says so."""
    if isinstance(error, MemoryError):
        return ConversionError("out of memory", hint="Free memory, or use a smaller batch.", code=ExitCode.MACHINE)
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
