"""quant/candidates.py: calibration methods, equalized channels and fitted weights, judged by what they make of the outputs."""

import math

import numpy as np
import pytest
from models import conv_net, model, node, random

from onnx2trt.compare.change import Change
from onnx2trt.model.graph import Graph
from onnx2trt.quant.candidates import LIMIT_DB, Looked, Method, Outcome, best_of, compare_methods, sqnr_db, worse_than
from onnx2trt.quant.simulations import Simulations
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.qdq import quantizable_layers


def outcome(method, change, *each_db, worst=None):
    return Outcome(method, change, each_db or (-20 * math.log10(change),) * 8, worst or change)


# ---- which of them


def test_the_one_that_changes_least_is_best():
    three = outcome("a", 0.02), outcome("b", 0.01), outcome("c", 0.0105)
    assert best_of(three).method == "b"
    assert best_of([outcome("a", 0.01), outcome("b", 0.01)]).method == "a", "the first of equals"


def test_one_that_may_be_lucky_is_not_best():
    trusted, lucky = outcome("minmax", 0.02), outcome("entropy", 0.018, *(44.0, 30.0) * 4)
    assert best_of([trusted, lucky]) == trusted and best_of([lucky, trusted]) == lucky
    sure = outcome("entropy", 0.018)
    assert best_of([trusted, sure]) == sure


def test_outputs_that_are_as_good_as_identical_are_not_told_apart():
    assert sqnr_db([(np.ones(4), np.ones(4) * (1 + 1e-7))]) == LIMIT_DB == sqnr_db([(np.ones(4), np.ones(4))])


# ---- whether it pays


def gaining(*gains):
    """Said of a way that gains so many dB in each sample of output z, and 9 in y."""
    simple = {"y": [30.0] * len(gains), "z": [40.0] * len(gains)}
    return worse_than(simple, {"y": [39.0] * len(gains), "z": [40 + gain for gain in gains]})


@pytest.mark.parametrize(
    "gains, worse",
    [
        ([2.0] * 8, False),
        ([0.0] * 32, False),
        ([-1.1] * 32, True),
        ([5.0, -5.0] * 4, True),  # it may be worse
        ([5.0, -5.0] * 400, False),
        ([-0.1], True),  # a single sample shows little
        ([1.0], False),
    ],
)
def test_a_way_is_not_taken_where_it_may_be_much_worse(gains, worse):
    said = gaining(*gains)
    assert bool(said) == worse and ("in output 'z'" in said) == worse


