"""compare/intervals.py: against known numbers and simulated experiments."""

import math

import numpy as np
import pytest

from onnx2trt.compare.intervals import BOOTSTRAP_ROUNDS, allowance, bootstrap, enough, percentiles, shown_share, wilson


@pytest.mark.parametrize(
    ("missed", "total", "low", "high"),
    [(0, 20, 0, 16.1), (1, 20, 0.9, 23.6), (2, 20, 2.8, 30.1), (0, 200, 0, 1.9), (5, 10, 23.7, 76.3), (20, 20, 83.9, 100), (0, 0, 0, 100)],
)
def test_wilson(missed, total, low, high):
    assert wilson(missed, total) == pytest.approx((low, high), abs=0.06)


@pytest.mark.parametrize(("share", "count"), [(0.02, 50), (0.1, 20), (0.5, 12), (0.003, 500)])
def test_wilson_holds_the_true_share_in_most_experiments(share, count):
    missed = np.random.default_rng(0).binomial(count, share, 4000)
    held = np.mean([low <= 100 * share <= high for low, high in (wilson(number, count) for number in missed)])
    assert held > 0.92


@pytest.mark.parametrize("total", [2, 3, 10, 20, 99])
def test_one_of_few_shows_nothing(total):
    assert shown_share(1, total) == shown_share(0, total) == 0.0
    assert shown_share(2, total) > 0


def test_a_single_decision_that_is_wrong_is_all_that_is_known():
    assert shown_share(1, 1) > 10 and shown_share(0, 1) == 0


@pytest.mark.parametrize("missed", [0, 2, 10, 799])
def test_of_many_the_drop_itself_counts(missed):
    assert shown_share(missed, 800) == pytest.approx(missed / 8) and shown_share(missed / 8, 100) <= missed / 8


def test_what_is_shown_grows_with_what_is_missed_and_with_the_number():
    assert all(shown_share(number, 150) < shown_share(number + 1, 150) for number in range(1, 149))
    assert all(shown_share(0.05 * count, count) < shown_share(0.06 * count, 1.2 * count) for count in range(41, 660, 10))


def test_from_few_to_enough():
    assert enough(1) == enough(200) == 0 and enough(800) == enough(1e6) == 1 and 0 < enough(400) < 1


@pytest.mark.parametrize("count", [3, 4, 5, 8, 12, 20, 30, 60, 100])
def test_an_error_seems_larger_by_the_allowance_in_one_of_twenty_experiments(count):
    """Mean square of `count` errors against a variance estimated from as many values, both of the true size 1."""
    random = np.random.default_rng(count)
    errors = (random.standard_normal((20000, count)) ** 2).mean(1)
    variances = random.standard_normal((20000, count)).var(1, ddof=1)
    beyond = np.mean(errors / variances > allowance(count))
    assert 0.03 < beyond < 0.07


def test_the_allowance_falls_to_nothing_and_is_bounded():
    counts = np.array([0, 1, 2, 2.5, 3, 7, 20, 29.9, 30, 50, 100, 200, 799])
    assert (np.diff(allowance(counts)) <= 1e-9).all() and allowance(2) == 50 and allowance(800) == allowance(10**7) == 1


def test_the_bootstrap_of_a_share_is_that_of_the_binomial_distribution():
    right = np.tile([1.0, 0.0], 200)
    drawn = bootstrap(lambda rows: 100 * (1 - right[rows].mean(1)), 400)
    assert drawn.std() == pytest.approx(100 * math.sqrt(0.25 / 400), rel=3 / math.sqrt(2 * BOOTSTRAP_ROUNDS))
    low, high = percentiles(drawn)
    assert low == pytest.approx(50 - 1.96 * 2.5, abs=1) and high == pytest.approx(50 + 1.96 * 2.5, abs=1)


def test_the_bootstrap_is_the_same_every_time_and_none_for_one_sample():
    values = np.random.default_rng(1).random(30)
    first, second = (bootstrap(lambda rows: values[rows].mean(1), 30) for _ in range(2))
    assert np.array_equal(first, second) and first.std() > 0
    assert bootstrap(lambda rows: values[rows].mean(1), 1) is None and percentiles(None) is None
