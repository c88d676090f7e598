"""model/observed_shapes.py: shapes that onnx cannot infer, seen in a run at the opt shapes."""

import math

import numpy as np
import onnx
import pytest
from exported_transformers import TOKENS, transformer
from models import executed, model, node, profiles, random

from onnx2trt.base.errors import ConversionError
from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.observed_shapes import observe_shapes, without_shape
from onnx2trt.model.operators import WEIGHTED
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.fold import fold
from onnx2trt.rewrite.prepare import working_graph
from onnx2trt.rewrite.qdq import quantizable_layers
from onnx2trt.rewrite.shares import macs_of
from onnx2trt.rewrite.strong_typing import strongly_typed

SEEDS = range(6)


def random_case(seed: int):
    """(graph without observed shapes, profiles, feed) of a transformer with free sizes."""
    random_ = np.random.default_rng(seed)
    layers, heads, size = (int(random_.integers(1, most)) for most in (4, 4, 6))
    source = transformer(layers, heads, size, tokens=seed % 2 == 0, opset=int(random_.choice([13, 17])), seed=seed)
    batch, length, height, width = (int(value) for value in random_.integers(1, 6, 4))
    if seed % 2 == 0:
        feed = {"x": random_.integers(0, TOKENS, (batch, length))}
    else:
        feed = {"x": random(batch, 3, 4 * height, 4 * width, seed=seed)}
    shapes = profiles(x=feed["x"].shape)
    return Graph.from_model(source, shapes), shapes, feed


def observed(graph: Graph, shapes, feed) -> Graph:
    graph.observed = observe_shapes(graph, without_shape(graph, shapes), feed)
    return graph


def arrays_of(graph: Graph, feed) -> dict[str, np.ndarray]:
    names = tuple(dict.fromkeys(name for one in graph.nodes for name in one.output))
    return Session.from_graph(graph, names, optimize=False).run(feed, names)


def macs_by_hand(graph: Graph, feed) -> dict[str, int]:
    """Of the arrays themselves: each element of a result sums up as many products as its reduced axes have entries."""
    arrays = {**graph.weights, **arrays_of(graph, feed)}
    counts = {}
    for one in graph.nodes:
        if one.op_type in WEIGHTED:
            summed = math.prod(arrays[one.input[1]].shape[1:]) if one.op_type == "Conv" else arrays[one.input[1]].shape[-2]
            counts[one.name] = arrays[one.output[0]].size * summed
    return counts


@pytest.mark.parametrize("seed", SEEDS)
def test_every_tensor_has_the_shape_that_it_has_in_a_run(seed):
    graph, shapes, feed = random_case(seed)
    assert without_shape(graph, shapes), "onnx follows all of it: this is no case"
    found = static_shapes(observed(graph, shapes, feed), shapes)
    assert {name: found.get(name) for name in arrays_of(graph, feed)} == {n: a.shape for n, a in arrays_of(graph, feed).items()}
    assert without_shape(graph, shapes) == frozenset()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("half", [False, True])
def test_every_layer_has_a_count_whatever_was_made_of_the_graph(seed, half):
    """Folded, raised to another opset, with Q/DQ, in FP16."""
    graph, shapes, feed = random_case(seed)
    working = working_graph(observed(graph, shapes, feed), quantize=True, fp16_scales=True)
    expected = macs_by_hand(fold(graph), feed)
    assert set(expected) == {one.name for one in graph.nodes if one.op_type in WEIGHTED}
    layers = quantizable_layers(working)
    quantized = Fit({layer.activation: 0.1 for layer in layers}, fp16_scales=half).apply(working, layers)
    for made in (working, quantized, strongly_typed(quantized, {}, half)):
        assert macs_of(made, shapes) == expected


