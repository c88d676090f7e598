"""rewrite/simulate.py: the simulation must round as the GPU's FP16 does, and overflow where it does."""

import numpy as np
import pytest
from models import conv_net, model, multiplication_chain, node, random
from onnx import TensorProto

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.simulate import simulation

HALF = TensorProto.FLOAT16


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
