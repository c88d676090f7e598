"""conversion/counted_model.py: what a branch that is always taken makes is counted, too."""

import numpy as np
import onnx
import pytest
from helpers import quiet_run, refused
from models import model, node
from onnx import helper

from onnx2trt.base.errors import ExitCode
from onnx2trt.conversion.counted_model import count_and_fold


def branching(count: int, condition: bool) -> onnx.ModelProto:
    """An If whose first branch makes so many values of one."""
    grown = helper.make_graph([node("Expand", "one size", "a", "blows")], "then", [], [helper.make_tensor_value_info("a", 1, None)])
    other = helper.make_graph([node("Identity", "one", "b", "calm")], "else", [], [helper.make_tensor_value_info("b", 1, None)])
    nodes = [
        helper.make_node("If", ["condition"], ["t"], "branch", then_branch=grown, else_branch=other),
        node("ReduceMax", "t", "r", keepdims=0),
        node("Add", "x r", "y"),
    ]
    weights = {"one": np.ones(1, np.float32), "size": np.array([count]), "condition": np.array(condition)}
    return model(nodes, {"x": [1, 4]}, {"y": [1, 4]}, weights)


def test_a_bomb_in_a_branch_that_is_always_taken_is_refused():
    with refused(ExitCode.MODEL, "node 'blows' (Expand)", "out of constants alone"):
        count_and_fold(branching(2**40, True), (), "m.onnx", quiet_run())


@pytest.mark.parametrize("count, condition, said", [(2**27, True, True), (2**27, False, False), (2**10, True, False)])
def test_what_grows_there_is_said_once(count, condition, said):
    run = quiet_run()
    folded, gone, lists = count_and_fold(branching(count, condition), (), "m.onnx", run)
    assert gone == ("branch",) and lists == () and not any(inner.op_type == "If" for inner in folded.graph.node)
    assert [text for text in run.console.warnings if "out of small constants" in text] == run.console.warnings[:1] * said


def test_what_a_list_holds_is_counted_too():
    """A branch whose condition is the length of a list is known behind it."""
    source = branching(2**40, True)
    source.graph.initializer.remove(next(entry for entry in source.graph.initializer if entry.name == "condition"))
    made = [node("SequenceConstruct", "x x", "l", "list"), node("SequenceLength", "l", "n", "length"), node("Cast", "n", "condition", to=9)]
    source.graph.node.extend(made)
    with refused(ExitCode.MODEL, "node 'blows' (Expand)", "out of constants alone"):
        count_and_fold(source, (), "m.onnx", quiet_run())
