"""quant/sensitivity.py: what a layer costs, and the fewest layers that have to fall back."""

import math

import numpy as np
import pytest
from models import conv_net, profiles, random

from onnx2trt.model.graph import Graph
from onnx2trt.quant.sensitivity import FINEST_STEP, Tried, by_error_per_mac, by_noise, climb, layer_errors, left
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.qdq import int8_layers, quantizable_layers

# ---- Fit and the layers' errors


def change(expected):
    """The largest error that there is; infinite for what is no number."""

    def of(found):
        errors = [float(np.abs(output[name] - reference[name]).max()) for reference, output in zip(expected, found) for name in reference]
        return math.inf if any(map(math.isnan, errors)) else max(errors)

    return of


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
    errors = dict(layer_errors(graph, profiles(x=(1, 3, 16, 16)), layers, Fit({"x": 0.03, "r1": 0.5, "r2": 0.03}), feeds, change))
    assert list(errors) == ["stem", "depthwise", "head"]
    assert errors["depthwise"] > 3 * max(errors["stem"], errors["head"]) > 0


def test_layers_fall_back_by_error_for_the_work():
    errors = {"a": 0.1, "b": 0.1, "c": 0.4, "d": math.inf, "unknown": 0.001}
    macs = {"a": 1000, "b": 10, "c": 4000, "d": 10**9}
    assert by_error_per_mac(errors, macs) == ["d", "b", "c", "a", "unknown"]


# ---- climb


class Ladder:
    """Layers whose fallback passes from `needed` on."""

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

    def climb(self, least=0.1, guess=None):
        self.first = Tried(0, self.share(0), 9.0, 1.0, False, 9.0)
        shares = [work / self.total for work in left(self.order, self.macs)]
        assert shares == pytest.approx([self.share(kept) for kept in range(len(self.order) + 1)])
        return climb(shares, least, self.first, self.measure, guess)


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
        assert not passed and len(WORK[work]) in ladder.asked, "nothing is left that could fall back"
        return
    assert ladder.share(needed) - ladder.share(min(passed)) < FINEST_STEP, "no more work is lost than cannot be told apart"


