"""rewrite/qdq.py with fitted weights: inserted beside their scales, or baked into the weights themselves."""

import numpy as np
import pytest
from models import model, node, random, weight_and_axis

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite import qdq
from onnx2trt.rewrite.qdq import Rounded, along, quantize_weights


def fitted(weight, axis, seed=0, bias=None, half=False):
    """Other integers than the nearest ones."""
    changed = weight * (1 + random(*weight.shape, seed=seed, scale=0.2))
    return Rounded(*quantize_weights(changed.astype(np.float32), axis, half), bias)


def run(graph, **feed):
    return Session.from_graph(graph).run(feed)


def single(op, weight, bias=None, shape=(1, 4, 6, 6), **attributes):
    inputs = "x w" if bias is None else "x w b"
    weights = {"w": weight} if bias is None else {"w": weight, "b": bias}
    graph = Graph.from_model(model([node(op, inputs, "y", "layer", **attributes)], {"x": list(shape)}, {"y": None}, weights, opset=19))
    return graph, qdq.quantizable_layers(graph)


LAYERS = {
    "Conv": ("Conv", (6, 4, 3, 3), {}, (1, 4, 6, 6)),
    "Conv in groups": ("Conv", (6, 2, 3, 3), {"group": 2}, (1, 4, 6, 6)),
    "ConvTranspose": ("ConvTranspose", (4, 6, 2, 2), {"strides": [2, 2]}, (1, 4, 6, 6)),
    "ConvTranspose in groups": ("ConvTranspose", (4, 3, 2, 2), {"group": 2}, (1, 4, 6, 6)),
    "Gemm": ("Gemm", (4, 6), {}, (3, 4)),
    "Gemm transposed": ("Gemm", (6, 4), {"transB": 1}, (3, 4)),
}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("case", LAYERS)
def test_weights_and_bias_are_the_fitted_ones(case, with_bias, half):
    op, kernel, attributes, shape = LAYERS[case]
    weight, own, added = random(*kernel, seed=1), random(6, seed=2), random(6, seed=3)
    graph, layers = single(op, weight, own if with_bias else None, shape, **attributes)
    _, axis = weight_and_axis(graph, "layer")
    fit = fitted(weight, axis, bias=added, half=half)
    expected, _ = single(op, fit.weights * along(fit.scales, axis, len(kernel)), added + own * with_bias, shape, **attributes)
    x = np.rint(random(*shape, seed=4) * 20).astype(np.float32) * np.float32(0.125)  # INT8 can hold it as it is
    result = qdq.insert(graph, {"x": 0.125}, layers, half, {"layer": fit})
    np.testing.assert_allclose(run(result, x=x)["y"], run(expected, x=x)["y"], rtol=1e-4, atol=1e-4)
    again = qdq.insert(graph, {"x": 0.125}, layers, half, {"layer": fit})
    assert np.array_equal(run(again, x=x)["y"], run(result, x=x)["y"]), "the bias is added once: the graph itself stays as it was"


@pytest.mark.parametrize("case", LAYERS)
def test_baked_weights_are_quantised_to_the_fitted_integers_again(case):
    """That is what TensorRT's calibrator route does with them."""
    op, kernel, attributes, shape = LAYERS[case]
    weight = random(*kernel, seed=1) * np.geomspace(1e-4, 1e3, kernel[1]).astype(np.float32).reshape(-1, *[1] * (len(kernel) - 2))
    graph, layers = single(op, weight, None, shape, **attributes)
    _, axis = weight_and_axis(graph, "layer")
    fit = fitted(weight, axis, bias=random(6))
    baked = qdq.bake(graph, layers, {"layer": fit})
    again = qdq.quantizable_layers(baked)
    weight_again, axis_again = weight_and_axis(baked, "layer")
    assert again[0].node == "layer" and axis_again == axis
    integers, scales = quantize_weights(weight_again, axis, half=False)
    assert np.array_equal(integers, fit.weights)
    np.testing.assert_allclose(scales, fit.scales, rtol=1e-6)
    x = random(*shape, seed=4)
    through = run(qdq.insert(baked, {"x": 0.05}, again, False), x=x)["y"]
    direct = run(qdq.insert(graph, {"x": 0.05}, layers, False, {"layer": fit}), x=x)["y"]
    np.testing.assert_allclose(through, direct, rtol=1e-4, atol=1e-4 * np.abs(direct).max())
    assert np.array_equal(graph.weights["w"], weight), "the graph itself stays as it was"


