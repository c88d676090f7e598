"""rewrite/for_onnxruntime.py: what is saved loads in ONNX Runtime as anybody calls it, with all of its fusions."""

import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models import model, node, outputs_of, random

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite import fp16
from onnx2trt.rewrite.for_onnxruntime import with_biases_behind, with_float_concats
from onnx2trt.rewrite.qdq import Reading, insert, int8_layers, quantizable_layers
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.rewrite.strong_typing import strongly_typed

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
SIZE = [1, 4, 8, 8]
CONSTANTS = {
    "sizes": np.array([1, 1, 2, 2], np.float32),
    "low": np.float32(0),
    "high": np.float32(6),
    "plane": np.array([2, 3], np.int64),
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    "eight": np.array([8], np.int64),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "flat": np.array([1, -1, 4, 4], np.int64),
}


def concat(inputs, output="c", axis=1):
    return node("Concat", inputs, output, f"concat {output}", axis=axis)


# what ONNX Runtime moves Q and DQ across, and some that it does not: from {0} to {1}
MOVING = {
    "MaxPool": ("MaxPool", "{0}", {"kernel_shape": [2, 2]}),
    "Transpose": ("Transpose", "{0}", {"perm": [0, 1, 3, 2]}),
    "Reshape": ("Reshape", "{0} flat", {}),
    "Unsqueeze": ("Unsqueeze", "{0} two", {}),
    "Slice": ("Slice", "{0} one eight two", {}),
    "Pad": ("Pad", "{0} pads", {}),
    "Relu": ("Relu", "{0}", {}),
}


def moving(kind, source, target):
    operator, inputs, attributes = MOVING[kind]
    return node(operator, inputs.format(source), target, f"moving {target}", **attributes)


# nodes from a and b, which are results of convolutions, to c; all of a to i that they read, and c, are INT8
SINGLE = {
    "Add": "a b",
    "Sub": "a b",
    "Mul": "a b",
    "Max": "a b",
    "MatMul": "a b",
    "AveragePool": ("a", {"kernel_shape": [2, 2]}),
    "GlobalAveragePool": "a",
    "Softmax": ("a", {"axis": 1}),
    "LeakyRelu": "a",
    "Sigmoid": "a",
    "Clip": "a low high",
    "HardSwish": "a",
    "ReduceMean": "a plane",
}
FORMS = {
    **{kind: [moving(kind, "a", "c")] for kind in MOVING},
    **{kind: [node(kind, *((given, "c", kind) if isinstance(given, str) else (given[0], "c", kind)))] for kind, given in SINGLE.items()},
    "AveragePool": [node("AveragePool", "a", "c", "pool", kernel_shape=[2, 2])],
    "nearest Resize": [onnx.helper.make_node("Resize", ["a", "", "sizes"], ["c"], "resize", mode="nearest")],
    "linear Resize": [onnx.helper.make_node("Resize", ["a", "", "sizes"], ["c"], "resize", mode="linear")],
    "Concat": [concat("a b")],
    "Concat of one": [concat("a")],
    "Concat of one tensor twice": [concat("a a")],
    "Concat of Concats": [concat("a b", "i"), concat("i a")],
    "Concat of pooled pools": [
        moving("MaxPool", "a", "d"),
        node("MaxPool", "d", "e", "second", kernel_shape=[3, 3], pads=[1] * 4),
        concat("d e"),
    ],
    **{f"Concat behind {kind}": [moving(kind, "a", "d"), moving(kind, "b", "e"), concat("d e", axis=0)] for kind in MOVING},
    **{f"Concat before {kind}": [concat("a b", "k"), moving(kind, "k", "c")] for kind in MOVING},
}


def quantized(nodes, more=()):
    """Two convolutions, these nodes, and what reads a besides."""
    nodes = [
        node("Conv", "x w", "a", "first", pads=[1] * 4),
        node("Conv", "x v", "b", "second", pads=[1] * 4),
        *copy.deepcopy(list(nodes)),
        node("Neg", "c", "y", "last"),
        *more,
    ]
    weights = {"w": random(4, 4, 3, 3, scale=0.3), "v": random(4, 4, 3, 3, seed=1, scale=0.3), **CONSTANTS}
    ends = {"y": None, **{one.output[0]: None for one in more}}
    graph = Graph.from_model(model(nodes, {"x": SIZE}, ends, weights, opset=19))
    graph.prune()
    scales = {"x": 0.03, "a": 0.02, "b": 0.025, "i": 0.02, "c": 0.04}
    read = [
        Reading(one.name, at, name, name)
        for one in graph.nodes
        for at, name in enumerate(one.input)
        if name in scales and one.op_type != "Conv"
    ]
    return insert(graph, scales, quantizable_layers(graph), True, more=read)


