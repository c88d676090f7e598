"""conversion/exact.py: outputs that were seen on the way, by the samples of their inference."""

import numpy as np
import pytest
from models import conv_net

from onnx2trt.conversion import exact
from onnx2trt.conversion.exact import Exact, Simulated
from onnx2trt.model.graph import Graph


def seen(count: int, names=("y", "z")) -> Exact:
    """Inferences of two outputs of 16 bytes each."""
    found = Exact(names)
    for index in range(count):
        for name in names:
            found.add((f"{index}.npy",), name, np.full(4, index, np.float32))
    return found


def test_what_was_seen_is_known_by_its_samples_until_it_is_forgotten():
    found = seen(3)
    for index in range(3):
        known = found.of((f"{index}.npy",))
        assert known.keys() == {"y", "z"} and (known["y"] == index).all()
    assert found.of(("3.npy",)) is None and found.of(("0.npy", "1.npy")) is None, "another batch computes another thing"
    found.forget()
    assert found.of(("0.npy",)) is None


def test_memory_that_is_used_again_changes_nothing():
    found, memory = Exact(("y",)), np.ones(4, np.float32)
    found.add(("a",), "y", memory)
    memory[:] = 2
    assert (found.of(("a",))["y"] == 1).all()


@pytest.mark.parametrize("room, known", [(0, 0), (31, 0), (32, 1), (3 * 32, 3), (10 * 32, 5)])
def test_no_more_is_kept_than_there_is_room_for(monkeypatch, room, known):
    monkeypatch.setattr(exact, "KEPT_BYTES", room)
    found = seen(5)
    assert sum(found.of((f"{index}.npy",)) is not None for index in range(5)) == known


def test_an_inference_that_lacks_an_output_is_not_known():
    found = Exact(("y", "z"))
    found.add(("a",), "y", np.zeros(1, np.float32))
    assert found.of(("a",)) is None


def test_of_what_was_simulated_only_the_same_graph_of_the_same_trial_is_known():
    def net(factor: float) -> Graph:
        graph = Graph.from_model(conv_net())
        graph.weights["w1"] = graph.weights["w1"] * np.float32(factor)
        return graph

    simulated = Simulated()
    assert simulated.of(0, net(1)).of(("a",)) in ({}, None), "nothing was run"
    simulated.begin([net(1), net(2)])
    simulated.outputs.add(("a",), "y", np.ones(3, np.float32))
    assert [simulated.of(trial, net(trial + 1)).of(("a",)) is not None for trial in range(2)] == [True, True]
    for trial, factor in ((0, 2), (1, 1), (2, 1), (0, 1 + 2**-20)):
        assert not simulated.of(trial, net(factor)).of(("a",)), "a single bit makes another graph"
    simulated.begin(())
    assert not simulated.of(0, net(1)).of(("a",))
