"""rewrite/simulate.py: the simulation must round as FP16 and BF16 of the GPU do, and overflow where these do."""

import ml_dtypes
import numpy as np
import pytest
from models import conv_net, model, multiplication_chain, node, random, stepped
from onnx import TensorProto

from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BF16
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.simulate import simulation

HALF, BFLOAT16 = TensorProto.FLOAT16, TensorProto.BFLOAT16


def simulated(source, feed):
    return list(Session.from_graph(simulation(convert(Graph.from_model(source), {}))).run(feed).values())


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
def test_single_operators_round_as_numpys_half(op):
    x, w = random(64, 64), random(64, 64, seed=1)
    got = simulated(model([node(op, "x w", "y")], {"x": [64, 64]}, {"y": [64, 64]}, {"w": w}), {"x": x})[0]
    apply = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide}[op]
    exact = apply(x.astype(np.float16).astype(np.float32), w.astype(np.float16).astype(np.float32))
    assert np.array_equal(got, exact.astype(np.float16).astype(np.float32))
    assert not np.array_equal(got, exact), "the rounding must be visible"


def test_every_step_of_a_chain_is_rounded():
    factors = (1.001, 0.999, 1.003)
    x = random(1, 8)
    value = x.astype(np.float16)
    for factor in factors:
        value = (value.astype(np.float32) * np.float32(np.float16(factor))).astype(np.float16)
    got = simulated(multiplication_chain(factors), {"x": x})[0]
    assert np.array_equal(got, value.astype(np.float32))


def test_overflow_becomes_infinite_although_the_result_would_fit():
    x = np.ones((1, 8), np.float32)
    half = convert(Graph.from_model(multiplication_chain()), {})
    assert np.isfinite(Session.from_graph(half).run({"x": x})["y"]).all(), "ONNX Runtime's CPU hides it: the reason for the simulation"
    assert np.isinf(simulated(multiplication_chain(), {"x": x})[0]).all()


def test_a_graph_without_half_is_its_own_simulation():
    graph = Graph.from_model(conv_net())
    assert simulation(graph) is graph


def test_names_and_types_of_inputs_and_outputs_are_kept():
    source = model([node("Mul", "x w", "y")], {"x": (HALF, [4])}, {"y": (HALF, [4])}, {"w": np.float16([1, 2, 3, 60000])})
    graph = Graph.from_model(source)
    twin = simulation(graph)
    assert [v.type.tensor_type.elem_type for v in (*twin.proto.graph.input, *twin.proto.graph.output)] == [HALF, HALF]
    got = Session.from_graph(twin).run({"x": np.float16([1, 1.5, 2, 2])})["y"]
    assert got.dtype == np.float16 and got.tolist() == [1.0, 3.0, 6.0, float("inf")]


def test_the_given_graph_is_not_changed():
    half = convert(Graph.from_model(conv_net()), {})
    before = half.proto.SerializeToString()
    simulation(half)
    assert half.proto.SerializeToString() == before and half.weights["w1__fp16"].dtype == np.float16


# ---- BF16


def in_bf16(array: np.ndarray) -> np.ndarray:
    """Rounded by ml_dtypes, as float32."""
    return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def test_every_value_is_rounded_as_ml_dtypes_does_bit_for_bit():
    """Random bits: ordinary values, subnormal ones, those near the largest, infinities; and the ties between two neighbours."""
    bits = np.random.default_rng(0).integers(0, 2**32, 2**16, np.uint64).astype(np.uint32)
    ties = (np.arange(2**16, dtype=np.uint32) << 16) | 0x8000
    x = np.concatenate([bits, ties, ties - 1, ties + 1]).view(np.float32)
    x = x[~np.isnan(x)]
    source = model([node("Cast", "x", "h", to=BFLOAT16), node("Cast", "h", "y", to=TensorProto.FLOAT)], {"x": [x.size]}, {"y": [x.size]})
    found = Session.from_graph(simulation(Graph.from_model(source))).run({"x": x})["y"]
    assert np.array_equal(found.view(np.uint32), in_bf16(x).view(np.uint32))
    assert np.isinf(found).sum() > np.isinf(x).sum() and not np.array_equal(found, x)


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div", "MatMul"])
def test_single_operators_round_as_bf16_with_sums_in_fp32(op):
    x, w = random(32, 32), random(32, 32, seed=1)
    graph = convert(Graph.from_model(model([node(op, "x w", "y")], {"x": [32, 32]}, {"y": [32, 32]}, {"w": w})), {}, half=BF16)
    got = Session.from_graph(simulation(graph)).run({"x": x})["y"]
    apply = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide, "MatMul": np.matmul}[op]
    exact = apply(in_bf16(x), in_bf16(w))
    assert np.abs(got - in_bf16(exact)).max() <= (2.0**-7 * np.abs(exact).max() if op == "MatMul" else 0)
    assert np.array_equal(got, in_bf16(got)) and not np.array_equal(got, exact), "the rounding must be visible"


