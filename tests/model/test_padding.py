"""model/padding.py: what belongs to samples in the tensors of an inference whose batch was filled up."""

import numpy as np
import pytest
from models import model, node, random

from onnx2trt.base.padded import Padded
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe
from onnx2trt.model.padding import of_samples, rows_of_samples
from onnx2trt.model.session import Session

BATCH, CHANNELS, SIDE = 4, 3, 5


def padded(real: int, seed: int = 0) -> Padded:
    values = random(real, CHANNELS, SIDE, SIDE, seed=seed)
    return Padded({"x": np.concatenate([values, np.repeat(values[-1:], BATCH - real, 0)])}, BATCH, real)


def net(axes, shape) -> Graph:
    """ReLU of the input with its axes in another order and joined."""
    nodes = [node("Transpose", "x", "t", perm=list(axes)), node("Reshape", "t shape", "r"), node("Relu", "r", "y")]
    size = [BATCH, CHANNELS, SIDE, SIDE]
    return Graph.from_model(model(nodes, {"x": size}, {"y": [None] * len(shape)}, {"shape": np.array(shape)}))


@pytest.mark.parametrize("real", [1, 2, 3])
@pytest.mark.parametrize(
    "axes, shape",
    [
        ((0, 1, 2, 3), (BATCH, CHANNELS, SIDE, SIDE)),
        ((0, 1, 2, 3), (BATCH * CHANNELS, SIDE, SIDE)),
        ((0, 1, 2, 3), (1, -1)),
        ((2, 0, 1, 3), (SIDE, BATCH, -1)),  # as recurrent layers want it
        ((2, 0, 1, 3), (SIDE * BATCH, -1)),
        ((2, 3, 1, 0), (SIDE * SIDE, CHANNELS * BATCH)),
        ((1, 2, 3, 0), (CHANNELS, -1, BATCH)),
    ],
    ids=str,
)
def test_the_rows_that_fill_a_batch_are_found_wherever_the_batch_goes(axes, shape, real):
    graph, feed, seen = net(axes, shape), padded(real), {}
    observe(graph, (), ["x", "t", "y"], lambda: [feed], lambda name, values: seen.update({name: values.copy()}))
    expected = np.sort(feed["x"][:real], axis=None)
    assert np.array_equal(seen["x"], feed["x"][:real])
    assert np.array_equal(np.sort(seen["t"], axis=None), expected)
    assert np.array_equal(np.sort(seen["y"], axis=None), np.maximum(expected, 0))


def test_a_tensor_without_rows_is_taken_whole():
    feed, values = padded(2), random(8, 3)
    assert of_samples(feed, values, values.copy()) is values


def test_rows_that_depend_on_each_other_are_taken_whole():
    feed, values = padded(2), random(4, 3)
    assert of_samples(feed, values, values + 1) is values


def test_outputs_lose_the_rows_that_fill_the_batch():
    feed = padded(3)
    found = {"y": random(4, 2), "table": random(5, 2), "scalar": np.float32(1)}
    cut = rows_of_samples(feed, found)
    assert [np.shape(cut[name]) for name in found] == [(3, 2), (5, 2), ()]
    assert rows_of_samples(dict(feed), found) is found
    graph = net((0, 1, 2, 3), (BATCH, -1))
    assert [len(one["y"]) for one in Session.from_graph(graph).run_each([feed, dict(feed)])] == [3, 4]


@pytest.mark.parametrize("last", [0.0, 2.0])
def test_the_other_values_differ_and_are_valid_indices(last):
    feed = Padded({"ids": np.array([[5], [int(last)], [int(last)]])}, 3, 1)
    other = feed.filled_otherwise()["ids"]
    assert other[0] == 5 and not (other[1:] == feed["ids"][1:]).any() and set(other[1:].flat) <= {0, 1}


def test_samples_of_the_batch_itself_can_fill_it():
    feed = Padded({"x": np.array([[1, 2], [3, 4], [9, 9], [9, 9], [9, 9]]), "y": np.float32([5, 6, 0, 0, 0])}, 5, 2)
    filled = feed.filled_by_samples()
    assert filled["x"].tolist() == [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2]] and filled["y"].tolist() == [5, 6, 5, 6, 5]
    assert not isinstance(filled, Padded) and filled["y"].dtype == np.float32
