"""model/fixed_shapes.py: shapes that are the same whatever the inputs hold, and no others."""

import numpy as np
import onnx
import pytest
from models import model, node, random
from onnx import TensorProto, helper

from onnx2trt.base.model_info import Profile
from onnx2trt.model.fixed_shapes import fixed_shapes, hang_on_values
from onnx2trt.model.graph import Graph

FIXED = (Profile("x", *((2, 4),) * 3), Profile("n", *((1,),) * 3), Profile("c", *((),) * 3))
WEIGHTS = {"one": np.array([1]), "two": np.array([2]), "zero": np.array([0]), "f": np.ones(1, np.float32)}


def graph_of(nodes):
    inputs = {"x": ["a", "b"], "n": (TensorProto.INT64, ["k"]), "c": (TensorProto.BOOL, [])}
    return Graph.from_model(model(nodes, inputs, {"y": None}, WEIGHTS))


def branch(nodes, name):
    return helper.make_graph(nodes, "b", [], [onnx.ValueInfoProto(name=name)])


def choice(condition):
    then, other = branch([node("Unsqueeze", "x zero", "t")], "t"), branch([node("Identity", "x", "e")], "e")
    return node("If", condition, "y", "if", then_branch=then, else_branch=other)


KNOWN = {
    "what is computed from sizes": ([node("Shape", "x", "s"), node("Mul", "s two", "d"), node("Expand", "f d", "y")], (4, 8)),
    "a branch by a size": ([node("Size", "x", "s"), node("Greater", "s one", "g"), node("Squeeze", "g zero", "q"), choice("q")], (1, 2, 4)),
}
UNKNOWN = {
    "how many are not zero": [node("NonZero", "x", "y")],
    "behind it": [node("NonZero", "x", "z"), node("Shape", "z", "s"), node("Expand", "one s", "y")],
    "a length that is given": [node("Expand", "x n", "y")],
    "a length that is computed from what is given": [node("Add", "n one", "m"), node("Tile", "one m", "y")],
    "a branch by a value": [choice("c")],
}


@pytest.mark.parametrize(("nodes", "shape"), KNOWN.values(), ids=KNOWN)
def test_shapes_that_are_known(nodes, shape):
    graph = graph_of(nodes)
    assert "y" not in hang_on_values(graph)
    inputs = {name for entry in graph.nodes for name in entry.input} | {"x"}
    graph.proto.graph.input.remove(next(value for value in graph.proto.graph.input if value.name == "n"))
    graph.proto.graph.input.remove(next(value for value in graph.proto.graph.input if value.name == "c"))
    assert inputs.isdisjoint({"n", "c"})
    assert fixed_shapes(graph, FIXED[:1], ("y",)) == {"y": shape}
    assert fixed_shapes(graph, (Profile("x", (1, 4), (2, 4), (2, 4)),), ("y",)) == {}, "the profile allows others"


@pytest.mark.parametrize("nodes", UNKNOWN.values(), ids=UNKNOWN)
def test_shapes_that_hang_on_values(nodes):
    graph = graph_of(nodes)
    assert "y" in hang_on_values(graph) and fixed_shapes(graph, FIXED, ("y",)) == {}


def test_a_model_that_does_not_run_tells_nothing():
    graph = Graph.from_model(model([node("MatMul", "x w", "y")], {"x": ["a", "b"]}, {"y": None}, {"w": random(3, 3)}))
    assert fixed_shapes(graph, FIXED[:1], ("y",)) == {}
