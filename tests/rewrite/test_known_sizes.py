"""rewrite/known_sizes.py: what hangs on constants and fixed sizes alone is known, and nothing else."""

import numpy as np
import pytest
from models import model, node
from onnx import TensorProto

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.known_sizes import known_values

PROFILES = (Profile("x", (1, 3, 8), (2, 3, 8), (4, 3, 8)),)


def known(nodes, weights=None, opset=17):
    source = model(nodes, {"x": ["n", 3, "m"]}, {"y": (TensorProto.INT64, None)}, weights, opset)
    graph = Graph.from_model(source)
    found = known_values(graph, ["y"], PROFILES)
    if found:  # it is what the graph computes, at every shape of the profile
        for batch in (1, 2, 4):
            np.testing.assert_array_equal(found["y"], Session.from_graph(graph).run({"x": np.ones((batch, 3, 8), np.float32)})["y"])
    return found.get("y")


SHAPE = node("Shape", "x", "s")
STARTS = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "three": np.array([3]), "two0": np.array(2)}


@pytest.mark.parametrize(
    "nodes, expected",
    [
        ([SHAPE, node("Gather", "s two0", "y")], 8),
        ([SHAPE, node("Slice", "s one three", "y")], [3, 8]),
        ([SHAPE, node("Slice", "s zero two", "y")], None),
        ([SHAPE, node("Slice", "s one two", "a"), node("Squeeze", "a zero", "y")], 3),
        ([SHAPE, node("Gather", "s two", "a"), node("Concat", "a three", "y", axis=0)], [8, 3]),
        ([SHAPE, node("Gather", "s two0", "a"), node("Unsqueeze", "a zero", "b"), node("Mul", "b three", "y")], [24]),
        ([node("Size", "x", "y")], None),
        ([node("Transpose", "x", "t", perm=[1, 2, 0]), node("Shape", "t", "y", start=0, end=2)], [3, 8]),
        ([SHAPE, node("Shape", "s", "y")], [3]),
        ([node("ReduceSum", "x", "a", keepdims=0), node("Cast", "a", "y", to=7)], None),
    ],
)
def test_sizes(nodes, expected):
    found = known(nodes, STARTS)
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)


def test_of_constants_alone():
    assert known([node("Add", "one two", "y")], STARTS) == [3]


def test_a_slice_of_an_old_opset():
    assert known([SHAPE, node("Slice", "s", "y", starts=[2], ends=[3])], opset=9) == [8]
