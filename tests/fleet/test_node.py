"""fleet/node.py: a conversion in a process of its own, what it says, and what is unchanged."""

import os
import shutil

import onnx
import pytest
from models import conv_net, model, node

from onnx2trt.fleet.node import convert, find_unchanged

FLAGS = ("--backend", "tensorrt-rtx", "--gpu-arch", "sm_89", "--quiet", "--skip-unchanged")


def words(folder, name, *more):
    return ["--onnx", f"{name}.onnx", "--output", str(folder / f"{name}.engine"), *FLAGS, *more]


def test_a_command_that_says_no(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"")
    outcome = convert(str(tmp_path), str(tmp_path / "a.engine"), words(tmp_path, "a", "--no-such-flag"), True)
    assert (outcome.state, outcome.exit_code) == ("failed", 2) and "unrecognized" in outcome.message
    assert outcome.node == os.uname().nodename and outcome.seconds > 0 and any("unrecognized" in line for line in outcome.log)


def test_a_folder_that_this_node_does_not_have(tmp_path):
    outcome = convert(str(tmp_path / "none"), str(tmp_path / "a.engine"), words(tmp_path, "a"), True)
    assert (outcome.state, outcome.exit_code) == ("failed", 4) and "on every node" in outcome.hint
    assert find_unchanged(str(tmp_path / "none"), [words(tmp_path, "a")], True) == {}


@pytest.mark.real
def test_built_then_unchanged_and_only_while_nothing_changes(tmp_path):
    """A process that looks says what the command itself would say, model by model."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(conv_net(batch=1), tmp_path / "a.onnx")
    built = convert(str(tmp_path), str(tmp_path / "a.engine"), words(tmp_path, "a"), True)
    assert (built.state, built.exit_code, built.status) == ("built", 0, "simulated") and built.engine_bytes > 1000 and built.log == []
    for name in ("b", "damaged", "other"):
        shutil.copy(tmp_path / "a.onnx", tmp_path / f"{name}.onnx")
        for suffix in (".engine", ".engine.json"):
            shutil.copy(tmp_path / f"a{suffix}", tmp_path / f"{name}{suffix}")
    (tmp_path / "damaged.engine").write_bytes(b"half an engine")
    onnx.save(conv_net(batch=1, classes=2), tmp_path / "other.onnx")
    asked = [words(tmp_path, name) for name in ("a", "b", "damaged", "other", "none")]
    asked += [words(tmp_path, "a", "--precision", "fp32"), words(tmp_path, "a", "--report", "none.html")]
    found = find_unchanged(str(tmp_path), asked, True)
    assert sorted(found) == [0, 1]
    assert found[0].state == "unchanged" and found[0].engine_sha256 == built.engine_sha256 and found[0].exit_code == 0
    again = convert(str(tmp_path), str(tmp_path / "a.engine"), asked[0], True)
    assert again.state == "unchanged"


@pytest.mark.real
def test_a_process_that_dies_while_it_looks_leaves_the_rest_to_the_command(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(model([node("Relu", "x", "y")], {"x": [1, 4]}, {"y": [1, 4]}), tmp_path / "a.onnx")
    assert convert(str(tmp_path), str(tmp_path / "a.engine"), words(tmp_path, "a"), True).state == "built"
    found = find_unchanged(str(tmp_path), [words(tmp_path, "a"), ["--no-such-flag"], words(tmp_path, "a")], True)
    assert list(found) == [0], "the parser ended the process at the second one"
