"""quant/equalize/ranges.py against a search over all thresholds with the values themselves."""

import numpy as np
import pytest

from onnx2trt.quant.equalize.ranges import BINS, POSITIONS, STEPS, ChannelRanges


def heavy_tailed(seed, shape=(2, 6, 30, 40)):
    random = np.random.default_rng(seed)
    values = random.standard_t(3, shape) * random.lognormal(0, 2, (1, shape[1], 1, 1)) + random.normal(0, 2, (1, shape[1], 1, 1))
    values[:, 1] = np.maximum(values[:, 1], 0)
    return values.astype(np.float32)


def ranges_of(*arrays, axis=1):
    found = ChannelRanges(axis)
    for array in arrays:
        found.measure(array)
    for array in arrays:
        found.count(found.rows(array))
    return found


def loss(values, low, high):
    """Squared distance of what is clipped, and step^2 / 12 for each value."""
    values = values.astype(np.float64)
    return (np.clip(values, low, high) - values).__pow__(2).sum() + values.size * ((high - low) / STEPS) ** 2 / 12


@pytest.mark.parametrize("seed", range(6))
def test_symmetric_thresholds_lose_as_little_as_the_best(seed):
    values = heavy_tailed(seed)
    for channel, threshold in enumerate(ranges_of(values).symmetric()):
        own = values[:, channel]
        largest = np.abs(own).max()
        best = min(loss(own, -t, t) for t in np.linspace(0.02, 1, 300) * largest)
        assert 0 < threshold <= largest * 1.000001 and loss(own, -threshold, threshold) <= 1.1 * best


@pytest.mark.parametrize("seed", range(6))
def test_intervals_lose_hardly_more_than_the_best(seed):
    values = heavy_tailed(seed)
    lows, highs = ranges_of(values).interval()
    for channel, (low, high) in enumerate(zip(lows, highs)):
        own = values[:, channel]
        ends = np.linspace(own.min(), own.max(), 120)
        best = min(loss(own, a, b) for a in ends[::2] for b in ends[1::2] if b > a)
        assert own.min() - 1e-6 <= low < high <= own.max() + 1e-6 and loss(own, low, high) <= 1.15 * best


def test_tails_are_clipped_and_plain_ranges_are_not():
    flat = np.linspace(-1, 3, 4000, dtype=np.float32)
    tailed = np.append(flat[:-1], np.float32(300))
    found = ranges_of(np.stack([flat, tailed])[None])
    low, high = found.interval()
    assert low[0] == pytest.approx(-1, abs=0.05) and high[0] == pytest.approx(3, abs=0.05)
    assert found.symmetric()[0] == pytest.approx(3, rel=0.02) and found.symmetric()[1] >= 3 and high[1] >= 3


def test_constant_channels():
    values = np.stack([np.full((5, 7), constant, np.float32) for constant in (0.0, 2.5, -3.0)])[None]
    found = ranges_of(values)
    assert found.symmetric()[0] == 0
    assert found.symmetric()[1:] == pytest.approx([2.5, 3.0], rel=0.02)
    low, high = found.interval()
    assert low == pytest.approx([0, 2.5, -3]) and high == pytest.approx([0, 2.5, -3])


@pytest.mark.parametrize("axis, move", [(0, 0), (2, 2), (3, 3)])
def test_channels_along_any_axis(axis, move):
    values = heavy_tailed(1)
    direct, moved = ranges_of(values), ranges_of(np.moveaxis(values, 1, move), axis=axis)
    assert np.array_equal(direct.symmetric(), moved.symmetric()) or np.allclose(direct.symmetric(), moved.symmetric(), rtol=0.05)
    assert np.array_equal(direct.low, moved.low) and np.array_equal(direct.high, moved.high)


def test_several_inferences_count_as_one():
    values = heavy_tailed(2, (4, 6, 10, 10))
    parts, whole = ranges_of(*values[:, None]), ranges_of(values)
    assert np.array_equal(parts.symmetric(), whole.symmetric())
    assert all(np.array_equal(a, b) for a, b in zip(parts.interval(), whole.interval()))


def test_large_tensors_are_counted_in_part_and_measured_in_whole():
    values = np.random.default_rng(0).standard_normal((1, 2, POSITIONS * 3 + 5)).astype(np.float32)
    values[0, 0, 7] = 100
    found = ranges_of(values)
    assert found.high[0] == 100 and POSITIONS <= found._counts[1].sum() <= 2 * POSITIONS and found._counts.shape == (2, BINS)
    assert found.symmetric()[1] == pytest.approx(np.abs(values[0, 1]).max(), rel=0.3)


@pytest.mark.parametrize("axis", [1, 2])
def test_spread_and_number_of_values_are_those_of_all_inferences(axis):
    arrays = [np.swapaxes(heavy_tailed(seed), 1, axis) for seed in (0, 1)]
    found = ranges_of(*arrays, axis=axis)
    values = np.concatenate([np.moveaxis(array, axis, 0).reshape(6, -1) for array in arrays], axis=1).astype(np.float64)
    np.testing.assert_array_equal(found.seen, (values != 0).sum(axis=1))
    assert found.seen[1] < found.seen[0], "zeros do not count"
    for around in (np.zeros(6), np.linspace(-3, 5, 6)):
        np.testing.assert_allclose(found.spread(around), np.sqrt(((values - around[:, None]) ** 2).mean(axis=1)), rtol=1e-6)
