"""rewrite/signed.py: quantized files of other tools as symmetric INT8 Q/DQ, against ONNX Runtime on the file as it stands."""

import numpy as np
import onnx
import pytest
from foreign_models import ELEM, SHAPE, around, assert_same_steps, microsoft, qlinear, quantized_input, truth
from models import model, node, random
from onnx import TensorProto

from onnx2trt.model.graph import Graph
from onnx2trt.model.operators import QUANTIZERS
from onnx2trt.model.session import Session
from onnx2trt.rewrite.foreign import is_foreign
from onnx2trt.rewrite.qlinear import FORMS
from onnx2trt.rewrite.signed import signed

X = {"x": random(*SHAPE, scale=2.0)}
KINDS = [("uint8", 0), ("uint8", 128), ("uint8", 77), ("int8", 0), ("int8", -128), ("int8", 5)]


def written(source) -> Graph:
    graph = signed(Graph.from_model(source)).graph
    assert_symmetric(graph)
    return graph


def assert_symmetric(graph: Graph) -> None:
    """Only what TensorRT takes is left."""
    for made in graph.nodes:
        if made.op_type in QUANTIZERS:
            zero = graph.weights[made.input[2]]
            assert zero.dtype == np.int8 and not zero.any(), made.name
        assert made.domain == "" and made.op_type not in FORMS
    assert not {"uint8", "int32", "int16", "uint16"} & {array.dtype.name for array in graph.weights.values()}


def check(source, feed=X, step=0.05) -> Graph:
    assert is_foreign(source)
    graph = written(source)
    for found, expected in zip(Session.from_graph(graph).run(feed).values(), truth(source, feed), strict=True):
        assert_same_steps(found, expected, step)
    return graph


def operand(name: str, dtype: str, zero: int, *shape: int, scale=0.02, seed=1, most=100) -> dict:
    """A quantized constant with its scale and zero point: name, name_s, name_z; integers within `most` of the zero point."""
    limits = np.iinfo(dtype)
    integers = np.random.default_rng(seed).integers(max(limits.min, zero - most), min(limits.max, zero + most), shape)
    return {name: integers.astype(dtype), f"{name}_s": np.float32(scale), f"{name}_z": np.array(zero, dtype)}


# ---- Q/DQ


@pytest.mark.parametrize("dtype, zero", [kind for kind in KINDS if kind != ("int8", 0)])
def test_a_pair_clips_and_rounds_as_before(dtype, zero):
    first, weights = quantized_input(dtype, zero)
    source = model([*first, node("DequantizeLinear", "xq xs xz", "y")], {"x": SHAPE}, {"y": SHAPE}, weights)
    check(source, {"x": random(*SHAPE, scale=5.0)}, step=0.037)


def test_a_pair_of_one_point_is_shifted_without_arithmetic():
    """UINT8 with zero point 128 is INT8 with zero point 0."""
    first, weights = quantized_input("uint8", 128)
    source = model([*first, node("DequantizeLinear", "xq xs xz", "y")], {"x": SHAPE}, {"y": SHAPE}, weights)
    assert [made.op_type for made in check(source, step=0.037).nodes] == ["QuantizeLinear", "DequantizeLinear", "Identity"]


