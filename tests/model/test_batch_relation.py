"""model/batch_relation.py: independent samples, statistics over a batch, and samples whose order counts."""

import numpy as np
import pytest
from models import model, node, random

from onnx2trt.model.batch_relation import Relation, carries, divided, relations
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session

SIZE = 6


def relation(nodes, weights=None, shape=(SIZE,), output=None) -> Relation:
    """Of the samples of a model x -> y with a free batch."""
    graph = Graph.from_model(model(nodes, {"x": ["N", *shape]}, {"y": output or [None] * (1 + len(shape))}, weights or {}))
    session, one, other = Session.from_graph(graph), random(1, *shape, seed=1), random(1, *shape, seed=2)

    def run(*samples):
        return session.run({"x": np.concatenate(samples)})

    return relations((run(one), run(other)), run(one, other), lambda: run(other, one))["y"]


def lstm(sequence_first: bool) -> list:
    """A recurrent layer over the first axis, or over the second one of each sample."""
    moved = [] if sequence_first else [node("Transpose", "x", "t", perm=[1, 0, 2])]
    back = (
        [node("Squeeze", "Y axis", "y")]
        if sequence_first
        else [node("Squeeze", "Y axis", "s"), node("Transpose", "s", "y", perm=[1, 0, 2])]
    )
    return [*moved, node("LSTM", f"{'x' if sequence_first else 't'} W R", "Y", hidden_size=SIZE), *back]


LSTM_WEIGHTS = {"W": random(1, 4 * SIZE, SIZE), "R": random(1, 4 * SIZE, SIZE, seed=1), "axis": np.array([1])}
MATRIX = {"w": random(SIZE, SIZE)}

CASES = {
    "a layer": (Relation.INDEPENDENT, [node("MatMul", "x w", "y")], MATRIX, (SIZE,)),
    "an axis joined": (
        Relation.INDEPENDENT,
        [node("Reshape", "x flat", "f"), node("MatMul", "f w", "y")],
        {**MATRIX, "flat": np.array([-1, SIZE])},
        (3, SIZE),
    ),
    "time before the batch": (
        Relation.INDEPENDENT,
        [node("Transpose", "x", "t", perm=[1, 0, 2]), node("Reshape", "t flat", "f"), node("MatMul", "f w", "y")],
        {**MATRIX, "flat": np.array([-1, SIZE])},
        (3, SIZE),
    ),
    "a recurrent layer": (Relation.INDEPENDENT, lstm(False), LSTM_WEIGHTS, (4, SIZE)),
    "statistics": (Relation.SYMMETRIC, [node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")], {}, (SIZE,)),
    "attention over the batch": (
        Relation.SYMMETRIC,
        [
            node("Transpose", "x", "t", perm=[1, 0]),
            node("MatMul", "x t", "s"),
            node("Softmax", "s", "p", axis=-1),
            node("MatMul", "p x", "y"),
        ],
        {},
        (SIZE,),
    ),
    "the mean of all views": (Relation.SYMMETRIC, [node("ReduceMean", "x", "y", axes=[0])], {}, (SIZE,)),
    "a sequence": (Relation.ORDERED, lstm(True), LSTM_WEIGHTS, (1, SIZE)),
    "a sum so far": (Relation.ORDERED, [node("CumSum", "x axis", "y")], {"axis": np.array(0)}, (SIZE,)),
    "the first alone": (Relation.ORDERED, [node("Slice", "x from to", "y")], {"from": np.array([0]), "to": np.array([1])}, (SIZE,)),
    "a batch of one in a reshape": (
        Relation.ORDERED,
        [node("Reshape", "x one", "r"), node("Transpose", "r", "y", perm=[0, 2, 1])],
        {"one": np.array([1, 4, -1])},
        (4, SIZE),
    ),
    "nothing told": (Relation.UNKNOWN, [node("Mul", "x zero", "y")], {"zero": np.float32(0)}, (SIZE,)),
}


@pytest.mark.parametrize("case", CASES)
def test_what_samples_do_to_each_other(case):
    expected, nodes, weights, shape = CASES[case]
    outputs = {"the mean of all views": [None], "an axis joined": [None] * 2, "time before the batch": [None] * 2}
    ranks = {"a sequence": [None] * 3, "a recurrent layer": [None] * 3}
    assert relation(nodes, weights, shape, outputs.get(case) or ranks.get(case)) == expected


@pytest.mark.parametrize("seed", range(8))
def test_rounding_of_another_kernel_is_no_influence(seed):
    one, other = random(1, 50, seed=seed), random(1, 50, seed=seed + 100)
    both = np.concatenate([one, other]) * (1 + 1e-6 * random(2, 50, seed=seed + 200))
    found = relations(({"y": one}, {"y": other}), {"y": both.astype(np.float32)}, lambda: pytest.fail("was not needed"))
    assert found == {"y": Relation.INDEPENDENT}


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_a_list_that_numbers_the_samples_is_one_of_independent_samples(dtype):
    """Non-maximum suppression: [sample, class, box] of each detection, in the order of the samples."""
    one, other = (np.array([[0, 3, box], [0, 1, box + 2]], dtype) for box in (5, 9))
    numbered = other + np.array([1, 0, 0], dtype)
    found = relations(({"y": one}, {"y": other}), {"y": np.concatenate([one, numbered])}, lambda: pytest.fail("was not needed"))
    assert found == {"y": Relation.INDEPENDENT}


def test_lists_of_different_lengths_tell_nothing():
    one, other = random(3, 7), random(5, 7, seed=1)
    found = relations(({"y": one}, {"y": other}), {"y": random(8, 7, seed=2)}, lambda: pytest.fail("was not needed"))
    assert found == {"y": Relation.UNKNOWN}


@pytest.mark.parametrize("axis, inner", [(0, 3), (0, 1), (1, 4), (1, 2), (2, 5)])
def test_both_samples_are_found_along_any_axis(axis, inner):
    shape = (3, 4, 5)
    one, other = random(*shape, seed=1), random(*shape, seed=2)
    places = np.arange(2 * shape[axis]) // inner % 2
    whole = np.empty([2 * size if at == axis else size for at, size in enumerate(shape)], np.float32)
    for number, part in enumerate((one, other)):
        np.moveaxis(whole, axis, 0)[places == number] = np.moveaxis(part, axis, 0)
    assert carries(one, other, whole) and not carries(one, other, whole[::-1].copy() if axis == 0 else random(*whole.shape, seed=3))
    assert any(np.array_equal(a, one) and np.array_equal(b, other) for a, b in divided(whole, shape))
