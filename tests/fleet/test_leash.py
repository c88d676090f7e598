"""fleet/leash.py: a conversion ends with who has started it, and nobody else makes the same engine meanwhile."""

import os
import signal
import subprocess
import sys
import time

import onnx
import pytest
from command import ROOT, others_get_the_lock
from models import conv_net

from onnx2trt.fleet.leash import lock_name


@pytest.fixture
def start(tmp_path):
    """Start a leash with these words; returns (process, our end of its lifeline)."""
    started = []

    def call(*words, engine="out/net.engine"):
        end, own = os.pipe()
        command = [sys.executable, "-m", "onnx2trt.fleet.leash", str(end), str(tmp_path / engine), *words]
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, pass_fds=(end,), **how)
        os.close(end)
        started.append((process, own))
        return process, own

    yield call
    for process, own in started:
        process.kill()
        process.communicate()
        try:
            os.close(own)
        except OSError:
            continue


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_it_is_the_command_itself(start):
    process, _ = start("--no-such-flag", "m.onnx")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2 and "unrecognized arguments: --no-such-flag" in said


def test_the_lock_is_beside_the_engine_and_hidden(tmp_path):
    assert lock_name(str(tmp_path / "net.engine")) == str(tmp_path / ".net.engine")


def test_one_that_waits_for_the_lock_ends_with_its_starter(start, tmp_path):
    import fcntl

    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".net.engine.lock", "w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        process, own = start("m.onnx")
        assert "waiting" in process.stderr.readline() and process.poll() is None
        os.close(own)
        until(lambda: process.poll() is not None)
        assert process.returncode == -signal.SIGTERM


@pytest.mark.real
def test_a_conversion_holds_the_lock_and_ends_with_its_starter_leaving_nothing(start, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(conv_net(batch=1), tmp_path / "net.onnx")
    engine = tmp_path / "out" / "net.engine"
    process, own = start("--backend", "tensorrt-rtx", "--onnx", "net.onnx", "--output", str(engine))
    until(lambda: (tmp_path / "out" / ".net.engine.lock").exists() and not others_get_the_lock(lock_name(str(engine))))
    os.close(own)
    process.communicate(timeout=30)
    assert process.returncode in (-signal.SIGTERM, 143), "before or after the command has begun to listen"
    assert os.listdir(tmp_path / "out") == [".net.engine.lock"] and others_get_the_lock(lock_name(str(engine)))
