"""The lock of a file that several processes replace in turn. The kernel takes it back when its holder dies."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

try:
    import fcntl
except ImportError:
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

LOCK_SECONDS = 10.0  # a holder needs milliseconds; one that was stopped must not stop everybody else


POLL_SECONDS = 0.01


def lock_path(path: str) -> str:
    """The file that is locked: the cache itself is replaced by each writer. trtexec and Polygraphy use this name, too."""
    return path + ".lock"


@contextlib.contextmanager
def locked(path: str, seconds: float = LOCK_SECONDS) -> Iterator[bool]:
    """Hold the lock of the cache `path` for the length of a block. The kernel takes it back when its holder dies.

    Args:
        seconds: how long to wait for another holder.

    Yields:
        Whether the lock is held; False where another process keeps it, or where there can be none.
    """
    fd = -1
    with contextlib.suppress(OSError):
        fd = os.open(lock_path(path), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield fd >= 0 and _acquire(fd, time.monotonic() + seconds)
    finally:
        if fd >= 0:
            os.close(fd)  # which releases the lock; the file stays, for removing it would let two holders in


def _acquire(fd: int, deadline: float) -> bool:
    while True:
        try:
            if fcntl:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kind of lock that trtexec takes
            elif msvcrt:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            return bool(fcntl or msvcrt)
        except BlockingIOError:
            pass
        except PermissionError:  # how Windows and some systems say that it is taken
            pass
        except OSError:
            return False  # a file system without locks
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
