"""model/bodies.py: bodies of control flow as graphs by themselves, and back."""

import numpy as np
import onnx
import pytest
from models import model, node, random, stepped
from onnx import TensorProto, helper

from onnx2trt.model.bodies import body_graph, inner_graphs, is_plain, write_back
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import captured, subgraphs
from onnx2trt.model.session import Session

FLOAT = TensorProto.FLOAT


@pytest.mark.parametrize("kind", ["Loop", "Scan"])
def test_a_body_that_is_written_back_computes_the_same(kind):
    graph, changed = (Graph.from_model(stepped(kind)) for _ in range(2))
    feed = {"x": random(4, 2, 3), "start": random(2, 3, seed=1)}
    (control,) = [entry for entry in changed.nodes if is_plain(entry)]
    for body in subgraphs(control):
        outside = frozenset(captured(body))
        inner = body_graph(body, changed, changed.types())
        assert "w" in inner.weights and "b" in inner.weights, "the captured weight, and its own"
        write_back(inner, body, outside)
        assert [tensor.name for tensor in body.initializer] == ["b"], "what is captured stays outside"
    for name, expected in Session.from_graph(graph).run(feed).items():
        np.testing.assert_array_equal(Session.from_graph(changed).run(feed)[name], expected)


def test_types_of_what_is_captured_are_known():
    (inner,) = inner_graphs(Graph.from_model(stepped("Loop")))
    assert {inner.types()[name] for name in ("m", "a", "s", "h2", "half")} == {FLOAT} and inner.types()["go"] == TensorProto.BOOL


def test_every_node_in_a_body_has_a_name_of_its_own():
    source = stepped("Scan")
    for body in subgraphs(source.graph.node[0]):
        for entry in body.node:
            entry.name = "scan"
    names = [entry.name for inner in inner_graphs(Graph.from_model(source)) for entry in inner.nodes]
    assert len(set(names)) == len(names) and "scan" not in names


def branch(outputs, nodes):
    return helper.make_graph(nodes, "b", [], [onnx.ValueInfoProto(name=name) for name in outputs])


def test_what_is_not_looked_into():
    plain, returns_captured = branch(["r"], [node("Neg", "x", "r")]), branch(["x"], [node("Neg", "x", "r")])
    assert is_plain(node("If", "c", "y", then_branch=plain, else_branch=plain))
    assert not is_plain(node("If", "c", "y", then_branch=plain, else_branch=returns_captured))
    assert not is_plain(node("SequenceMap", "s", "y", body=plain)) and not is_plain(node("Neg", "x", "y"))


def test_a_graph_without_control_flow_has_none():
    assert list(inner_graphs(Graph.from_model(model([node("Neg", "x", "y")], {"x": [2]}, {"y": [2]})))) == []
