"""compare/metrics.py: numbers computed by hand."""

import math

import numpy as np
import pytest

from onnx2trt.base.errors import ExitCode
from onnx2trt.compare.metrics import (
    BOOTSTRAP_ROUNDS,
    SQNR_LIMIT_DB,
    OutputComparison,
    choose_metric,
    drop_percent,
    fits,
    measure,
    metric_for,
    misfit,
    standard_error,
)

NAN, INF = np.nan, np.inf


def array(*values, dtype="float32") -> np.ndarray:
    return np.array(values, dtype)


def compared(metric: str, *pairs) -> OutputComparison:
    """A comparison over (reference, output) samples."""
    comparison = OutputComparison("y", metric)
    for index, (reference, output) in enumerate(pairs):
        comparison.add(np.asarray(reference), np.asarray(output), f"{index}.jpg")
    return comparison


@pytest.mark.parametrize(
    ("shape", "low", "high", "image", "channels_last", "expected"),
    [
        ((1, 10), -5, 5, None, False, "top1"),
        ((8, 2), 0, 1, (20, 30), False, "top1"),
        ((8, 1), 0, 1, None, False, "noise"),
        ((1, 4, 20, 30), -1, 9, (20, 30), False, "argmax"),
        ((1, 20, 30, 4), -1, 9, (20, 30), True, "argmax_last"),
        ((1, 1, 20, 30), 0, 1, (20, 30), False, "mask:0.3"),
        ((1, 20, 30, 1), 0, 1, (20, 30), True, "mask:0.3"),
        ((1, 20, 30), 0.1, 0.9, (20, 30), False, "mask:0.3"),
        ((1, 1, 20, 30), -0.01, 1, (20, 30), False, "noise"),
        ((1, 1, 20, 30), 0, 1.01, (20, 30), False, "noise"),
        ((1, 20, 30), -0.01, 1, (20, 30), False, "noise"),
        ((1, 20, 30), 0, 1.01, (20, 30), False, "noise"),
        ((1, 1, 10, 15), 0, 1, (20, 30), False, "noise"),
        ((1, 1, 20, 30), 0, 1, None, False, "noise"),
        ((1, 20, 31), 0, 1, (20, 30), False, "noise"),
        ((1, 100, 85), 0, 1, (20, 30), False, "noise"),
        ((5,), 0, 1, None, False, "noise"),
        ((), 0, 1, None, False, "noise"),
        ((1, 2, 3, 4, 5), 0, 1, None, False, "noise"),
    ],
)
def test_choose_metric(shape, low, high, image, channels_last, expected):
    assert choose_metric(shape, low, high, image, channels_last) == expected


ANY = ("cosine", "noise")


@pytest.mark.parametrize(
    ("shape", "channels_last", "expected"),
    [
        ((), False, {*ANY}),
        ((5,), False, {*ANY}),
        ((1, 1), False, {"mask:0.5", *ANY}),
        ((1, 10), False, {"top1", "mask:0.5", *ANY}),
        (("N", "C"), False, {"top1", "mask:0.5", *ANY}),
        ((1, 10, 1, 1), False, {"top1", "argmax", "mask:0.5", *ANY}),
        ((1, 1, 10, 1), False, {"top1", "mask:0.5", *ANY}),
        ((1, 4, 20, 30), False, {"argmax", "mask:0.5", *ANY}),
        ((1, 1, 20, 30), False, {"mask:0.5", *ANY}),
        ((1, 20, 30, 1), True, {"mask:0.5", *ANY}),
        ((1, 20, 30, 4), True, {"argmax", "mask:0.5", *ANY}),
        ((1, 20, 30), False, {"argmax", "mask:0.5", *ANY}),
        ((1, 20, 1), False, {"top1", "mask:0.5", *ANY}),
        (("N", None, "h", "w"), False, {"top1", "argmax", "mask:0.5", *ANY}),
    ],
)
def test_which_metrics_fit_an_output(shape, channels_last, expected):
    found = {metric for metric in ("top1", "argmax", "mask:0.5", *ANY) if fits(metric, shape, channels_last)}
    assert found == expected


def test_the_choice_holds_for_the_outputs_that_it_fits():
    assert metric_for("auto", "noise", (1, 10)) == "noise"
    assert metric_for("top1", "noise", (1, 10)) == "top1"
    assert metric_for("top1", "noise", (10,)) == "noise"
    assert metric_for("argmax", "noise", (1, 3, 8, 8)) == "argmax"
    assert metric_for("argmax", "noise", (1, 8, 8, 3), channels_last=True) == metric_for("argmax", "noise", (1, 8, 3)) == "argmax_last"
    assert metric_for("mask:0.5", "argmax", (1, 3, 8, 8)) == "mask:0.5"


