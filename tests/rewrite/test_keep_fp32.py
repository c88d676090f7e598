"""rewrite/keep_fp32.py: which nodes stay in FP32, and why."""

import numpy as np
import pytest
from models import FLOAT, conv_net, in_fp16, layer_norm, model, multiplication_chain, node, outputs_of, random
from onnx import TensorProto

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.keep_fp32 import FP16_MAX, choose_kept_fp32
from onnx2trt.rewrite.simulate import simulation

HALF = TensorProto.FLOAT16


def test_the_largest_value_of_fp16():
    assert FP16_MAX == (2 - 2**-10) * 2**15


def test_a_chain_through_1e5_is_kept_in_fp32_where_it_overflows():
    feed = {"x": np.linspace(0.5, 1.0, 8, dtype=np.float32)[None]}
    graph, half, kept_fp32 = in_fp16(multiplication_chain(), feed)
    assert set(kept_fp32) == {"mul1", "mul2"}, "the node that makes 1.2e5 and the one that reads it"
    assert "1.2e+05" in kept_fp32["mul1"] and "32752" in kept_fp32["mul1"]
    np.testing.assert_allclose(outputs_of(simulation(half), feed)[0], outputs_of(graph, feed)[0], rtol=5e-3)


def test_the_chain_overflows_where_nothing_is_kept():
    feed = {"x": np.linspace(0.5, 1.0, 8, dtype=np.float32)[None]}
    _, half, kept_fp32 = in_fp16(multiplication_chain(), feed, measured=False)
    assert kept_fp32 == {}
    assert np.isinf(outputs_of(simulation(half), feed)[0]).any()


def test_half_of_the_largest_value_is_the_limit():
    _, _, below = in_fp16(multiplication_chain((32000.0, 1e-4)), {"x": np.ones((1, 8), np.float32)})
    _, _, above = in_fp16(multiplication_chain((33000.0, 1e-4)), {"x": np.ones((1, 8), np.float32)})
    assert below == {} and set(above) == {"mul0", "mul1"}


def test_values_below_the_normal_range_are_kept_in_fp32():
    feed = {"x": np.ones((1, 8), np.float32)}
    graph, half, kept_fp32 = in_fp16(multiplication_chain((1e-3, 1e-3, 1e3, 1e3)), feed)
    assert {"mul1", "mul2"} <= set(kept_fp32) and "6.1e-05" in kept_fp32["mul1"]
    np.testing.assert_allclose(outputs_of(simulation(half), feed)[0], outputs_of(graph, feed)[0], rtol=5e-3)


@pytest.mark.parametrize("weight, word", [(1e6, "above FP16's largest"), (1e-9, "in FP16")])
def test_weights_that_half_cannot_hold_keep_their_node(weight, word):
    source = model(
        [node("Mul", "x w", "m", "product"), node("Mul", "m two", "y", "twice")],
        {"x": [1, 4]},
        {"y": [1, 4]},
        {"w": np.float32([weight] * 4), "two": np.float32(2)},
    )
    _, _, kept_fp32 = in_fp16(source, {"x": np.full((1, 4), 1e-3, np.float32)})
    assert word in kept_fp32["product"] and "w" in kept_fp32["product"]


