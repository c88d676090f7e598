"""What a CI script meets before a run begins, and where the streams of the command are closed or full."""

import json
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


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| true"])
def test_a_run_with_closed_streams_writes_its_engine_and_nothing_into_it(tmp_path, streams):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(conv_net(), tmp_path / "net.onnx")
    done = shell(tmp_path, f"TOOL net.onnx --no-validate {streams}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert json.loads((tmp_path / "net.engine.json").read_text())["engine"]["bytes"] == (tmp_path / "net.engine").stat().st_size


def test_a_result_that_stdout_cannot_take_is_no_success(tmp_path):
    onnx.save(conv_net(), tmp_path / "net.onnx")
    done = shell(tmp_path, "TOOL net.onnx --dry-run --json - > /dev/full")
    assert done.returncode == 8 and "stdout cannot be written" in done.stderr
