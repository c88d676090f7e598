"""rewrite/fp8_io.py: inputs and outputs of FP8 become FP32, with the same values."""

import numpy as np
import pytest
from models import model, node
from onnx import TensorProto, helper

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.adopt import adopt
from onnx2trt.rewrite.fp8_io import fp8_io

FP8 = TensorProto.FLOAT8E4M3FN
NUMBERS = np.arange(256, dtype=np.uint8).view(helper.tensor_dtype_to_np_dtype(FP8))
VALUES = NUMBERS[np.isfinite(NUMBERS.astype(np.float32))]


def fp8_model(nodes, inputs, outputs, weights=None):
    source = model(nodes, inputs, outputs, weights, opset=19)
    source.ir_version = 9
    return source


def run(source, **feed) -> np.ndarray:
    graph = Graph.from_model(adopt(source, "m.onnx").model)
    return Session.from_graph(graph).run({name: feed[name] for name in graph.input_names})["y"]


@pytest.mark.parametrize("with_zero_point", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.037, 3.5])
def test_every_value_of_fp8_comes_in_as_it_is(scale, with_zero_point):
    inputs = {"x": (FP8, [len(VALUES)]), **({"zero": (FP8, [])} if with_zero_point else {})}
    nodes = [node("DequantizeLinear", "x s zero" if with_zero_point else "x s", "y")]
    source = fp8_model(nodes, inputs, {"y": [len(VALUES)]}, {"s": np.float32(scale)})
    assert fp8_io(source) == list(inputs)
    found = run(source, x=VALUES.astype(np.float32), zero=np.zeros((), np.float32))
    np.testing.assert_array_equal(found, VALUES.astype(np.float32) * np.float32(scale))


@pytest.mark.parametrize("scale", [1.0, 0.037, 3.5])
def test_what_goes_out_is_rounded_as_fp8(scale):
    x = np.random.default_rng(0).uniform(-400 * scale, 400 * scale, 1000).astype(np.float32)
    nodes = [node("QuantizeLinear", "x s zero", "y")]
    source = fp8_model(nodes, {"x": [1000], "zero": (FP8, [])}, {"y": (FP8, [1000])}, {"s": np.float32(scale)})
    remarks = adopt(source, "m.onnx").remarks
    assert remarks == ("the engine has 'zero', 'y' in FP32 instead of FP8, with the same values",)
    expected = (x / np.float32(scale)).astype(NUMBERS.dtype).astype(np.float32)
    np.testing.assert_array_equal(run(source, x=x, zero=np.zeros((), np.float32)), expected)


def test_a_model_without_them_is_left_alone():
    source = fp8_model([node("Relu", "x", "y")], {"x": [4]}, {"y": [4]})
    assert fp8_io(source) == [] and adopt(source, "m.onnx") is None
