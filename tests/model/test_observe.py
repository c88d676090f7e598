"""model/observe.py: inner tensors while the model runs."""

import time
import weakref

import numpy as np
import pytest
from models import conv_net, profiles, random

from onnx2trt.model import observe as observe_module
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe, observe_parallel, static_shapes
from onnx2trt.model.session import Session


def feeds():
    return [{"x": random(1, 3, 16, 16, seed=seed)} for seed in range(3)]


@pytest.mark.parametrize("budget", [2**28, 20_000])
def test_every_tensor_is_shown_once_for_each_inference(budget, monkeypatch):
    monkeypatch.setattr(observe_module, "GROUP_BYTES", budget)
    graph, seen = Graph.from_model(conv_net()), []
    count = observe(graph, profiles(x=(1, 3, 16, 16)), ["x", "c1", "r2"], feeds, lambda name, values: seen.append((name, values.copy())))
    assert count == 3 and sorted(name for name, _ in seen) == sorted(["x", "c1", "r2"] * 3)
    reference = Session.from_graph(graph, ("c1", "r2"))
    expected = [reference.run(feed)["c1"] for feed in feeds()]
    for got, want in zip([values for name, values in seen if name == "c1"], expected):
        np.testing.assert_array_equal(got, want)


def test_shapes_are_those_of_the_opt_profile():
    shapes = static_shapes(Graph.from_model(conv_net()), profiles(x=(5, 3, 16, 16)))
    assert shapes["c1"] == (5, 16, 16, 16) and shapes["y"] == (5, 4, 16, 16)


@pytest.mark.parametrize("parallel", [False, True])
def test_what_a_visit_raises_reaches_the_caller(parallel):
    def visit(name, values):
        if name == "r2":
            raise ValueError(f"odd values in {name}")

    with pytest.raises(ValueError, match="odd values in r2"):
        look = observe_parallel if parallel else observe
        look(Graph.from_model(conv_net()), profiles(x=(1, 3, 16, 16)), ["x", "c1", "r2"], feeds, (lambda: visit) if parallel else visit)


@pytest.mark.parametrize("overlap", [0, 2**27])
def test_visits_of_one_tensor_come_in_order_and_one_at_a_time(overlap, monkeypatch):
    monkeypatch.setattr(observe_module, "OVERLAP_BYTES", overlap)
    seen, busy = {"x": [], "c1": [], "r2": []}, set()

    def visit(name, values):
        assert name not in busy
        busy.add(name)
        time.sleep(0.01)
        seen[name].append(float(values.sum()))
        busy.remove(name)

    graph = Graph.from_model(conv_net())
    observe_parallel(graph, profiles(x=(1, 3, 16, 16)), list(seen), feeds, lambda: visit)
    reference = Session.from_graph(graph, ("c1", "r2"))
    for index, feed in enumerate(feeds()):
        found = {**reference.run(feed), **feed}
        assert all(seen[name][index] == pytest.approx(float(found[name].sum()), rel=1e-5) for name in seen)


@pytest.mark.parametrize("parallel", [False, True])
def test_the_tensors_of_an_inference_are_gone_before_the_next_one_runs(parallel, monkeypatch):
    """Where they are large; small ones are visited meanwhile."""
    monkeypatch.setattr(observe_module, "OVERLAP_BYTES", 0)
    alive, left = [], []

    def data():
        for seed in range(3):
            left.append(sum(array() is not None for array in alive))
            yield {"x": random(1, 3, 16, 16, seed=seed)}

    def visit(name, values):
        alive.append(weakref.ref(values))

    graph, shapes = Graph.from_model(conv_net()), profiles(x=(1, 3, 16, 16))
    names = ["c1", "r1", "y"]
    if parallel:
        observe_parallel(graph, shapes, names, data, lambda: visit)
    else:
        observe(graph, shapes, names, data, visit)
    assert left == [0, 0, 0] and len(alive) == 9


def test_tensors_are_visited_in_order_of_execution_unless_in_parallel():
    seen = []
    observe(Graph.from_model(conv_net()), profiles(x=(1, 3, 16, 16)), ["r2", "x", "c1"], feeds, lambda name, _: seen.append(name))
    assert seen == ["x", "c1", "r2"] * 3


def test_the_visitor_is_asked_while_its_own_feed_is_the_current_one():
    current, seen = [None], []

    def numbered():
        for number, feed in enumerate(feeds()):
            current[0] = number
            yield feed

    def visitor():
        number = current[0]
        return lambda name, values: seen.append((number, float(values.flat[0])))

    observe_parallel(Graph.from_model(conv_net()), profiles(x=(1, 3, 16, 16)), ["x"], numbered, visitor)
    assert seen == [(number, float(feed["x"].flat[0])) for number, feed in enumerate(feeds())]
