"""rewrite/near_zero.py: constants that keep denominators and logarithms off zero, and sums of squares, stay in FP32 with their readers."""

import numpy as np
import pytest
from guarded_nets import SHAPE, GuardedNet, inputs
from models import conv_net, layer_norm, model, node, profiles, random
from onnx import TensorProto

from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.session import Session
from onnx2trt.rewrite import keep_fp32
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.near_zero import kept_near_zero
from onnx2trt.rewrite.prepare import prepare_half, prepare_weak
from onnx2trt.rewrite.simulate import simulation

NETS = range(120)


def kept(nodes, weights, inputs=None, outputs=None, opset=17) -> set[str]:
    graph = Graph.from_model(model(nodes, inputs or {"x": [2, 8]}, outputs or {"y": [2, 8]}, weights, opset))
    return set(kept_near_zero(graph, graph.types()))


def lost(graph: Graph, half: Graph, data) -> list[str]:
    """The inputs for which the model is finite, and its FP16 form is not."""
    reference, prepared = Session.from_graph(graph), Session.from_graph(simulation(half))
    found = []
    for name, x in data.items():
        expected, made = reference.run({"x": x})["y"], prepared.run({"x": x})["y"]
        if not np.isfinite(made[np.isfinite(expected)]).all():
            found.append(name)
    return found


def maxima_of(graph: Graph, data) -> dict[str, float]:
    return absolute_maxima(graph, profiles(x=SHAPE), lambda: [{"x": x} for x in data.values()])


@pytest.mark.parametrize("route", ["strong typing", "weak typing"])
def test_random_networks_are_finite_where_the_model_is(route):
    for seed in NETS:
        net = GuardedNet(seed)
        graph, data = Graph.from_model(net.build()), inputs(seed)
        reasons = choose_kept_fp32(graph, maxima_of(graph, data), (), structural=route == "strong typing")
        if route == "strong typing":
            half = prepare_half(graph, reasons, frozenset()).graph
        else:  # what the constraints leave to TensorRT, it may compute in FP16
            bound = prepare_weak(graph, reasons, ()).constraints
            half = convert(graph, {name: precision for name, precision in bound.items() if precision == "fp32"})
        assert lost(graph, half, data) == [], f"network {seed}: {', '.join(net.said)}"


def test_by_ranges_alone_half_of_them_are_not(monkeypatch):
    """So the networks are such that the test above could fail."""
    monkeypatch.setattr(keep_fp32, "kept_near_zero", lambda *_: {})
    failed = 0
    for seed in NETS:
        graph, data = Graph.from_model(GuardedNet(seed).build()), inputs(seed)
        failed += bool(lost(graph, convert(graph, choose_kept_fp32(graph, maxima_of(graph, data), ())), data))
    assert failed > 0.4 * len(NETS)


def test_an_ordinary_network_keeps_nothing():
    graph = Graph.from_model(conv_net())
    assert kept_near_zero(graph, graph.types()) == {}


def test_an_operator_that_reads_nothing():
    assert kept([node("RandomUniform", "", "u", "draw", shape=[2, 8]), node("Add", "x u", "y", "add")], {}) == set()


def test_an_epsilon_that_fp16_holds_is_no_reason():
    nodes = [node("Abs", "x", "a"), node("Add", "a eps", "b", "add"), node("Div", "x b", "y", "div")]
    assert kept(nodes, {"eps": np.float32(1e-3)}) == set()
    assert kept(nodes, {"eps": np.float32(1e-5)}) == set(), "0.1 % off"
    assert kept(nodes, {"eps": np.float32(1e-7)}) == {"add", "div"}, "19 % off"


def test_a_tiny_summand_that_keeps_nothing_off_zero_is_no_reason():
    nodes = [node("Add", "x eps", "b", "add"), node("Mul", "b b2", "y", "mul")]
    assert kept(nodes, {"eps": np.float32(1e-12), "b2": random(8)}) == set()


def test_a_quotient_of_squares_that_are_no_norm_of_the_stream_is_left_alone():
    """Only what is made of squares alone is followed, else a residual network would be kept as a whole."""
    nodes = [
        node("Mul", "x x", "s", "square"),
        node("Add", "s x", "a", "residual"),
        node("Sigmoid", "a", "g", "gate"),
        node("Div", "x two", "d", "half"),
        node("Mul", "g d", "y", "out"),
    ]
    assert kept(nodes, {"two": np.float32(2)}) == set()


