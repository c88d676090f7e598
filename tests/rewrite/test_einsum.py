"""rewrite/einsum.py: products that are written as Einsum compute the same as MatMul, and other Einsums stay."""

import numpy as np
import pytest
from models import model, node, random

from onnx2trt.model.attention import find_attentions
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.session import Session
from onnx2trt.rewrite.adopt import adopt
from onnx2trt.rewrite.einsum import einsums_as_products
from onnx2trt.rewrite.qdq import quantizable_layers

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "f": 7}


def network(equation: str, constant: int | None = None):
    operands = equation.replace(" ", "").split("->")[0].split(",")
    arrays = [random(*(SIZES[one] for one in letters), seed=index) for index, letters in enumerate(operands)]
    names = [f"x{index}" for index in range(len(operands))]
    given = {name: array for index, (name, array) in enumerate(zip(names, arrays)) if index != constant}
    weights = {} if constant is None else {names[constant]: arrays[constant]}
    inputs = {name: list(array.shape) for name, array in given.items()}
    graph = Graph.from_model(model([node("Einsum", " ".join(names), "y", "product", equation=equation)], inputs, {"y": None}, weights))
    return graph, given


def assert_same(equation: str, constant: int | None = None) -> Graph:
    graph, feed = network(equation, constant)
    made = einsums_as_products(graph)
    expected, found = (Session.from_graph(one).run(feed)["y"] for one in (graph, made))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    return made


@pytest.mark.parametrize("seed", range(40))
def test_any_order_of_axes(seed):
    """Batch axes, one axis of each operand, one inner axis, each operand and the result in an order of its own."""
    pick = np.random.default_rng(seed)
    batch = "ab"[: pick.integers(3)]
    parts = ["".join(pick.permutation(list(batch + own))) for own in ("cd", "de", "ce")]
    made = assert_same(f"{parts[0]},{parts[1]} -> {parts[2]}")
    assert "Einsum" not in [one.op_type for one in made.nodes] and [one.name for one in made.nodes if one.op_type == "MatMul"] == [
        "product"
    ]


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("inner", ["d", "de"])
@pytest.mark.parametrize("outer", ["f", "cf"])
def test_layers_with_weights_of_several_axes(inner, outer, constant):
    """As of Keras' MultiHeadAttention: abc,cde->abde on the way in, abcd,cde->abe on the way out."""
    operands = [f"ab{inner}", f"{inner}{outer}"]
    made = assert_same(f"{','.join(operands if constant else operands[::-1])}->ab{outer}", constant)
    assert [layer.node for layer in quantizable_layers(made)] == ["product"]


@pytest.mark.parametrize(
    "equation",
    ["aab,bc->ac", "abc,cd->ad", "ab,ab->ab", "ab,cd->abcd", "ab,bc", "...b,bc->...c", "abcd,abcd->ab", "abcd,ebcd->ae", "ab->ba"],
)
def test_what_is_no_product_of_matrices_stays(equation):
    nodes = [node("Einsum", " ".join(f"x{index}" for index in range(equation.count(",") + 1)), "y", "product", equation=equation)]
    graph = Graph.from_model(model(nodes, dict.fromkeys(nodes[0].input), {"y": None}))
    assert [one.op_type for one in einsums_as_products(graph).nodes] == ["Einsum"]


@pytest.mark.parametrize("scores, context", [("aecd,abcd->acbe", "acbe,aecd->abcd"), ("abcd,aecd->acbe", "acbe,aecd->abcd")])
def test_attention_of_einsums_is_found_with_its_queries_first(scores, context):
    """Keras puts the keys first."""
    first, second = ("k", "q") if scores.startswith("aecd") else ("q", "k")
    nodes = [
        node("Einsum", f"{first} {second}", "s", "scores", equation=scores),
        node("Softmax", "s", "p", "softmax", axis=-1),
        node("Einsum", "p v", "y", "context", equation=context),
    ]
    graph = Graph.from_model(model(nodes, {"q": [2, 9, 3, 16], "k": [2, 11, 3, 16], "v": [2, 11, 3, 16]}, {"y": None}))
    made = einsums_as_products(graph)
    (found,) = find_attentions(made, static_shapes(made, ()))
    shapes = static_shapes(made, ())
    assert (found.scores, found.context) == ("scores", "context")
    assert shapes[found.queries] == (2, 3, 9, 16) and shapes[found.keys] == (2, 3, 16, 11)
    feed = {name: random(*shapes[name], seed=index) for index, name in enumerate("qkv")}
    np.testing.assert_allclose(*(Session.from_graph(one).run(feed)["y"] for one in (graph, made)), rtol=1e-4, atol=1e-4)


def test_a_graph_without_einsum_is_itself():
    graph = Graph.from_model(model([node("MatMul", "a b", "y")], {"a": [2, 3], "b": [3, 4]}, {"y": [2, 4]}))
    assert einsums_as_products(graph) is graph


# ---- letters


@pytest.mark.parametrize("equation", ["BGHID,BGHJD->BGHIJ", "bIk,bkJ->bIJ", "Zab,bc", "bA,aB", "...Ij,...jK->...IK", "aI->Ia"])
def test_capital_letters_become_small_ones_with_the_same_result(equation):
    sizes = {letter: 2 + index for index, letter in enumerate(sorted(set(filter(str.isalpha, equation))))}
    operands = [operand.replace("...", "") for operand in equation.partition("->")[0].split(",")]
    names = ["x", "z"][: len(operands)]
    inputs = {name: [sizes[letter] for letter in operand] for name, operand in zip(names, operands)}
    source = model([node("Einsum", " ".join(names), "y", equation=equation)], inputs, {"y": None})
    adopted = adopt(source, "model.onnx")
    written = adopted.model.graph.node[0].attribute[0].s.decode()
    assert written == written.lower() and len(set(written)) == len(set(equation)) and not adopted.remarks
    feed = {name: random(*shape, seed=index) for index, (name, shape) in enumerate(inputs.items())}
    found = Session.from_graph(Graph.from_model(adopted.model)).run(feed)["y"]
    np.testing.assert_allclose(found, np.einsum(equation, *feed.values()), rtol=1e-5, atol=1e-6)


def test_small_letters_alone_are_left_as_they_are():
    source = model([node("Einsum", "x x", "y", equation="ab,cb->ac")], {"x": [2, 3]}, {"y": [2, 2]})
    assert adopt(source, "model.onnx") is None
