"""rewrite/qdq.py: Q/DQ insertion and what it counts."""

import numpy as np
import onnx
import pytest
from models import conv_net, model, node, random, weight_and_axis

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite import qdq
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.shares import mac_share, macs_of
from onnx2trt.rewrite.simulate import simulation


def quantized_net(half=True):
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    layers = qdq.quantizable_layers(graph)
    scales = {"x": 0.03, "r1": 0.02, "r2": 0.025}
    return graph, layers, scales, qdq.insert(graph, scales, layers, half)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_weights_are_rounded_to_the_nearest_step(half, axis):
    weight = random(6, 4, 3, 3) * np.float32([1, 10, 100, 0.01, 1e-4, 0]).reshape(-1, 1, 1, 1)
    quantized, scales = qdq.quantize_weights(weight, axis, half)
    steps = scales.reshape([-1 if i == axis else 1 for i in range(4)] if axis is not None else [1] * 4)
    assert quantized.dtype == np.int8 and quantized.min() >= -127
    assert (np.abs(quantized * steps - weight) <= steps * 0.5001).all()
    largest = np.abs(weight).max(axis=None if axis is None else tuple(i for i in range(4) if i != axis))
    exact, tolerance = largest[largest > 0] / 127, 1.06 if half else 1.000001
    assert (scales[largest > 0] >= exact * 0.9999999).all() and (scales[largest > 0] <= exact * tolerance).all()
    if half:
        assert np.array_equal(scales.astype(np.float16).astype(np.float32), scales), "stored in FP16 without another rounding"


@pytest.mark.parametrize("shape", [(16, 12), (3, 16, 12), (2, 3, 16, 12)])
def test_weights_of_any_rank_have_a_scale_for_each_output_channel(shape):
    """Channels whose weights are a thousand times smaller keep their values."""
    weight = random(*shape, seed=4) * np.float32([1, 1e-3] * 6)
    source = model([node("MatMul", "x w", "y", "product")], {"x": [2, 3, 5, 16]}, {"y": None}, {"w": weight})
    graph = raise_opset(Graph.from_model(source), 19)
    made = qdq.insert(graph, {"x": 0.03}, qdq.quantizable_layers(graph), False)
    (read,) = (one for one in made.nodes if one.op_type == "DequantizeLinear" and one.input[0] == "w__quantized")
    assert made.weights[read.input[1]].shape == (12,) and [entry.i for entry in read.attribute] == [len(shape) - 1]
    x = random(2, 3, 5, 16, seed=1)
    expected, found = (Session.from_graph(one).run({"x": x})["y"] for one in (graph, made))
    error = np.abs(found - expected).max(axis=(0, 1, 2)) / np.abs(expected).max(axis=(0, 1, 2))
    assert error.max() < 0.05


def test_half_scales_round_up_to_the_next_half():
    scales = np.float32([0.1, 1 / 3, 1e-7, 1.0])
    rounded = qdq.half_scales(scales)
    assert (rounded >= scales).all()
    assert np.array_equal(rounded.astype(np.float16).astype(np.float32), rounded)
    below = np.nextafter(rounded.astype(np.float16), np.float16(0)).astype(np.float32)
    assert (below < scales).all(), "the smallest that is not below"


