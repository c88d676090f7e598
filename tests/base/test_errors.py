"""base/errors.py: what nobody has explained becomes a sentence with the code of what is at fault."""

import errno
import os
import resource
import subprocess
import sys

import pytest
from command import IMPORTABLE

from onnx2trt.base.errors import ExitCode, unforeseen


@pytest.mark.parametrize(
    "number, code, hint",
    [
        (errno.EMFILE, ExitCode.MACHINE, "ulimit -n"),
        (errno.EAGAIN, ExitCode.MACHINE, "ulimit -u"),
        (errno.ENOSPC, ExitCode.OUTPUT, "space"),
        (errno.EDQUOT, ExitCode.OUTPUT, "quota"),
        (errno.EFBIG, ExitCode.OUTPUT, "ulimit -f"),
        (errno.EROFS, ExitCode.OUTPUT, "read-only"),
        (errno.EIO, ExitCode.MACHINE, "log"),
        (errno.EACCES, ExitCode.MACHINE, "--verbose"),
    ],
)
def test_what_the_system_refuses(number, code, hint):
    known = unforeseen(OSError(number, os.strerror(number), "a.file"))
    assert known.code == code and known.message == f"{os.strerror(number)}: 'a.file'" and hint in known.hint


def test_no_folder_for_temporary_files_is_a_full_disk():
    known = unforeseen(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"))
    assert known.code == ExitCode.OUTPUT and "TMPDIR" in known.hint


def test_a_library_that_cannot_be_loaded_says_why_and_not_what_is_wrapped_around_it():
    error = ImportError("a page of advice")
    error.__cause__ = ImportError("libx.so: failed to map segment")
    known = unforeseen(error)
    assert known.code == ExitCode.MACHINE and known.message == "a library cannot be loaded: libx.so: failed to map segment"


def test_a_defect_of_ours_asks_for_a_report():
    assert unforeseen(KeyError("x")).code == ExitCode.UNFORESEEN and "report" in unforeseen(KeyError("x")).hint
    assert unforeseen(OSError("without a number")).code == ExitCode.UNFORESEEN


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad allocation"),
        Exception("OpenCV(5.0.0) error: (-4:Insufficient memory) Failed to allocate 6912 bytes in function 'OutOfMemoryError'"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=str,
)
def test_however_it_is_put_no_memory_is_the_machines(error):
    assert unforeseen(error).code == ExitCode.MACHINE and "emory" in unforeseen(error).message + unforeseen(error).hint


def test_memory_that_is_limited():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2**30, resource.RLIM_INFINITY))

    program = IMPORTABLE + "from onnx2trt.base.errors import unforeseen\nprint(unforeseen(MemoryError()).hint)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=limit).stdout
    assert "1024 MiB" in said and "ulimit -v" in said
    assert "Free memory" in unforeseen(MemoryError()).hint


def test_what_python_says_where_it_could_not_even_make_the_exception(monkeypatch):
    error = SystemError("error return without exception set")
    assert unforeseen(error).code == ExitCode.UNFORESEEN
    monkeypatch.setattr("onnx2trt.base.memory.limited", lambda: "allow more")
    assert unforeseen(error).code == ExitCode.MACHINE and unforeseen(error).hint == "allow more"
