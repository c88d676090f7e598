"""quant/rounding.py: the same with values of FP8, whose steps grow with them."""

import numpy as np
import pytest

from onnx2trt.quant import rounding
from onnx2trt.rewrite.number_formats import FP8

GRID = np.unique(np.arange(256, dtype=np.uint8).view(FP8.dtype).astype(np.float32))
GRID = GRID[np.isfinite(GRID)]


def layer(outputs: int, count: int, seed: int):
    """(weights [1, O, K] in units of their scale, mean products of correlated inputs)"""
    random = np.random.default_rng(seed)
    weights = random.standard_normal((1, outputs, count))
    inputs = random.standard_normal((4, 1000)).repeat(-(-count // 4), axis=0)[:count] + 0.2 * random.standard_normal((count, 1000))
    return (weights / np.abs(weights).max() * 448).astype(np.float32), (inputs @ inputs.T / 1000 + 0.01 * np.eye(count))[None]


def loss(values, exact, gram):
    difference = values.astype(np.float64) - exact
    return np.einsum("gok,gkl,gol->go", difference, gram, difference)


@pytest.mark.parametrize("outputs, count", [(5, 12), (3, rounding.BLOCK), (3, 2 * rounding.BLOCK + 5), (1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_rows_lose_less_than_with_the_nearest_values_and_each_is_the_best_when_its_turn_comes(outputs, count, seed, monkeypatch):
    exact, gram = layer(outputs, count, seed)
    settled, nearest = rounding.settle(exact, gram, FP8), FP8.nearest(exact)
    assert np.isin(settled, GRID).all()
    before, after = loss(nearest, exact, gram), loss(settled, exact, gram)
    assert (after <= before * (1 + 1e-4) + 1e-9).all() and (count == 1 or after.sum() < 0.7 * before.sum())
    assert (settled[np.abs(nearest) == 448] == nearest[np.abs(nearest) == 448]).all(), "who takes the scale from it has to find it"
    monkeypatch.setattr(rounding, "SWEEPS", 1)
    once = rounding.settle(exact, gram, FP8)
    for column in range(0, count, 7):
        then = np.concatenate([once[:, :, : column + 1], nearest[:, :, column + 1 :]], axis=2)
        own, free = loss(then, exact, gram), np.abs(nearest[:, :, column]) < 448
        for step in (-1, 1):  # the next value of the format on either side
            other, place = then.copy(), np.searchsorted(GRID, then[:, :, column])
            other[:, :, column] = np.where(free, GRID[np.clip(place + step, 0, len(GRID) - 1)], then[:, :, column])
            assert (loss(other, exact, gram) >= own * (1 - 1e-3)).all()
