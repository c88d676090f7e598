"""How much memory this process may still take, and giving back what it has freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEMINFO = "/proc/meminfo"
STATM = "/proc/self/statm"
CGROUPS = (  # (limit, use) of cgroups v2 and v1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes(meminfo: str = MEMINFO, cgroups: tuple[tuple[str, str], ...] = CGROUPS) -> int | None:
    """What the system, or the container's limit where that is less, has left; None where nobody tells.

    Args:
        meminfo: Linux' file of that name.
        cgroups: files of a limit and of what is used of it, in bytes.
    """
    left = []
    try:
        lines = dict(line.split(":", 1) for line in Path(meminfo).read_text().splitlines())
        left.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError, IndexError):
        pass
    for limit, used in cgroups:
        try:
            left.append(max(int(Path(limit).read_text()) - int(Path(used).read_text()), 0))
        except (OSError, ValueError):  # no such cgroup, or "max": no limit
            continue
    return min(left, default=None)


def anonymous_bytes(statm: str = STATM) -> int | None:
    """What this process holds of the system's memory now, the pages of files (libraries' code, weights that lie on disk) left out; None
    where nobody tells.

    Args:
        statm: Linux' file of that name.
    """
    try:
        resident, shared = map(int, Path(statm).read_text().split()[1:3])
    except (OSError, ValueError):
        return None
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


class HeldMemory:
    """What this process holds for what it does, without what libraries take for themselves where they start.

    TensorRT 8.6.1 loads some 3 GB of kernels when a Builder is made, TensorRT 10.6 with CUDA some 2 GB; of a model that tells nothing.
    """

    def __init__(self, count: Callable[[], int | None] = anonymous_bytes):
        self._count = count
        self._libraries = 0  # bytes
        self._starting = threading.RLock()

    def without_libraries(self) -> int | None:
        """Waits where a library starts; None where nobody tells."""
        with self._starting:
            return self._own(self._count())

    @contextmanager
    def library_starts(self) -> Iterator[None]:
        """What is held after the block and was not before is the library's."""
        with self._starting:
            before = self._own(self._count())
            try:
                yield
            finally:
                after = self._count()
                if before is not None and after is not None:
                    self._libraries = max(after - before, self._libraries)

    def _own(self, held: int | None) -> int | None:
        if held is None:
            return None
        self._libraries = min(self._libraries, held)  # what has become less was let go
        return held - self._libraries


HELD = HeldMemory()  # memory is the process's, whoever asks


def return_freed() -> None:
    """Have the C library return freed memory to the system.

    glibc keeps blocks below 32 MB once one of that size was freed (opencv.py does that on purpose), and what ONNX Runtime held of a model
    lies between blocks that are still used: of a transformer of 170 MB some 150 MB stayed with the process each time one was let go. Other
    C libraries have no such function.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def limited() -> str:
    """What to do where memory was not enough and this process may take only so much; empty where nothing says so."""
    with contextlib.suppress(ImportError):  # not on every system
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            return f"This process may take only {most / 2**20:.0f} MiB of addresses (ulimit -v): allow it more, 8 GiB to begin with."
    return ""
