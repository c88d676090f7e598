"""conversion/comparing.py: a reference that is computed once, and the output that decides."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from models import conv_net, random

from onnx2trt.base.read_ahead import map_in_order
from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.conversion import comparing
from onnx2trt.conversion.comparing import ByPart, Lent, Reference, worst_output
from onnx2trt.conversion.exact import Exact, Simulated
from onnx2trt.data.reader import Batch
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session


class Doubles:
    """As model.session.Session; counts."""

    def __init__(self):
        self.runs = 0

    def run(self, feed):
        self.runs += 1
        return {"y": 2 * feed["x"]}


BATCHES = [Batch({"x": np.full((1, 4), index, np.float32)}, 1, 1, (f"{index}.npy",)) for index in range(5)]


def passed(reference: Reference, batches=BATCHES) -> list[float]:
    run = reference.one_pass()
    return [float(run(batch)["y"][0, 0]) for batch in batches]


def test_the_reference_is_computed_once_for_all_passes():
    session = Doubles()
    reference = Reference(lambda: session)
    assert passed(reference, BATCHES[:3]) == [0, 2, 4] and session.runs == 3
    assert passed(reference) == [0, 2, 4, 6, 8] and session.runs == 5, "a pass may have ended early"
    assert passed(reference) == [0, 2, 4, 6, 8] and session.runs == 5
    reference.forget()
    assert passed(reference) == [0, 2, 4, 6, 8] and session.runs == 10


@pytest.mark.parametrize("room, again", [(0, 5), (2 * 16, 3), (4 * 16, 1), (5 * 16, 0)])
def test_what_has_no_room_is_computed_again(monkeypatch, room, again):
    """An output is four FP32 numbers."""
    monkeypatch.setattr(comparing, "REMEMBERED_BYTES", room)
    session = Doubles()
    reference = Reference(lambda: session)
    for _ in range(2):
        assert passed(reference) == [0, 2, 4, 6, 8]
    assert session.runs == 5 + again


ROW = Accuracy("simulated", "images", "y", "noise", 1.0, None, 20.0, 0.5, 0, 1, None, None, False)


def test_the_output_that_decides_is_the_one_furthest_above_its_limit():
    good, worse = replace(ROW, output="good", drop_percent=0.3), replace(ROW, output="worse", drop_percent=0.9)
    assert worst_output([good, worse], 1.0) == (worse, True) and worst_output([worse, good], 0.8) == (worse, False)
    lost = replace(ROW, output="lost", drop_percent=0.0, signal_percent=15.0, signal_limit_percent=10.0)
    assert worst_output([worse, lost], 1.0) == (lost, False), "its winners agree, but the signal is gone"


def test_a_standard_error_is_neither_added_nor_subtracted():
    shaky = replace(ROW, drop_percent=0.9, standard_error=0.5)
    assert worst_output([shaky], 1.0) == (shaky, True)
    few = replace(ROW, drop_percent=5.0, shown_percent=0.0)
    assert worst_output([few], 1.0) == (few, True), "what so few samples show is held against the limit"


def test_values_that_are_not_finite_count_in_any_output():
    broken, worst = replace(ROW, output="broken", nonfinite=1), replace(ROW, drop_percent=9.0)
    assert worst_output([worst, broken], 50.0) == (broken, False)


def test_the_reference_is_loaded_when_it_has_to_compute_and_only_then():
    sessions = []
    reference = Reference(lambda: sessions.append(Doubles()) or sessions[-1])
    assert not sessions and passed(reference, BATCHES[:3]) == [0, 2, 4] and len(sessions) == 1
    reference.rest()
    assert passed(reference, BATCHES[:3]) == [0, 2, 4] and len(sessions) == 1, "all of it is remembered"
    assert passed(reference) == [0, 2, 4, 6, 8] and len(sessions) == 2


def test_what_somebody_has_seen_is_not_computed_but_for_another_state_of_the_same_samples():
    known, session = Exact(("y",)), Doubles()
    for batch in BATCHES[:4]:
        known.add(batch.samples, "y", 2 * batch.arrays["x"])
    reference = Reference(lambda: session, known)
    assert passed(reference) == [0, 2, 4, 6, 8] and session.runs == 1
    state = replace(BATCHES[1], arrays={"x": np.full((1, 4), 50, np.float32)})
    for _ in range(2):
        assert passed(reference, [*BATCHES, state]) == [0, 2, 4, 6, 8, 100]
    assert session.runs == 2
    reference.forget()
    assert passed(reference) == [0, 2, 4, 6, 8] and session.runs == 7, "its memory was given back, too"


def test_what_is_computed_ahead_is_not_loaded_again_as_far_as_there_is_room(monkeypatch):
    sessions = []
    reference = Reference(lambda: sessions.append(Doubles()) or sessions[-1])
    reference.remember(BATCHES)
    assert sessions[0].runs == 5 and passed(reference) == [0, 2, 4, 6, 8] and len(sessions) == 1
    monkeypatch.setattr(comparing, "REMEMBERED_BYTES", 2 * 16)
    reference.forget()
    reference.remember(BATCHES)
    assert sessions[1].runs == 3, "what comes behind the first one without room is left to the passes"
    assert passed(reference) == [0, 2, 4, 6, 8] and sessions[2].runs == 3


def test_a_session_that_was_let_go_is_loaded_where_it_has_to_compute_again():
    sessions = []
    lent = Lent(lambda: sessions.append(Doubles()) or sessions[-1])
    assert len(sessions) == 1, "what cannot be loaded is known at once"
    reference = Reference(lambda: lent)
    reference.remember(BATCHES)
    lent.rest()
    assert passed(reference) == [0, 2, 4, 6, 8] and len(sessions) == 1
    reference.forget()
    assert passed(reference) == [0, 2, 4, 6, 8] and len(sessions) == 2


@pytest.mark.parametrize("large, most_alive", [(False, 3), (True, 1)])
def test_each_batch_is_run_by_the_trial_that_has_not_seen_it_and_none_is_loaded_longer_than_needed(monkeypatch, large, most_alive):
    alive, most = weakref.WeakSet(), []

    class Session:
        most_at_once = staticmethod(lambda in_turn: 1 if in_turn else 2)

        def __init__(self, graph):
            self.graph = graph
            alive.add(self)
            most.append(len(alive))

        @classmethod
        def from_graph(cls, graph, in_turn):
            return cls(graph)

        def run(self, arrays):
            return self.graph

    monkeypatch.setattr(comparing, "Session", Session)
    monkeypatch.setattr(comparing, "is_large", lambda graph: large)
    batches = [Batch({}, 1, 1, (f"{part}{index}",)) for part in range(5) for index in range(3)]
    split = SimpleNamespace(part_of=lambda sample: int(sample[0]))
    by_part = ByPart(split, [f"trial {part}" for part in range(5)], in_turn=False)
    found = [answer for _, answer in map_in_order(batches, by_part, by_part.at_once)]
    assert found == [f"trial {part}" for part in range(5) for _ in range(3)] and len(most) == 5 and max(most) <= most_alive
    assert [ByPart(split, ["only"])(batch) for batch in batches] == ["only"] * 15


@pytest.mark.parametrize("own", [False, True])
def test_a_large_graph_that_nobody_else_needs_is_let_go_when_it_is_loaded(monkeypatch, own):
    """Its weights would be there twice while it computes."""
    monkeypatch.setattr("onnx2trt.model.session.LARGE", 0)
    graph, feed = Graph.from_model(conv_net()), {"x": random(1, 3, 16, 16)}
    expected = Session.from_graph(graph).run(feed)["y"]
    given = graph.copy()
    found = ByPart(SimpleNamespace(), [given], own=own)(Batch(feed, 1, 1, ("a",)))
    np.testing.assert_array_equal(found["y"], expected)
    assert bool(given.weights) != own and graph.weights


def test_what_a_trial_gave_before_is_not_computed_again_but_for_another_state(monkeypatch):
    """Samples of the first of two trials are known, by the graph that it is; one of them comes again with a state."""
    graphs = [Graph.from_model(conv_net()) for _ in range(2)]
    graphs[1].weights["w1"] = -graphs[1].weights["w1"]
    batches = [Batch({"x": random(1, 3, 16, 16, seed=index)}, 1, 1, (f"{index % 2}{index}",)) for index in range(6)]
    batches.sort(key=lambda batch: batch.samples)
    split, real, loaded = SimpleNamespace(part_of=lambda sample: int(sample[0])), Session.from_graph, []
    monkeypatch.setattr(comparing.Session, "from_graph", lambda graph, **options: loaded.append(graph) or real(graph, **options))
    usual = list(map(ByPart(split, graphs), batches))
    assert loaded == graphs
    simulated = Simulated()
    simulated.begin(graphs[:1])
    for batch in batches[:3]:
        simulated.outputs.add(batch.samples, "y", np.full_like(usual[0]["y"], 7))
    known = ByPart(split, [graph.copy() for graph in graphs], known=simulated)
    found = list(map(known, batches))
    assert len(loaded) == 3 and all((one["y"] == 7).all() for one in found[:3])
    for one, other in zip(found[3:], usual[3:]):
        np.testing.assert_array_equal(one["y"], other["y"])
    np.testing.assert_array_equal(known(batches[0])["y"], usual[0]["y"])
    others = ByPart(split, graphs[::-1], known=simulated)
    assert not any((others(batch)["y"] == 7).all() for batch in batches), "another graph gives other outputs"
