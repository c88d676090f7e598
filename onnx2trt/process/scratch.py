"""A folder for the temporary files of a run and of the libraries in it, which ends with the run, however that ends.

TensorRT may need a model as a file, matplotlib makes a folder where there is no home, and none of them tidies up when it is killed.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import stat
import tempfile

from onnx2trt.base.locks import abandoned, mark_alive

PREFIX, SUFFIX = "onnx2trt-", ".tmp"
LOCK = ".onnx2trt.lock"  # in the folder; locked for as long as its run lives


class Scratch:
    """A new folder where the system keeps temporary files; those of runs that were killed are removed on this occasion."""

    def __init__(self) -> None:
        remove_abandoned()
        self.path: str | None = None  # where none can be made: the system's own will do
        self._fd = -1
        with contextlib.suppress(OSError):
            self.path = tempfile.mkdtemp(SUFFIX, PREFIX)
            self._fd = os.open(os.path.join(self.path, LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            mark_alive(self._fd)
            os.makedirs(self.path, exist_ok=True)  # another run may have removed it before it was locked

    def remove(self) -> None:
        """Remove the folder with all that is in it; harmless when it is gone already."""
        if self.path:
            shutil.rmtree(self.path, ignore_errors=True)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def remove_abandoned() -> None:
    """Remove the folders of our user's runs that are dead: SIGKILL, or a power cut."""
    found = []
    with contextlib.suppress(OSError):  # there is no such folder
        found = glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{PREFIX}*{SUFFIX}"))
    for path in found:
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                with abandoned(os.path.join(path, LOCK)) as dead:
                    if dead:
                        shutil.rmtree(path)
