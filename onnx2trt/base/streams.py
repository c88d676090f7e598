"""stdout and stderr of a command: a result is delivered or said to be lost, and what is only told fails nothing. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.words import in_lines


class Descriptor(io.RawIOBase):
    """Writes to a file descriptor, all that it is given; waits for a slow reader, also where the descriptor is not to be waited for."""

    def __init__(self, number: int, lossy: bool):
        """
        Args:
            lossy: what cannot be written is dropped; else OSError is raised.
        """
        self._number, self._lossy = number, lossy

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        rest = view = memoryview(data).cast("B")
        try:
            while rest.nbytes:
                try:
                    rest = rest[os.write(self._number, rest) :]
                except BlockingIOError:  # somebody has made it non-blocking, maybe for a program of his own
                    select.select([], [self._number], [])
        except OSError:
            if not self._lossy:
                raise
        return view.nbytes


def open_streams() -> None:
    """Make the standard streams of a process that is a command safe to write to.

    A stream that the caller has closed gets a descriptor all the same: else the next file that is opened would be written to.
    Nothing written to stderr raises. stdout raises OSError at once, and keeps nothing for Python to fail on at its end.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number)
        elif stream is not getattr(sys, f"__{name}__"):
            continue  # of another program, which calls us as a function
        if number:
            descriptor, encoding = Descriptor(number, lossy=number == 2), stream.encoding if stream else "utf-8"
            wrapper = io.TextIOWrapper(descriptor, encoding, "backslashreplace", line_buffering=number == 2, write_through=number == 1)
            setattr(sys, name, wrapper)


def _occupy(number: int) -> None:
    """A descriptor of this number from which nothing comes; what is written to stderr goes nowhere, what to stdout is refused."""
    descriptor = os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)


def stdout_is_closed() -> bool:
    """Whether nothing can be written there, by whoever started this process."""
    try:
        os.write(1, b"")
    except OSError as error:
        return error.errno == errno.EBADF  # none, or one for reading
    return False


def deliver(text: str) -> ConversionError | None:
    """Write a result to stdout.

    Returns:
        Why it is not there.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        return undelivered(error)
    return None


def say(text: str) -> None:
    """Print a message to stderr; on a terminal it is broken between words."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no terminal, or a stream of another program without a descriptor
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        text = in_lines(text, columns) if columns else text
    print(text, file=sys.stderr, flush=True)


def undelivered(error: OSError) -> ConversionError | None:
    """What to say of stdout that could not be written; None where nobody is there to read it, which is no failure."""
    if isinstance(error, BrokenPipeError) or stdout_is_closed():  # the reader has seen enough, or never wanted anything
        return None
    hint = "Send it to a file or a program that takes it."
    return ConversionError(f"stdout cannot be written: {error.strerror}", hint=hint, code=ExitCode.OUTPUT)


def needs_stdout(json_path: str | None) -> ConversionError | None:
    """Why a result that --json sends to stdout would be lost, to be known before the work."""
    if json_path != "-" or not stdout_is_closed():
        return None
    hint = "Open stdout for writing, or name a file: --json FILE."
    return ConversionError("--json - has nowhere to go: stdout is closed", hint=hint, code=ExitCode.OUTPUT)