def test_without_a_zero_point_integers_are_uint8():
    nodes = [node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y")]
    check(model(nodes, {"x": SHAPE}, {"y": SHAPE}, {"s": np.float32(0.03)}), step=0.03)


@pytest.mark.parametrize("dtype, zero", [("uint16", 30000), ("int16", 0)])
def test_sixteen_bits_only_clip(dtype, zero):
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    scale = 2e-5  # clips below 1
    source = model(nodes, {"x": SHAPE}, {"y": SHAPE}, {"s": np.float32(scale), "z": np.array(zero, dtype)}, opset=21)
    graph = written(source)
    found, (expected,) = Session.from_graph(graph).run(X)["y"], truth(source, X)
    assert np.abs(found - expected).max() <= 0.51 * scale and np.ptp(expected) < 2 and is_foreign(source)


def test_read_with_other_steps_than_it_was_written_with():
    first, weights = quantized_input("uint8", 128)
    weights |= {"s": np.float32(0.1), "z": np.uint8(100)}
    check(model([*first, node("DequantizeLinear", "xq s z", "y")], {"x": SHAPE}, {"y": SHAPE}, weights), step=0.1)


def test_integers_that_the_model_is_given_or_gives():
    first, weights = quantized_input("uint8", 128)
    nodes = [*first, node("DequantizeLinear", "u xs xz", "y"), node("Identity", "xq", "z")]
    inputs = {"x": SHAPE, "u": (TensorProto.UINT8, SHAPE)}
    source = model(nodes, inputs, {"y": SHAPE, "z": (TensorProto.UINT8, SHAPE)}, weights)
    feed = {**X, "u": np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)}
    found = Session.from_graph(written(source)).run(feed)
    for value, expected in zip(found.values(), truth(source, feed), strict=True):
        assert value.dtype == expected.dtype
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_scales_that_are_computed_stay_as_they_are():
    nodes = [node("ReduceMax", "x", "s", keepdims=0), node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    graph = signed(Graph.from_model(model(nodes, {"x": SHAPE}, {"y": SHAPE}, {"z": np.uint8(3)}))).graph
    assert [made.op_type for made in graph.nodes] == ["ReduceMax", "QuantizeLinear", "DequantizeLinear"]


# ---- constants


@pytest.mark.parametrize("dtype, zero, kept", [("int8", 0, True), ("uint8", 128, True), ("int8", 5, True), ("uint8", 3, False)])
def test_constants_stay_integers_where_they_fit_into_int8(dtype, zero, kept):
    weights = operand("w", dtype, zero, 4, 6) | {"xs": np.float32(0.03), "xz": np.uint8(128)}
    if not kept:
        weights["w"][0, 0] = 255
    nodes = [
        node("QuantizeLinear", "x xs xz", "xq"),
        node("DequantizeLinear", "xq xs xz", "xd"),
        node("DequantizeLinear", "w w_s w_z", "wd"),
        node("MatMul", "xd wd", "y"),
    ]
    graph = check(model(nodes, {"x": [5, 4]}, {"y": [5, 6]}, weights), {"x": random(5, 4)}, step=1e-5)
    assert any(array.dtype == np.int8 and array.shape == (4, 6) for array in graph.weights.values()) is kept


def test_constants_with_a_scale_for_each_channel():
    integers = np.random.default_rng(0).integers(-100, 100, (3, 4, 1, 1))
    zeros = np.array([128, 130, 126], np.uint8)
    weights = {"w": (integers + zeros.reshape(-1, 1, 1, 1)).clip(3, 252).astype(np.uint8), "s": np.float32([0.1, 0.2, 0.3]), "z": zeros}
    nodes = [node("DequantizeLinear", "w s z", "wd", axis=0), node("Conv", "x wd", "y")]
    check(model(nodes, {"x": SHAPE}, {"y": None}, weights), step=1e-4)


def test_biases_become_floating_point():
    """INT32 that ONNX Runtime's tools make, and INT8 that is only a bias."""
    for dtype in (np.int32, np.int8):
        weights = {
            "w": random(3, 4, 1, 1),
            "b": np.array([100, -50, 7], dtype),
            "s": np.float32([0.01, 0.02, 0.03]),
            "z": np.zeros(3, dtype),
        }
        nodes = [node("DequantizeLinear", "b s z", "bd", axis=0), node("Conv", "x w bd", "y")]
        graph = signed(Graph.from_model(model(nodes, {"x": SHAPE}, {"y": None}, weights))).graph
        assert [made.op_type for made in graph.nodes] == ["Conv"]
        np.testing.assert_allclose(graph.weights[graph.nodes[0].input[2]], [1.0, -1.0, 0.21], rtol=1e-6)


def test_a_weight_that_is_quantized_in_the_graph():
    weights = {"w": random(3, 4, 1, 1), "s": np.float32([0.02, 0.03, 0.04]), "z": np.uint8([128, 128, 128])}
    nodes = [
        node("QuantizeLinear", "w s z", "q", axis=0),
        node("DequantizeLinear", "q s z", "d", axis=0),
        node("Conv", "x d", "y"),
    ]
    graph = check(model(nodes, {"x": SHAPE}, {"y": None}, weights), step=1e-5)
    assert [made.op_type for made in graph.nodes] == ["DequantizeLinear", "Conv"]


@pytest.mark.parametrize("dtype, zero", [("uint8", 128), ("uint8", 3), ("int8", 0)])
def test_rows_of_a_quantized_table(dtype, zero):
    weights = operand("t", dtype, zero, 20, 6) | {"one": np.int64(1), "u": np.uint8(9), "us": np.float32(1)}
    nodes = [
        node("Gather", "t ids", "rows"),
        node("DequantizeLinear", "rows t_s t_z", "d"),
        node("DequantizeLinear", "u us", "nine"),
        node("Add", "d nine", "y"),
    ]
    source = model(nodes, {"ids": (TensorProto.INT64, [7])}, {"y": [7, 6]}, weights)
    graph = check(source, {"ids": np.array([3, 1, 4, 1, 5, 9, 2])}, step=1e-5)
    assert "Cast" not in [made.op_type for made in graph.nodes]


# ---- quantized operators

CONV = "xq xs xz w w_s w_z ys yz"
OPERATORS = {
    "QLinearConv": (lambda d: [qlinear("QLinearConv", f"{CONV} b", domain="", pads=[1, 1, 1, 1])], 0.3),
    "QLinearMatMul": (lambda d: [qlinear("QLinearMatMul", "xq xs xz m m_s m_z ys yz", domain="")], 0.1),
    "QLinearAdd": (lambda d: [qlinear("QLinearAdd", "xq xs xz t t_s t_z ys yz")], 0.06),
    "QLinearMul": (lambda d: [qlinear("QLinearMul", "xq xs xz t t_s t_z ys yz")], 0.06),
    "QLinearSigmoid": (lambda d: [qlinear("QLinearSigmoid", "xq xs xz ys yz")], 1 / 256),
    "QLinearLeakyRelu": (lambda d: [qlinear("QLinearLeakyRelu", "xq xs xz ys yz", alpha=0.2)], 0.03),
    "QLinearSoftmax": (lambda d: [qlinear("QLinearSoftmax", "xq xs xz ys yz", axis=-1, opset=17)], 1 / 256),
    "QLinearGlobalAveragePool": (lambda d: [qlinear("QLinearGlobalAveragePool", "xq xs xz ys yz")], 0.01),
    "QLinearAveragePool": (
        lambda d: [qlinear("QLinearAveragePool", "xq xs xz ys yz", kernel_shape=[2, 2], strides=[2, 2])],
        0.03,
    ),
    "QLinearConcat": (lambda d: [qlinear("QLinearConcat", "ys yz xq xs xz t t_s t_z", axis=1)], 0.05),
    "QLinearWhere": (lambda d: [qlinear("QLinearWhere", "c xq xs xz t t_s t_z ys yz")], 0.05),
    "QGemm": (
        lambda d: [
            qlinear("Reshape", "xq rows", "flat", domain=""),
            qlinear("QGemm", "flat xs xz g g_s g_z gb ys yz", transB=1),
        ],
        0.4,
    ),
}


UNSATURATED = 64  # 2 * 255 * 64 is below 2^15, beyond which ONNX Runtime's sums of products saturate on CPUs without VNNI


def constants(dtype: str, zero: int) -> dict:
    found = operand("w", "int8", 0, 5, 4, 3, 3, most=UNSATURATED, scale=0.03)
    found |= operand("m", dtype, zero, 6, 6) | operand("t", dtype, zero, *SHAPE, scale=0.03)
    found |= operand("g", "int8", 0, 7, 6, most=UNSATURATED, scale=0.03) | {
        "rows": np.array([-1, 6]),
        "c": np.random.default_rng(2).random(SHAPE) > 0.5,
    }
    bias = np.random.default_rng(3).integers(-500, 500, 7).astype(np.int32)
    return found | {"b": bias[:5], "gb": bias}


@pytest.mark.parametrize("dtype, zero", KINDS)
@pytest.mark.parametrize("operator", sorted(set(OPERATORS)))
def test_a_quantized_operator_computes_what_onnx_runtime_does(operator, dtype, zero):
    nodes, step = OPERATORS[operator]
    output_zero = np.iinfo(dtype).min if operator in ("QLinearSigmoid", "QLinearSoftmax") else None
    source = around(nodes(dtype), constants(dtype, zero), dtype, zero, step, output_zero=output_zero)
    used = {name for made in source.graph.node for name in made.input}
    kept = [tensor for tensor in source.graph.initializer if tensor.name in used]
    del source.graph.initializer[:]
    source.graph.initializer.extend(kept)
    graph = written(source)
    assert_same_steps(Session.from_graph(graph).run(X)["y"], truth(source, X)[0], step)


def test_every_known_form_is_tried_above():
    assert set(FORMS) == set(OPERATORS)


def test_without_an_output_scale_qgemm_gives_floats():
    nodes, weights = quantized_input("uint8", 100)
    weights |= operand("g", "int8", 0, 6, 5) | {"gb": np.arange(5, dtype=np.int32)}
    source = microsoft(model([*nodes, qlinear("QGemm", "xq xs xz g g_s g_z gb", "y")], {"x": [3, 6]}, {"y": [3, 5]}, weights))
    check(source, {"x": random(3, 6)}, step=1e-4)


# ---- integers that are moved

MOVES = {
    "Reshape": ([node("Reshape", "xq shape", "yq")], {"shape": np.array([1, 12, 12])}),
    "Transpose": ([node("Transpose", "xq", "yq", perm=[0, 2, 3, 1])], {}),
    "MaxPool": ([node("MaxPool", "xq", "yq", kernel_shape=[2, 2], pads=[1, 1, 1, 1])], {}),
    "Concat": ([node("Relu", "x", "r"), node("QuantizeLinear", "r xs xz", "rq"), node("Concat", "xq rq", "yq", axis=1)], {}),
    "Pad": ([node("Pad", "xq pads value", "yq")], {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "Pad with the default": ([node("Pad", "xq pads", "yq")], {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "Resize": ([node("Resize", "xq  scales", "yq", mode="nearest")], {"scales": np.float32([1, 1, 2, 2])}),
    "Gather": ([node("Gather", "xq index", "yq", axis=1)], {"index": np.array([2, 0])}),
    "Split": ([node("Split", "xq", "a b", axis=1), node("Concat", "b a", "yq", axis=1)], {}),
}


@pytest.mark.parametrize("dtype, zero", [("uint8", 128), ("uint8", 40), ("int8", -7)])
@pytest.mark.parametrize("name", MOVES)
def test_moving_integers_is_moving_values(name, dtype, zero):
    nodes, weights = MOVES[name]
    nodes = [onnx.NodeProto.FromString(made.SerializeToString()) for made in nodes]
    if name == "Resize":
        nodes[0].input[:] = ["xq", "", "scales"]
    if name == "Pad":
        weights = {**weights, "value": np.array(zero + 9, dtype)}
    source = around(nodes, weights, dtype, zero, 0.037)
    graph = check(source, step=0.037)
    assert ELEM[dtype] not in set(graph.types().values()) - {TensorProto.INT8}


def test_an_operator_that_needs_the_integers_gets_them():
    source = around([node("Cast", "xq", "f", to=TensorProto.FLOAT), node("QuantizeLinear", "f ys yz", "yq")], {}, "uint8", 10, 3.0)
    check(source, step=3.0)