def plain_session(graph):
    return ort.InferenceSession(graph.to_model().SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("form", FORMS)
def test_every_operator_between_q_and_dq_loads_with_default_options(form):
    graph = strongly_typed(quantized(FORMS[form]), {}, True, one_scale=True)
    feed = {"x": random(*SIZE, seed=5)}
    expected = outputs_of(simulation(graph), feed)[0]
    found = plain_session(graph).run(None, feed)[0]
    assert found.shape == expected.shape and found.std() > 0.01
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.03 * expected.std(), "but for values that are rounded to the other side"


@pytest.mark.parametrize("form", ["Concat", "Concat behind MaxPool", "Concat before Transpose"])
def test_fp16_scales_around_a_concat_are_what_does_not_load(form):
    """Where this no longer fails with the lowest version that we promise, the module can go."""
    with pytest.raises(Exception, match="QLinearConcat"):
        plain_session(fp16.convert(quantized(FORMS[form]), {}))


def test_q_and_dq_around_a_concat_are_fp32_and_all_others_fp16():
    graph = strongly_typed(quantized(FORMS["Concat"]), {}, True)
    types, producers = graph.types(), graph.producers()
    cat = next(one for one in graph.nodes if one.op_type == "Concat")
    assert [producers[name].op_type for name in cat.input] == ["DequantizeLinear"] * 2, "no Cast, which would be a kernel"
    assert {types[name] for name in (*cat.input, *cat.output)} == {FLOAT}
    quantize = [one for one in graph.nodes if one.op_type == "QuantizeLinear"]
    assert {one.name: types[one.input[0]] for one in quantize if types[one.input[0]] == FLOAT} == {"c__quantized": FLOAT}
    last = next(one for one in graph.nodes if one.name == "last")
    assert types[last.input[0]] == HALF and int8_layers(graph) == {"first", "second"}


def test_a_tensor_that_others_read_too_is_dequantized_twice():
    source = quantized(FORMS["Concat"], [node("Abs", "a", "z", "besides")])
    names = [one.name for one in source.nodes]
    found, kept = with_float_concats(source)
    assert [one.name for one in source.nodes] == names and len(found.nodes) == len(names) + 1
    assert {"concat c", "c__quantized", "a__dequantized__for_concat", "b__dequantized"} == kept
    graph = strongly_typed(source, {}, True)
    types = graph.types()
    assert types[next(one for one in graph.nodes if one.name == "besides").input[0]] == HALF
    feed = {"x": random(*SIZE, seed=5)}
    for expected, one in zip(outputs_of(source, feed), plain_session(graph).run(None, feed)):
        np.testing.assert_allclose(one, expected, atol=0.045)


@pytest.mark.parametrize("form", ["Concat before Relu", "Concat behind Pad", "Add"])
def test_what_onnx_runtime_does_not_fuse_stays_fp16(form):
    graph, kept = with_float_concats(quantized(FORMS[form]))
    assert not kept and "for_concat" not in "".join(one.name for one in graph.nodes)


def test_a_concat_that_is_read_in_fp16_too_stays_fp16():
    graph = quantized([concat("a b", "k"), moving("Transpose", "k", "c")], [node("Abs", "k", "z", "besides")])
    assert not with_float_concats(graph)[1]
    plain_session(strongly_typed(graph, {}, True))


BIASED = {
    "Conv": ([1, 4, 8, 8], (1, 4, 3, 3), {}),
    "Conv of groups": ([1, 4, 8, 8], (4, 2, 3, 3), {"group": 2}),
    "Conv of one axis": ([1, 4, 8], (1, 4, 3), {}),
    "ConvTranspose": ([1, 4, 8, 8], (4, 1, 2, 2), {}),
    "ConvTranspose of groups": ([1, 4, 8, 8], (4, 2, 2, 2), {"group": 2}),
    "Gemm": ([3, 4], (4, 5), {}),
    "Gemm, transposed": ([3, 4], (5, 4), {"transB": 1}),
    "Gemm, factors": ([3, 4], (4, 5), {"alpha": 2.0, "beta": 0.5}),
}


def biased(kind, size):
    """A layer whose bias is large against the steps of its products, and whose result is INT8, too."""
    shape, of_weights, attributes = BIASED[kind]
    operator = kind.split()[0].rstrip(",")
    channels = 5 if operator == "Gemm" else of_weights[1] * attributes.get("group", 1) if "Transpose" in kind else of_weights[0]
    nodes = [node(operator, "x w b", "c", "layer", **attributes), node("Relu", "c", "r", "relu"), node("Neg", "r", "y", "last")]
    weights = {"w": random(*of_weights, scale=0.01), "b": size * (0.5 + np.abs(random(channels, seed=2)))}
    graph = Graph.from_model(model(nodes, {"x": shape}, {"y": None}, weights, opset=19))
    scales = {"x": 0.02, "r": (3 * size + 0.2) / 127}
    return insert(graph, scales, quantizable_layers(graph), True, more=[Reading("last", 0, "r", "r")]), {"x": random(*shape, seed=3)}


@pytest.mark.parametrize("size", [0.02, 5.0])
@pytest.mark.parametrize("kind", BIASED)
def test_a_bias_of_any_size_is_added_with_default_options(kind, size):
    source, feed = biased(kind, size)
    names = [one.name for one in source.nodes]
    graph = strongly_typed(source, {}, True)
    assert [one.name for one in source.nodes] == names and int8_layers(graph) == {"layer"}
    expected = outputs_of(source, feed)[0]
    np.testing.assert_allclose(
        plain_session(graph).run(None, feed)[0], expected, atol=1.01 * (3 * size + 0.2) / 127, err_msg="one step of the result"
    )


def test_a_large_bias_in_an_int8_layer_is_what_is_computed_wrongly():
    source, feed = biased("Conv", 5.0)
    found = plain_session(fp16.convert(source, {})).run(None, feed)[0]
    assert not np.allclose(found, outputs_of(source, feed)[0], atol=0.5)


@pytest.mark.parametrize("kind", BIASED)
def test_a_small_bias_stays_in_its_layer(kind):
    assert "Add" not in [one.op_type for one in with_biases_behind(biased(kind, 0.002)[0]).nodes]
    assert "Add" in [one.op_type for one in with_biases_behind(biased(kind, 5.0)[0]).nodes]


def test_a_bias_of_a_layer_that_is_not_int8_stays():
    weights = {"w": random(4, 4, 3, 3), "b": 1e9 * random(4, seed=2)}
    graph = Graph.from_model(model([node("Conv", "x w b", "y", "layer")], {"x": SIZE}, {"y": None}, weights, opset=19))
    assert [one.op_type for one in with_biases_behind(graph).nodes] == ["Conv"]
