"""The child's end of the supervision: messages to the parent, and dying with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import threading
import time

ENVIRONMENT_KEY = "ONNX2TRT_SUPERVISED"  # "<write fd of messages>:<read fd of the lifeline>:<pid of the parent>"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LEAVE_SECONDS = 60.0  # a parent that is no more, and that no kernel has told us of


class Channel:
    """One-way messages, a JSON object a line. Safe to call from several threads."""

    def __init__(self, fd: int):
        self._stream = os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape")
        self._lock = threading.Lock()
        self._fd, self._no_memory = fd, b'{"kind": "exhausted"}\n'  # there may be none left to make it of

    def stage(self, name: str) -> None:
        """Work on this stage begins; if we die, the parent names it."""
        self._send(kind="stage", name=name)

    def temporary(self, path: str) -> None:
        """A file at `path` may exist from now on; the parent removes it unless it is published."""
        self._send(kind="temporary", path=path)

    def publish(self, *finished: tuple[str, str], required: bool = True) -> None:
        """Ask the parent to rename finished files now, whatever comes of the rest (a calibration cache).

        Args:
            finished: (temporary, final) of files that belong together, in the order of their renaming.
            required: the run fails where they cannot be renamed; else the temporaries are removed and nothing is said.
        """
        self._send(kind="publish", files=finished, required=required)

    def done(self, result: dict, files: list[tuple[str, str]], table: str, optional: list[tuple[str, str]] = ()) -> None:
        """The last message: the result, the finished files in the order of their renaming, the text for stdout.

        Args:
            optional: more finished files, each of which is only a warning where it cannot be renamed.
        """
        self._send(kind="done", result=result, files=files, table=table, optional=optional)

    def failed(self, message: str, hint: str, code: int) -> None:
        """The last message of a run that cannot even make a result: what is to be said, and the exit code."""
        self._send(kind="failed", message=message, hint=hint, code=code)

    def exhausted(self) -> None:
        """The last message of a run that has not even the memory to say so."""
        os.write(self._fd, self._no_memory)

    def leave(self, code: int) -> None:
        """End this process, not through the teardown of libraries that may crash or hang in it.

        The parent ends us once it has renamed our files: the locks of their temporaries have to stand until then, or another run takes
        them for abandoned.
        """
        time.sleep(LEAVE_SECONDS)
        os._exit(code)

    def _send(self, **message) -> None:
        line = json.dumps(message, ensure_ascii=True, allow_nan=False)  # whole, before any of it is written
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


def attach() -> Channel | None:
    """The channel to the parent where this process is a supervised child, else None.

    A variable that is left over from another process, or made up, is none of a parent's: then nobody supervises us.
    """
    value = os.environ.pop(ENVIRONMENT_KEY, "")
    try:
        messages, lifeline, parent = (int(part) for part in value.split(":"))
        if not all(stat.S_ISFIFO(os.fstat(number).st_mode) for number in (messages, lifeline)) or messages < 3 or lifeline < 3:
            return None
        os.set_inheritable(messages, False)  # a program that a library starts must not keep the pipe open
    except (ValueError, OverflowError, OSError):
        return None
    _die_with(parent, lifeline)
    return Channel(messages)


def _die_with(parent: int, lifeline: int) -> None:
    """End this process when the parent ends, however it ends."""
    import ctypes  # not at the top: the parent needs none of it

    with contextlib.suppress(OSError, AttributeError):  # Linux has it; elsewhere there is the lifeline
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # at once, even inside a long C++ call
    if os.getppid() != parent:  # it died before prctl took effect
        os._exit(1)

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)  # returns only at end of file: nobody writes to the lifeline
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
