"""rewrite/bind.py: inputs become weights."""

import numpy as np
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.bind import bind


def test_an_input_becomes_a_weight_and_the_model_stays_as_it_was():
    source = model([node("Mul", "x s", "y")], {"x": [2, 3], "s": []}, {"y": [2, 3]})
    bound = bind(source, {"s": np.array(3, np.float32)})
    assert [value.name for value in bound.graph.input] == ["x"] and len(source.graph.input) == 2
    x = random(2, 3)
    np.testing.assert_array_equal(Session.from_graph(Graph.from_model(bound)).run({"x": x})["y"], 3 * x)


def test_an_output_that_is_the_input():
    source = model([node("Mul", "x s", "y")], {"x": [2], "s": [2]}, {"y": [2], "s": [2]})
    found = Session.from_graph(Graph.from_model(bind(source, {"s": np.array([1, 2], np.float32)}))).run({"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(found["s"], [1, 2])
    np.testing.assert_array_equal(found["y"], [1, 2])


def test_nothing_bound():
    source = model([node("Neg", "x", "y")], {"x": [2]}, {"y": [2]})
    assert bind(source, {}) is source
