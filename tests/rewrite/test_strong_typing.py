"""rewrite/strong_typing.py: which nodes are FP32 between FP32 scales."""

import numpy as np
import onnx
import pytest
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fold import fold
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.qdq import insert, int8_layers, quantizable_layers
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.rewrite.strong_typing import between_scales, strongly_typed

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def net():
    """Two INT8 layers with a pooling between them, a residual addition, and a softmax after the last."""
    nodes = [
        node("Conv", "x w1 b1", "c1", "first", pads=[1] * 4),
        node("HardSigmoid", "c1", "h1", "gate"),
        node("Mul", "c1 h1", "m1", "gated"),
        node("MaxPool", "m1", "p1", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2", "c2", "second", pads=[1] * 4),
        node("Add", "c2 p1", "a2", "shortcut"),
        node("Relu", "a2", "r2", "relu"),
        node("GlobalAveragePool", "r2", "g", "average"),
        node("Flatten", "g", "f", "flat"),
        node("Softmax", "f", "y", "softmax"),
    ]
    weights = {"w1": random(8, 3, 3, 3, seed=1, scale=0.3), "b1": random(8, seed=2), "w2": random(8, 8, 3, 3, seed=3, scale=0.2)}
    return fold(Graph.from_model(model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 8]}, weights)))


def quantized(half):
    graph = net()
    graph = raise_opset(graph, 19) if half else graph
    return insert(graph, {"x": 0.02, "p1": 0.03}, quantizable_layers(graph), half)


def types(graph):
    known = graph.types()
    return {node.name: known.get(node.output[0]) for node in graph.nodes}


def test_layers_between_fp32_scales_are_fp32_up_to_where_nothing_can_be_fused():
    found = between_scales(quantized(False))
    plain = {name for name in found if not name.endswith(("quantized", "dequantized"))}
    assert plain == {"first", "gate", "gated", "pool", "second", "shortcut", "relu"}, "the pooling moves data on the way to a Q"


@pytest.mark.parametrize("half", [True, False])
def test_the_typed_graph_computes_the_same_and_keeps_its_int8_layers(half):
    source = quantized(half)
    graph = strongly_typed(source, {}, half)
    onnx.checker.check_model(graph.to_model())
    assert int8_layers(graph) == {"first", "second"}
    x = {"x": np.abs(random(1, 3, 8, 8, seed=9))}
    np.testing.assert_allclose(Session.from_graph(simulation(graph)).run(x)["y"], Session.from_graph(source).run(x)["y"], atol=2e-3)


def test_types_follow_the_scales():
    full, half = types(strongly_typed(quantized(False), {}, False)), types(strongly_typed(quantized(True), {}, True))
    for name in ("first", "gate", "gated", "pool", "second", "shortcut", "relu"):
        assert full[name] == FLOAT and half[name] == HALF, name
    assert full["average"] == full["flat"] == half["average"] == HALF
    scales = {True: HALF, False: FLOAT}
    for with_half, graph in ((True, strongly_typed(quantized(True), {}, True)), (False, strongly_typed(quantized(False), {}, False))):
        stored = {name: array.dtype for name, array in graph.weights.items() if "scale" in name}
        assert stored and all((dtype == np.float16) == (scales[with_half] == HALF) for dtype in stored.values())


def test_no_cast_stands_between_a_layer_and_its_q():
    graph = strongly_typed(quantized(False), {}, False)
    producers = graph.producers()
    for name in ("first", "second"):
        layer = next(node for node in graph.nodes if node.name == name)
        assert [producers[tensor].op_type for tensor in layer.input[:2]] == ["DequantizeLinear"] * 2
    q = next(node for node in graph.nodes if node.op_type == "QuantizeLinear" and node.input[0] == "p1")
    assert producers[q.input[0]].name == "pool"


def test_without_int8_layers_everything_becomes_fp16():
    assert set(types(strongly_typed(net(), {}, False)).values()) - {FLOAT} == {HALF}
    assert between_scales(net()) == set()