def test_a_choice_that_fits_nothing_is_an_error_with_the_shapes():
    error = misfit("top1", {"a": (5,), "b": (1, 4, None, "w"), "c": ()})
    assert error is None  # b may become 1x4x1x1
    error = misfit("top1", {"a": (5,), "b": (1, 4, 8, 8), "c": ()})
    assert (
        error.code is ExitCode.USAGE
        and "--metric top1 fits no output of the model: 'a' is 5, 'b' is 1x4x8x8, 'c' is scalar" in error.message
    )
    assert "[N, C > 1]" in error.hint
    assert "[N, ...]" in misfit("mask:0.5", {"a": (5,)}).hint
    assert misfit("top1", {"a": (5,), "b": None}) is None and misfit("auto", {"a": (5,)}) is None and misfit("cosine", {"a": ()}) is None


CLASSES = array([[1, 5], [2, 0]], [[3, 4], [2, 1]])  # [2, 2, 2]: argmax over the first axis is [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("metric", "reference", "output", "part", "whole"),
    [
        ("top1", array(1, 3, 2), array(0, 9, 8), 1, 1),
        ("top1", array(1, 3, 2), array(0, 8, 9), 0, 1),
        ("argmax", CLASSES, CLASSES + 7, 4, 4),
        ("argmax", CLASSES, CLASSES[::-1], 1, 4),  # [[0, 1], [0, 0]]: at the tie, both take the first
        ("argmax_last", array([1, 2], [4, 3]), array([1, 2], [3, 4]), 1, 2),
        ("mask:0.3", array(0.2, 0.31, 0.9, 0.3), array(0.4, 0.5, 0.1, 0.3), 1, 3),
        ("mask:0.3", array(0.1, 0.2), array(0.2, 0.1), 0, 0),
        ("mask:0.5", array(0.4, 0.6), array(0.6, 0.6), 1, 2),
        ("cosine", array(3, 4), array(4, 3), 24, 25),
        ("cosine", array(3, 4), array(-3, -4), -25, 25),
        ("cosine", array(0, 0), array(0, 0), 0, 0),
        ("cosine", array(0, 0), array(3, 4), 0, 25),  # nothing agrees
        ("cosine", array(60000, 0, dtype="float16"), array(60000, 0, dtype="float16"), 6e4**2, 6e4**2),
        ("noise", array(1, 2, -2), array(1, 2.5, -2), 0.25, 9),
        ("noise", array(250, 3, dtype="uint8"), array(5, 4, dtype="uint8"), 245**2 + 1, 250**2 + 9),  # no wrap-around
        ("noise", array(60000, 0, dtype="float16"), array(0, 0, dtype="float16"), 6e4**2, 6e4**2),  # beyond the largest half
        ("noise", array(True, False, dtype="bool"), array(True, True, dtype="bool"), 1, 1),
    ],
)
def test_measure(metric, reference, output, part, whole):
    assert measure(metric, reference, output) == pytest.approx((part, whole))


@pytest.mark.parametrize(
    ("metric", "parts", "wholes", "drop"),
    [
        ("top1", [1, 0, 1, 1], [1, 1, 1, 1], 25),
        ("mask:0.3", [90, 0], [100, 100], 55),  # pooled
        ("mask:0.3", [9, 990], [10, 1000], 100 * (1 - 999 / 1010)),  # not the mean over images
        ("mask:0.3", [0, 0], [0, 0], 0),  # an empty union is full agreement
        ("argmax", [50], [50], 0),
        ("cosine", [24, 0.5], [25, 1], 100 * 1.5 / 26),  # by the norms
        ("cosine", [-1], [1], 200),
        ("cosine", [1 + 1e-16], [1], 0),
        ("noise", [1, 3], [100, 300], 1),
        ("noise", [0], [0], 0),
        ("noise", [1], [0], 1e9),
        ("noise", [1e30], [1], 1e9),
    ],
)
def test_drop_percent(metric, parts, wholes, drop):
    assert drop_percent(metric, np.array(parts, float), np.array(wholes, float)) == pytest.approx(drop)


def test_one_percent_of_noise_is_20_db():
    comparison = compared("noise", (array(10, 0), array(10, 1)))
    assert comparison.drop == pytest.approx(1)
    assert comparison.sqnr_db == pytest.approx(20)


