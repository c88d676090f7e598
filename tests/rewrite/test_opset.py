"""rewrite/opset.py: a newer opset computes the same, with the same names."""

import numpy as np
import pytest
from models import conv_net, layer_norm, model, node, outputs_of, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.opset import raise_opset
from tests.fuzz.valid_models import BODIES, random_model


def old_ops():
    """Operators whose attributes became inputs, or whose meaning changed, between opset 11 and 19."""
    nodes = [
        node("Unsqueeze", "x", "u", axes=[0]),
        node("Squeeze", "u", "s", axes=[0]),
        node("ReduceSum", "s", "r", axes=[1], keepdims=1),
        node("Softmax", "s", "p", axis=1),
        node("Pad", "p pads", "q", mode="constant"),
        node("Add", "q r", "y"),
    ]
    return model(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"pads": np.zeros(4, np.int64)}, opset=11)


@pytest.mark.parametrize("make, shape", [(old_ops, (3, 4)), (conv_net, (1, 3, 16, 16)), (layer_norm, (3, 8))])
def test_a_raised_opset_computes_the_same(make, shape):
    graph, x = Graph.from_model(make()), random(*shape)
    raised = raise_opset(graph, 19)
    assert raised.opset == 19 and raised.input_names == graph.input_names and raised.output_names == graph.output_names
    np.testing.assert_allclose(outputs_of(raised, {"x": x})[0], outputs_of(graph, {"x": x})[0], rtol=1e-6)
    assert {n.name for n in graph.nodes} <= {n.name for n in raised.nodes}, "--layer-precisions speaks of these names"


def test_a_raised_opset_keeps_names_in_bodies_apart():
    """From opset 18 on the axes of ReduceMean are an input: the converter called the constant for it alike in a graph and in bodies."""
    raised = 0
    for seed in range(BODIES, BODIES + 40):
        found = random_model(seed)
        graph, feed = Graph.from_model(found.model), found.feed(0)
        newer = raise_opset(graph, 19)
        raised += newer is not None
        for expected, got in zip(outputs_of(graph, feed), outputs_of(newer or graph, feed)):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert raised > 30


def test_an_opset_that_is_new_enough_is_left_alone():
    graph = Graph.from_model(conv_net(opset=21))
    assert raise_opset(graph, 19) is graph


def test_large_weights_do_not_pass_through_the_converter():
    big = random(300, 300)
    graph = Graph.from_model(
        model([node("MatMul", "x w", "m"), node("Unsqueeze", "m", "y", axes=[0])], {"x": [1, 300]}, {"y": [1, 1, 300]}, {"w": big}, 11)
    )
    raised = raise_opset(graph, 19)
    assert raised.weights["w"] is graph.weights["w"]


@pytest.mark.parametrize("mode", ["reflect", "edge", "constant"])
def test_a_pad_of_an_old_opset_is_raised_with_its_value_or_without_one(mode):
    nodes = [node("Pad", "x", "p", "pad", mode=mode, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5), node("Conv", "p w", "y", "conv")]
    source = model(nodes, {"x": [1, 3, 6, 6]}, {"y": [1, 4, 6, 6]}, {"w": random(4, 3, 3, 3)}, opset=10)
    raised = raise_opset(Graph.from_model(source), 19)
    feed = {"x": random(1, 3, 6, 6, seed=1)}
    np.testing.assert_allclose(outputs_of(raised, feed)[0], outputs_of(Graph.from_model(source), feed)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factor", [0.5, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_values_of_a_resize_stay_where_they_are(opset, factor, mode):
    scales = np.float32([1, 1, factor, factor])
    if opset == 7:
        nodes, weights = [node("Upsample", "x", "y", mode=mode, scales=scales.tolist())], {}
    else:
        nodes, weights = [node("Upsample" if opset == 9 else "Resize", "x s", "y", mode=mode)], {"s": scales}
    if opset < 10 and factor < 1:
        pytest.skip("Upsample does not shrink")
    graph = Graph.from_model(model(nodes, {"x": [1, 2, 6, 8]}, {"y": ["a", "b", "c", "d"]}, weights, opset))
    feed = {"x": random(1, 2, 6, 8)}
    expected, found = (Session.from_graph(one).run(feed)["y"] for one in (graph, raise_opset(graph, 19)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_hardmax_is_not_raised_to_where_it_means_something_else():
    graph = Graph.from_model(model([node("Hardmax", "x", "y", axis=1)], {"x": [2, 3, 4]}, {"y": [2, 3, 4]}, opset=12))
    assert raise_opset(graph, 13) is None and raise_opset(graph, 12) is graph