@pytest.mark.parametrize("least", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("work", WORK)
def test_the_least_share_always_stays(work, least):
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


def test_segments_can_fall_back_like_layers():
    order = [("a", "b"), ("c",), ("d", "e", "f")]

    def measure(kept):
        return Tried(kept, 0.0, 0.0, 0.0, kept >= 2)

    found = climb(left(order, {part: len(part) for part in order}), 0.0, Tried(0, 1.0, 9.0, 1.0, False), measure)
    assert min(rung.kept for rung in found if rung.passed) == 2


def test_a_rung_that_passes_by_chance_is_taken():
    """Not monotone: whatever passed is returned, and the search goes on below it."""
    ladder = Ladder([1] * 16, 99)
    ladder.measure = lambda kept: (ladder.asked.append(kept), Tried(kept, 0.5, 0.0, 0.0, kept == 8))[1]
    tried = ladder.climb(0.0)
    assert [rung.kept for rung in tried if rung.passed] == [8] and max(ladder.asked) == 8


@pytest.mark.parametrize("seed", range(60))
def test_no_guess_leads_astray(seed):
    """However wrong, it costs a few measurements at most."""
    random_state = np.random.default_rng(seed)
    work = random_state.lognormal(3, 2, int(random_state.integers(1, 80))).tolist()
    needed = int(random_state.integers(1, len(work) + 1))
    wrong = [lambda _: 0, lambda _: len(work), lambda _: None, lambda _: int(random_state.integers(0, len(work) + 1))][seed % 4]
    ladder = Ladder(work, needed)
    tried = ladder.climb(0.0, wrong)
    assert len(set(ladder.asked)) == len(ladder.asked) <= 3 * (2 + math.log2(1 / FINEST_STEP))
    assert ladder.share(needed) - ladder.share(min(rung.kept for rung in tried if rung.passed)) < FINEST_STEP


def test_errors_that_add_up_are_guessed():
    """By any power of their sum: fewer measurements than by halving."""
    asked = {True: 0, False: 0}
    for seed in range(60):
        random_state = np.random.default_rng(seed)
        work, errors = random_state.lognormal(3, 1, 60).tolist(), np.sort(random_state.lognormal(-3, 1.5, 60))[::-1] ** 2
        power, most = random_state.uniform(0.5, 1.2), random_state.uniform(1.5, 30)
        for guessing in asked:
            ladder = Ladder(work, 0)
            noise = left(ladder.order, dict(zip(ladder.order, errors)))

            def measure(kept, ladder=ladder, noise=noise, power=power, most=most):
                ladder.asked.append(kept)
                reached = most * (noise[kept] / noise[0]) ** power
                return Tried(kept, ladder.share(kept), reached, 0.0, reached <= 1.0, reached)

            ladder.measure = measure
            first = Tried(0, 1.0, most, 0.0, False, most)
            shares = [ladder.share(kept) for kept in range(61)]
            tried = climb(shares, 0.0, first, measure, by_noise(noise, 1.0) if guessing else None)
            needed = next(kept for kept in range(61) if most * (noise[kept] / noise[0]) ** power <= 1.0)
            assert shares[needed] - max(shares[rung.kept] for rung in tried if rung.passed) < FINEST_STEP
            asked[guessing] += len(ladder.asked)
    assert asked[True] < 0.75 * asked[False], asked


def test_a_search_by_estimates_ends_between_two_measurements():
    """However far they are off, within what the caller takes for near: nothing is accepted that was not measured, no more work is lost
    than by measurements alone, and less is measured."""
    cost = {True: 0.0, False: 0.0}
    for seed in range(200):
        state = np.random.default_rng(seed)
        work, errors = state.lognormal(3, 1, 60).tolist(), np.sort(state.lognormal(-3, 1.5, 60))[::-1] ** 2
        power, most = state.uniform(0.5, 1.2), state.uniform(1.3, 30)
        ladder = Ladder(work, 0)
        noise = left(ladder.order, dict(zip(ladder.order, errors)))
        shares = [ladder.share(kept) for kept in range(61)]
        true = [most * (value / noise[0]) ** power for value in noise]
        off = np.clip(state.lognormal(0, 0.1, 61), 0.8, 1.2)
        for by_estimates in cost:

            def measure(kept, true=true, shares=shares):
                return Tried(kept, shares[kept], true[kept], 0.0, true[kept] <= 1, true[kept])

            def look(kept, true=true, off=off, shares=shares):
                return Tried(kept, shares[kept], 0.0, 0.0, true[kept] * off[kept] <= 1, true[kept] * off[kept], measured=False)

            def settle(rung, measure=measure):
                return rung if rung.measured or rung.reached > 1.25 else measure(rung.kept)

            guess = by_noise(noise, 1.0)
            tried = climb(shares, 0.0, measure(0), *((look, guess, settle) if by_estimates else (measure, guess)))
            best = min((rung for rung in tried if rung.passed), key=lambda rung: rung.kept)
            assert best.measured and true[best.kept] <= 1 and len({rung.kept for rung in tried}) == len(tried)
            needed = next(kept for kept in range(61) if true[kept] <= 1)
            assert shares[needed] - shares[best.kept] < FINEST_STEP
            cost[by_estimates] += sum(1.0 if rung.measured else 0.2 for rung in tried[1:])
    assert cost[True] < 0.75 * cost[False], cost


def test_an_estimate_that_was_too_good_is_found_out():
    """Then the search goes on; and where one was too bad, too."""
    for wrong in ({20: True}, {19: True, 20: True, 22: True}, {21: False}, {21: False, 22: False}):
        ladder = Ladder([1] * 40, 21)
        measured = []

        def look(kept, ladder=ladder, wrong=wrong):
            return Tried(kept, ladder.share(kept), 0.0, 0.0, wrong.get(kept, kept >= 21), 1.1, measured=False)

        def settle(rung, ladder=ladder, measured=measured):
            return rung if rung.measured else (measured.append(rung.kept), ladder.measure(rung.kept))[1]

        tried = climb([ladder.share(kept) for kept in range(41)], 0.0, Tried(0, 1.0, 9.0, 0.0, False, 9.0), look, None, settle)
        assert min(rung.kept for rung in tried if rung.passed) == 21 and len(set(measured)) == len(measured) < 6


def test_what_cannot_be_guessed_is_halved():
    noise = [math.inf, 4.0, 3.0, 2.0, 1.0, 0.0]
    assert by_noise(noise, 1.0)([Tried(0, 1.0, 9.0, 0.0, False, 9.0)]) is None, "an infinite error says nothing"
    assert by_noise(noise[1:], 1.0)([Tried(0, 1.0, 0.5, 0.0, False, 0.5)]) is None, "it failed for something else"
    assert by_noise(noise[1:], 1.0)([Tried(0, 1.0, 2.0, 0.0, False, 2.0)]) == 3, "4 * 0.9 / 2"