def test_layers_with_other_fitted_weights_than_those_they_shared_get_their_own():
    nodes = [node("Conv", f"x{i} w b", f"y{i}", f"layer{i}") for i in range(4)]
    weights = {"w": random(3, 2, 1, 1), "b": random(3, seed=1)}
    io = {f"x{i}": [1, 2, 4, 4] for i in range(4)}, {f"y{i}": None for i in range(4)}
    graph = Graph.from_model(model(nodes, *io, weights, opset=19))
    layers = qdq.quantizable_layers(graph)
    rounded = {f"layer{i}": fitted(weights["w"], 0, seed=i, bias=np.full(3, i, np.float32)) for i in (0, 1)}
    scales = {f"x{i}": 0.05 for i in range(4)}
    result = qdq.insert(graph, scales, layers, False, rounded)
    x = random(1, 2, 4, 4, seed=9)
    found = run(result, **{f"x{i}": x for i in range(4)})
    nearest = run(qdq.insert(graph, scales, layers, False), **{f"x{i}": x for i in range(4)})
    assert np.array_equal(found["y2"], nearest["y2"]) and np.array_equal(found["y3"], nearest["y3"])
    assert len({found[f"y{i}"].tobytes() for i in range(3)}) == 3
    int8 = [array for array in result.weights.values() if array.dtype == np.int8 and array.ndim == 4]
    assert len(int8) == 3, "nearest ones are stored once"
    for index in (0, 1):
        alone = qdq.insert(graph, scales, layers, False, {f"layer{index}": rounded[f"layer{index}"]})
        assert np.array_equal(run(alone, **{f"x{i}": x for i in range(4)})[f"y{index}"], found[f"y{index}"])
    baked = qdq.bake(graph, layers, rounded)
    assert np.array_equal(baked.weights["w"], weights["w"]), "layer2 and layer3 still read it"


@pytest.mark.parametrize(
    "op, attributes, inputs, taken",
    [
        ("Conv", {}, "x w", True),
        ("Conv", {}, "x w b", True),
        ("Conv", {}, "x w z", False),
        ("ConvTranspose", {}, "x w", True),
        ("Gemm", {}, "x w", True),
        ("Gemm", {}, "x w b", True),
        ("Gemm", {"alpha": 2.0}, "x w b", False),
        ("Gemm", {"beta": 0.5}, "x w b", False),
        ("Gemm", {"alpha": 1.0, "beta": 1.0}, "x w b", True),
        ("Gemm", {}, "x w z", False),
        ("MatMul", {}, "x w", False),
    ],
)
def test_where_a_bias_can_be_added(op, attributes, inputs, taken):
    dims = 2 if op in ("Gemm", "MatMul") else 4
    shapes = {"x": [3, 4, 5, 5][:dims], **({"z": [4]} if "z" in inputs else {})}
    weights = {"w": random(4, 4, 1, 1).reshape([4, 4, 1, 1][:dims]), **({"b": random(4)} if "b" in inputs else {})}
    graph = Graph.from_model(model([node(op, inputs, "y", "layer", **attributes)], shapes, {"y": None}, weights))
    feed = {"x": random(*shapes["x"]), **({"z": random(4)} if "z" in inputs else {})}
    before = run(graph, **feed)["y"]
    assert qdq.takes_bias(graph, graph.nodes[0]) is taken
    qdq.add_bias(graph, graph.nodes[0], np.float32([1, 2, 3, 4]))
    added = run(graph, **feed)["y"] - before
    expected = np.float32([1, 2, 3, 4]).reshape([-1 if i == 1 else 1 for i in range(dims)]) * taken
    np.testing.assert_allclose(added, np.broadcast_to(expected, added.shape), atol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (3, 6), (1,), (3, 1)])
def test_any_bias_of_a_gemm_that_broadcasts_is_added_to(shape):
    graph, _ = single("Gemm", random(4, 6), random(*shape, seed=1), (3, 4))
    x = random(3, 4, seed=2)
    before = run(graph, x=x)["y"]
    qdq.add_bias(graph, graph.nodes[0], np.arange(6, dtype=np.float32))
    np.testing.assert_allclose(run(graph, x=x)["y"] - before, np.broadcast_to(np.arange(6), (3, 6)), atol=1e-5)


@pytest.mark.parametrize("axis, expected", [(0, (3, 1, 1, 1)), (1, (1, 3, 1, 1)), (None, (1, 1, 1, 1))])
def test_scales_broadcast_along_their_axis(axis, expected):
    assert along(np.ones(3 if axis is not None else ()), axis, 4).shape == expected
