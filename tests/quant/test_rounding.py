"""quant/rounding.py: integers that lose less together than the nearest ones, within the same range."""

import numpy as np
import pytest

from onnx2trt.quant import rounding
from onnx2trt.rewrite.qdq import INT8_MAX


def layer(groups, outputs, count, seed=0, correlation=0.9):
    """(exact weights, scale of each, nearest integers, mean products of correlated inputs)"""
    random = np.random.default_rng(seed)
    exact = random.standard_normal((groups, outputs, count))
    scales = np.broadcast_to(np.abs(exact).max(axis=2, keepdims=True) / INT8_MAX, exact.shape)
    common = random.standard_normal((groups, 4, 1000)).repeat(-(-count // 4), axis=1)[:, :count]
    inputs = correlation * common + (1 - correlation) * random.standard_normal((groups, count, 1000))
    gram = inputs @ inputs.transpose(0, 2, 1) / 1000 + 0.01 * np.eye(count)
    return exact, scales, np.rint(exact / scales), gram


def loss(integers, exact, scales, gram):
    difference = integers * scales - exact
    return np.einsum("gok,gkl,gol->go", difference, gram, difference)


SIZES = [(1, 5, 12), (3, 4, 9), (1, 3, rounding.BLOCK), (1, 3, 2 * rounding.BLOCK + 5), (2, 1, 1)]


@pytest.mark.parametrize("groups, outputs, count", SIZES)
def test_every_row_loses_less_than_with_the_nearest_integers_or_the_same(groups, outputs, count):
    exact, scales, nearest, gram = layer(groups, outputs, count)
    settled = rounding.settle(exact / scales, gram)
    before, after = (loss(integers, exact, scales, gram) for integers in (nearest, settled))
    assert np.array_equal(settled, np.rint(settled)) and np.abs(settled).max() <= INT8_MAX
    assert (after <= before * (1 + 1e-4) + 1e-12).all()
    if count > 4:
        assert after.sum() < 0.5 * before.sum()


@pytest.mark.parametrize("groups, outputs, count", SIZES)
def test_no_single_change_is_left_that_would_be_better(groups, outputs, count, monkeypatch):
    monkeypatch.setattr(rounding, "SWEEPS", 50)
    exact, scales, nearest, gram = layer(groups, outputs, count)
    settled = rounding.settle(exact / scales, gram)
    for column in range(count):
        assert nothing_better_than(settled, column, nearest, exact, scales, gram)


@pytest.mark.parametrize("groups, outputs, count", SIZES)
def test_each_weight_is_the_best_integer_when_its_turn_comes(groups, outputs, count, monkeypatch):
    """Those before it have got theirs, those behind it are the nearest."""
    monkeypatch.setattr(rounding, "SWEEPS", 1)
    exact, scales, nearest, gram = layer(groups, outputs, count)
    settled = rounding.settle(exact / scales, gram)
    for column in range(count):
        then = np.concatenate([settled[:, :, : column + 1], nearest[:, :, column + 1 :]], axis=2)
        assert nothing_better_than(then, column, nearest, exact, scales, gram)


def nothing_better_than(integers, column, nearest, exact, scales, gram):
    """Whether no row would lose less with a neighbour of its integer in this column."""
    best, free = loss(integers, exact, scales, gram), np.abs(nearest[:, :, column]) < INT8_MAX
    for step in (-1, 1):
        other = integers.copy()
        other[:, :, column] += step * (free & (np.abs(integers[:, :, column] + step) <= INT8_MAX))
        if (loss(other, exact, scales, gram) < best * (1 - 1e-3)).any():
            return False
    return True


def test_the_ends_of_the_range_stay():
    """TensorRT's calibrator takes the scales from the largest weights anew."""
    exact, scales, nearest, gram = layer(2, 30, 40)
    settled = rounding.settle(exact / scales, gram)
    ends = np.abs(nearest) == INT8_MAX
    assert ends.any(axis=2).all() and np.array_equal(settled[ends], nearest[ends]) and not np.array_equal(settled, nearest)


def test_inputs_that_have_nothing_to_do_with_one_another_keep_the_nearest():
    exact, scales, nearest, _ = layer(2, 5, 30)
    assert np.array_equal(rounding.settle(exact / scales, np.broadcast_to(np.eye(30), (2, 30, 30))), nearest)


def test_the_result_does_not_depend_on_the_size_of_the_blocks(monkeypatch):
    exact, scales, nearest, gram = layer(1, 6, 50)
    expected = rounding.settle(exact / scales, gram)
    monkeypatch.setattr(rounding, "BLOCK", 7)
    assert (rounding.settle(exact / scales, gram) != expected).mean() < 0.02, "but for float32"


def test_the_arguments_stay_as_they_are():
    arguments = exact, scales, nearest, gram = layer(1, 4, 20)
    copies = [array.copy() for array in arguments]
    rounding.settle(exact / scales, gram)
    assert all(np.array_equal(array, copy) for array, copy in zip(arguments, copies))
