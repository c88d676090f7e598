"""What a CI script meets before a run begins, and where the streams of the command are closed or full."""

import json
import os
import signal
import subprocess
import sys

import onnx
import pytest
from command import ROOT, check_schema, onnx2trt
from models import conv_net

WRONG = [
    (("net.onnx", "--precison", "int8"), "did you mean --precision?"),
    (("net.onnx", "--precision", "int4"), "invalid choice"),
    (("net.onnx", "--no-validate", "--require-execution"), "contradict"),
    ((), "--onnx --inspect is required"),
]


@pytest.mark.parametrize("flags, said", WRONG, ids=lambda part: " ".join(part) if isinstance(part, tuple) else "")
@pytest.mark.parametrize("place", ["first", "last", "stdout"])
def test_wrong_flags_are_in_the_json(tmp_path, flags, said, place):
    words = {"first": ("--json", "r.json", *flags), "last": (*flags, "--json=r.json"), "stdout": (*flags, "--json", "-")}[place]
    done = onnx2trt(tmp_path, *words)
    assert done.code == 2 and said in done.stderr and "usage:" in done.stderr
    result = json.loads(done.stdout) if place == "stdout" else done.json("r.json")
    check_schema(result)
    assert result["status"] == "failed" and result["exit_code"] == 2 and said in result["error"]["message"] and result["error"]["hint"]
    assert place == "stdout" or not done.stdout


def test_without_a_file_for_it_nothing_is_written(tmp_path):
    assert onnx2trt(tmp_path, "net.onnx", "--tf33", "--json").code == 2 and list(tmp_path.iterdir()) == []


def shell(folder, line):
    line = line.replace("TOOL", f"{sys.executable} {ROOT / 'onnx2trt.py'}")
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("flags", ["--help", "--help-all", "--version", "validate --help"])
@pytest.mark.parametrize("stream", [">&-", "2>&-", "<&-", "| true"])
def test_help_into_closed_streams(tmp_path, flags, stream):
    done = shell(tmp_path, f"TOOL {flags} {stream}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize("streams", [">&- 2> /dev/full", "<&- >&- 2>&-", "-v 2> >(exit 0)", "| true"])
def test_a_run_with_closed_streams_writes_its_engine_and_nothing_into_it(tmp_path, streams):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(conv_net(), tmp_path / "net.onnx")
    done = shell(tmp_path, f"TOOL net.onnx --no-validate {streams}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert json.loads((tmp_path / "net.engine.json").read_text())["engine"]["bytes"] == (tmp_path / "net.engine").stat().st_size


@pytest.mark.parametrize(
    "line, code, said",
    [
        ("TOOL net.onnx --dry-run --json - > /dev/full", 8, "stdout cannot be written: No space left on device"),
        ("TOOL net.onnx --dry-run --json - >&-", 8, "--json - has nowhere to go: stdout is closed"),
        ("TOOL net.onnx --dry-run --json - 1< net.onnx", 8, "--json - has nowhere to go: stdout is closed"),
        ("TOOL net.onnx --dry-run -vv 2> /dev/full", 0, ""),
        ("TOOL --help > /dev/full", 8, "stdout cannot be written: No space left on device"),
        ("TOOL --version > /dev/full", 8, "stdout cannot be written: No space left on device"),
        ("TOOL net.onnx --tf33 2> /dev/full", 2, ""),
        ("TOOL gone.onnx --json - 2> /dev/full > /dev/full", 3, ""),
    ],
)
def test_only_a_result_that_is_lost_changes_the_code(tmp_path, line, code, said):
    onnx.save(conv_net(), tmp_path / "net.onnx")
    done = shell(tmp_path, line)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_table_in_an_encoding_that_has_not_all_of_it(tmp_path):
    onnx.save(conv_net(), tmp_path / "b\u00e4.onnx")
    done = shell(tmp_path, "env LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii TOOL b\u00e4.onnx --dry-run")
    assert done.returncode == 0 and "\\" in done.stdout and "planned" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "option, door, word",
    [
        ("-P", "onnx2trt.py", "--onnx"),
        ("-I", "calibration.py", "--calibration-dir"),
        ("-P", "validate.py", "CANDIDATE"),
        ("-I", "preprocess.py", "IMAGE"),
    ],
)
def test_python_without_the_folder_of_its_program(tmp_path, option, door, word):
    if option == "-P" and sys.version_info < (3, 11):
        pytest.skip("since Python 3.11")
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, option, str(ROOT / door)]
    done = subprocess.run([*command, "--help"], cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert done.returncode == 0 and word in done.stdout, done.stderr


def test_the_child_starts_without_the_folder_of_its_program_too(tmp_path):
    onnx.save(conv_net(), tmp_path / "net.onnx")
    done = shell(tmp_path, "env -u PYTHONPATH PYTHONSAFEPATH=1 TOOL net.onnx --dry-run --quiet")
    assert done.returncode == 0, done.stderr


def test_ctrl_c_before_anything_has_begun_ends_without_frames(tmp_path):
    """The interpreter's own start is not ours; from our first line on there are none."""
    for moment in ("onnx2trt.base.errors", "onnx2trt.cli"):
        interrupted_at(tmp_path, moment)


def interrupted_at(folder, module):
    """While the command loads this module."""
    program = "import os, runpy, signal, sys\nsys.argv = [sys.argv[1], '--help']\nsys.path.insert(0, os.path.dirname(sys.argv[0]))\n" + (
        "import importlib.abc\n"
        "class AtOnce(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, AtOnce())\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )

    def heed():  # a shell in the background has its children ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-c", program, str(ROOT / "onnx2trt.py")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, preexec_fn=heed)
    assert done.returncode == -signal.SIGINT and done.stderr == done.stdout == ""
