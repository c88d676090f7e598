"""rewrite/masks.py: masks that FP16 does not hold, in front of a Softmax."""

import numpy as np
import pytest
from models import model, node, random
from onnx import TensorProto

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.masks import CLIPPED, clip_masks
from onnx2trt.rewrite.simulate import simulation

HUGE = (-3.4028235e38, -1e9, -65504.0, -np.inf)
FITTING = (-1e4, -100.0)
TOKENS = 6


def attention(way: str, value: float) -> Graph:
    """softmax(x k + mask) v: [2, T, 4], with a mask of 0 and `value` that is written in one of several ways."""
    keep, shape = (TensorProto.INT64, [2, TOKENS]), {"axes": np.array([1])}
    weights = {
        "k": random(4, TOKENS, scale=2.0),
        "v": random(TOKENS, 4, seed=1),
        "value": np.float32(value),
        "zero": np.float32(0),
        **shape,
    }
    nodes = [node("MatMul", "x k", "s", "scores")]
    if way == "added":  # causal, a constant of the size of the scores
        weights["mask"] = np.where(np.triu(np.ones((TOKENS, TOKENS)), 1) > 0, np.float32(value), np.float32(0))
        nodes += [node("Add", "s mask", "m", "masked")]
    elif way == "computed":
        nodes += [node("Unsqueeze", "keep axes", "k1"), node("Cast", "k1", "kf", to=TensorProto.FLOAT), node("Sub", "one kf", "no")]
        nodes += [node("Mul", "no value", "mask", "scaled"), node("Add", "s mask", "m", "masked")]
        weights["one"] = np.float32(1)
    elif way == "chosen":
        nodes += [
            node("Unsqueeze", "keep axes", "k1"),
            node("Cast", "k1", "kb", to=TensorProto.BOOL),
            node("Where", "kb s value", "m", "masked"),
        ]
    elif way == "expanded":
        weights["size"] = np.array([2, 1, TOKENS])
        nodes += [node("Unsqueeze", "keep axes", "k1"), node("Cast", "k1", "kb", to=TensorProto.BOOL), node("Expand", "value size", "wide")]
        nodes += [node("Where", "kb zero wide", "mask"), node("Add", "mask s", "m", "masked")]
    else:  # twice: causal, and for padding
        weights["mask"] = np.where(np.triu(np.ones((TOKENS, TOKENS)), 1) > 0, np.float32(value), np.float32(0))
        nodes += [
            node("Unsqueeze", "keep axes", "k1"),
            node("Cast", "k1", "kb", to=TensorProto.BOOL),
            node("Where", "kb zero value", "pad"),
        ]
        nodes += [node("Add", "s mask", "m1", "masked1"), node("Add", "m1 pad", "m", "masked")]
    nodes += [node("Softmax", "m", "p", "softmax", axis=-1), node("MatMul", "p v", "y", "values")]
    inputs = {"x": [2, TOKENS, 4]} | ({} if way == "added" else {"keep": keep})
    return Graph.from_model(model(nodes, inputs, {"y": [2, TOKENS, 4]}, weights))


def feed_of(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """The first token is never masked, so no row is empty."""
    keep = np.random.default_rng(seed).integers(0, 2, (2, TOKENS))
    keep[:, 0] = 1
    return {name: value for name, value in (("x", random(2, TOKENS, 4, seed=seed)), ("keep", keep)) if name in graph.input_names}


WAYS = ("added", "computed", "chosen", "expanded", "twice")


@pytest.mark.parametrize("way", WAYS)
def test_random_masks_give_the_same_outputs_and_fit_into_fp16(way):
    for value in HUGE:
        graph = attention(way, value)
        if way == "computed" and np.isinf(value):
            continue  # 0 * inf is NaN in the model itself
        clipped, names = clip_masks(graph)
        assert len(names) == (2 if way == "twice" else 1)
        for seed in range(3):
            feed = feed_of(graph, seed)
            before, after = (Session.from_graph(one).run(feed)["y"] for one in (graph, clipped))
            np.testing.assert_allclose(after, before, atol=1e-6)
            half = simulation(convert(clipped, choose_kept_fp32(clipped, {}, ())))
            np.testing.assert_allclose(Session.from_graph(half).run(feed)["y"], before, atol=2e-2)
        assert choose_kept_fp32(clipped, {}, ()) == {}
        assert max(np.abs(array).max() for array in clipped.weights.values() if array.dtype == np.float32) <= CLIPPED


@pytest.mark.parametrize("way", WAYS)
def test_what_fits_stays_as_it_is(way):
    for value in FITTING:
        graph = attention(way, value)
        assert clip_masks(graph) == (graph, [])


def test_a_value_that_is_used_elsewhere_is_clipped_for_the_softmax_alone():
    graph = attention("chosen", -1e9)
    other = node("Mul", "y value", "z", "elsewhere")
    graph.nodes.append(other)
    graph.proto.graph.output.add(name="z").type.tensor_type.elem_type = TensorProto.FLOAT
    clipped, names = clip_masks(graph)
    reading = {one.name: list(one.input) for one in clipped.nodes}
    assert names == ["value"] and reading["elsewhere"][1] == "value" and reading["masked"][2] != "value"
    assert clipped.weights["value"] == np.float32(-1e9) and clipped.weights[reading["masked"][2]] == -CLIPPED


@pytest.mark.parametrize("last", ["LogSoftmax", "Relu", "Sigmoid"])
def test_in_front_of_anything_else_nothing_is_clipped(last):
    graph = attention("added", -1e9)
    next(one for one in graph.nodes if one.name == "softmax").op_type = last
    assert clip_masks(graph)[1] == []


def test_masks_that_are_outputs_too_are_not_clipped():
    graph = attention("added", -1e9)
    graph.proto.graph.output.add(name="m").type.tensor_type.elem_type = TensorProto.FLOAT
    assert clip_masks(graph)[1] == []


def test_what_is_filled_with_the_value_is_clipped():
    weights = {"shape": np.array([TOKENS, TOKENS]), "v": random(TOKENS, 4)}
    from onnx import numpy_helper

    full = node("ConstantOfShape", "shape", "full", value=numpy_helper.from_array(np.float32([-np.inf])))
    nodes = [
        full,
        node("Trilu", "full one", "mask", upper=1),
        node("Add", "x mask", "m"),
        node("Softmax", "m", "p"),
        node("MatMul", "p v", "y"),
    ]
    source = model(nodes, {"x": [TOKENS, TOKENS]}, {"y": [TOKENS, 4]}, {**weights, "one": np.array(1)})
    graph = Graph.from_model(source)
    clipped, names = clip_masks(graph)
    feed = {"x": random(TOKENS, TOKENS)}
    assert names == ["full"]
    np.testing.assert_allclose(*(Session.from_graph(one).run(feed)["y"] for one in (clipped, graph)), atol=1e-6)
