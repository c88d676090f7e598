"""model/shape_inputs.py: inputs whose values decide about shapes, and no others."""

import numpy as np
import pytest
from models import model, node
from onnx import TensorProto

from onnx2trt.base.model_info import TensorSpec
from onnx2trt.model.graph import Graph
from onnx2trt.model.shape_inputs import shape_inputs

INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def found(nodes, shape=(1,), dtype="int64", weights=None):
    source = model(nodes, {"x": [2, 4], "n": (INT, list(shape))}, {"y": None}, weights)
    return shape_inputs(Graph.from_model(source), (TensorSpec("x", (2, 4), "float32"), TensorSpec("n", shape, dtype)))


DIRECT = {
    "Reshape": [node("Reshape", "x n", "y")],
    "Expand": [node("Expand", "x n", "y")],
    "Slice": [node("Slice", "x zero n", "y")],
    "Tile": [node("Tile", "x n", "y")],
    "ConstantOfShape": [node("ConstantOfShape", "n", "y")],
    "TopK": [node("TopK", "x n", "y i")],
    "an axis that is cut": [node("Slice", "x zero one n", "y")],
    "an axis that is padded": [node("Pad", "x pads float n", "y")],
    "the size of a window": [node("HannWindow", "n", "y")],
    "a length that is no less than 0": [node("Relu", "n", "m"), node("Tile", "x m", "y")],
    "a scaled length": [node("Mul", "n two", "m"), node("Concat", "one m", "s", axis=0), node("Reshape", "x s", "y")],
    "cast and picked": [node("Cast", "n", "c", to=INT), node("Gather", "c zero0", "g"), node("Range", "zero0 g one0", "y")],
}
CONSTANTS = {name: np.array([value]) for name, value in (("zero", 0), ("one", 1), ("two", 2))}
CONSTANTS |= {"pads": np.array([1, 1]), "float": np.float32(0)}
CONSTANTS |= {"zero0": np.array(0), "one0": np.array(1)}


@pytest.mark.parametrize("nodes", DIRECT.values(), ids=DIRECT)
def test_values_that_decide_about_shapes(nodes):
    assert found(nodes, weights=CONSTANTS) == ("n",)


OTHERS = {
    "an index": [node("Gather", "x n", "y")],
    "a shape of it": [node("Shape", "n", "s"), node("Reshape", "x s", "y")],
    "a number that is computed with": [node("Cast", "n", "f", to=FLOAT), node("Mul", "x f", "y")],
    "the data that are cut": [node("Slice", "n zero one", "y")],
}


@pytest.mark.parametrize("nodes", OTHERS.values(), ids=OTHERS)
def test_values_that_do_not(nodes):
    assert found(nodes, weights=CONSTANTS) == ()


@pytest.mark.parametrize(("shape", "dtype"), [(("n",), "int64"), ((1, 2), "int64"), (None, "int64"), ((1,), "bool"), ((1,), "float32")])
def test_what_tensorrt_cannot_take_for_a_shape(shape, dtype):
    graph = Graph.from_model(model(DIRECT["Tile"], {"x": [2, 4], "n": (INT, None)}, {"y": None}))
    assert shape_inputs(graph, (TensorSpec("n", shape, dtype),)) == ()
    assert shape_inputs(graph, (TensorSpec("n", (), "int32"),)) == ("n",)