def test_what_an_inverse_reads_is_kept_up_to_where_it_is_ordinary_again():
    nodes = [
        node("Abs", "x", "a", "abs"),
        node("Add", "a eps", "b", "add"),
        node("Reciprocal", "b", "r", "inverse"),
        node("Identity", "r", "i", "hand"),
        node("Mul", "x i", "m", "product"),
        node("Relu", "m", "y", "relu"),
    ]
    assert kept(nodes, {"eps": np.float32(1e-5)}) == {"inverse", "hand", "product"}, "1e5 is infinite in FP16, 1e-5 is there"
    assert kept(nodes, {"eps": np.float32(1e-12)}) == {"add", "inverse", "hand", "product"}


def test_one_minus_what_is_clipped_just_below_one():
    nodes = [node("Clip", "x low high", "p", "clip"), node("Sub", "one p", "q", "sub"), node("Log", "q", "y", "log")]
    weights = {"low": np.float32(0), "high": np.float32(1 - 1e-6), "one": np.float32(1)}
    assert kept(nodes, weights) == {"clip", "sub", "log"}


def test_a_variance_as_a_difference_of_squares():
    nodes = [
        node("Relu", "x", "r", "relu"),
        node("ReduceMean", "r", "m", "mean", axes=[-1]),
        node("Mul", "r r", "rr", "square"),
        node("ReduceMean", "rr", "e", "mean of squares", axes=[-1]),
        node("Mul", "m m", "mm", "square of mean"),
        node("Sub", "e mm", "v", "variance"),
        node("Add", "v eps", "ve", "epsilon"),
        node("Sqrt", "ve", "sd", "root"),
        node("Sub", "r m", "c", "centre"),
        node("Div", "c sd", "y", "div"),
    ]
    found = kept(nodes, {"eps": np.float32(1e-3)})
    assert found == {"mean", "square", "mean of squares", "square of mean", "variance", "epsilon", "root", "div"}


def test_squares_inside_an_operator():
    for op, attributes in (("ReduceL2", {"axes": [-1]}), ("ReduceLogSumExp", {"axes": [-1]}), ("LpNormalization", {})):
        assert kept([node(op, "x", "y", "norm", **attributes)], {}) == {"norm"}


@pytest.mark.parametrize("op, opset", [("LayerNormalization", 17), ("RMSNormalization", 23)])
@pytest.mark.parametrize("stash_type, expected", [(None, set()), (TensorProto.FLOAT, set()), (TensorProto.FLOAT16, {"norm"})])
def test_an_operator_whose_mean_and_variance_are_fp32_needs_no_epsilon_of_fp16(op, opset, stash_type, expected):
    more = {"stash_type": stash_type} if stash_type else {}
    assert kept([node(op, "x s", "y", "norm", epsilon=1e-12, **more)], {"s": np.ones(8, np.float32)}, opset=opset) == expected


@pytest.mark.parametrize("op", ["InstanceNormalization", "BatchNormalization"])
def test_the_epsilon_of_an_operator(op):
    def of(epsilon: float, variance: float = 1.0) -> set[str]:
        if op == "BatchNormalization":
            weights = {"s": np.ones(8, np.float32), "b": np.zeros(8, np.float32), "v": np.float32([variance] * 8)}
            return kept([node(op, "x s b b v", "y", "norm", epsilon=epsilon)], weights)
        shape = [2, 8, 4] if op == "InstanceNormalization" else [2, 8]
        weights = {"s": np.ones(8, np.float32), "b": np.zeros(8, np.float32)}
        return kept([node(op, "x s b", "y", "norm", epsilon=epsilon)], weights, {"x": shape}, {"y": shape})

    assert of(1e-5) == set()
    assert of(1e-12, 1e-9) == {"norm"}


def test_a_normalisation_in_single_operators():
    graph = Graph.from_model(layer_norm())
    assert list(kept_near_zero(graph, graph.types())) == ["square", "variance", "epsilon", "root", "divide"]


def test_normalize_as_pytorch_exports_it():
    nodes = [
        node("ReduceL2", "x", "n", "norm", axes=[1]),
        node("Clip", "n eps", "c", "clip"),
        node("Shape", "x", "s", "shape"),
        node("Expand", "c s", "e", "expand"),
        node("Div", "x e", "q", "div"),
        node("MatMul", "q w", "y", "head"),
    ]
    assert kept(nodes, {"eps": np.float32(1e-12), "w": random(8, 8)}, opset=13) == {"norm", "clip", "expand", "div"}