@pytest.mark.parametrize("scale", [1e-9, 1e-7, 1e-6, 1e-3])
def test_what_a_sum_loses_anyway_is_no_reason(scale):
    """A layer scale, as of an untrained ConvNeXt: its branch is added to what is far larger."""
    source = model(
        [
            node("Identity", "s", "copy", "copy"),
            node("MatMul", "x w", "m", "branch"),
            node("Mul", "m copy", "scaled", "scale"),
            node("Transpose", "scaled", "turned", "turn", perm=[1, 0]),
            node("Transpose", "turned", "back", "turn back", perm=[1, 0]),
            node("Add", "x back", "y", "sum"),
        ],
        {"x": [8, 8]},
        {"y": [8, 8]},
        {"s": np.full(8, scale, np.float32), "w": random(8, 8)},
    )
    feed = {"x": random(8, 8, seed=1)}
    graph, half, kept_fp32 = in_fp16(source, feed)
    assert kept_fp32 == {}
    np.testing.assert_allclose(outputs_of(simulation(half), feed)[0], outputs_of(graph, feed)[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("last, kept", [("Add", set()), ("Mul", {"scale", "last"}), ("Div", {"scale", "last"})])
def test_what_is_read_by_anything_else_than_such_a_sum_still_is(last, kept):
    source = model(
        [node("Mul", "x s", "scaled", "scale"), node(last, "x scaled", "y", "last"), node("Add", "x scaled", "z", "sum")],
        {"x": [8, 8]},
        {"y": [8, 8], "z": [8, 8]},
        {"s": np.full((8, 8), 1e-7, np.float32)},
    )
    _, _, kept_fp32 = in_fp16(source, {"x": np.abs(random(8, 8, seed=1)) + 1})
    assert kept <= set(kept_fp32) and bool(kept) is bool(kept_fp32)


def test_a_tiny_summand_is_no_reason():
    source = model([node("Add", "x b", "y", "sum")], {"x": [1, 4]}, {"y": [1, 4]}, {"b": np.float32([3e-9] * 4)})
    _, _, kept_fp32 = in_fp16(source, {"x": np.ones((1, 4), np.float32)})
    assert kept_fp32 == {}


def test_a_normalisation_in_single_operators_stays():
    feed = {"x": random(3, 8)}
    _, half, kept_fp32 = in_fp16(layer_norm(), feed)
    assert set(kept_fp32) == {"square", "variance", "epsilon", "root", "divide"}
    types = half.types()
    assert types["m"] == HALF and types["var"] == FLOAT and types["y"] == FLOAT


def test_overrides_of_the_user_decide_last():
    feed = {"x": np.linspace(0.5, 1.0, 8, dtype=np.float32)[None]}
    _, _, kept_fp32 = in_fp16(multiplication_chain(), feed, overrides=(("mul*", "fp32"), ("mul1", "fp16")))
    assert set(kept_fp32) == {"mul0", "mul2", "mul3"} and kept_fp32["mul0"] == "--layer-precisions mul*:fp32"


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConversionError, match=r"--layer-precisions nothing\*:fp32 matches no node") as caught:
        in_fp16(conv_net(), {"x": random(1, 3, 16, 16)}, overrides=(("nothing*", "fp32"),))
    assert caught.value.code is ExitCode.USAGE and "'stem'" in caught.value.hint


def test_what_a_huge_factor_makes_is_kept_in_fp32_where_synthetic_data_is_zero():
    """A channel that the data leaves at zero has a measured range of 0, and would be infinite in FP16 with real data."""
    weights = np.zeros((2, 2, 1, 1), np.float32)
    weights[0, 0], weights[1, 1] = 1.0, 1e38
    nodes = [node("Conv", "x w", "a"), node("Mul", "a half", "b"), node("Sigmoid", "b", "c"), node("Mul", "c half", "y")]
    source = model(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 4, 4]}, {"w": weights, "half": np.float32([0.5])})
    feed = {"x": np.stack([np.ones((4, 4)), np.zeros((4, 4))])[None].astype(np.float32)}
    assert len(in_fp16(source, feed)[2]) == 1  # data of the user tells the range
    graph, half, kept_fp32 = in_fp16(source, feed, made_up=True)
    names = {n.output[0]: n.name for n in graph.nodes}
    assert set(kept_fp32) == {names["a"], names["b"], names["c"]}  # a Sigmoid bounds what it reads
    assert "w" in kept_fp32[names["b"]] and "65504" in kept_fp32[names["b"]]
    other = {"x": feed["x"][:, ::-1].copy() * 1e-36}
    np.testing.assert_allclose(outputs_of(half, other)[0], outputs_of(graph, other)[0], atol=1e-3)


def test_the_order_of_what_is_kept_is_the_networks():
    """And not that of a set of names, which would give the fit file another hash in each process."""
    graph = Graph.from_model(layer_norm())
    kept = list(choose_kept_fp32(graph, {}, ()))
    assert kept == [node.name for node in graph.nodes if node.name in kept] and len(kept) > 4


@pytest.mark.parametrize("op, gates", [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_that_is_told_lengths_stays_fp32(op, gates):
    """TensorRT's parser fills what lies behind the end of a sequence with zeros of FP32, and refuses them beside FP16."""
    weights = {"W": random(1, gates * 4, 3), "R": random(1, gates * 4, 4), "B": random(1, 2 * gates * 4)}
    inputs = {"x": [5, 1, 3], "lengths": (TensorProto.INT32, [1])}
    for lengths, expected in (("lengths", {"recurrent"}), ("", set())):
        recurrent = node(op, "x W R B", "Y h", "recurrent", hidden_size=4)
        recurrent.input.append(lengths)
        nodes = [recurrent, node("Relu", "h", "y", "relu")]
        given = inputs if lengths else {"x": inputs["x"]}
        graph = Graph.from_model(model(nodes, given, {"y": [1, 1, 4]}, weights))
        kept = choose_kept_fp32(graph, {}, (), half=None)
        assert set(kept) == expected and all("sequence_lens" in reason for reason in kept.values())


def test_a_tensor_scatter_stays_fp32_since_its_cache_has_to_be_an_input():
    """TensorRT does not build it behind the Cast that an FP16 cache of an FP32 model needs."""
    nodes = [node("TensorScatter", "cache new at", "present", "scatter"), node("Exp", "present", "y", "exp")]
    inputs = {"cache": [2, 1, 4, 3], "new": [2, 1, 2, 3], "at": (TensorProto.INT64, [2])}
    graph = Graph.from_model(model(nodes, inputs, {"y": [2, 1, 4, 3]}, opset=24))
    assert set(choose_kept_fp32(graph, {}, (), half=None)) == {"scatter"}
