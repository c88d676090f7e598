"""rewrite/as_built.py: a model that rounds what an engine rounds."""

import numpy as np
import pytest
from models import conv_net, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.as_built import InInt8, as_built
from onnx2trt.rewrite.qdq import int8_layers

SCALES = {"x": 0.02, "c1": 0.03, "r1": 0.03, "c2": 0.05, "r2": 0.05, "y": 0.1}
X = random(2, 3, 16, 16, seed=3)


def graph():
    return Graph.from_model(conv_net("N"))


def values(found: InInt8, names=("y",), scales=SCALES):
    made = as_built(graph(), scales, found)
    return made, Session.from_graph(made).run({"x": X})


def rounded(array, scale):
    return np.clip(np.rint(array / np.float32(scale)), -128, 127) * np.float32(scale)


def test_without_int8_it_is_the_model():
    before = Session.from_graph(graph()).run({"x": X})["y"]
    made, found = values(InInt8((), (), {}))
    assert not int8_layers(made) and np.array_equal(found["y"], before)


def test_layers_that_read_int8_have_int8_weights_and_no_others():
    made, _ = values(InInt8({"stem", "head", "stem_relu"}, (), {}))
    assert int8_layers(made) == {"stem", "head"}
    made, _ = values(InInt8({"stem", "head"}, (), {}), scales={"x": 0.02})
    assert int8_layers(made) == {"stem"}, "what has no scale is not INT8"


def test_an_output_that_is_held_in_int8_is_given_out_rounded():
    before = Session.from_graph(graph()).run({"x": X})["y"]
    made, found = values(InInt8((), {"y"}, {}))
    assert made.output_names == ["y"] and np.allclose(found["y"], rounded(before, SCALES["y"]), atol=1e-6)


@pytest.mark.parametrize("held", [InInt8((), {"r1"}, {}), InInt8((), (), {"r1": {"depthwise"}})], ids=["written", "read"])
def test_a_tensor_between_the_layers_is_rounded_for_those_that_read_it_so(held):
    whole = graph()
    first = Session.from_graph(whole, ["r1"]).run({"x": X})["r1"]
    made, found = values(held)
    reader = next(node for node in made.nodes if node.name == "depthwise")
    assert reader.input[0].startswith("r1__dequantized")
    apart = Session.from_graph(made, [reader.input[0]]).run({"x": X})[reader.input[0]]
    assert np.allclose(apart, rounded(first, SCALES["r1"]), atol=1e-6) and not np.array_equal(apart, first)
    other = as_built(graph(), SCALES, InInt8((), (), {"r1": {"head"}}))
    assert next(node for node in other.nodes if node.name == "depthwise").input[0] == "r1", "head does not read it"
