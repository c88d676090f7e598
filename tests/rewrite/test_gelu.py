"""rewrite/gelu.py: which GELUs are computed by tanh, and that they stay GELUs."""

import itertools
import math

import numpy as np
import pytest
from models import model, node, outputs_of, random

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.gelu import behind_gelus, gelus_by_tanh
from onnx2trt.rewrite.prepare import Int8Plan, prepare_int8, prepare_weak_int8
from onnx2trt.rewrite.qdq import quantizable_layers

ROOT, HALF, ONE = np.float32(math.sqrt(2)), np.float32(0.5), np.float32(1)
INNER = {"by a division": "Div x root", "by a product": "Mul x inverse", "the constant first": "Mul inverse x"}
ORDERS = {
    "x, 1/2": ("Mul x whole a", "Mul a half y"),
    "1/2, x": ("Mul half whole a", "Mul a x y"),
    "x/2": ("Mul x half a", "Mul a whole y"),
    "x/2 by a division": ("Div x two a", "Mul whole a y"),
}


def gelu(inner="by a division", order="x, 1/2", tail=(), outputs=("z",), **more):
    """x -> GELU -> y -> Q/DQ -> z, with what a test puts between them."""
    lines = [
        f"{INNER[inner]} scaled",
        "Erf scaled e",
        "Add e one whole",
        *ORDERS[order],
        *(tail or ("QuantizeLinear y s q",)),
        "DequantizeLinear q s z",
    ]
    nodes = [node(op, " ".join(names[:-1]), names[-1], f"{op}_{names[-1]}") for op, *names in map(str.split, lines)]
    weights = {"root": ROOT, "inverse": 1 / ROOT, "half": HALF, "two": 2 * ONE, "one": ONE, "s": np.float32(4 / 127)}
    return Graph.from_model(model(nodes, {"x": [4, 64]}, {name: [4, 64] for name in outputs}, {**weights, **more}))


def operators(graph):
    return {node.op_type for node in graph.nodes}


@pytest.mark.parametrize("inner, order", list(itertools.product(INNER, ORDERS)))
def test_every_order_of_the_products_is_found(inner, order):
    graph = gelu(inner, order, outputs=("z",))
    changed = gelus_by_tanh(graph)
    others = {"Div"} if "division" in order else set()
    assert "Erf" in operators(graph) and operators(changed) == {"Mul", "Add", "Tanh", "QuantizeLinear", "DequantizeLinear"} | others
    feed = {"x": random(4, 64, seed=3, scale=3.0)}
    exact, found = (outputs_of(one, feed)[0] for one in (graph, changed))
    assert np.abs(exact - found).max() <= 4 / 127 * 1.01, "by one step of INT8 at most, where a value lies between two"
    assert np.mean(exact != found) < 0.05


def test_it_is_gelu_to_what_the_source_says():
    x = np.linspace(-300, 300, 600_001, dtype=np.float32).reshape(1, -1)
    exact = 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    graph = gelu()
    found = outputs_of(values_of_y(gelus_by_tanh(graph)), {"x": x})[0]
    assert np.abs(found - exact).max() < 4.8e-4


def values_of_y(graph):
    """Without Q/DQ, for any number of values."""
    kept = [node for node in graph.nodes if "QuantizeLinear" not in node.op_type and node.op_type != "DequantizeLinear"]
    plain = graph.copy()
    plain.replace_nodes(kept)
    plain.proto.graph.output[0].name = "y"
    for value in (*plain.proto.graph.input, *plain.proto.graph.output):
        value.type.tensor_type.ClearField("shape")
    return plain


def test_what_16_bits_read_too_stays_exact():
    for graph in (gelu(outputs=("z", "y")), gelu(tail=("Relu y other", "QuantizeLinear y s q"), outputs=("z", "other"))):
        assert gelus_by_tanh(graph) is graph


def test_factors_of_equalization_may_stand_behind_it():
    factors = random(64, seed=1)
    graph = gelu(tail=("Mul y f b", "Add b f c", "QuantizeLinear c s q"), f=factors)
    assert "Erf" not in operators(gelus_by_tanh(graph))
    assert gelus_by_tanh(gelu(tail=("Mul y x b", "QuantizeLinear b s q"))).nodes[1].op_type == "Erf", "no constant"
    assert gelus_by_tanh(gelu(tail=("Div f y b", "QuantizeLinear b s q"), f=factors)).nodes[1].op_type == "Erf", "no factor"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("number", range(4))
