"""rewrite/layer_norms.py: normalisations in single operators become LayerNormalization, where they are that."""

import itertools

import numpy as np
import pytest
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.layer_norms import name_layer_norms
from onnx2trt.rewrite.prepare import working_graph

FORMS = list(itertools.product(["Pow", "Mul"], ["Div", "Reciprocal", "Pow"], [False, True], [False, True], [11, 13, 18]))
FORMS += list(itertools.product(["Mul"], ["as TensorFlow", "as batch norm"], [False], [True], [11, 18]))


def spelt_out(square="Pow", root="Div", twice=False, bias=True, opset=13, swapped=False, axes=(-1,), keepdims=1, epsilon=1e-12):
    """x [2, 5, 8] -> y, and what stands around: (nodes, weights)."""
    weights = {"two": np.float32(2), "eps": np.float32(epsilon), "minus": np.float32(-0.5)}
    weights |= {"g": random(8, seed=1), "b": random(8, seed=2), "w": random(8, 8, seed=3)}

    def mean(read: str, made: str):
        if opset < 18:
            return node("ReduceMean", read, made, made, axes=list(axes), keepdims=keepdims)
        weights["axes"] = np.int64(axes)
        return node("ReduceMean", f"{read} axes", made, made, keepdims=keepdims)

    def either(first: str, second: str) -> str:
        return f"{second} {first}" if swapped else f"{first} {second}"

    nodes = [node("MatMul", "x w", "p", "product"), mean("p", "m"), node("Sub", "p m", "d", "centre")]
    nodes += [node("Sub", "p m", "d2", "centre again")] if twice else []
    nodes += [node("Pow", "d two", "s", "square") if square == "Pow" else node("Mul", "d d", "s", "square"), mean("s", "v")]
    nodes.append(node("Add", either("v", "eps"), "ve", "epsilon"))
    difference = "d2" if twice else "d"
    if root.startswith("as "):
        inverse = [node("Pow", "ve minus", "r", "root")] if root == "as batch norm" else []
        inverse = inverse or [node("Sqrt", "ve", "sd", "root"), node("Reciprocal", "sd", "r", "inverse")]
        nodes += [*inverse, node("Mul", either("r", "g"), "i", "factors"), node("Mul", either("p", "i"), "f", "scaled")]
        nodes += [
            node("Mul", either("m", "i"), "mi", "mean scaled"),
            node("Sub", "b mi", "bm", "shift"),
            node("Add", either("f", "bm"), "n", "summands"),
        ]
        return [*nodes, node("Add", "n p", "y", "residual")], weights
    if root == "Pow":
        nodes += [node("Pow", "ve minus", "r", "root"), node("Mul", either(difference, "r"), "q", "quotient")]
    elif root == "Reciprocal":
        nodes += [
            node("Sqrt", "ve", "sd", "root"),
            node("Reciprocal", "sd", "r", "inverse"),
            node("Mul", either(difference, "r"), "q", "quotient"),
        ]
    else:
        nodes += [node("Sqrt", "ve", "sd", "root"), node("Div", f"{difference} sd", "q", "quotient")]
    nodes.append(node("Mul", either("q", "g"), "f" if bias else "n", "factors"))
    nodes += [node("Add", either("f", "b"), "n", "summands")] if bias else []
    return [*nodes, node("Add", "n p", "y", "residual")], weights


def graph_of(nodes, weights, opset=13, outputs=("y",)) -> Graph:
    read = {name for one in nodes for name in one.input}
    used = {name: values for name, values in weights.items() if name in read}
    return Graph.from_model(model(nodes, {"x": [2, 5, 8]}, {name: ["a", "b", "c"] for name in outputs}, used, opset))


def norms(graph: Graph) -> list:
    return [one for one in graph.nodes if one.op_type == "LayerNormalization"]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("square, root, twice, bias, opset", FORMS)
def test_all_forms_become_one_operator_that_computes_the_same(square, root, twice, bias, opset, swapped):
    nodes, weights = spelt_out(square, root, twice, bias, opset, swapped)
    graph = graph_of(nodes, weights, opset)
    named = name_layer_norms(graph)
    assert [one.name for one in named.nodes] == ["product", "summands" if bias else "factors", "residual"] and len(norms(named)) == 1
    assert named.opset >= 17 and graph.opset == opset and len(graph.nodes) > 5, "the graph as it came is as it was"
    feed = {"x": random(2, 5, 8, seed=4)}
    expected, found = (Session.from_graph(one).run(feed)["y"] for one in (graph, named))
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_nothing_of_it_stays_in_fp32():
    graph = graph_of(*spelt_out())
    assert choose_kept_fp32(graph, {}, ()), "as single operators"
    working = working_graph(graph, False, False)
    assert len(norms(working)) == 1 and choose_kept_fp32(working, {}, ()) == {}


@pytest.mark.parametrize("more", [{"axes": (1,)}, {"axes": (-2, -1)}, {"epsilon": -1.0}, {"epsilon": 0.0}, {"keepdims": 0}])
def test_another_normalisation_is_left(more):
    nodes, weights = spelt_out(**more)
    graph = graph_of(nodes, weights)
    assert name_layer_norms(graph) is graph


@pytest.mark.parametrize("inside", ["m", "d", "s", "v", "ve", "sd", "q", "f"])
def test_what_is_read_elsewhere_stays(inside):
    nodes, weights = spelt_out()
    graph = graph_of(nodes, weights, outputs=("y", inside))
    read = graph_of([*nodes, node("Abs", inside, "z", "other")], weights, outputs=("y", "z"))
    for one in (graph, read):
        named = name_layer_norms(one)
        assert named is one or inside == "f" and norms(named), "what is read behind the factors may be a result of it"


def test_factors_that_are_no_vector_of_weights_are_left():
    nodes, weights = spelt_out()
    graph = graph_of(nodes, {**weights, "g": np.float32(2)})
    assert name_layer_norms(graph) is graph
    other = [node("Sub", "p w2", "d", "centre") if one.name == "centre" else one for one in nodes]
    assert not norms(name_layer_norms(graph_of(other, {**weights, "w2": random(8)}))), "no mean is subtracted"


@pytest.mark.parametrize("pattern, named", [("*", True), ("residual", True), ("square", False), ("epsilon", False)])
def test_nodes_that_layer_precisions_names_stay(pattern, named):
    graph = graph_of(*spelt_out())
    assert bool(norms(name_layer_norms(graph, ((pattern, "fp32"),)))) is named
