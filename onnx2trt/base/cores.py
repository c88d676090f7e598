"""How many processor cores this process may use: containers often get fewer than the machine has."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

QUOTA_FILES = (("/sys/fs/cgroup/cpu.max",), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cores(quota_files: tuple[tuple[str, ...], ...] = QUOTA_FILES) -> int:
    """The cores of our affinity (taskset, docker --cpuset-cpus), or of the CPU quota (docker --cpus) where that is less.

    Args:
        quota_files: of cgroups v2 and v1; a quota of 150000 microseconds in periods of 100000 is 1.5 cores, counted as 2.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for paths in quota_files:
        try:
            quota, period = map(int, " ".join(Path(path).read_text() for path in paths).split())
        except (OSError, ValueError):  # no such cgroup, or "max": no quota
            continue
        if quota > 0 and period > 0:
            return max(1, min(affinity, math.ceil(quota / period)))
    return affinity


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB of 10**6 bytes; Linux counts it in KiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
