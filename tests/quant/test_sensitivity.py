"""quant/sensitivity.py: what a layer costs, and the fewest layers to give up."""

import math

import numpy as np
import pytest
from models import conv_net, random

from onnx2trt.model.graph import Graph
from onnx2trt.quant.sensitivity import FINEST_STEP, SMALLEST_CHANGE, Tried, by_error_per_mac, change, climb, layer_errors
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.fold import raise_opset
from onnx2trt.rewrite.qdq import int8_layers, quantizable_layers

# ---- change


def outputs(*arrays, name="y"):
    return [{name: np.asarray(array)} for array in arrays]


def test_the_same_outputs_have_not_changed():
    same = outputs(random(3, 4), random(3, 4, seed=1))
    assert change(same, same) == pytest.approx(SMALLEST_CHANGE)


def test_change_is_the_mean_error_over_the_mean_size():
    assert change(outputs([1.0, -3.0]), outputs([1.1, -2.9])) == pytest.approx(0.1 / 2)
    assert change(outputs([10, -30]), outputs([11, -29])) == pytest.approx(0.1 / 2), "integers, too"


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_change_does_not_depend_on_units(factor):
    expected, found = random(2, 50), random(2, 50) + random(2, 50, seed=1, scale=0.01)
    assert change(outputs(*expected * factor), outputs(*found * factor)) == pytest.approx(
        change(outputs(*expected), outputs(*found)), rel=1e-3
    )


def test_one_place_that_tips_over_does_not_rule():
    """A squared error would grow ten-thousandfold."""
    expected = random(4, 1000)
    noisy = expected + random(4, 1000, seed=1, scale=0.01)
    tipped = noisy.copy()
    tipped[0, 0] += 10
    assert change(outputs(*expected), outputs(*tipped)) < 2 * change(outputs(*expected), outputs(*noisy))


def test_samples_count_by_geometric_mean_and_the_worst_output_decides():
    expected = [{"a": np.ones(4), "b": np.ones(4)}] * 2
    found = [{"a": np.ones(4) * 1.01, "b": np.ones(4) * 1.001}, {"a": np.ones(4) * 1.04, "b": np.ones(4)}]
    assert change(expected, found) == pytest.approx(math.sqrt(0.01 * 0.04))


def test_a_sample_of_zeros_does_not_hide_what_the_others_say():
    """An empty mask: held against the size of the others."""
    expected, mild, strong = (
        outputs(np.zeros(4), np.ones(4)),
        outputs(np.full(4, 1e-3), np.ones(4) * 1.01),
        outputs(np.full(4, 0.1), np.ones(4) * 1.1),
    )
    assert 0 < change(expected, mild) < change(expected, strong) < 1


def test_nothing_but_zeros_changes_by_nothing_or_without_bound():
    assert change(outputs(np.zeros(4)), outputs(np.zeros(4))) == pytest.approx(SMALLEST_CHANGE)
    assert change(outputs(np.zeros(4)), outputs(np.full(4, 1e-3))) == math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_the_worst_of_all(bad):
    expected = [{"a": np.ones(4), "b": np.ones(4)}]
    assert change(expected, [{"a": np.ones(4), "b": np.array([1, bad, 1, 1])}]) == math.inf
    assert change(expected, [{"a": np.array([1, bad, 1, 1]), "b": np.ones(4)}]) == math.inf
    assert change(expected * 2, [{"a": np.ones(4), "b": np.array([1, bad, 1, 1])}, expected[0]]) == math.inf


def test_masked_classes_are_not_held_against_a_layer():
    expected = outputs([1.0, -np.inf, 3.0])
    assert change(expected, outputs([1.1, -np.inf, 2.9])) == pytest.approx(0.1 / 2)
    assert change(outputs([-np.inf, np.nan]), outputs([0.0, 1.0])) == pytest.approx(SMALLEST_CHANGE)


def test_another_shape_is_the_worst_of_all():
    assert change(outputs(np.ones(3)), outputs(np.ones(2))) == math.inf
    assert change(outputs(np.zeros((0, 4))), outputs(np.ones((1, 4)))) == math.inf


def test_empty_outputs_have_not_changed():
    assert change(outputs(np.zeros((0, 4))), outputs(np.zeros((0, 4)))) == pytest.approx(SMALLEST_CHANGE)


# ---- Fit and the layers' errors


def net():
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    return graph, quantizable_layers(graph), [{"x": np.abs(random(1, 3, 16, 16, seed=seed))} for seed in range(3)]


