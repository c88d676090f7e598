"""rewrite/known_sizes.py: what hangs on constants and fixed sizes alone is known, and nothing else."""

import numpy as np
import pytest
from models import model, node
from onnx import TensorProto

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.observed_shapes import observe_shapes, without_shape
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fold import fold_constants
from onnx2trt.rewrite.known_sizes import fixed_sizes, known_values, with_sizes

PROFILES = (Profile("x", (1, 3, 8), (2, 3, 8), (4, 3, 8)),)


def known(nodes, weights=None, opset=17):
    source = model(nodes, {"x": ["n", 3, "m"]}, {"y": (TensorProto.INT64, None)}, weights, opset)
    graph = Graph.from_model(source)
    found = known_values(graph, ["y"], PROFILES)
    if found:  # it is what the graph computes, at every shape of the profile
        for batch in (1, 2, 4):
            np.testing.assert_array_equal(found["y"], Session.from_graph(graph).run({"x": np.ones((batch, 3, 8), np.float32)})["y"])
    return found.get("y")


SHAPE = node("Shape", "x", "s")
STARTS = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2]), "three": np.array([3]), "two0": np.array(2)}


@pytest.mark.parametrize(
    "nodes, expected",
    [
        ([SHAPE, node("Gather", "s two0", "y")], 8),
        ([SHAPE, node("Slice", "s one three", "y")], [3, 8]),
        ([SHAPE, node("Slice", "s zero two", "y")], None),
        ([SHAPE, node("Slice", "s one two", "a"), node("Squeeze", "a zero", "y")], 3),
        ([SHAPE, node("Gather", "s two", "a"), node("Concat", "a three", "y", axis=0)], [8, 3]),
        ([SHAPE, node("Gather", "s two0", "a"), node("Unsqueeze", "a zero", "b"), node("Mul", "b three", "y")], [24]),
        ([node("Size", "x", "y")], None),
        ([node("Transpose", "x", "t", perm=[1, 2, 0]), node("Shape", "t", "y", start=0, end=2)], [3, 8]),
        ([SHAPE, node("Shape", "s", "y")], [3]),
        ([node("ReduceSum", "x", "a", keepdims=0), node("Cast", "a", "y", to=7)], None),
    ],
)
def test_sizes(nodes, expected):
    found = known(nodes, STARTS)
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)


def test_of_constants_alone():
    assert known([node("Add", "one two", "y")], STARTS) == [3]


def test_a_slice_of_an_old_opset():
    assert known([SHAPE, node("Slice", "s", "y", starts=[2], ends=[3])], opset=9) == [8]


# ---- what exports compute of sizes


def export_like(seed: int):
    """[n, a, b] through Reshapes, masks and Slices whose sizes are all asked for, as torch.onnx.export writes them."""
    random = np.random.default_rng(seed)
    nodes, weights, name, rank = [], {"minus": np.int64([-1]), "axis": np.int64([0]), "one": np.float32(2)}, "x", 3
    weights |= {"last2": np.int64([1]), "last3": np.int64([2])}

    def size(tensor: str, axis: int) -> str:
        made = f"d{len(nodes)}"
        index = f"i{axis}"
        weights[index] = np.int64(axis)
        nodes.extend((node("Shape", tensor, f"{made}_s"), node("Gather", f"{made}_s {index}", f"{made}_g")))
        nodes.append(node("Unsqueeze", f"{made}_g axis", made))
        return made

    def shape(*parts: str) -> str:
        made = f"l{len(nodes)}"
        nodes.append(node("Concat", " ".join(parts), made, axis=0))
        return made

    for step in range(int(random.integers(2, 6))):
        before, name, kind = name, f"t{step}", int(random.integers(3))
        if kind == 0:
            sizes = (size(before, 0), "minus") if rank == 3 else (size(before, 0), "minus", size("x", 2))
            nodes.append(node("Reshape", f"{before} {shape(*sizes)}", name))
            rank = len(sizes)
        elif kind == 1:
            nodes.append(node("ConstantOfShape", shape(*(size(before, axis) for axis in range(rank))), f"{name}_m"))
            nodes.extend((node("Add", f"{name}_m one", f"{name}_1"), node("Mul", f"{before} {name}_1", name)))
        else:
            nodes.append(node("Slice", f"{before} axis {size(before, rank - 1)} last{rank}", name))
    nodes.append(node("Neg", name, "y"))
    return model(nodes, {"x": ["n", 3, 8]}, {"y": ["n"] + ["?"] * (rank - 1)}, weights)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("batches", [(2,), (1, 2, 4)], ids=["fixed", "free"])
def test_a_model_without_its_fixed_sizes_computes_the_same(seed, batches):
    graph = Graph.from_model(export_like(seed))
    profiles = (Profile("x", (batches[0], 3, 8), (2, 3, 8), (batches[-1], 3, 8)),)
    feeds = [{"x": np.random.default_rng(batch).standard_normal((batch, 3, 8)).astype(np.float32)} for batch in batches]
    expected = [Session.from_graph(graph).run(feed)["y"] for feed in feeds]
    missing = without_shape(graph, profiles)
    graph.observed = observe_shapes(graph, missing, {"x": feeds[0]["x"][:1].repeat(2, 0)}) if missing else {}
    less = fold_constants(with_sizes(graph, fixed_sizes(graph, profiles)))
    for feed, wanted in zip(feeds, expected):
        np.testing.assert_array_equal(Session.from_graph(less).run(feed)["y"], wanted)
    if len(batches) == 1:
        assert not any(one.op_type in ("Shape", "ConstantOfShape", "Concat", "Gather") for one in less.nodes)


def test_sizes_that_hang_on_values_stay_as_they_are_computed():
    nodes = [
        node("NonZero", "x", "at"),
        node("Shape", "at", "s"),
        node("Cast", "s", "f", to=1),
        node("Shape", "x", "t"),
        node("Cast", "t", "g", to=1),
    ]
    nodes.append(node("Concat", "f g", "y", axis=0))
    graph = Graph.from_model(model(nodes, {"x": [2, 3]}, {"y": [4]}))
    profiles = (Profile("x", (2, 3), (2, 3), (2, 3)),)
    graph.observed = observe_shapes(graph, without_shape(graph, profiles), {"x": np.ones((2, 3), np.float32)})
    found = fixed_sizes(graph, profiles)
    assert list(found) == ["t"] and found["t"].tolist() == [2, 3]
    less = with_sizes(graph, found)
    x = np.float32([[0, 1, 0], [2, 0, 0]])
    assert Session.from_graph(less).run({"x": x})["y"].tolist() == [2, 2, 2, 3]


def test_an_output_that_is_a_size_is_still_computed():
    graph = Graph.from_model(model([node("Shape", "x", "y")], {"x": [2, 3]}, {"y": (TensorProto.INT64, [2])}))
    assert [one.op_type for one in with_sizes(graph, fixed_sizes(graph, (Profile("x", (2, 3), (2, 3), (2, 3)),))).nodes] == ["Shape"]
