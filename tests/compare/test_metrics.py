"""compare/metrics.py: which outputs a metric fits, and numbers computed by hand."""

import numpy as np
import pytest

from onnx2trt.base.errors import ExitCode
from onnx2trt.compare.metrics import class_axis, decibels, drop_percent, fits, measure, misfit

ANY = ("values", "equal", "cosine", "noise")


def array(*values, dtype="float32") -> np.ndarray:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("shape", "channels_last", "expected"),
    [
        ((), False, {*ANY}),
        ((5,), False, {"rows", *ANY}),
        ((1, 1), False, {"rows", "mask:0.5", *ANY}),
        ((1, 10), False, {"rows", "top1", "mask:0.5", *ANY}),
        (("N", "C"), False, {"rows", "top1", "mask:0.5", *ANY}),
        ((1, 10, 1, 1), False, {"rows", "top1", "argmax", "mask:0.5", *ANY}),
        ((1, 1, 10, 1), False, {"rows", "top1", "mask:0.5", *ANY}),
        ((1, 4, 20, 30), False, {"rows", "argmax", "mask:0.5", *ANY}),
        ((1, 1, 20, 30), False, {"rows", "mask:0.5", *ANY}),
        ((1, 20, 30, 1), True, {"rows", "mask:0.5", *ANY}),
        ((1, 20, 30, 4), True, {"rows", "argmax", "mask:0.5", *ANY}),
        ((1, 20, 30), False, {"rows", "argmax", "mask:0.5", *ANY}),
        ((1, 20, 1), False, {"rows", "top1", "mask:0.5", *ANY}),
        (("N", None, "h", "w"), False, {"rows", "top1", "argmax", "mask:0.5", *ANY}),
    ],
)
def test_which_metrics_fit_an_output(shape, channels_last, expected):
    found = {metric for metric in ("top1", "argmax", "mask:0.5", "rows", *ANY) if fits(metric, shape, channels_last)}
    assert found == expected


@pytest.mark.parametrize(
    ("metric", "shape", "channels_last", "axis"),
    [
        ("top1", (1, 10), False, 0),
        ("top1", (1, 1, 10, 1), False, 1),
        ("argmax", (1, 3, 8, 8), False, 0),
        ("argmax", (1, 8, 8, 3), True, -1),
        ("argmax", (1, 8, 3), False, -1),
    ],
)
def test_where_the_classes_of_a_sample_are(metric, shape, channels_last, axis):
    assert class_axis(metric, shape, channels_last) == axis


def test_a_choice_that_fits_nothing_is_an_error_with_the_shapes():
    assert misfit({"": "top1"}, {"a": (5,), "b": (1, 4, None, "w"), "c": ()}) is None  # b may become 1x4x1x1
    error = misfit({"": "top1"}, {"a": (5,), "b": (1, 4, 8, 8), "c": ()})
    assert error.code is ExitCode.USAGE
    assert "--metric top1 fits no output of the model: 'a' is 5, 'b' is 1x4x8x8, 'c' is scalar" in error.message
    assert "[N, C > 1]" in error.hint and "[N, ...]" in misfit({"": "mask:0.5"}, {"a": (5,)}).hint
    assert misfit({"": "top1"}, {"a": (5,), "b": None}) is None and misfit({}, {"a": (5,)}) is None
    assert misfit({"": "auto"}, {"a": (5,)}) is None and misfit({"": "cosine"}, {"a": ()}) is None


def test_a_choice_for_one_output_has_to_fit_that_one():
    shapes = {"a": (1, 10), "b": (1, 4, 8, 8)}
    assert misfit({"a": "top1", "b": "argmax"}, shapes) is None
    assert "--metric b:top1 does not fit this output: 'b' is 1x4x8x8" in misfit({"b": "top1"}, shapes).message
    error = misfit({"c": "top1"}, shapes)
    assert error.code is ExitCode.USAGE and "the model has no output 'c'" in error.message and "'a', 'b'" in error.hint


@pytest.mark.parametrize(
    ("metric", "reference", "output", "part", "whole"),
    [
        ("mask:0.3", array(0.2, 0.31, 0.9, 0.3), array(0.4, 0.5, 0.1, 0.3), 1, 3),
        ("mask:0.3", array(0.1, 0.2), array(0.2, 0.1), 0, 0),
        ("mask:0.5", array(0.4, 0.6), array(0.6, 0.6), 1, 2),
        ("equal", array(1, 2, 3), array(1.4, 2, 4), 2, 3),
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


def test_the_drops_of_several_draws_at_once():
    parts, wholes = np.array([[1.0, 1.0], [0.0, 1.0]]), np.ones((2, 2))
    assert drop_percent("top1", parts, wholes).tolist() == [0, 50]


def test_decibels_are_bounded():
    assert decibels(100.0, 1.0) == pytest.approx(20)
    assert (decibels(1.0, 0.0), decibels(0.0, 1.0), decibels(0.0, 0.0)) == (200, -200, 200)
    assert (decibels(1e-300, 1e300), decibels(1e300, 1e-300)) == (-200, 200)
