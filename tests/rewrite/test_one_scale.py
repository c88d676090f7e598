"""rewrite/one_scale.py: one scale for the weights of an INT8 convolution, and what its channels differ by behind it."""

import numpy as np
import pytest
from models import model, node, outputs_of, random

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.one_scale import MOST, with_one_scale
from onnx2trt.rewrite.qdq import Layer, insert, int8_layers, quantizable_layers
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.rewrite.strong_typing import strongly_typed


def quantized(seed: int, spread: float = 2.0, size: float = 1.0) -> tuple[Graph, dict]:
    """(a convolution of any kind with Q/DQ, its input): channels of the weights differ by factors up to 10 ** spread."""
    draw = np.random.default_rng(seed)
    kind, group = draw.choice(["Conv", "ConvTranspose"]), int(draw.choice([1, 2, 8]))
    group = 1 if kind == "ConvTranspose" else group
    inputs, outputs, kernel = 8, int(draw.choice([8, 16])), int(draw.choice([1, 3]))
    shape = (outputs, inputs // group, kernel, kernel) if kind == "Conv" else (inputs, outputs, kernel, kernel)
    factors = 10 ** draw.uniform(-spread, 0, outputs)
    weight = random(*shape, seed=seed) * factors.reshape((-1, 1, 1, 1) if kind == "Conv" else (1, -1, 1, 1)).astype(np.float32)
    bias = bool(draw.integers(2))
    nodes = [node(kind, f"x w{' b' * bias}", "c", "conv", group=group, pads=[kernel // 2] * 4), node("Relu", "c", "y", "relu")]
    weights = {"w": weight.astype(np.float32) * size, **({"b": random(outputs, seed=seed + 1) * size} if bias else {})}
    graph = Graph.from_model(model(nodes, {"x": [1, inputs, 6, 6]}, {"y": [1, outputs, 6, 6]}, weights, opset=19))
    feed = {"x": random(1, inputs, 6, 6, seed=seed + 2)}
    return insert(graph, {"x": float(np.abs(feed["x"]).max() / 127)}, quantizable_layers(graph), half=True), feed


@pytest.mark.parametrize("seed", range(24))
def test_it_computes_the_same_with_the_same_integers(seed):
    graph, feed = quantized(seed)
    names = [one.name for one in graph.nodes]
    written = with_one_scale(graph)
    assert [one.name for one in graph.nodes] == names, "the graph that was given is not changed"
    expected, found = (outputs_of(one, feed)[0] for one in (graph, written))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    dequantized = [one for one in written.nodes if one.op_type == "DequantizeLinear"]
    assert all(written.weights[one.input[1]].size == 1 for one in dequantized) and int8_layers(written) == int8_layers(graph) == {"conv"}


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("seed", range(6))
def test_fp16_holds_its_sums_and_loses_next_to_nothing(seed, size):
    graph, feed = quantized(seed, size=size)
    written = with_one_scale(graph)
    sums = [name for one in written.nodes if one.op_type in ("Conv", "ConvTranspose") for name in one.output]
    shown = written.copy()
    for name in sums:
        shown.proto.graph.output.add().CopyFrom(type(shown.proto.graph.output[0])(name=name))
    for worst in (feed, {"x": np.sign(feed["x"]) * np.abs(feed["x"]).max()}):
        assert max(np.abs(outputs_of(shown, worst)[1]).max(), 0) <= MOST
    before, after = (outputs_of(simulation(strongly_typed(one, {}, True)), feed)[0] for one in (graph, written))
    if np.abs(before).max() < MOST:
        assert ((after - before) ** 2).sum() < 10**-5.5 * (before**2).sum()


@pytest.mark.parametrize("spread", [9.0, 12.0])
def test_channels_that_differ_by_more_than_fp16_holds_keep_their_scales(spread):
    kept = [seed for seed in range(12) if len(with_one_scale(quantized(seed, spread)[0]).nodes) == len(quantized(seed, spread)[0].nodes)]
    assert kept, "none of them has such channels"
    for seed in range(12):
        graph, feed = quantized(seed, spread)
        expected, found = (outputs_of(one, feed)[0] for one in (graph, with_one_scale(graph)))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_products_and_what_has_one_scale_already_stay_as_they_are():
    nodes = [node("MatMul", "x w", "m", "product"), node("Relu", "m", "y", "relu")]
    graph = Graph.from_model(model(nodes, {"x": [4, 8]}, {"y": [4, 8]}, {"w": random(8, 8)}, opset=19))
    product = insert(graph, {"x": 0.01}, (Layer("product", "x"),), half=True)
    assert [one.name for one in with_one_scale(product).nodes] == [one.name for one in product.nodes]
    graph, _ = quantized(1)
    once = with_one_scale(graph)
    assert [one.name for one in with_one_scale(once).nodes] == [one.name for one in once.nodes]