def test_equalization_makes_vectors_of_its_own_constants(order, number):
    """Half of what each channel is multiplied by, wherever the constant stands."""
    factors = np.exp(random(64, seed=number)).astype(np.float32) if number else np.float32(2.6)
    graph = gelu(order=order, half=factors / 2, two=2 / factors, s=np.float32(4 * factors.max() / 127))
    changed = gelus_by_tanh(graph)
    assert "Erf" not in operators(changed)
    feed = {"x": random(4, 64, seed=number, scale=2.0)}
    exact, found = (outputs_of(values_of_y(one), feed)[0] for one in (graph, changed))
    assert np.all(np.abs(found - exact) <= 4.9e-4 * factors)
    assert outputs_of(changed, feed)[0].shape == outputs_of(graph, feed)[0].shape


def test_where_8_bits_would_tell_the_two_apart_it_stays():
    """A channel of little reach that is multiplied up: the steps are as fine as the difference there."""
    factors = np.ones(64, np.float32)
    factors[3] = 100.0
    fine = ({"half": factors / 2}, {"s": np.float32(0.0009)}, {"tail": ("Mul y f b", "QuantizeLinear b s q"), "f": factors})
    for graph in (gelu(**more) for more in fine):
        assert gelus_by_tanh(graph) is graph


@pytest.mark.parametrize("curve", ["Erf", "Tanh"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_gelus_give_is_known_in_any_form(order, curve):
    graph = gelu(order=order)
    for one in graph.nodes:
        one.op_type = curve if one.op_type == "Erf" else one.op_type
    behind = behind_gelus(graph)
    assert "y" in behind and not behind & {"x", "scaled", "e", "whole", "q", "z"}


def test_factors_of_channels_behind_a_gelu_are_the_models_own():
    behind = behind_gelus(gelu(tail=("Mul y f b", "Mul b half c", "QuantizeLinear c s q"), f=random(64, seed=1)))
    assert "y" in behind and not behind & {"b", "c"}


@pytest.mark.parametrize(
    "wrong", [{"root": np.float32(1.3)}, {"one": np.float32(1.3)}, {"root": np.geomspace(0.1, ROOT, 64, dtype=np.float32)}]
)
def test_other_constants_make_it_something_else(wrong):
    graph = gelu(**wrong)
    assert gelus_by_tanh(graph) is graph


def test_nodes_that_are_held_stay():
    graph = gelu()
    assert all(gelus_by_tanh(graph, {name}) is graph for name in ("Div_scaled", "Erf_e", "Add_whole", "Mul_a"))
    (kept,) = (node for node in gelus_by_tanh(graph, {"Mul_y"}).nodes if node.name == "Mul_y")
    assert kept == next(node for node in graph.nodes if node.name == "Mul_y"), "it is not touched"


def test_onnxs_own_operator_is_found_and_its_tanh_form_left():
    def with_operator(**attributes):
        nodes = [
            node("Gelu", "x", "y", "g", **attributes),
            node("QuantizeLinear", "y s zero", "q"),
            node("DequantizeLinear", "q s zero", "z"),
        ]
        weights = {"s": np.float32(0.03), "zero": np.int8(0)}
        return Graph.from_model(model(nodes, {"x": [4, 64]}, {"z": [4, 64]}, weights, opset=20))

    assert "Tanh" in operators(gelus_by_tanh(with_operator()))
    graph = with_operator(approximate="tanh")
    assert gelus_by_tanh(graph) is graph


def mlp():
    """Two products with GELU between them."""
    lines = ["MatMul x w p", "Div p root scaled", "Erf scaled e", "Add e one whole", "Mul p whole a", "Mul a half y", "MatMul y v z"]
    nodes = [node(op, " ".join(names[:-1]), names[-1], f"{op}_{names[-1]}") for op, *names in map(str.split, lines)]
    weights = {"root": ROOT, "half": HALF, "one": ONE, "w": random(16, 32), "v": random(32, 8, seed=1)}
    return Graph.from_model(model(nodes, {"x": [4, 16]}, {"z": [4, 8]}, weights))


@pytest.mark.parametrize("write", [prepare_weak_int8, lambda plan: prepare_int8(plan, frozenset())], ids=["weak", "strong"])
def test_it_is_done_where_qdq_is_written(write):
    graph = mlp()
    layers = quantizable_layers(graph)

    def written(chosen, kept=None):
        return operators(write(Int8Plan(graph, (), chosen, Fit({"x": 0.02, "y": 0.02}), kept or {}, {})).graph)

    assert "Tanh" in written(layers) and "Erf" not in written(layers)
    assert "Erf" in written(layers[:1]), "what reads it is in 16 bits"
    assert "Erf" in written(layers, {"Erf_e": "--layer-precisions *Erf*:fp32"})
