"""Where kernel timings are kept between conversions, and the lock that lets several conversions share them."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping

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


def user_cache_folder(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> str:
    """Our folder among the user's caches; empty where there is no place for one. Nothing is created here."""
    environ = os.environ if environ is None else environ
    if platform == "win32":
        base = environ.get("LOCALAPPDATA", "")
    else:
        base = environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
            base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(base, "onnx2trt") if os.path.isabs(base) or platform == "win32" and base else ""


def default_path(folder: str, backend: str, version: str, gpu: str, gpu_arch: str) -> str | None:
    """The timing cache of one library on one kind of GPU; timings of another would be refused, or wrong. None without a folder."""
    if not folder:
        return None
    words = (backend, version, gpu, f"sm{gpu_arch.replace('.', '')}")
    return os.path.join(folder, "timing", "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", word) for word in words) + ".cache")


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