def test_ranges_take_one_pass_whether_the_shapes_are_known_or_not(monkeypatch):
    shape = (2, 3, 8, 8)
    graph, shapes, feed = Graph.from_model(transformer(layers=1, tokens=False)), profiles(x=shape), {"x": random(*shape)}
    loaded, passes, load = [], [], Session.from_graph

    def feeds():
        passes.append(1)
        return [feed]

    known = observed(graph, shapes, feed)
    monkeypatch.setattr(Session, "from_graph", lambda *args, **more: loaded.append(1) or load(*args, **more))
    before, after = absolute_maxima(graph, shapes, feeds), absolute_maxima(known, shapes, feeds)
    assert len(loaded) == len(passes) == 2 and after == pytest.approx(before, rel=1e-5)


def test_shapes_are_seen_without_keeping_the_tensors(tmp_path, monkeypatch):
    """A chain of tensors of which two or three live at the same time, and never all of them."""
    count, elements = 40, 2**20
    names = ["x", *(f"t{i}" for i in range(1, count)), "y"]
    nodes = [node("Reshape", "x free", "t0")] + [node("Tanh", f"{a} ", b) for a, b in zip(["t0", *names[1:]], names[1:])]
    graph = Graph.from_model(model(nodes, {"x": ["n"], "free": (onnx.TensorProto.INT64, [1])}, {"y": None}))
    shapes, feed = profiles(x=(elements,), free=(1,)), {"x": np.zeros(elements, np.float32), "free": np.int64([-1])}
    order = executed(lambda: observe_shapes(graph, without_shape(graph, shapes), feed), tmp_path, monkeypatch)
    alive = most = 0
    for operator in order:  # a Tanh makes a tensor, which its Shape and the next Tanh let go of
        alive += {"Tanh": 1, "Shape": -1}.get(operator, 0)
        most = max(most, alive)
    assert order.count("Shape") == order.count("Tanh") + 1 == count + 1 and most <= 2


def test_a_size_that_hangs_on_values_is_that_of_the_feed():
    nodes = [node("NonZero", "x", "i"), node("Cast", "i", "f", to=1), node("Mul", "f k", "y")]
    graph = Graph.from_model(model(nodes, {"x": ["n", 4]}, {"y": None}, {"k": np.float32(2)}))
    for row, count in (([0, 1, 1, 0], 2), ([0, 0, 0, 0], 0)):
        found = observe_shapes(graph, without_shape(graph, profiles(x=(1, 4))), {"x": np.float32([row])})
        assert found["i"] == found["y"] == (2, count)


def test_lists_of_tensors_have_no_shape_and_what_is_taken_from_them_has():
    nodes = [
        node("Reshape", "x to", "r"),
        node("SplitToSequence", "r parts", "list", axis=1),
        node("SequenceAt", "list at", "y"),
    ]
    inputs = {"x": ["n", 4], "to": (onnx.TensorProto.INT64, [2])}
    graph = Graph.from_model(model(nodes, inputs, {"y": None}, {"parts": np.int64(2), "at": np.int64(0)}))
    shapes = profiles(x=(3, 4), to=(2,))
    missing = without_shape(graph, shapes)
    assert missing == {"r", "y"}
    assert observe_shapes(graph, missing, {"x": random(3, 4), "to": np.int64([-1, 4])}) == {"r": (3, 4), "y": (3, 2)}


def test_a_model_that_does_not_run_on_the_feed_is_said():
    graph, shapes, feed = random_case(0)
    with pytest.raises(ConversionError):
        observe_shapes(graph, without_shape(graph, shapes), {"x": feed["x"] + TOKENS})


def test_what_was_observed_outweighs_what_is_declared():
    """An output that is declared with another rank than it has."""
    graph = Graph.from_model(model([node("Reshape", "x to", "y")], {"x": ["n", 4], "to": (onnx.TensorProto.INT64, [2])}, {"y": ["n"]}))
    shapes, feed = profiles(x=(3, 4), to=(2,)), {"x": random(3, 4), "to": np.int64([4, -1])}
    assert static_shapes(observed(graph, shapes, feed), shapes)["y"] == (4, 3)
