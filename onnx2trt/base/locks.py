"""Locks between processes, on files and folders: the kernel's, so that they fall with their holder, however it ends.

filelock is not used: it takes flock, which trtexec's lockf on a timing cache does not see, on a file of its own, where folders and
temporaries are locked themselves here; and the supervising parent has the standard library alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

LOCK_SECONDS = 10.0  # of a cache: a holder needs milliseconds; one that was stopped must not stop everybody else
BRIEF_SECONDS = 5.0  # of a folder or temporary: many times what it takes to rename it, or to see that nobody has it
POLL_SECONDS = 0.005


def lock_path(path: str) -> str:
    """The file that is locked: the cache itself is replaced by each writer. trtexec and Polygraphy use this name, too."""
    return path + ".lock"


@contextlib.contextmanager
def locked(path: str, seconds: float = LOCK_SECONDS) -> Iterator[bool]:
    """Hold the lock of the cache `path`, which several processes replace in turn, for the length of a block.

    Args:
        seconds: how long to wait for another holder.

    Yields:
        Whether the lock is held; False where another process keeps it, or where there can be none.
    """
    with _opened(lock_path(path), os.O_RDWR | os.O_CREAT) as fd:  # the file stays, for removing it would let two holders in
        yield _acquire(fcntl.lockf, fd, seconds)  # the kind of lock that trtexec takes


@contextlib.contextmanager
def folder_locked(path: str) -> Iterator[None]:
    """Hold the lock of this file's folder for the length of a block, so that files that belong together are renamed, and read, together.

    Where there is none, or it cannot be had in time, the block runs all the same: each single file is whole anyway.
    """
    with _opened(os.path.dirname(os.path.realpath(path)), os.O_RDONLY) as fd:
        _acquire(fcntl.flock, fd, BRIEF_SECONDS)
        yield


def mark_alive(fd: int) -> None:
    """Lock an open file until it is closed, to show others (`abandoned`) that its writer lives."""
    _acquire(fcntl.flock, fd, BRIEF_SECONDS)


@contextlib.contextmanager
def abandoned(path: str) -> Iterator[bool]:
    """Whether the process that marked this file is dead. Where it is, the lock is ours for the length of the block.

    False, too, where there is no such file, or no lock to tell by.
    """
    mode = os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY  # network file systems lock only what is open for writing
    with _opened(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK) as fd:
        yield _acquire(fcntl.flock, fd, 0.0)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    """A descriptor; -1 where the file cannot be opened. Closing it releases its lock."""
    fd = -1
    with contextlib.suppress(OSError):
        fd = os.open(path, flags, 0o666)
    try:
        yield fd
    finally:
        if fd >= 0:
            with contextlib.suppress(OSError):  # the lock falls whatever the system says of it
                os.close(fd)


def _acquire(take: Callable[[int, int], None], fd: int, seconds: float) -> bool:
    """Take an exclusive lock; whether it was to be had in this time.

    Args:
        take: fcntl.lockf or fcntl.flock, which do not see each other's locks.
    """
    deadline = time.monotonic() + seconds
    while fd >= 0:
        try:
            take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):  # POSIX lets lockf say either where another holds it
            if time.monotonic() >= deadline:
                return False
        except OSError:
            return False  # a file system without locks
        time.sleep(POLL_SECONDS)
    return False
