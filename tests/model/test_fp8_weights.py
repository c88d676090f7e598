"""model/fp8_weights.py: FP8 weights are dequantized once for the CPU, to the same values; and what stands before a quantizer stays."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from models import model, node, random

from onnx2trt.model.fp8_weights import fold_fp8_weights
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session

E4M3 = ml_dtypes.float8_e4m3fn


def weighted(axis: int | None, outputs=("y",)) -> onnx.ModelProto:
    """y = x @ dequantized FP8 weights, with one scale (None) or one along an axis."""
    weights = (random(32, 48) * 100).astype(E4M3)
    scales = np.float32(0.01) if axis is None else np.abs(random(weights.shape[axis], seed=1)) + np.float32(0.01)
    attributes = {} if axis is None else {"axis": axis}
    nodes = [node("DequantizeLinear", "w s z", "d", "weights", **attributes), node("MatMul", "x d", "y", "product")]
    shapes = {"y": [4, 48], "d": [32, 48]}
    arrays = {"w": weights, "s": scales, "z": np.zeros(scales.shape, E4M3)}
    return model(nodes, {"x": [4, 32]}, {name: shapes[name] for name in outputs}, arrays, opset=19)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_the_values_are_the_same(axis):
    source = weighted(axis)
    graph, proto, feed = Graph.from_model(source), onnx.ModelProto(), {"x": random(4, 32, seed=2)}
    proto.CopyFrom(graph.proto)
    folded = fold_fp8_weights(proto, graph)
    assert list(folded) == ["d"] and [one.op_type for one in proto.graph.node] == ["MatMul"]
    assert [one.op_type for one in graph.nodes] == ["DequantizeLinear", "MatMul"], "the graph that was given is not changed"
    exact = Session.from_graph(graph, optimize=False, extra_outputs=()).run(feed)["y"]
    weights, scales = (graph.weights[name].astype(np.float32) for name in "ws")
    by_hand = weights * (scales if axis is None else scales.reshape(-1, 1) if axis == 0 else scales)
    np.testing.assert_array_equal(folded["d"], by_hand)
    np.testing.assert_allclose(exact, feed["x"] @ by_hand, rtol=1e-4, atol=1e-3)


def test_what_the_model_gives_out_itself_is_made_by_its_node():
    graph, proto = Graph.from_model(weighted(None, ("y", "d"))), onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    assert fold_fp8_weights(proto, graph) == {} and len(proto.graph.node) == 2
    found = Session.from_graph(graph).run({"x": random(4, 32)})
    np.testing.assert_array_equal(found["d"], graph.weights["w"].astype(np.float32) * np.float32(0.01))


@pytest.mark.parametrize("operator, expected", [("Relu", [0, 0, 2, 9]), ("Clip", [0, 0, 2, 6])])
def test_an_activation_in_front_of_an_fp8_quantizer_is_computed(operator, expected):
    """ONNX Runtime 1.32 takes the zero point for that of UINT8, and drops a Relu in front."""
    limits = "" if operator == "Relu" else " low high"
    nodes = [node(operator, "x" + limits, "r"), node("QuantizeLinear", "r s z", "q"), node("DequantizeLinear", "q s z", "y")]
    weights = {"s": np.float32(1), "z": np.zeros((), E4M3), "low": np.float32(0), "high": np.float32(6)}
    used = weights if limits else {name: weights[name] for name in "sz"}
    source = model(nodes, {"x": [4]}, {"y": [4]}, used, opset=19)
    assert Session.from_graph(Graph.from_model(source)).run({"x": np.float32([-3, -1, 2, 9])})["y"].tolist() == expected
