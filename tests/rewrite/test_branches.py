"""rewrite/branches.py: a branch that is always taken stands in the place of its If node, and nothing else changes."""

import itertools

import numpy as np
import onnx
import pytest
from models import model, node, random
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes
from onnx2trt.model.session import Session
from onnx2trt.rewrite.branches import fold_branches

X = (Profile("x", (1, 3), (2, 3), (4, 3)),)
BOOL = TensorProto.BOOL


def branch(nodes, outputs, weights=None):
    values = [onnx.ValueInfoProto(name=name) for name in outputs]
    return helper.make_graph(nodes, "branch", [], values, [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()])


def choice(condition, then, otherwise, outputs="y", name="if"):
    return node("If", condition, outputs, name, then_branch=then, else_branch=otherwise)


def doubled_or_negated(condition="c", **how):
    then = branch([node("Mul", "x k", "r", "mul")], ["r"], {"k": np.float32(2)})
    return choice(condition, then, branch([node("Neg", "x", "r", "neg")], ["r"]), **how)


def operators(found):
    return [entry.op_type for entry in all_nodes(found.graph)]


def same(first, second, **feed):
    found = [list(Session.from_graph(Graph.from_model(one)).run(feed).values()) for one in (first, second)]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("value, left", [(True, "Mul"), (False, "Neg")])
def test_a_constant_condition(value, left):
    source = model([doubled_or_negated()], {"x": ["n", 3]}, {"y": ["n", 3]}, {"c": np.array(value)})
    folded, gone = fold_branches(source, X)
    assert operators(folded) == [left] and gone == ("if",)
    assert sorted(operators(source)) == ["If", "Mul", "Neg"], "the model itself is left as it is"
    same(source, folded, x=random(2, 3))


@pytest.mark.parametrize("value", [np.array([True]), np.array([[False]])])
def test_a_condition_of_one_element(value):
    assert fold_branches(model([doubled_or_negated()], {"x": ["n", 3]}, {"y": ["n", 3]}, {"c": value}), X)[1] == ("if",)


def test_a_condition_that_hangs_on_an_input_stays():
    source = model([doubled_or_negated()], {"x": ["n", 3], "c": (BOOL, [])}, {"y": ["n", 3]})
    assert fold_branches(source, X) == (source, ())


def test_a_model_without_branches_is_handed_on():
    source = model([node("Neg", "x", "y")], {"x": ["n", 3]}, {"y": ["n", 3]})
    assert fold_branches(source, X)[0] is source


def size_is(axis, size):
    return [
        node("Shape", "x", "s", "shape"),
        node("Gather", "s axis", "d", "gather", axis=0),
        node("Equal", "d size", "c", "equal"),
    ], {"axis": np.array(axis), "size": np.array(size)}


@pytest.mark.parametrize("axis, size, taken", [(1, 3, "Mul"), (1, 4, "Neg"), (-1, 3, "Mul"), (0, 2, None)])
def test_a_size_that_does_not_vary_within_the_profile(axis, size, taken):
    nodes, weights = size_is(axis, size)
    source = model([*nodes, doubled_or_negated()], {"x": ["n", "c"]}, {"y": ["n", "c"]}, weights)
    folded, gone = fold_branches(source, X)
    assert bool(gone) == bool(taken)
    if taken:
        assert operators(folded) == [taken]
        same(source, folded, x=random(4, 3))


def test_values_decide_about_shapes_behind_a_node_whose_result_has_any_size():
    nodes = [node("NonZero", "x", "z", "nz"), *size_is(1, 3)[0]]
    nodes[1].input[0] = "z"  # how many there are: nobody knows
    source = model([*nodes, doubled_or_negated()], {"x": ["n", 3]}, {"y": ["n", 3]}, size_is(1, 3)[1])
    assert fold_branches(source, X)[1] == ()


def test_branches_in_branches():
    inner = choice("c2", branch([node("Abs", "x", "a", "abs")], ["a"]), branch([node("Neg", "x", "a", "neg")], ["a"]), "i", "inner")
    outer = choice("c", branch([inner, node("Exp", "i", "e", "exp")], ["e"]), branch([node("Neg", "x", "e", "n")], ["e"]), name="outer")
    source = model([outer], {"x": ["n", 3]}, {"y": ["n", 3]}, {"c": np.array(True), "c2": np.array(False)})
    folded, gone = fold_branches(source, X)
    assert operators(folded) == ["Neg", "Exp"] and gone == ("outer", "inner")
    same(source, folded, x=random(2, 3))


