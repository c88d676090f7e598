"""model/maxima.py: the largest value of every tensor, found inside of the graph."""

import numpy as np
import onnx
import pytest
from models import conv_net, executed, layer_norm, model, node, profiles, random
from random_networks import random_network

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.padded import Padded
from onnx2trt.model import maxima as maxima_module
from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.session import Session


@pytest.fixture(params=["in parts", "whole"])
def reduced(request, monkeypatch):
    """However small the tensors of a test are, ONNX Runtime finds their maxima in parts, as on many cores, or at once."""
    monkeypatch.setattr(maxima_module, "threads_of", lambda at_once: 16 // at_once)
    monkeypatch.setattr(maxima_module, "SMALL", 8 if request.param == "in parts" else 2**40)
    monkeypatch.setattr(maxima_module, "LEAST_PART", 1)


@pytest.fixture
def nothing_looked_at(monkeypatch):
    """No tensor leaves the graph."""

    def fail(*_):
        raise AssertionError("looked at outside of the graph")

    monkeypatch.setattr(maxima_module, "observe_parallel", fail)


def looked_at(graph, shapes, feeds, monkeypatch) -> dict[str, float]:
    """The maxima by looking at every value."""
    with monkeypatch.context() as patched:
        patched.setattr(maxima_module, "_reduced", lambda *_: {})
        return absolute_maxima(graph, shapes, feeds)


@pytest.mark.parametrize("make, shape", [(conv_net, (1, 3, 16, 16)), (layer_norm, (4, 8))])
def test_maxima_bound_what_the_model_does(make, shape):
    graph = Graph.from_model(make())
    data = [{"x": random(*shape, seed=seed)} for seed in range(3)]
    maxima = absolute_maxima(graph, profiles(x=shape), lambda: data)
    names = tuple(name for n in graph.nodes for name in n.output)
    session = Session.from_graph(graph, names)
    found = [session.run(feed) for feed in data]
    for name in names:
        true = max(float(np.abs(values[name]).max()) for values in found)
        assert maxima[name] >= true * (1 - 1e-6), name
        if name not in ("r1", "r2"):  # behind a ReLU the bound is its input's
            assert maxima[name] == pytest.approx(true), name
    assert maxima["x"] == max(float(np.abs(feed["x"]).max()) for feed in data)
    exact = absolute_maxima(graph, profiles(x=shape), lambda: data, exact=True)
    assert exact == {name: pytest.approx(max(float(np.abs(values[name]).max()) for values in found)) for name in names} | {"x": maxima["x"]}


def test_negative_extremes_count():
    graph = Graph.from_model(model([node("Mul", "x k", "y")], {"x": [1, 2]}, {"y": [1, 2]}, {"k": np.float32(-3)}))
    assert absolute_maxima(graph, profiles(x=(1, 2)), lambda: [{"x": np.float32([[1, 5]])}])["y"] == 15


def test_infinity_is_reported_and_nan_where_nothing_else_is():
    graph = Graph.from_model(model([node("Log", "x", "y")], {"x": [1, 2]}, {"y": [1, 2]}))

    def largest(*rows):
        return absolute_maxima(graph, profiles(x=(1, 2)), lambda: [{"x": np.float32([row])} for row in rows])["y"]

    assert np.isinf(largest([1, 0]))
    assert np.isnan(largest([-1, -1])) and np.isnan(largest([-1, -2], [-3, -4]))
    assert largest([-1, 2]) == largest([-1, -1], [1, 2], [-1, -1]) == pytest.approx(np.log(2))


def test_tensors_without_elements_are_no_problem():
    nodes = [node("NonZero", "x", "i"), node("Cast", "i", "f", to=1), node("Mul", "f k", "y")]
    graph = Graph.from_model(model(nodes, {"x": [1, 4]}, {"y": None}, {"k": np.float32(2)}))
    maxima = absolute_maxima(graph, profiles(x=(1, 4)), lambda: [{"x": np.zeros((1, 4), np.float32)}, {"x": np.float32([[0, 0, 0, 1]])}])
    assert maxima["y"] == 6


@pytest.mark.parametrize("seed", range(40))
def test_they_are_those_of_looking_at_every_value(seed, reduced, monkeypatch):
    network, batch = random_network(8200 + seed), 1 + seed % 5
    graph = Graph.from_model(network.model)
    samples = [network.feed(number) for number in range(2 * batch)]
    halves = samples[:batch], samples[batch:]
    feeds = [{name: np.concatenate([sample[name] for sample in half]) for name in samples[0]} for half in halves]
    shapes = profiles(**{name: array.shape for name, array in feeds[0].items()})
    expected = looked_at(graph, shapes, lambda: feeds, monkeypatch)
    monkeypatch.setattr(maxima_module, "_looked_at", None)
    found = absolute_maxima(graph, shapes, lambda: feeds)
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_every_opset_has_a_form_for_it(opset, reduced, nothing_looked_at):
    graph, feed = Graph.from_model(conv_net(opset=opset)), {"x": random(2, 3, 16, 16)}
    session = Session.from_graph(graph, ("c1", "c2"))
    expected = {name: float(np.abs(array).max()) for name, array in {**feed, **session.run(feed)}.items()}
    found = absolute_maxima(graph, profiles(x=(2, 3, 16, 16)), lambda: [feed])
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("places", [[0], [15_999], [7_777], [*range(16)], [*range(0, 16_000, 50)], [*range(16_000)]], ids=len)
@pytest.mark.parametrize("sign", [-1, 1])
def test_nan_hides_nothing(places, sign, reduced, monkeypatch):
    """x / x is NaN for 0; the largest value may stand before or behind, among the values of the same part or in others."""
    nodes = [node("Div", "x x", "ones"), node("Mul", "ones x", "y"), node("Neg", "x", "z")]
    graph = Graph.from_model(model(nodes, {"x": [8, 40, 50]}, {"y": None, "z": None}))
    values = np.clip(random(8, 40, 50), 0.1, 5)
    values.reshape(-1)[8_001] = sign * 9
    values.reshape(-1)[places] = 0
    asked, look = [], maxima_module.observe_parallel

    def looking(graph, shapes, names, *more):
        asked.extend(names)
        return look(graph, shapes, names, *more)

    monkeypatch.setattr(maxima_module, "observe_parallel", looking)
    found = absolute_maxima(graph, profiles(x=(8, 40, 50)), lambda: [{"x": values}])
    assert asked == ["ones", "y"], "only what has NaN is looked at"
    if len(places) == values.size:
        assert found["z"] == 0 and np.isnan([found["ones"], found["y"]]).all()
    else:
        assert found == {"x": 9, "ones": 1, "y": 9, "z": 9}


def test_nan_in_one_of_several_inferences_hides_nothing_of_the_others(reduced):
    graph = Graph.from_model(model([node("Sqrt", "x", "y")], {"x": [4, 100]}, {"y": None}))
    feeds = [{"x": np.full((4, 100), value, np.float32)} for value in (9, -1, 4)]
    assert absolute_maxima(graph, profiles(x=(4, 100)), lambda: iter(feeds))["y"] == pytest.approx(3)


@pytest.mark.parametrize("extremes", [{5: np.inf}, {5: -np.inf}, {5: np.inf, 9_000: np.inf}])
def test_infinity_needs_no_second_look(extremes, reduced, nothing_looked_at):
    graph = Graph.from_model(model([node("Mul", "x k", "y")], {"x": [8, 40, 50]}, {"y": None}, {"k": np.float32(2)}))
    values = random(8, 40, 50)
    values.reshape(-1)[list(extremes)] = list(extremes.values())
    assert np.isinf(absolute_maxima(graph, profiles(x=(8, 40, 50)), lambda: [{"x": values}])["y"])


@pytest.mark.parametrize("largest, expected", [(3e38, np.float32(3e38)), (np.inf, np.inf)])
def test_values_whose_sum_is_none_are_looked_at(largest, expected, reduced):
    """Sums of large values of both signs become inf - inf."""
    graph, values = Graph.from_model(model([node("Neg", "x", "y")], {"x": [8, 40, 50]}, {"y": None})), np.zeros((8, 40, 50), np.float32)
    values[:4], values[4:] = largest, -largest
    assert absolute_maxima(graph, profiles(x=(8, 40, 50)), lambda: [{"x": values}])["y"] == expected


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("fails", [False, True])
def test_a_tensor_that_is_empty_at_times_counts_when_it_is_not(fails, first, reduced, monkeypatch):
    """Also where ONNX Runtime has no maximum of it, as 1.19."""
    nodes = [node("NonZero", "x", "i"), node("Cast", "i", "f", to=1), node("Mul", "f k", "y")]
    nodes += [node("Slice", "x none none", "e"), node("Mul", "e k", "never")]
    graph = Graph.from_model(model(nodes, {"x": [4, 40]}, {"y": None, "never": None}, {"k": np.float32(2), "none": np.int64([0])}))
    graph.observed = {"f": (2, 160), "y": (2, 160)}
    feeds, run = [{"x": np.zeros((4, 40), np.float32)}, {"x": np.eye(4, 40, dtype=np.float32)}], Session.run

    def refusing(session, feed, *more):
        if fails and not feed["x"].any() and any("Reduce" in name for name in session.output_names):
            raise ConversionError("no maximum of nothing", code=ExitCode.MODEL)
        return run(session, feed, *more)

    monkeypatch.setattr(Session, "run", refusing)
    found = absolute_maxima(graph, profiles(x=(4, 40)), lambda: [feeds[first], feeds[1 - first]])
    assert found == {"x": 1, "f": 3, "y": 6, "e": 1, "never": 0}


@pytest.mark.parametrize("filling", [1e6, -1e6, np.nan, 0])
@pytest.mark.parametrize("real", [1, 3])
def test_what_fills_a_batch_does_not_count_and_is_computed_once(filling, real, reduced, nothing_looked_at, monkeypatch):
    """Wherever the batch goes."""
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("Mul", "t k", "m"),
        node("Reshape", "m flat", "r"),
        node("Sub", "r one", "y"),
    ]
    weights = {"k": np.float32(3), "flat": np.int64([-1]), "one": np.float32(1)}
    graph, runs, run = Graph.from_model(model(nodes, {"x": [4, 20, 30]}, {"y": None}, weights)), [], Session.run
    monkeypatch.setattr(Session, "run", lambda *given: runs.append(1) or run(*given))
    values = random(4, 20, 30)
    values[:real, 0, 0] = 7
    values[real:] = filling
    found = absolute_maxima(graph, profiles(x=(4, 20, 30)), lambda: [Padded({"x": values}, 4, real)])
    assert found == {"x": 7, "t": 7, "m": 21, "r": 21, "y": 20} and len(runs) == 1