@pytest.mark.parametrize("io", [TensorProto.FLOAT, TensorProto.BFLOAT16])
def test_a_file_in_bf16_is_rounded_after_every_operator(io):
    """Inputs and outputs in BF16 become FP32, which NumPy has."""
    nodes = [
        node("Cast", "x", "xc", "in", to=BFLOAT16),
        node("MatMul", "xc w", "m", "product"),
        node("Sigmoid", "m", "s", "sigmoid"),
        node("Cast", "s", "y", "out", to=io),
    ]
    w = random(4, 3).astype(ml_dtypes.bfloat16)
    graph = Graph.from_model(model(nodes, {"x": (io, [2, 4])}, {"y": (io, [2, 3])}, {"w": w}))
    x = random(2, 4, seed=2)
    found = Session.from_graph(simulation(graph)).run({"x": x})["y"]
    exact = 1 / (1 + np.exp(-in_bf16(in_bf16(x) @ w.astype(np.float32))))
    assert found.dtype == np.float32 and np.array_equal(found, in_bf16(exact)) and not np.array_equal(found, exact)


def test_what_overflows_in_fp16_does_not_in_bf16():
    x = np.ones((1, 8), np.float32)
    graph = Graph.from_model(multiplication_chain())
    got = Session.from_graph(simulation(convert(graph, {}, half=BF16))).run({"x": x})["y"]
    np.testing.assert_allclose(got, Session.from_graph(graph).run({"x": x})["y"], rtol=0.03)


def test_control_flow_is_rounded_inside():
    graph, feed = Graph.from_model(stepped("Loop")), {"x": random(4, 2, 3), "start": random(2, 3, seed=1)}
    exact, found = (Session.from_graph(one).run(feed)["y"] for one in (graph, simulation(convert(graph, {}, half=BF16))))
    assert 0 < np.abs(found - exact).max() < 0.1


@pytest.mark.parametrize("axis, zero, constant", [(None, 0, True), (0, 0, True), (1, 0, True), (-1, 0, True), (None, 3, False)])
def test_int8_weights_become_constants_rounded_as_the_gpu_would(axis, zero, constant):
    integers = np.random.default_rng(0).integers(-127, 128, (32, 48)).astype(np.int8)
    scales = np.float16(0.0123) if axis is None else np.float16(0.001 + np.abs(random(integers.shape[axis], seed=1)))
    nodes = [
        node("Cast", "x", "h", to=HALF),
        node("DequantizeLinear", "w s z", "d", **({} if axis is None else {"axis": axis})),
        node("MatMul", "h d", "y"),
    ]
    weights = {"w": integers, "s": scales, "z": np.full(scales.shape, zero, np.int8)}
    twin = simulation(Graph.from_model(model(nodes, {"x": [4, 32]}, {"y": (HALF, [4, 48])}, weights, opset=19)))
    assert ("DequantizeLinear" in {one.op_type for one in twin.nodes}) != constant
    along = scales.reshape(-1, 1) if axis == 0 else scales
    exact = (integers.astype(np.float32) - zero) * along.astype(np.float32)
    rounded = exact.astype(np.float16).astype(np.float32)
    assert not np.array_equal(rounded, exact), "the rounding must be visible"
    found = Session.from_graph(twin).run({"x": np.eye(4, 32, dtype=np.float32)})["y"]
    np.testing.assert_array_equal(found, rounded[:4].astype(np.float16))
    if constant:
        np.testing.assert_array_equal(next(array for array in twin.weights.values() if array.shape == (32, 48)), rounded)
