"""rewrite/in_place.py: what an export writes as ScatterND, for an assignment to a part of a tensor."""

import numpy as np
import onnx
import pytest
from helpers import planned
from models import model, node, profiles, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.pipeline.prepare import choose
from onnx2trt.rewrite.in_place import assigned_by_slices

PARTS = {"Slice", "Concat", "Reshape"}


def run(graph, **feed):
    return Session.from_graph(graph).run(feed)["y"]


def scatter(shape, indices, updates, constant=False, data_type=np.float32, **attributes) -> Graph:
    """y = the input x with the updates (another input, or a constant) at these places."""
    inputs, weights = {"x": list(shape)}, {"places": np.asarray(indices, np.int64)}
    if constant:
        weights["u"] = updates
    else:
        inputs["u"] = list(updates.shape)
    net = model([node("ScatterND", "x places u", "y", "assign", **attributes)], inputs, {"y": list(shape)}, weights, opset=18)
    for value in (*net.graph.input, *net.graph.output):
        value.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(data_type))
    return Graph.from_model(net)


def kinds(graph) -> set[str]:
    return {n.op_type for n in graph.nodes}


def block(generator: np.random.Generator, shape):
    """(indices of a random block along the first axes, as exports give them; shape of the updates)"""
    count = int(generator.integers(1, len(shape) + 1))
    starts = [int(generator.integers(0, size)) for size in shape[:count]]
    extents = [int(generator.integers(1, size - start + 1)) for size, start in zip(shape, starts)]
    starts, extents = zip(*((0, size) if generator.random() < 0.4 else pair for size, pair in zip(shape, zip(starts, extents))))
    places = np.stack(np.meshgrid(*(np.arange(a, a + n) for a, n in zip(starts, extents)), indexing="ij"), -1)
    if generator.random() < 0.3:  # from the end
        places -= np.array([size if generator.random() < 0.5 else 0 for size in shape[:count]])
    dropped = tuple(axis for axis in range(count) if extents[axis] == 1 and generator.random() < 0.5)  # y[:, 0]
    places = places.squeeze(dropped)
    return places, (*places.shape[:-1], *shape[count:])


@pytest.mark.parametrize("seed", range(60))
def test_a_block_is_put_together_of_slices_bit_for_bit(seed):
    generator = np.random.default_rng(seed)
    shape = tuple(int(size) for size in generator.integers(1, 6, generator.integers(1, 5)))
    places, updated = block(generator, shape)
    x, u = random(*shape, seed=seed), np.asarray(random(*updated, seed=seed + 1000))
    constant = bool(seed % 2)
    graph = scatter(shape, places, u, constant)
    given = {} if constant else {"u": u}
    made = assigned_by_slices(graph, profiles(x=shape, **{name: array.shape for name, array in given.items()}))
    assert kinds(made) <= PARTS and made.output_names == ["y"] and made.nodes[-1].name == "assign"
    assert np.array_equal(run(made, x=x, **given), run(graph, x=x, **given))


@pytest.mark.parametrize(
    "indices, updates, more",
    [
        ([[0], [2]], (2, 4), {}),  # every other row
        ([[1], [0]], (2, 4), {}),  # the other way round
        ([[1], [1]], (2, 4), {}),  # a place that is given twice: the last one counts
        ([[[0, 0], [1, 0]], [[0, 1], [1, 1]]], (2, 2), {}),  # columns first
        ([[0], [1]], (2, 4), {"reduction": "add"}),
        (np.zeros((0, 1), np.int64), (0, 4), {}),
    ],
)
def test_what_is_no_block_stays(indices, updates, more):
    graph = scatter((5, 4), indices, random(*updates), **more)
    assert assigned_by_slices(graph, profiles(x=(5, 4), u=updates)) is graph


def test_sizes_that_are_not_fixed_stay():
    nodes = [node("ScatterND", "x places u", "y", "assign")]
    varying = Graph.from_model(model(nodes, {"x": ["n", 4], "u": [2, 4]}, {"y": ["n", 4]}, {"places": np.int64([[0], [1]])}))
    fixed = assigned_by_slices(varying, profiles(x=(5, 4), u=(2, 4)))
    assert kinds(fixed) == {"Concat", "Slice"}, "the profile has one size for n"
    assert assigned_by_slices(varying, ()) is varying


def test_later_axes_may_have_any_size():
    nodes = [node("ScatterND", "x places u", "y", "assign")]
    graph = Graph.from_model(model(nodes, {"x": [3, "n"], "u": ["n"]}, {"y": [3, "n"]}, {"places": np.int64([1])}))
    made = assigned_by_slices(graph, ())
    assert kinds(made) == PARTS
    for n in (1, 7):
        x, u = random(3, n), random(n, seed=1)
        assert np.array_equal(run(made, x=x, u=u), run(graph, x=x, u=u))


def test_integers_and_nodes_that_are_named_stay():
    places, u = np.int64([[0], [1]]), random(2, 4)
    whole = scatter((5, 4), places, u.astype(np.int64), data_type=np.int64)
    assert assigned_by_slices(whole, profiles(x=(5, 4), u=(2, 4))) is whole
    graph = scatter((5, 4), places, u)
    assert assigned_by_slices(graph, profiles(x=(5, 4), u=(2, 4)), (("assi*", "fp32"),)) is graph
    assert kinds(assigned_by_slices(graph, profiles(x=(5, 4), u=(2, 4)), (("other", "fp32"),))) == {"Slice", "Concat"}


def test_places_that_are_computed_of_constants_are_known():
    nodes = [
        node("Range", "zero two one", "r", "range"),
        node("Unsqueeze", "r axis", "places", "column"),
        node("ScatterND", "x places u", "y", "assign"),
    ]
    weights = {"zero": np.int64(0), "two": np.int64(2), "one": np.int64(1), "axis": np.int64([1])}
    graph = Graph.from_model(model(nodes, {"x": [5, 4], "u": [2, 4]}, {"y": [5, 4]}, weights))
    made = assigned_by_slices(graph, profiles(x=(5, 4), u=(2, 4)))
    assert kinds(made) == {"Slice", "Concat"}
    x, u = random(5, 4), random(2, 4, seed=1)
    assert np.array_equal(run(made, x=x, u=u), run(graph, x=x, u=u))


@pytest.mark.parametrize("library", ["weak", "rtx"])
@pytest.mark.parametrize("precision, written", [("fp16", True), ("fp32", False)])
def test_engines_are_built_with_it_but_fp32_engines_of_the_model_as_it_is(library, precision, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nodes = [node("Mul", "x two", "m", "mul"), node("ScatterND", "m places u", "y", "assign")]
    weights = {"two": np.float32(2), "places": np.int64([[0], [1]]), "u": random(2, 4)}
    onnx.save(model(nodes, {"x": [5, 4]}, {"y": [5, 4]}, weights), "model.onnx")
    job, quiet = planned("--precision", precision, library=library)
    graph = choose(job, quiet).prepared(quiet).graph
    assert ("ScatterND" not in kinds(graph)) == written
