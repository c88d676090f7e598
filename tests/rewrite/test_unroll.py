"""rewrite/unroll.py: a loop that makes lists gives the same as its steps one after another."""

import numpy as np
import pytest
from models import model, node, random
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes
from onnx2trt.model.session import Session
from onnx2trt.rewrite import unroll as unrolling
from onnx2trt.rewrite.sequences import fold_sequences

SHAPE = (2, 4, 3)
X = (Profile("x", SHAPE, SHAPE, SHAPE),)
INT64, BOOL, FLOAT = TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT


def value(name, elem_type, shape):
    return helper.make_tensor_value_info(name, elem_type, shape)


def a_list(name):
    return helper.make_tensor_sequence_value_info(name, FLOAT, None)


def listing(count=4, condition="", goes_on="condition", number=(), inner=(), scanned=True, **constants):
    """Each row of x, once more doubled at every step, is put in a list, which is stacked; the sums so far are scanned."""
    row = (
        [node("Gather", "x i", "row", "take", axis=1)]
        if number == ()
        else [node("Gather", "x i", "thin", "take", axis=1), node("Squeeze", "thin one", "row", "thinner")]
    )
    nodes = [
        *row,
        *inner,
        node("Add", "total row", "sum", "add"),
        node("Add", "sum sum", "more", "double"),
        node("SequenceInsert", "held row", "longer", "insert"),
        node("Identity", goes_on, "on", "again"),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [value("i", INT64, number), value("condition", BOOL, []), a_list("held"), value("total", FLOAT, None)],
        [value("on", BOOL, []), a_list("longer"), value("more", FLOAT, None), *([value("sum", FLOAT, None)] if scanned else [])],
        [numpy_helper.from_array(np.array([1]), "one")],
    )
    outputs = ["all", "last", *(["sums"] if scanned else [])]
    outer = [
        node("SequenceEmpty", "", "empty", "start", dtype=FLOAT),
        helper.make_node("Loop", ["count", condition, "empty", "zero"], outputs, name="loop", body=body),
        node("ConcatFromSequence", "all", "y", "stack", axis=1, new_axis=1),
        node("Add", "last last", "z", "end"),
    ]
    weights = {"zero": np.zeros((2, 3), np.float32), "true": np.array(True), **constants}
    inputs = {"x": list(SHAPE)}
    if count is None:
        inputs["count"] = (INT64, [])
    else:
        weights["count"] = np.int64(count)
    return model(outer, inputs, dict.fromkeys(["y", "z", *(["sums"] if scanned else [])]), weights)


def same(source, folded, **feed):
    expected, found = (Session.from_graph(Graph.from_model(one)).run({"x": random(*SHAPE), **feed}) for one in (source, folded))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def has_loop(found):
    return any(entry.op_type == "Loop" for entry in all_nodes(found.graph))


@pytest.mark.parametrize("how", [{}, {"condition": "true"}, {"goes_on": "true"}, {"number": (1,)}, {"count": 1}, {"scanned": False}])
def test_the_steps_stand_in_the_place_of_the_loop(how):
    source = listing(**how)
    folded, gone = fold_sequences(source, X)
    assert not has_loop(folded) and {"loop", "stack"} <= set(gone)
    same(source, folded)


@pytest.mark.parametrize("how", [{"count": None}, {"count": 4, "goes_on": "stops", "stops": np.array(False)}])
def test_a_loop_of_an_unknown_number_of_steps_stays(how):
    source = listing(**how)
    assert fold_sequences(source, X) == (source, ())


def test_a_loop_that_a_step_may_end_stays():
    source = listing(inner=(node("Less", "i limit", "lower", "less"),), goes_on="lower", limit=np.int64(2))
    assert fold_sequences(source, X) == (source, ())


def test_a_loop_inside_of_a_step_reads_what_the_step_has():
    twice = helper.make_graph(
        [node("Add", "h row", "h2", "inner_add"), node("Identity", "c", "c2", "inner_on")],
        "twice",
        [value("k", INT64, []), value("c", BOOL, []), value("h", FLOAT, None)],
        [value("c2", BOOL, []), value("h2", FLOAT, None)],
    )
    inner = [helper.make_node("Loop", ["two", "", "row"], ["tripled"], name="inner", body=twice), node("Add", "tripled row", "unused", "u")]
    source = listing(inner=(*inner, node("Add", "unused total", "kept", "k")), two=np.int64(2))
    source.graph.node[1].attribute[0].g.node[-4].input[0] = "kept"  # the sum so far
    folded, gone = fold_sequences(source, X)
    assert "loop" in gone and has_loop(folded), "loops without lists are TensorRT's own"
    same(source, folded)


def test_a_number_without_a_rank_has_one():
    """As PyTorch writes tensor_split; ONNX Runtime refuses it."""
    source, ranked = listing(number=None), listing(number=(1,))
    folded, gone = fold_sequences(source, X)
    assert "loop" in gone
    same(ranked, folded)


def test_too_many_steps_are_not_written_out(monkeypatch):
    source = listing()
    monkeypatch.setattr(unrolling, "MOST_NODES", 20)
    assert fold_sequences(source, X) == (source, ())