def test_layers_without_a_scale_are_left_alone():
    graph, layers, _ = net()
    assert int8_layers(Fit({"x": 0.03, "r2": 0.03}).apply(graph, layers)) == {"stem", "head"}
    assert int8_layers(Fit({"x": 0.03, "r2": 0.03}).apply(graph, layers[1:])) == {"head"}
    assert int8_layers(graph) == set()


def test_the_layer_with_a_bad_scale_costs_most():
    graph, layers, feeds = net()
    errors = dict(layer_errors(graph, layers, Fit({"x": 0.03, "r1": 0.5, "r2": 0.03}), feeds))
    assert list(errors) == ["stem", "depthwise", "head"]
    assert errors["depthwise"] > 3 * max(errors["stem"], errors["head"]) > 0


def test_layers_are_given_up_by_error_for_the_work():
    errors = {"a": 0.1, "b": 0.1, "c": 0.4, "d": math.inf, "unknown": 0.001}
    macs = {"a": 1000, "b": 10, "c": 4000, "d": 10**9}
    assert by_error_per_mac(errors, macs) == ["d", "b", "c", "a", "unknown"]


# ---- climb


class Ladder:
    """Layers whose giving up passes from `needed` on."""

    def __init__(self, work, needed, other=0):
        self.order = [f"layer{i}" for i in range(len(work))]
        self.macs = dict(zip(self.order, work))
        self.total = sum(work) + other
        self.needed, self.asked = needed, []

    def share(self, kept):
        return sum(self.macs[name] for name in self.order[kept:]) / self.total

    def measure(self, kept):
        self.asked.append(kept)
        return Tried(kept, self.share(kept), 0.0, 0.0, kept >= self.needed)

    def climb(self, least=0.1):
        self.first = Tried(0, self.share(0), 9.0, 1.0, False)
        return climb(self.order, self.macs, self.total, least, self.first, self.measure)


WORK = {
    "equal": [1] * 40,
    "one": [5],
    "two": [5, 1],
    "growing": [2**i for i in range(12)],
    "shrinking": [2 ** (11 - i) for i in range(12)],
    "random": [int(value) for value in np.random.default_rng(0).lognormal(5, 2, 60)],
    "unknown": [0, 3, 0, 0, 8, 5, 0],
}


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 20, 39])
@pytest.mark.parametrize("work", WORK)
def test_the_fewest_layers_are_found(work, needed):
    ladder = Ladder(WORK[work], needed)
    tried = ladder.climb(least=0.0)
    assert tried[0] is ladder.first and [rung.kept for rung in tried[1:]] == ladder.asked
    assert len(set(ladder.asked)) == len(ladder.asked) <= 2 + math.log2(len(WORK[work]) + 1) + math.log2(1 / FINEST_STEP) / 2
    passed = [rung.kept for rung in tried if rung.passed]
    if needed > len(WORK[work]):
        assert not passed and len(WORK[work]) in ladder.asked, "nothing is left to give up"
        return
    assert ladder.share(needed) - ladder.share(min(passed)) < FINEST_STEP, "no more work is lost than cannot be told apart"


@pytest.mark.parametrize("least", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("work", WORK)
def test_the_least_share_is_never_given_up(work, least):
    ladder = Ladder(WORK[work], len(WORK[work]) + 1, other=1)
    tried = ladder.climb(least)
    assert all(ladder.share(kept) >= least for kept in ladder.asked) and not any(rung.passed for rung in tried)
    allowed = [kept for kept in range(1, len(WORK[work]) + 1) if ladder.share(kept) >= least]
    assert not allowed or max(allowed) in ladder.asked, "the last chance was tried"
    assert allowed or tried == [ladder.first]


def test_many_layers_take_few_measurements():
    ladder = Ladder([1] * 1000, 333)
    ladder.climb(0.0)
    assert len(ladder.asked) <= 8 and 333 <= min(kept for kept in ladder.asked if kept >= 333) < 343


def test_segments_can_be_given_up_like_layers():
    order = [("a", "b"), ("c",), ("d", "e", "f")]

    def measure(kept):
        return Tried(kept, 0.0, 0.0, 0.0, kept >= 2)

    found = climb(order, {part: len(part) for part in order}, 6, 0.0, Tried(0, 1.0, 9.0, 1.0, False), measure)
    assert min(rung.kept for rung in found if rung.passed) == 2


def test_a_rung_that_passes_by_chance_is_taken():
    """Not monotone: whatever passed is returned, and the search goes on below it."""
    ladder = Ladder([1] * 16, 99)
    ladder.measure = lambda kept: (ladder.asked.append(kept), Tried(kept, 0.5, 0.0, 0.0, kept == 8))[1]
    tried = ladder.climb(0.0)
    assert [rung.kept for rung in tried if rung.passed] == [8] and max(ladder.asked) == 8