def test_inserted_pairs_compute_what_the_formula_says():
    graph, _, scales, quantized = quantized_net(half=False)
    x = random(1, 3, 16, 16)

    def fake(values, scale):
        return np.clip(np.rint(values / np.float32(scale)), -128, 127).astype(np.float32) * np.float32(scale)

    stem_only = qdq.insert(graph, scales, qdq.quantizable_layers(graph)[:1], False)
    weight, weight_scales = qdq.quantize_weights(graph.weights["w1"], 0, False)
    reference = graph.copy()
    reference.weights["w1"] = weight * weight_scales.reshape(-1, 1, 1, 1)
    expected = Session.from_graph(reference).run({"x": fake(x, scales["x"])})["y"]
    np.testing.assert_allclose(Session.from_graph(stem_only).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(Session.from_graph(quantized).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_names_inputs_and_outputs_are_kept_and_the_model_is_valid():
    graph, layers, _, quantized = quantized_net()
    half = convert(quantized, {})
    onnx.checker.check_model(half.to_model(), full_check=True)
    assert {n.name for n in graph.nodes} <= {n.name for n in half.nodes}
    assert half.input_names == ["x"] and half.output_names == ["y"]
    assert sorted(a.dtype.name for name, a in half.weights.items() if name.startswith("w") and name.endswith("quantized")) == ["int8"] * 3
    scales = [half.weights[n.input[1]].dtype.name for n in half.nodes if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert set(scales) == {"float16"} and len(scales) == 3 * 3
    Session.from_graph(half).run({"x": random(1, 3, 16, 16)})


def test_no_pair_stands_behind_the_last_layer_or_on_biases():
    _, _, _, quantized = quantized_net()
    producers = quantized.producers()
    assert producers["y"].op_type == "Conv"
    assert all(quantized.weights[n.input[2]].dtype == np.float32 for n in quantized.nodes if n.op_type == "Conv")


def test_a_tensor_with_two_readers_is_quantized_once():
    nodes = [node("Conv", "x w1", "a", "one"), node("Conv", "x w2", "b", "two"), node("Add", "a b", "y")]
    weights = {"w1": random(4, 3, 1, 1), "w2": random(4, 3, 1, 1, seed=1)}
    graph = Graph.from_model(model(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]}, weights, opset=19))
    result = qdq.insert(graph, {"x": 0.1}, qdq.quantizable_layers(graph), False)
    assert [n.op_type for n in result.nodes].count("QuantizeLinear") == 1


@pytest.mark.parametrize(
    "op, attributes, shape, axis",
    [
        ("Conv", {}, (4, 3, 1, 1), 0),
        ("ConvTranspose", {}, (3, 4, 1, 1), 1),
        ("ConvTranspose", {"group": 3}, (3, 2, 1, 1), None),
    ],
)
def test_scales_run_along_the_output_channels(op, attributes, shape, axis):
    graph = Graph.from_model(model([node(op, "x w", "y", "layer", **attributes)], {"x": [1, 3, 4, 4]}, {"y": None}, {"w": random(*shape)}))
    assert qdq.quantizable_layers(graph) == (qdq.Layer("layer", "x"),) and weight_and_axis(graph, "layer")[1] == axis


@pytest.mark.parametrize("trans_b, axis", [(0, 1), (1, 0)])
def test_gemm_scales_follow_its_transposition(trans_b, axis):
    graph = Graph.from_model(model([node("Gemm", "x w", "y", "layer", transB=trans_b)], {"x": [2, 4]}, {"y": [2, 4]}, {"w": random(4, 4)}))
    assert weight_and_axis(graph, "layer")[1] == axis


def test_products_of_activations_have_no_weights_to_quantize():
    graph = Graph.from_model(model([node("MatMul", "x z", "y")], {"x": [2, 4], "z": [4, 2]}, {"y": [2, 2]}))
    assert qdq.quantizable_layers(graph) == ()


@pytest.mark.parametrize(
    "op, attributes, directions, by_hand",
    [
        # 5 steps x batch 2, input 3, hidden 4: for each step (gates x 4) x 3 of W and (gates x 4) x 4 of R, in each direction
        ("RNN", {}, 1, 5 * 2 * (4 * 3 + 4 * 4)),  # 280
        ("GRU", {}, 1, 5 * 2 * (12 * 3 + 12 * 4)),  # 840
        ("LSTM", {}, 1, 5 * 2 * (16 * 3 + 16 * 4)),  # 1120
        ("LSTM", {"direction": "bidirectional"}, 2, 2240),
        ("GRU", {"layout": 1}, 1, 840),  # the batch comes first, the work is the same
    ],
)
def test_recurrent_work_counts_and_is_not_int8(op, attributes, directions, by_hand):
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    shape = [2, 5, 3] if attributes.get("layout") else [5, 2, 3]
    nodes = [
        node(op, "x w r", "h", "steps", hidden_size=4, **attributes),
        node("Reshape", "h flat", "f", "flatten"),
        node("MatMul", "f v", "y", "dense"),
    ]
    weights = {"w": random(directions, gates * 4, 3), "r": random(directions, gates * 4, 4), "v": random(4, 7)}
    weights["flat"] = np.int64([-1, 4])
    source = model(nodes, {"x": shape}, {"y": [5 * 2 * directions, 7]}, weights)
    graph, shapes = Graph.from_model(source), (Profile("x", *(tuple(shape),) * 3),)
    dense = 5 * 2 * directions * 4 * 7
    assert macs_of(graph, shapes) == {"steps": by_hand, "dense": dense}
    layers = qdq.quantizable_layers(graph)
    assert [layer.node for layer in layers] == ["dense"]
    quantized = qdq.insert(raise_opset(graph, 19), {"f": 0.01}, layers, True)
    for made in (quantized, convert(quantized, {})):
        assert mac_share(made, shapes) == pytest.approx(dense / (dense + by_hand))


def test_only_layers_with_both_operands_from_int8_count():
    graph, layers, scales, _ = quantized_net()
    part = qdq.insert(graph, scales, layers[1:], True)
    assert qdq.int8_layers(part) == {"depthwise", "head"}
    assert qdq.int8_layers(convert(part, {})) == {"depthwise", "head"}
    assert qdq.int8_layers(graph) == set()


def test_simulated_int8_stays_near_the_model():
    graph, _, _, quantized = quantized_net()
    x = random(1, 3, 16, 16)
    expected = Session.from_graph(graph).run({"x": x})["y"]
    got = Session.from_graph(simulation(convert(quantized, {}))).run({"x": x})["y"]
    noise = ((got - expected) ** 2).sum() / (expected**2).sum()
    assert 1e-6 < noise < 0.02
