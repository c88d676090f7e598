"""FP32 -> FP16: types, names, and which layers stay."""

import numpy as np
import onnx
import pytest
from models import FLOAT, conv_net, layer_norm, model, multiplication_chain, node, profiles, random
from onnx import TensorProto, helper

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import absolute_maxima
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.simulate import simulation

HALF = TensorProto.FLOAT16


def prepared(source, feed, overrides=(), measured=True, made_up=False):
    """(FP32 graph, FP16 graph, holds) with ranges measured on one feed."""
    graph = Graph.from_model(source)
    shapes = {name: array.shape for name, array in feed.items()}
    maxima = absolute_maxima(graph, profiles(**shapes), lambda: [feed])
    kept_fp32 = choose_kept_fp32(graph, maxima, overrides, measured, made_up=made_up)
    return graph, convert(graph, kept_fp32), kept_fp32


def outputs(graph, feed):
    return list(Session.from_graph(graph).run(feed).values())


def types_at_ends(graph):
    values = (*graph.proto.graph.input, *graph.proto.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_every_layer_is_half_and_the_ends_keep_their_types():
    feed = {"x": random(2, 3, 16, 16)}
    graph, half, kept_fp32 = prepared(conv_net(), feed)
    types = half.types()
    assert kept_fp32 == {}
    assert types_at_ends(half) == types_at_ends(graph) == {"x": FLOAT, "y": FLOAT}
    assert {types[name] for name in ("c1", "r1", "c2", "r2")} == {HALF}
    assert {array.dtype.name for array in half.weights.values()} == {"float16"}
    assert [n.op_type for n in half.nodes].count("Cast") == 2, "one at each end, none in between"
    onnx.checker.check_model(half.to_model(), full_check=True)
    np.testing.assert_allclose(outputs(half, feed)[0], outputs(graph, feed)[0], atol=2e-2)


def test_a_chain_through_1e5_is_held_where_it_overflows():
    feed = {"x": np.linspace(0.5, 1.0, 8, dtype=np.float32)[None]}
    graph, half, kept_fp32 = prepared(multiplication_chain(), feed)
    assert set(kept_fp32) == {"mul1", "mul2"}, "the node that makes 1.2e5 and the one that reads it"
    assert "1.2e+05" in kept_fp32["mul1"] and "32752" in kept_fp32["mul1"]
    np.testing.assert_allclose(outputs(simulation(half), feed)[0], outputs(graph, feed)[0], rtol=5e-3)


def test_without_the_hold_the_chain_overflows():
    feed = {"x": np.linspace(0.5, 1.0, 8, dtype=np.float32)[None]}
    _, half, kept_fp32 = prepared(multiplication_chain(), feed, measured=False)
    assert kept_fp32 == {}
    assert np.isinf(outputs(simulation(half), feed)[0]).any()


def test_half_of_the_largest_value_is_the_limit():
    _, _, below = prepared(multiplication_chain((32000.0, 1e-4)), {"x": np.ones((1, 8), np.float32)})
    _, _, above = prepared(multiplication_chain((33000.0, 1e-4)), {"x": np.ones((1, 8), np.float32)})
    assert below == {} and set(above) == {"mul0", "mul1"}


def test_values_below_the_normal_range_are_held():
    feed = {"x": np.ones((1, 8), np.float32)}
    graph, half, kept_fp32 = prepared(multiplication_chain((1e-3, 1e-3, 1e3, 1e3)), feed)
    assert {"mul1", "mul2"} <= set(kept_fp32) and "6.1e-05" in kept_fp32["mul1"]
    np.testing.assert_allclose(outputs(simulation(half), feed)[0], outputs(graph, feed)[0], rtol=5e-3)


@pytest.mark.parametrize("weight, word", [(1e6, "above FP16's largest"), (1e-9, "in FP16")])
def test_weights_that_half_cannot_hold_keep_their_node(weight, word):
    source = model(
        [node("Mul", "x w", "m", "product"), node("Add", "m one", "y", "sum")],
        {"x": [1, 4]},
        {"y": [1, 4]},
        {"w": np.float32([weight] * 4), "one": np.float32(1)},
    )
    _, _, kept_fp32 = prepared(source, {"x": np.full((1, 4), 1e-3, np.float32)})
    assert word in kept_fp32["product"] and "w" in kept_fp32["product"]


def test_a_tiny_summand_is_no_reason():
    source = model([node("Add", "x b", "y", "sum")], {"x": [1, 4]}, {"y": [1, 4]}, {"b": np.float32([3e-9] * 4)})
    _, _, kept_fp32 = prepared(source, {"x": np.ones((1, 4), np.float32)})
    assert kept_fp32 == {}


def test_a_normalisation_in_single_operators_stays():
    feed = {"x": random(3, 8)}
    _, half, kept_fp32 = prepared(layer_norm(), feed)
    assert set(kept_fp32) == {"square", "variance", "epsilon", "root", "divide"}
    types = half.types()
    assert types["m"] == HALF and types["var"] == FLOAT and types["y"] == FLOAT


def test_wishes_of_the_user_decide_last():
    feed = {"x": np.linspace(0.5, 1.0, 8, dtype=np.float32)[None]}
    _, _, kept_fp32 = prepared(multiplication_chain(), feed, overrides=(("mul*", "fp32"), ("mul1", "fp16")))
    assert set(kept_fp32) == {"mul0", "mul2", "mul3"} and kept_fp32["mul0"] == "--layer-precisions mul*:fp32"


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConversionError, match=r"--layer-precisions nothing\*:fp32 matches no node") as caught:
        prepared(conv_net(), {"x": random(1, 3, 16, 16)}, overrides=(("nothing*", "fp32"),))
    assert caught.value.code is ExitCode.USAGE and "'stem'" in caught.value.hint