@pytest.mark.parametrize("spread", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("count", [2, 4, 8, 32])
def test_what_is_worse_is_seldom_taken_and_what_is_better_nearly_always(spread, count):
    random = np.random.default_rng(0)
    taken = {gain: np.mean([not gaining(*random.normal(gain, spread, count)) for _ in range(400)]) for gain in (-3, -1.1, 3)}
    assert taken[-3] <= taken[-1.1] < 0.3 and taken[3] > taken[-1.1] + 0.3


def test_signal_to_noise_is_that_of_all_samples_together():
    pairs = [(np.array([3.0, 4.0]), np.array([3.0, 4.5])), (np.array([0.0, 0.0]), np.array([0.0, 0.0]))]
    assert sqnr_db(pairs) == pytest.approx(20.0)
    assert sqnr_db([(np.array([7, 1]), np.array([7, 2]))]) == pytest.approx(10 * math.log10(50)), "integers, too"


@pytest.mark.parametrize(
    "reference, output, expected",
    [
        ([1.0, math.inf], [1.0, 5.0], LIMIT_DB),
        ([1.0, 1.0], [1.0, math.nan], -LIMIT_DB),
        ([1.0, 1.0], [1.0], -LIMIT_DB),
        ([0.0, 0.0], [0.0, 0.1], -LIMIT_DB),
        ([0.0, 0.0], [0.0, 0.0], LIMIT_DB),
    ],
)
def test_values_that_have_no_ratio(reference, output, expected):
    assert sqnr_db([(np.array(reference), np.array(output))]) == expected


# ---- calibration methods


def methods(**scales):
    return [Method(name, Fit(found), Fit(found)) for name, found in scales.items()]


def alike(scale):
    return dict.fromkeys(("x", "r1", "r2"), scale)


def compared(graph, feeds, **scales):
    return compare_methods(Simulations(graph, quantizable_layers(graph)), methods(**scales), Looked(feeds), Change)


def test_the_scales_that_change_least_are_chosen():
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    feeds = [{"x": np.abs(random(1, 3, 16, 16, seed=seed))} for seed in range(3)]
    found = compared(graph, feeds, mse=dict.fromkeys(("x", "r1", "r2"), 0.5), minmax=dict.fromkeys(("x", "r1", "r2"), 0.03))
    coarse, fine = found
    assert [one.method for one in found] == ["mse", "minmax"] and best_of(found) == fine
    assert coarse.change > 3 * fine.change and max(coarse.each_db) < min(fine.each_db) - 10


def test_scales_that_make_nan_are_not_chosen():
    """x / x: what is rounded to 0 makes NaN."""
    nodes = [node("MatMul", "x w", "m", "product"), node("Div", "m m", "y")]
    graph = Graph.from_model(model(nodes, {"x": [1, 4]}, {"y": [1, 4]}, {"w": np.eye(4, dtype=np.float32)}, opset=19))
    bad, good = compared(graph, [{"x": np.ones((1, 4), np.float32)}] * 2, mse={"x": 100.0}, minmax={"x": 0.01})
    assert best_of([bad, good]) == good and bad.change == math.inf and bad.each_db == (-LIMIT_DB, -LIMIT_DB)


def test_what_is_far_worse_on_half_of_the_samples_is_not_run_on_the_rest():
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    layers, ran = quantizable_layers(graph), []
    feeds = [{"x": random(1, 3, 16, 16, seed=seed)} for seed in range(8)]
    fits = methods(fine=alike(0.038), coarse=alike(1.0), near=alike(0.0395))

    class Measured(Change):
        def each(self, found):
            ran.append(len(found))
            return super().each(found)

    found = compare_methods(Simulations(graph, layers), fits, Looked(feeds), Measured)
    assert [one.method for one in found] == ["fine", "near"] and all(len(one.each_db) == 8 for one in found)
    assert ran == [4, 8, 4, 4, 8], "on the first half, and where it may be the best, on all"
    first_is_worst = compare_methods(Simulations(graph, layers), reversed(fits), Looked(feeds), Change)
    assert best_of(found).method == "fine" and best_of(first_is_worst).method != "coarse"
    alone = compare_methods(Simulations(graph, layers), fits, Looked(feeds[:1]), Change)
    assert [one.method for one in alone] == ["fine", "coarse", "near"], "a single sample has no half"


def test_what_is_surely_worse_on_half_of_the_samples_is_not_run_on_the_rest_unless_samples_are_rare():
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    layers, feeds = quantizable_layers(graph), [{"x": random(1, 3, 16, 16, seed=seed)} for seed in range(9)]
    fits = methods(fine=alike(0.04), worse=alike(0.06))
    found = compare_methods(Simulations(graph, layers), fits, Looked(feeds[:8]), Change)
    assert [one.method for one in found] == ["fine"]
    with_rare = compare_methods(Simulations(graph, layers), fits, Looked(feeds[:8], feeds[8:], 0.1), Change)
    assert [one.method for one in with_rare] == ["fine", "worse"] and all(len(one.each_db) == 8 for one in with_rare)


def test_scales_that_are_those_of_another_method_are_not_run():
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    feeds = [{"x": random(1, 3, 16, 16, seed=seed)} for seed in range(4)]
    first = {"x": 0.04, "r1": 0.03, "r2": 0.02}
    found = compared(graph, feeds, minmax=first, mse={**first, "r1": 0.0302}, entropy={**first, "r2": 0.0204})
    assert [one.method for one in found] == ["minmax", "entropy"]


# ---- rare samples


def test_rare_samples_count_for_their_share_of_the_data():
    """A narrow scale is better on usual samples, and cuts most of a rare one off."""
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    usual, rare = ([{"x": factor * random(1, 3, 16, 16, seed=seed)} for seed in range(4)] for factor in (1, 8))
    fits = methods(wide=alike(0.25), narrow=alike(0.04))
    layers = quantizable_layers(graph)
    wide, narrow = compare_methods(Simulations(graph, layers), fits, Looked(usual, rare, 0.1), Change)
    assert narrow.worst > 3 * wide.worst and narrow.change > wide.change and min(narrow.each_db) > max(wide.each_db)
    assert best_of([wide, narrow]) == wide and best_of([narrow, wide]) == wide
    without = compare_methods(Simulations(graph, layers), fits, Looked(usual), Change)
    assert best_of(without).method == "narrow" and without[1].change < narrow.change / 3


def test_a_sample_is_left_behind_only_for_what_is_far_better_on_all_of_them():
    wide = outcome("minmax", 0.02, worst=0.02)
    assert best_of([wide, outcome("entropy", 0.015, worst=0.03)]).method == "entropy"
    assert best_of([wide, outcome("entropy", 0.015, worst=0.05)]) == wide
    assert best_of([wide, outcome("entropy", 0.009, worst=0.05)]).method == "entropy", "one sample spoils the wide scale for all others"
    exact = outcome("minmax", 1e-5, worst=2e-5)
    assert best_of([exact, outcome("entropy", 0.9e-5, *[102.0] * 8, worst=9e-4)]).method == "entropy", "less than what FP16 makes"