def test_an_unknown_branch_around_a_known_one_keeps_its_results():
    inner = doubled_or_negated("c2", outputs="i", name="inner")
    outer = choice("c", branch([inner], ["i"]), branch([node("Neg", "x", "e", "n")], ["e"]))
    source = model([outer], {"x": ["n", 3], "c": (BOOL, [])}, {"y": ["n", 3]}, {"c2": np.array(True)})
    folded, _ = fold_branches(source, X)
    for value in (True, False):
        same(source, folded, x=random(2, 3), c=np.array(value))


def test_both_of_two_nodes_whose_branches_use_the_same_names():
    first, second = doubled_or_negated("c", outputs="m", name="a"), doubled_or_negated("c", outputs="y", name="b")
    for inside in second.attribute:
        inside.g.node[0].input[0] = "m"
    source = model([first, second], {"x": ["n", 3]}, {"y": ["n", 3]}, {"c": np.array(True)})
    folded, gone = fold_branches(source, X)
    assert gone == ("a", "b") and operators(folded) == ["Mul", "Mul"]
    assert len({entry.name for entry in folded.graph.node}) == 2
    same(source, folded, x=random(2, 3))


def test_results_that_are_captured_returned_twice_or_weights():
    then = branch([node("Neg", "x", "r", "neg")], ["r", "r", "x", "w"], {"w": random(2, 3)})
    otherwise = branch([node("Abs", "x", "r", "abs")], ["r", "x", "r", "r"])
    outputs = {name: ["n", 3] for name in ("a", "b", "c2", "d")}
    for value in (True, False):
        source = model([choice("c", then, otherwise, "a b c2 d")], {"x": ["n", 3]}, outputs, {"c": np.array(value)})
        folded, gone = fold_branches(source, X)
        assert gone and "If" not in operators(folded)
        x = random(2, 3)  # ONNX Runtime takes no model whose branch returns what it captures
        one = -x if value else np.abs(x)
        expected = (one, one, x, random(2, 3)) if value else (one, x, one, one)
        for array, found in zip(expected, Session.from_graph(Graph.from_model(folded)).run({"x": x}).values(), strict=True):
            np.testing.assert_array_equal(array, found)


def test_names_of_the_branch_that_are_those_of_its_own_results_the_other_way_round():
    """The branch calls `b` what the node calls `a`, and the other way round."""
    then = branch([node("Neg", "x", "b", "n"), node("Abs", "b", "a", "m"), node("Exp", "a", "e", "k")], ["b", "a", "e"])
    source = model([choice("c", then, then, "a b z")], {"x": ["n", 3]}, {n: ["n", 3] for n in ("a", "b", "z")}, {"c": np.array(True)})
    folded, gone = fold_branches(source, X)
    assert gone and "If" not in operators(folded)
    same(source, folded, x=random(2, 3))


def test_a_loop_in_a_branch_reads_what_was_renamed():
    body = helper.make_graph(
        [node("Add", "h r", "h2", "add"), node("Identity", "go", "go2", "id")],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("go", BOOL, []), ("h", 1, None))],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("go2", BOOL, []), ("h2", 1, None))],
    )
    then = branch([node("Neg", "x", "r", "neg"), node("Loop", "trips x", "l", "loop", body=body)], ["l"])
    then.node[1].input.insert(1, "")  # it goes on until the trips are done
    source = model(
        [doubled_or_negated(outputs="m", name="first"), choice("c", then, branch([node("Neg", "x", "l", "n")], ["l"]))]
        + [node("Add", "y m", "z", "sum")],
        {"x": ["n", 3]},
        {"z": ["n", 3]},
        {"c": np.array(True), "trips": np.array(3)},
    )
    folded, gone = fold_branches(source, X)
    assert gone == ("first", "if")
    same(source, folded, x=random(2, 3))


@pytest.mark.parametrize("values", list(itertools.product([True, False], repeat=3)))
def test_a_chain_of_random_branches_computes_the_same(values):
    generator = np.random.default_rng(sum(value << index for index, value in enumerate(values)))
    nodes, weights, last = [], {}, "x"
    for index, value in enumerate(values):
        made = [
            branch([node(str(op), last, "t", "op"), node("Identity", "t", "r")], ["r"]) for op in generator.choice(["Neg", "Abs", "Exp"], 2)
        ]
        nodes.append(choice(f"c{index}", *made, f"m{index}", f"if{index}"))
        weights[f"c{index}"], last = np.array(value), f"m{index}"
    source = model(nodes, {"x": ["n", 3]}, {last: ["n", 3]}, weights)
    folded, gone = fold_branches(source, X)
    assert len(gone) == 3 and "If" not in operators(folded)
    same(source, folded, x=random(2, 3))
