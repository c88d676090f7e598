"""rewrite/foreign.py: which files another tool has quantized, and what is refused of them."""

import numpy as np
import pytest
from foreign_models import SHAPE, around, microsoft, qlinear, quantized_input
from helpers import inside_if, refused
from models import conv_net, model, node, random
from onnx import TensorProto

from onnx2trt.base.errors import ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.foreign import is_foreign, refuse_dynamic, with_int8


def pair(dtype: str, zero: int, opset=17):
    nodes, weights = quantized_input(dtype, zero)
    return model([*nodes, node("DequantizeLinear", "xq xs xz", "y")], {"x": SHAPE}, {"y": SHAPE}, weights, opset)


@pytest.mark.parametrize(
    "dtype, zero, expected", [("int8", 0, False), ("int8", 1, True), ("uint8", 0, True), ("uint8", 128, True), ("int16", 0, True)]
)
def test_only_symmetric_int8_is_our_own(dtype, zero, expected):
    assert is_foreign(pair(dtype, zero, opset=21)) is expected


def test_models_without_quantization_and_with_floating_point_8_bits_are_left_alone():
    assert not is_foreign(conv_net())
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    source = model(nodes, {"x": SHAPE}, {"y": SHAPE}, {"s": np.float32(0.1)}, opset=19)
    zero = source.graph.initializer.add()
    zero.name, zero.data_type = "z", TensorProto.FLOAT8E4M3FN
    zero.raw_data = b"\0"
    assert not is_foreign(source)


def test_without_a_zero_point_constants_tell_their_type():
    for dtype, expected in ((np.int8, False), (np.uint8, True), (np.int32, True)):
        weights = {"w": np.ones(4, dtype), "s": np.float32(0.1)}
        source = model([node("DequantizeLinear", "w s", "d"), node("Add", "x d", "y")], {"x": [4]}, {"y": [4]}, weights)
        assert is_foreign(source) is expected


def test_what_is_said_of_a_file_with_zero_points():
    remarks: list[str] = []
    with_int8(Graph.from_model(pair("uint8", 3)), "m.onnx", remarks)
    assert "quantized by another tool" in remarks[0] and remarks[1].startswith("1 activations") and "QInt8" in remarks[1]
    remarks.clear()
    with_int8(Graph.from_model(pair("uint8", 128)), "m.onnx", remarks)
    assert len(remarks) == 1, "nothing costs anything there"
    weights = {"w": np.uint8([[0, 255], [3, 3]]), "s": np.float32(0.1), "z": np.uint8(3)}
    nodes = [node("DequantizeLinear", "w s z", "wd"), node("MatMul", "x wd", "y")]
    with_int8(Graph.from_model(model(nodes, {"x": [1, 2]}, {"y": [1, 2]}, weights)), "m.onnx", remarks)
    assert remarks[2].startswith("1 constants are quantized with zero points") and len(remarks) == 3


def test_the_opset_is_raised_for_scales_of_each_channel():
    weights = {"w": np.ones((3, 4, 1, 1), np.int8), "w_s": np.float32([0.1, 0.2, 0.3]), "w_z": np.zeros(3, np.int8)}
    source = around([qlinear("QLinearConv", "xq xs xz w w_s w_z ys yz", domain="")], weights, "uint8", 0)
    source.opset_import[0].version = 10
    assert with_int8(Graph.from_model(source), "m.onnx", []).opset == 13


# ---- refused


def dynamic():
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("MatMulInteger", "q w z wz", "i"),
        node("Cast", "i", "y", to=TensorProto.FLOAT),
    ]
    return model(nodes, {"x": [2, 4]}, {"y": [2, 3]}, {"w": np.ones((4, 3), np.int8), "wz": np.int8(0)})


@pytest.mark.parametrize("source", [dynamic(), inside_if(*dynamic().graph.node)], ids=["", "in a branch"])
def test_dynamic_quantization_is_told_to_take_the_original(source):
    fragments = ("m.onnx", "quantized dynamically", "DynamicQuantizeLinear", "MatMulInteger")
    with refused(ExitCode.MODEL, *fragments, hint="Give the FP32 model that it was made from, with --precision int8"):
        refuse_dynamic(source, "m.onnx")


def test_scales_that_are_computed_are_refused():
    nodes = [node("ReduceMax", "x", "s", keepdims=0), node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    source = model(nodes, {"x": SHAPE}, {"y": SHAPE}, {"z": np.uint8(3)})
    with refused(ExitCode.MODEL, "1 QuantizeLinear", "1 DequantizeLinear", hint="FP32 model"):
        with_int8(Graph.from_model(source), "m.onnx", [])


def test_operators_without_a_form_are_refused():
    attention = qlinear("QAttention", "xq w b xs ws m xz wz", "yq", num_heads=1)
    weights = {"w": np.ones((6, 18), np.uint8), "b": random(18), "ws": np.float32(0.1), "m": np.zeros(1, np.int32), "wz": np.uint8(0)}
    with refused(ExitCode.MODEL, "1 QAttention", hint="FP32 model"):
        with_int8(Graph.from_model(microsoft(around([attention], weights, "uint8", 0))), "m.onnx", [])
    pool = qlinear("QLinearGlobalAveragePool", "xq xs xz ys yz", channels_last=1)
    with refused(ExitCode.MODEL, "1 QLinearGlobalAveragePool"):
        with_int8(Graph.from_model(around([pool], {}, "uint8", 3)), "m.onnx", [])
