"""examples/smallest_engine.py: the Python interface in use."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from command import ROOT
from models import conv_net, random


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(conv_net(), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(6):
        np.save(tmp_path / "data" / f"{index}.npy", random(1, 3, 16, 16, seed=index))
    return tmp_path


def run(folder, *arguments):
    command = [sys.executable, str(ROOT / "examples" / "smallest_engine.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def test_the_smaller_engine_is_kept_with_its_result(folder):
    done = run(folder, "net.onnx", "data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fp16: 0." in done.stdout and "kept: " in done.stdout
    assert (folder / "model.engine").stat().st_size > 0 and (folder / "model.engine.json").exists()


def test_a_failure_is_a_line_and_no_traceback(folder):
    done = run(folder, "missing.onnx", "data")
    assert done.returncode == 1 and done.stdout.count("no engine (exit code 3)") == 2 and "Traceback" not in done.stderr
