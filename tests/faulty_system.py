"""A system whose calls fail: faulty_system.c, compiled and preloaded into the command. Nothing of ours is replaced."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
CALLS = ("write", "sync", "rename", "link", "lock", "map", "open", "truncate", "folder")
SHORT = 0  # in place of an error: a write takes half of what it is given


@dataclass(frozen=True)
class Fault:
    """Which call fails, counted over all processes of a run from 1, and how."""

    call: str
    number: int  # 0: none, the calls are only counted
    error: int = errno.EIO
    onward: bool = False  # all calls from this one on

    def __str__(self) -> str:
        how = errno.errorcode.get(self.error, "short")
        return f"{self.call} {self.number}{' and all later' if self.onward else ''}: {how}"


def missing() -> str:
    """Why there is no faulty system here; empty where there is one."""
    if sys.platform != "linux":
        return "needs Linux"
    return "" if shutil.which("cc") else "no C compiler (cc)"


def compiled(folder: Path) -> Path:
    """The library that is preloaded, in this folder."""
    library = folder / "faulty_system.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


class System:
    """Runs commands on files below one folder, with one fault each."""

    def __init__(self, library: Path, below: Path, state: Path):
        """
        Args:
            library: of `compiled`.
            below: only calls on paths that begin with this count.
            state: a file, made here, for the counts of one run.
        """
        self._library, self._below, self._state = library, below, state
        self.calls = self.faults = 0  # of the last run

    def run(self, command: list[str], fault: Fault, **how) -> subprocess.CompletedProcess:
        """subprocess.run with this fault."""
        self._state.write_bytes(bytes(16))
        own = {"LD_PRELOAD": str(self._library), "FAULT_STATE": str(self._state), "FAULT_CALL": fault.call}
        own |= {"FAULT_BELOW": str(self._below), "FAULT_NTH": str(fault.number), "FAULT_ERRNO": str(fault.error)}
        own |= {"FAULT_ONWARD": "1"} if fault.onward else {}
        done = subprocess.run(command, env={**os.environ, **how.pop("env", {}), **own}, **how)
        self.calls, self.faults = struct.unpack("qq", self._state.read_bytes())
        return done