def test_standard_error_of_a_share_is_that_of_the_binomial_distribution():
    parts = np.tile([1.0, 0.0], 200)
    assert standard_error("top1", parts, np.ones(400)) == pytest.approx(
        100 * math.sqrt(0.25 / 400), rel=3 / math.sqrt(2 * BOOTSTRAP_ROUNDS)
    )


def test_standard_error_draws_part_and_whole_together():
    """The share is 1 % in every sample, so that drawing cannot change it."""
    wholes = np.arange(1.0, 50.0)
    assert standard_error("noise", wholes / 100, wholes) == pytest.approx(0, abs=1e-12)


def test_standard_error_is_the_same_every_time_and_none_for_one_sample():
    parts, wholes = np.random.default_rng(1).random(30), np.ones(30)
    assert standard_error("noise", parts, wholes) == standard_error("noise", parts, wholes) > 0
    assert standard_error("noise", parts[:1], wholes[:1]) is None


def test_an_identical_output():
    comparison = compared("noise", (array(1, -2), array(1, -2)))
    assert (comparison.drop, comparison.max_abs_error, comparison.nonfinite) == (0, 0, 0)
    assert comparison.sqnr_db == SQNR_LIMIT_DB


def test_sqnr_is_pooled_and_bounded():
    assert compared("noise", (array(3), array(3.3)), (array(4), array(4))).sqnr_db == pytest.approx(10 * math.log10(25 / 0.09), rel=1e-5)
    assert compared("noise", (array(0), array(1))).sqnr_db == -SQNR_LIMIT_DB
    assert compared("noise", (array(1e-30), array(1e30))).sqnr_db == -SQNR_LIMIT_DB
    assert compared("noise", (array(1, dtype="float64"), array(1 + 1e-15, dtype="float64"))).sqnr_db == SQNR_LIMIT_DB


def test_max_abs_error_is_the_largest_of_all_samples_and_of_either_sign():
    assert compared("noise", (array(1, 2), array(1, -1)), (array(1, 2), array(1.5, 2))).max_abs_error == 3
    assert compared("noise", (array(), array())).max_abs_error == 0


def test_nonfinite_outputs_are_counted_where_the_model_is_finite():
    comparison = compared("noise", (array(1, 2, INF, 4), array(NAN, -INF, INF, 4)), (array(1), array(INF)))
    assert comparison.nonfinite == 3
    assert math.isfinite(comparison.drop) and math.isfinite(comparison.sqnr_db)


def test_a_nan_counts_as_an_error_of_the_whole_value():
    comparison = compared("noise", (array(3, 4), array(3, NAN)))
    assert comparison.drop == pytest.approx(100 * 16 / 25)
    assert comparison.max_abs_error == 4


def test_what_the_model_itself_makes_infinite_is_left_out():
    comparison = compared("noise", (array(3, INF), array(3, INF)))
    assert (comparison.nonfinite, comparison.drop, comparison.sqnr_db) == (0, 0, SQNR_LIMIT_DB)


def test_worst_sample_with_its_file():
    comparison = compared("noise", (array(10), array(10)), (array(10), array(9)), (array(10), array(9.5)))
    assert comparison.worst() == ("1.jpg", pytest.approx(1))


def test_drop_and_its_error_come_from_the_samples():
    comparison = compared("top1", *[(array(1, 0), array(1, 0))] * 3, (array(1, 0), array(0, 1)))
    assert comparison.drop == 25
    assert comparison.drop_error == standard_error("top1", np.array([1, 1, 1, 0]), np.ones(4)) > 0
    assert compared("top1", (array(1, 0), array(1, 0))).drop_error is None


@pytest.mark.parametrize(
    ("references", "constant"),
    [
        ([array(5, 5)], True),
        ([array(5, 6)], False),  # one sample says nothing about change
        ([array(5, 6), array(5, 6)], True),
        ([array(5, 6), array(5, 6), array(6, 5)], False),
        ([array(5, 6), array(6, 5), array(5, 6)], False),
        ([array(5, 5), array(6, 6)], False),
        ([array(5, 5), array(5, 5)], True),
        ([array()], True),
    ],
)
def test_a_reference_that_never_changes_is_seen(references, constant):
    assert compared("noise", *((reference, reference) for reference in references)).constant is constant


@pytest.mark.parametrize("metric", ["top1", "argmax"])
def test_masked_classes_do_not_hide_a_wrong_class(metric):
    assert compared(metric, (array(-INF, -1, -2), array(-INF, -2, -1))).drop == 100


def test_a_nan_counts_beside_an_infinity_of_the_model():
    assert compared("noise", (array(3, 4, INF), array(3, NAN, INF))).drop == pytest.approx(100 * 16 / 25)
