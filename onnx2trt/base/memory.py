"""How much memory this process may still take, and giving back what it has freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
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


def resident_bytes(statm: str = STATM) -> int | None:
    """What this process holds of the system's memory now; None where nobody tells.

    Args:
        statm: Linux' file of that name.
    """
    try:
        return int(Path(statm).read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


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