def test_float_only_slots_get_float():
    nodes = [
        node("Relu", "x", "r"),
        node("Resize", "r  scales", "z", "resize", mode="linear"),
        node("Shape", "z", "shape"),
        node("Cast", "shape", "f", to=FLOAT),
        node("Gather", "f index", "size", "gather"),
        node("Mul", "z size", "y", "mul"),
    ]
    nodes[1].input[:] = ["r", "", "scales"]
    weights = {"scales": np.float32([1, 1, 2, 2]), "index": np.array(2)}
    source = model(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 8, 8]}, weights)
    feed = {"x": random(1, 2, 4, 4)}
    graph, half, _ = prepared(source, feed)
    types = half.types()
    assert half.weights["scales"].dtype == np.float32 and types["z"] == HALF and types["f"] == HALF
    np.testing.assert_allclose(outputs(half, feed)[0], outputs(graph, feed)[0], rtol=5e-3, atol=1e-3)


def test_non_maximum_suppression_reads_float():
    nodes = [
        node("Relu", "boxes", "b"),
        node("Relu", "scores", "s"),
        node("NonMaxSuppression", "b s most", "y", "nms"),
    ]
    source = model(nodes, {"boxes": [1, 6, 4], "scores": [1, 1, 6]}, {"y": (TensorProto.INT64, [None, 3])}, {"most": np.array([3])})
    feed = {
        "boxes": np.sort(np.random.default_rng(0).random((1, 6, 4), np.float32)),
        "scores": np.random.default_rng(1).random((1, 1, 6), np.float32),
    }
    graph, half, _ = prepared(source, feed)
    assert [a.tolist() for a in outputs(half, feed)] == [a.tolist() for a in outputs(graph, feed)]


def test_control_flow_stays_and_reads_float():
    then = helper.make_graph([node("Relu", "h", "a")], "then", [], [helper.make_tensor_value_info("a", FLOAT, None)])
    other = helper.make_graph([node("Neg", "h", "b")], "else", [], [helper.make_tensor_value_info("b", FLOAT, None)])
    nodes = [
        node("Mul", "x two", "h", "scale"),
        node("ReduceSum", "x", "total", "sum", keepdims=0),
        node("Greater", "total zero", "positive", "compare"),
        helper.make_node("If", ["positive"], ["c"], name="choose", then_branch=then, else_branch=other),
        node("Add", "c h", "y", "join"),
    ]
    source = model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, {"two": np.float32(2), "zero": np.float32(0)})
    for sign in (1, -1):
        feed = {"x": np.full((2, 3), sign * 0.25, np.float32)}
        graph, half, kept_fp32 = prepared(source, feed)
        assert kept_fp32 == {"choose": "control flow"}
        assert outputs(half, feed)[0].tolist() == outputs(graph, feed)[0].tolist()
        assert outputs(simulation(half), feed)[0].tolist() == outputs(graph, feed)[0].tolist()


