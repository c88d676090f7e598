"""quant/fp16_segments.py: what can fall back to FP32, and what FP16 costs there."""

import math

import numpy as np
import onnx
import pytest
from models import conv_net, model, node, offset_net, profiles, random

from onnx2trt.compare.change import Change
from onnx2trt.model.graph import Graph
from onnx2trt.quant.fp16_segments import MOST_SEGMENTS, bound_to_half, lowered, segment_errors, segments, unconvertible, working


@pytest.mark.parametrize("count", [0, 1, 2, MOST_SEGMENTS, MOST_SEGMENTS + 1, 1000, 4321])
def test_segments_hold_every_node_once_in_order(count):
    nodes = [str(index) for index in range(count)]
    parts = segments(nodes)
    assert [name for part in parts for name in part] == nodes
    assert len(parts) == min(count, MOST_SEGMENTS)
    assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1


def shape_net() -> Graph:
    """A shape computed beside the image, an operator without an FP16 form, a reshape."""
    nodes = [
        node("Shape", "x", "s", "shape"),
        node("Gather", "s one", "n", "pick"),
        node("Unsqueeze", "n zero", "u", "list"),
        node("Concat", "minus u", "target", "target", axis=0),
        node("Relu", "x", "r", "relu"),
        node("Custom", "r", "c", "custom"),
        node("Reshape", "c target", "y", "reshape"),
    ]
    nodes[5].domain = "my.domain"
    weights = {"one": np.array(1), "zero": np.array([0]), "minus": np.array([-1])}
    source = model(nodes, {"x": ["N", 4]}, {"y": ["M", 4]}, weights)
    source.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    return Graph.from_model(source)


def test_only_what_fp16_changes_can_fall_back():
    graph = shape_net()
    assert set(unconvertible(graph)) == {"custom"}
    assert lowered(graph, {"custom"}) == ("shape", "relu", "reshape"), "in order; no whole numbers"
    assert lowered(graph, {"custom", "relu"}) == ("shape", "reshape")
    assert "relu" in working(graph) and not {"shape", "pick", "target", "reshape"} & working(graph)


def test_the_last_override_counts():
    graph = Graph.from_model(conv_net())
    assert bound_to_half(graph, ()) == set()
    assert bound_to_half(graph, (("*", "fp16"), ("stem*", "fp32"), ("stem_relu", "fp16"))) == {
        "stem_relu",
        "depthwise",
        "depthwise_relu",
        "head",
    }


def feeds(*shape):
    return [{"x": np.abs(random(*shape, seed=seed))} for seed in range(2)]


def test_the_nodes_that_lose_bits_stand_out():
    graph = Graph.from_model(offset_net())
    errors = dict(segment_errors(graph, profiles(x=(1, 3, 16, 16)), [(n.name,) for n in graph.nodes], feeds(1, 3, 16, 16), Change))
    bad = min(errors.pop(("away",)), errors.pop(("back",)))
    assert bad > 0.05 and max(errors.values()) < 0.01 and min(errors.values()) > 0


def test_a_segment_is_measured_as_one():
    graph = Graph.from_model(offset_net())
    parts = [("stem", "stem_relu", "away"), ("back", "body"), ("body_relu", "head")]
    errors = dict(segment_errors(graph, profiles(x=(1, 3, 16, 16)), parts, feeds(1, 3, 16, 16), Change))
    assert list(errors) == parts and errors[parts[2]] < 0.01 < 0.05 < min(errors[parts[0]], errors[parts[1]])


def test_what_overflows_in_fp16_costs_without_bound():
    nodes = [node("Mul", "x big", "b", "up"), node("Mul", "b small", "y", "down")]
    graph = Graph.from_model(model(nodes, {"x": [1, 8]}, {"y": [1, 8]}, {"big": np.float32(1e5), "small": np.float32(1e-5)}))
    assert dict(segment_errors(graph, profiles(x=(1, 8)), [("up",)], [{"x": np.full((1, 8), 2, np.float32)}], Change)) == {
        ("up",): math.inf
    }


def test_outputs_of_another_shape_cost_without_bound():
    """What is found depends on the values: 1.0001 is 1 in FP16, and no longer above it."""
    nodes = [node("Mul", "x one", "m", "scale"), node("Greater", "m one", "g", "above"), node("Compress", "x g", "y", "found", axis=0)]
    graph = Graph.from_model(model(nodes, {"x": [3]}, {"y": ["found"]}, {"one": np.float32(1)}))
    found = dict(segment_errors(graph, profiles(x=(3,)), [("scale",)], [{"x": np.float32([0.5, 1.0001, 2])}], Change))
    assert found == {("scale",): math.inf}
