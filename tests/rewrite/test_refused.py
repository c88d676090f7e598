"""rewrite/refused.py: which nodes of the FP32 graph are to blame for what the parser refuses, and what they give up."""

import pytest
from models import model, node, random, stepped

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.body_layers import body_layers
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.prepare import working_graph
from onnx2trt.rewrite.qdq import quantizable_layers
from onnx2trt.rewrite.refused import ALONE, Refused
from onnx2trt.rewrite.strong_typing import strongly_typed


@pytest.fixture
def graph():
    nodes = [
        node("Conv", "x w", "a", "first", pads=[1] * 4),
        node("Celu", "a", "b", "celu"),
        node("Conv", "b w", "c", "second", pads=[1] * 4),
        node("Celu", "c", "d", "other_celu"),
        node("Sigmoid", "d", "y", "last"),
    ]
    shape = ["n", 4, 8, 8]
    return working_graph(Graph.from_model(model(nodes, {"x": shape}, {"y": shape}, {"w": random(4, 4, 3, 3)})), True, True)


def form(graph, refused):
    layers = [layer for layer in quantizable_layers(graph) if layer.node not in {**refused.in_fp32, **refused.without_int8}]
    fit = Fit(dict.fromkeys(["x", "b"], 0.1), fp16_scales=True, without_int8=frozenset(refused.without_int8))
    return strongly_typed(fit.apply(graph, layers), refused.in_fp32, True)


def more(graph, refused, *names, int8=True, half="FP16"):
    return refused.more(graph, form(graph, refused), dict.fromkeys(names, "odd"), int8, half)


def test_a_node_that_reads_int8_loses_that_first_and_then_fp16(graph):
    once = more(graph, Refused(), "second")
    assert once.without_int8 == {"second": "TensorRT's parser refuses it in INT8: odd"} and not once.in_fp32
    twice = more(graph, once, "second")
    assert twice.without_int8 == once.without_int8 and twice.in_fp32 == {"second": "TensorRT's parser refuses it in FP16: odd"}
    assert more(graph, twice, "second") is None, "nothing is left to give up"


def test_a_node_in_fp16_stays_in_fp32(graph):
    assert more(graph, Refused(), "celu").in_fp32.keys() == {"celu"} and not more(graph, Refused(), "celu").without_int8


def test_without_half_precision_there_is_only_int8_to_lose(graph):
    assert more(graph, Refused(), "celu", half="") is None
    assert more(graph, Refused(), "second", half="").without_int8.keys() == {"second"}


def test_the_models_own_quantization_is_not_taken_from_it(graph):
    """Q/DQ that the model carries: the node stays in FP32 as any other."""
    found = more(graph, Refused(), "second", int8=False)
    assert found.in_fp32.keys() == {"second"} and not found.without_int8


def test_for_what_was_put_between_the_nodes_those_that_it_serves_are_to_blame(graph):
    made = form(graph, Refused())
    inserted = [one for one in made.nodes if one.name not in {own.name for own in graph.nodes}]
    assert {one.op_type for one in inserted} == {"QuantizeLinear", "DequantizeLinear", "Cast"}
    served = {}
    for one in inserted:
        found = more(graph, Refused(), one.name)
        served.setdefault(one.op_type, set()).update({**found.in_fp32, **found.without_int8})
    assert served["QuantizeLinear"] == served["DequantizeLinear"] == {"first", "second"}
    assert "last" in served["Cast"], "the Cast to the output serves nobody, and follows what makes it"


def test_nodes_that_are_in_neither_graph_are_nobodys(graph):
    assert more(graph, Refused(), "elsewhere") is None


def test_single_nodes_are_given_up_at_first_and_then_their_operator(graph):
    """A parser that names one node at a time would be asked as often as there are nodes."""
    for rounds, given_up in ((ALONE - 1, {"celu"}), (ALONE, {"celu", "other_celu"})):
        assert more(graph, Refused(rounds=rounds), "celu").in_fp32.keys() == given_up
    assert more(graph, Refused(rounds=ALONE), "first").without_int8.keys() == {"first", "second"}
    in_fp16 = Refused(without_int8={"second": "odd"}, rounds=ALONE)
    assert more(graph, in_fp16, "second").in_fp32.keys() == {"second"}, "the other one reads INT8, which nobody refused"


def test_a_reading_between_layers_is_given_up_as_well():
    """Not only layers read INT8: of a residual addition the operand that is not fused does."""
    nodes = [
        node("Conv", "x w", "a", "left", pads=[1] * 4),
        node("Conv", "x w", "b", "right", pads=[1] * 4),
        node("Add", "a b", "c", "sum"),
        node("Conv", "c w", "y", "behind", pads=[1] * 4),
    ]
    shape = ["n", 4, 8, 8]
    residual = working_graph(Graph.from_model(model(nodes, {"x": shape}, {"y": shape}, {"w": random(4, 4, 3, 3)})), True, True)
    layers = quantizable_layers(residual)

    def reads_int8(refused):
        fit = Fit(dict.fromkeys("xabc", 0.1), fp16_scales=True, without_int8=frozenset(refused.without_int8))
        made = strongly_typed(fit.apply(residual, layers), refused.in_fp32, True)
        dequantized = {one.output[0] for one in made.nodes if one.op_type == "DequantizeLinear"}
        return {one.name for one in made.nodes if dequantized.intersection(one.input)}, made

    names, made = reads_int8(Refused())
    assert names == {"left", "right", "sum", "behind"}
    refused = Refused().more(residual, made, {"sum": "odd"}, True, "FP16")
    assert refused.without_int8.keys() == {"sum"} and reads_int8(refused)[0] == {"left", "right", "behind"}


def test_bodies_lose_int8_first_and_then_their_16_bits():
    graph = Graph.from_model(stepped("Loop"))
    (layer,) = body_layers(graph)
    made = Fit({layer.activation: 0.1}, fp16_scales=True).apply(graph, (layer,))
    once = Refused().more(graph, made, {"loop": "odd"}, True, "FP16")
    assert once.without_int8 == {"loop": "TensorRT's parser refuses it in INT8: odd"} and not once.in_fp32
    twice = once.more(graph, graph, {"loop": "odd"}, True, "FP16")
    assert twice.in_fp32.keys() == {"loop"} and not set(layer.nodes).isdisjoint(once.without_int8)