def test_a_constant_of_shape_follows():
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "k", value=helper.make_tensor("v", FLOAT, [1], [0.5])),
        node("Mul", "x k", "y"),
    ]
    feed = {"x": random(2, 3)}
    graph, half, _ = prepared(model(nodes, {"x": ["N", 3]}, {"y": ["N", 3]}), feed)
    assert half.types()["k"] == HALF
    np.testing.assert_allclose(outputs(half, feed)[0], outputs(graph, feed)[0], rtol=2e-3)


def test_a_weight_shared_by_both_precisions_exists_in_both():
    nodes = [node("MatMul", "x w", "a", "first"), node("MatMul", "a w", "y", "second")]
    feed = {"x": random(2, 4)}
    _, half, _ = prepared(model(nodes, {"x": [2, 4]}, {"y": [2, 4]}, {"w": random(4, 4)}), feed, overrides=(("second", "fp32"),))
    assert sorted(array.dtype.name for array in half.weights.values()) == ["float16", "float32"]
    outputs(half, feed)


def test_an_output_that_is_read_again_keeps_its_name_and_type():
    nodes = [node("Relu", "x", "y1", "first"), node("Neg", "y1", "y2", "second")]
    feed = {"x": random(2, 4)}
    graph, half, _ = prepared(model(nodes, {"x": [2, 4]}, {"y1": [2, 4], "y2": [2, 4]}), feed)
    assert types_at_ends(half) == types_at_ends(graph) and half.output_names == ["y1", "y2"]
    for a, b in zip(outputs(half, feed), outputs(graph, feed)):
        np.testing.assert_allclose(a, b, rtol=2e-3)


def test_integer_tensors_stay_integers():
    nodes = [node("Gather", "table ids", "e", "embed"), node("ReduceMean", "e", "y", "mean", axes=[1], keepdims=0)]
    source = model(nodes, {"ids": (TensorProto.INT64, ["N", 3])}, {"y": ["N", 4]}, {"table": random(10, 4)})
    graph, half, _ = prepared(source, {"ids": np.array([[1, 2, 3]])})
    assert types_at_ends(half)["ids"] == TensorProto.INT64 and half.types()["e"] == HALF


def test_a_model_that_is_half_already_is_left_as_it_is():
    source = model([node("Mul", "x w", "y")], {"x": (HALF, [2])}, {"y": (HALF, [2])}, {"w": np.float16([2, 3])})
    graph = Graph.from_model(source)
    half = convert(graph, {})
    assert [n.op_type for n in half.nodes] == ["Mul"] and types_at_ends(half) == {"x": HALF, "y": HALF}


def test_what_a_huge_factor_makes_is_held_where_synthetic_data_is_zero():
    """A channel that the data leaves at zero has a measured range of 0, and would be infinite in FP16 with real data."""
    weights = np.zeros((2, 2, 1, 1), np.float32)
    weights[0, 0], weights[1, 1] = 1.0, 1e38
    nodes = [node("Conv", "x w", "a"), node("Mul", "a half", "b"), node("Sigmoid", "b", "c"), node("Mul", "c half", "y")]
    source = model(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 4, 4]}, {"w": weights, "half": np.float32([0.5])})
    feed = {"x": np.stack([np.ones((4, 4)), np.zeros((4, 4))])[None].astype(np.float32)}
    assert len(prepared(source, feed)[2]) == 1  # data of the user tells the range
    graph, half, kept_fp32 = prepared(source, feed, made_up=True)
    names = {n.output[0]: n.name for n in graph.nodes}
    assert set(kept_fp32) == {names["a"], names["b"], names["c"]}  # a Sigmoid bounds what it reads
    assert "w" in kept_fp32[names["b"]] and "65504" in kept_fp32[names["b"]]
    other = {"x": feed["x"][:, ::-1].copy() * 1e-36}
    np.testing.assert_allclose(outputs(half, other)[0], outputs(graph, other)[0], atol=1e-3)