def test_a_tensor_of_unknown_rank_is_measured(nothing_looked_at):
    inputs = {"x": ["n", 4], "to": (onnx.TensorProto.INT64, ["r"])}
    graph = Graph.from_model(model([node("Reshape", "x to", "r"), node("Mul", "r k", "y")], inputs, {"y": None}, {"k": np.float32(-2)}))
    feeds = [{"x": random(3, 4), "to": np.int64(shape)} for shape in ([12], [1, 2, 3, 2])]
    found = absolute_maxima(graph, profiles(x=(3, 4), to=(1,)), lambda: feeds)
    assert found["y"] == 2 * np.abs(feeds[0]["x"]).max()


def test_a_model_without_floats_has_none():
    integers = {"x": (onnx.TensorProto.INT64, [2])}
    graph = Graph.from_model(model([node("Neg", "x", "y")], integers, {"y": (onnx.TensorProto.INT64, [2])}))
    assert absolute_maxima(graph, profiles(x=(2,)), lambda: [{"x": np.int64([1, 2])}]) == {}


def turned_about(blocks: int) -> Graph:
    """[T, N, C]; ONNX Runtime's optimizer lets the two Transposes meet behind what stands between them, and drops both."""
    nodes, weights, last = [], {}, "x"
    for i in range(blocks):
        weights |= {f"w{i}": random(64, 64, seed=i, scale=0.1), f"b{i}": random(64, seed=i)}
        nodes += [node("Transpose", last, f"t{i}", perm=[1, 0, 2]), node("Add", f"t{i} b{i}", f"a{i}"), node("Sigmoid", f"a{i}", f"s{i}")]
        nodes += [node("Transpose", f"s{i}", f"u{i}", perm=[1, 0, 2]), node("MatMul", f"u{i} w{i}", f"m{i}")]
        last = f"m{i}"
    nodes.append(node("Add", f"{last} b0", "y"))
    return Graph.from_model(model(nodes, {"x": [8, 8, 64]}, {"y": None}, weights))


@pytest.mark.parametrize("make, shape", [(lambda: Graph.from_model(conv_net()), (1, 3, 16, 16)), (lambda: turned_about(6), (8, 8, 64))])
def test_a_tensor_is_reduced_before_the_next_one_is_made(make, shape, reduced, tmp_path, monkeypatch):
    """Else all of them would be in memory at the end."""
    graph = make()
    order = executed(lambda: absolute_maxima(graph, profiles(x=shape), lambda: [{"x": random(*shape)}]), tmp_path, monkeypatch)
    moves = ("ReorderInput", "ReorderOutput", "Transpose")
    makes = [operator for operator in order if operator not in moves]
    assert makes[0].startswith("Reduce") and makes[-1].startswith("Reduce")
    between = "".join("R" if operator.startswith("Reduce") else "." for operator in makes)
    assert max(map(len, between.split("R"))) <= 2, between
