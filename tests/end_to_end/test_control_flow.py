"""Control flow as a user meets it: what is in If, Loop and Scan is FP16, or INT8, in engines of TensorRT-RTX."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random, stepped
from onnx import TensorProto, helper

pytestmark = pytest.mark.real
pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def branches():
    """One of two networks, by an input."""

    def branch(name):
        nodes = [node("Conv", f"x {name}", f"{name}c", f"{name}/conv", pads=[1] * 4), node("Relu", f"{name}c", f"{name}r", f"{name}/relu")]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}r", 1, [1, 8, 16, 16])])

    nodes = [node("If", "c", "y", "if", then_branch=branch("a"), else_branch=branch("b"))]
    inputs = {"x": [1, 3, 16, 16], "c": (TensorProto.BOOL, [])}
    return model(nodes, inputs, {"y": [1, 8, 16, 16]}, {"a": random(8, 3, 3, 3), "b": random(8, 3, 3, 3, seed=1)})


@pytest.mark.parametrize("source", [branches(), stepped("Loop"), stepped("Scan")], ids=["If", "Loop", "Scan"])
def test_what_is_inside_is_fp16(tmp_path, source):
    onnx.save(source, tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--json", "r.json")
    assert done.code == 0, done.stderr
    precision = done.json("r.json")["precision"]
    assert precision["delivered"] == "fp16" and precision["layers"]["fp16"] >= 3 and precision["fallback"] == []
    assert precision["fp16_mac_share"] == 1.0


def test_what_is_inside_is_int8(tmp_path):
    onnx.save(branches(), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for number in range(8):
        np.savez(tmp_path / "data" / f"{number}.npz", x=random(1, 3, 16, 16, seed=number), c=np.array(number % 2 == 0))
    flags = ("--precision", "int8", "--calibration-dir", "data", "--calibration-cache", "c.cache", "--quantization-effort", "fast")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--json", "r.json", *flags)
    assert done.code == 0, done.stderr
    precision = done.json("r.json")["precision"]
    assert precision["delivered"] == "int8" and precision["int8_mac_share"] == 1.0 and precision["layers"]["int8"] == 2
    assert b"a/conv/x: " in (tmp_path / "c.cache").read_bytes()


def test_what_is_kept_is_said_with_its_reason(tmp_path):
    onnx.save(stepped("Loop"), tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--layer-precisions", "*:fp32")
    assert done.code == 7 and "fp16 was asked for, but the engine is fp32" in done.error
    assert "Kept in a higher precision: " in done.error and "--layer-precisions *:fp32" in done.error
