"""rewrite/sequences.py: random programs of operators on lists of tensors give the same without them."""

import numpy as np
import onnx
import pytest
from models import model, node, random
from onnx import TensorProto

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes
from onnx2trt.model.session import Session
from onnx2trt.rewrite.sequences import MAKING, TAKING, fold_sequences

SHAPE = (2, 6, 5)
X = (Profile("x", SHAPE, SHAPE, SHAPE),)
FREE = (Profile("x", (1, 6, 5), SHAPE, (4, 6, 5)),)


def run(found, **feed):
    return Session.from_graph(Graph.from_model(found)).run(feed)


def on_lists(found):
    return [entry.op_type for entry in all_nodes(found.graph) if entry.op_type in (*MAKING, *TAKING)]


def same(source, folded, **feed):
    expected, found = run(source, **feed), run(folded, **feed)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


class Program:
    """Lists of tensors of one shape, by operators that are drawn."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights, self.lists = [], {}, []  # lists: (name, length)
        self.tensors = ["x"]
        self.opset = int(self.random.choice([11, 12, 13, 17]))

    def name(self) -> str:
        return f"t{len(self.nodes)}"

    def constant(self, value) -> str:
        name = f"k{len(self.weights)}"
        self.weights[name] = np.asarray(value, np.int64)
        return name

    def place(self, length: int, most: int) -> str:
        return self.constant(self.random.integers(-length, most + 1))

    def add(self, operator, inputs, **attributes) -> str:
        target = self.name()
        self.nodes.append(node(operator, " ".join(inputs), target, f"n{len(self.nodes)}", **attributes))
        return target

    def make(self) -> None:
        """One more list."""
        kind = self.random.choice(["empty", "construct", "split", "insert", "erase"] if self.lists else ["construct", "split"])
        if kind == "empty":
            self.lists.append((self.add("SequenceEmpty", [], dtype=TensorProto.FLOAT), 0))
        elif kind == "construct":
            count = int(self.random.integers(1, 4))
            self.lists.append((self.add("SequenceConstruct", [str(self.random.choice(self.tensors)) for _ in range(count)]), count))
        elif kind == "split":
            self.split()
        elif kind == "insert":
            held, length = self.lists[self.random.integers(len(self.lists))]
            more = [self.place(length, length)] if self.random.random() < 0.7 else []
            self.lists.append((self.add("SequenceInsert", [held, str(self.random.choice(self.tensors)), *more]), length + 1))
        elif kind == "erase":
            held, length = self.lists[self.random.integers(len(self.lists))]
            if length:
                more = [self.place(length, length - 1)] if self.random.random() < 0.7 else []
                self.lists.append((self.add("SequenceErase", [held, *more]), length - 1))

    def split(self) -> None:
        """x in parts; of one of them what is largest along the axis, added to x, so that all tensors are of one shape."""
        axis = int(self.random.choice([0, 1, 2, -1]))
        size = SHAPE[axis]
        kind = self.random.choice(["each", "even", "sizes"])
        more, keep = [], {}
        if kind == "each":
            count, keep = size, {"keepdims": int(self.random.integers(2))}
        elif kind == "even":
            part = int(self.random.integers(1, size + 1))
            more, count = [self.constant(part)], -(-size // part)
        else:
            first = int(self.random.integers(1, size))
            more, count = [self.constant([first, size - first])], 2
        held = self.add("SplitToSequence", ["x", *more], axis=axis, **keep)
        at = self.add("SequenceAt", [held, self.place(count, count - 1)])
        if kind == "each" and not keep["keepdims"]:
            at = self.add("Unsqueeze", [at, self.constant([axis])]) if self.opset >= 13 else self.add("Unsqueeze", [at], axes=[axis])
        largest = self.add("ReduceMax", [at], keepdims=1, axes=[axis])
        self.tensors.append(self.add("Add", ["x", largest]))

    def finish(self) -> onnx.ModelProto:
        self.lists.append((self.add("SequenceConstruct", self.tensors), len(self.tensors)))
        taken = []
        for held, length in self.lists:
            if length:
                at = self.add("SequenceAt", [held, self.place(length, length - 1)])
                joined = self.add(
                    "ConcatFromSequence", [held], axis=int(self.random.integers(-1, 3)), new_axis=int(self.random.integers(2))
                )
                taken += [at, joined]
            taken.append(self.add("SequenceLength", [held]))
        outputs = dict.fromkeys(taken)
        types = {name: (TensorProto.INT64 if self.made_by(name) == "SequenceLength" else TensorProto.FLOAT, None) for name in outputs}
        return model(self.nodes, {"x": list(SHAPE)}, types, self.weights, self.opset)

    def made_by(self, name: str) -> str:
        return next(entry.op_type for entry in self.nodes if entry.output[0] == name)


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_give_the_same_without_lists(seed):
    program = Program(seed)
    for _ in range(int(program.random.integers(2, 8))):
        program.make()
    source = program.finish()
    folded, gone = fold_sequences(source, X)
    assert gone and not on_lists(folded)
    same(source, folded, x=random(*SHAPE, seed=seed))


def even(axis: int, *, place, split=None, **how) -> onnx.ModelProto:
    """One part of x, along an axis."""
    nodes = [node("SplitToSequence", "x size" if split else "x", "s", "split", axis=axis, **how), node("SequenceAt", "s i", "y", "at")]
    weights = ({"size": np.int64(split)} if split else {}) | ({} if place is None else {"i": np.int64(place)})
    inputs = {"x": ["n", 6, 5]} | ({"i": (TensorProto.INT64, [])} if place is None else {})
    return model(nodes, inputs, {"y": None}, weights)


@pytest.mark.parametrize("split, keepdims", [(None, 0), (None, 1), (2, 1)])
def test_a_part_is_found_where_their_number_is_not_known(split, keepdims):
    source = even(0, place=1, split=split, keepdims=keepdims)
    folded, gone = fold_sequences(source, FREE)
    assert gone == ("split", "at") and not on_lists(folded)
    for batch in (3, 4):
        same(source, folded, x=random(batch, 6, 5))


@pytest.mark.parametrize(
    "source, profiles",
    [
        (even(0, place=-1), FREE),  # the last one of how many
        (even(1, place=None), X),  # an input says which
        (even(1, place=7), X),  # there is none: ONNX Runtime says so
    ],
)
def test_what_is_not_known_stays(source, profiles):
    assert fold_sequences(source, profiles) == (source, ())


def test_the_batch_tells_where_it_is_fixed():
    source = even(0, place=-1)
    folded, _ = fold_sequences(source, X)
    assert not on_lists(folded)
    same(source, folded, x=random(*SHAPE))


def test_a_list_that_is_read_in_both_ways_stays_for_one():
    nodes = [
        node("SplitToSequence", "x", "s", "split", axis=1),
        node("SequenceAt", "s one", "y", "known"),
        node("SequenceAt", "s i", "z", "asked"),
    ]
    inputs = {"x": list(SHAPE), "i": (TensorProto.INT64, [])}
    source = model(nodes, inputs, {"y": None, "z": None}, {"one": np.int64(1)})
    folded, gone = fold_sequences(source, X)
    assert gone == ("known",) and sorted(on_lists(folded)) == ["SequenceAt", "SplitToSequence"]
    same(source, folded, x=random(*SHAPE), i=np.array(3))


def test_a_model_without_lists_is_left_alone():
    source = model([node("Relu", "x", "y")], {"x": [1]}, {"y": [1]})
    assert fold_sequences(source, ())[0] is source
