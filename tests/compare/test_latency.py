"""compare/latency.py: engines are timed in turn, each for about as long, and other work on the GPU does not decide which is faster."""

import numpy as np
import pytest

from onnx2trt.compare.latency import ENOUGH, MOST_ROUNDS, QUIET, measure_in_turn


def test_engines_are_timed_in_turn():
    calls = []

    def timer(name, milliseconds):
        return lambda runs: calls.append(name) or [milliseconds] * runs

    found = measure_in_turn({"a": timer("a", 10.0), "b": timer("b", 20.0)})
    assert found["a"]["p50_ms"] == 10.0 and found["b"]["p99_ms"] == 20.0
    assert calls == ["a", "a", "b", "b", *["a", "b"] * 5], "a first look and a warm-up each, then rounds"
    assert found["a"]["runs"] == 100 and found["b"]["runs"] == 50, "about a second each"


class Gpu:
    """Whose rounds are slowed down, some of them, by something of at most a factor of 3."""

    def __init__(self, seed: int, share: float):
        self.random, self.share = np.random.default_rng(seed), share

    def timer(self, milliseconds: float):
        def time_ms(runs: int) -> list[float]:
            factor = self.random.uniform(1.1, 3.0) if self.random.random() < self.share else self.random.uniform(1.0, 1.005)
            return list(milliseconds * factor * self.random.uniform(1.0, 1.01, runs))

        return time_ms


@pytest.mark.parametrize("seed", range(40))
def test_other_work_does_not_decide_which_is_faster(seed):
    gpu, said = Gpu(seed, share=0.5), []
    found = measure_in_turn({"slow": gpu.timer(1.06), "fast": gpu.timer(1.0)}, warn=said.append)
    assert found["fast"]["p50_ms"] < found["slow"]["p50_ms"] and found["fast"]["p99_ms"] < 1.02 * QUIET and not said


def test_where_hardly_a_round_is_quiet_it_is_said_and_the_fastest_count():
    rounds = iter(np.geomspace(1.0, 300.0, 10**4))  # each slower than the one before
    growing = lambda runs: [next(rounds)] * runs  # noqa: E731
    keep, said = {}, []
    found = measure_in_turn({"a": growing, "b": lambda runs: [1.0] * runs}, keep, said.append)
    assert not said and found["b"]["runs"] == 5 * 200, "within 5 %"
    rounds = iter(np.geomspace(1.0, 1e9, 60))
    found = measure_in_turn({"a": lambda runs: [next(rounds)] * runs, "b": lambda runs: [1.0] * runs}, keep, said.append)
    (sentence,) = said
    assert f"the GPU seems to have other work: {MOST_ROUNDS} rounds" in sentence and "not certain" in sentence
    assert len(set(keep["a"])) == ENOUGH and found["b"]["p50_ms"] == 1.0


def test_one_engine_is_timed_as_it_comes():
    found = measure_in_turn({"a": lambda runs: [1.0] * (runs - 50) + [9.0] * 50 if runs > 50 else [1.0] * runs})
    assert found["a"]["runs"] == 1000 and found["a"]["p99_ms"] == 9.0, "what else the GPU does is in its percentiles"
