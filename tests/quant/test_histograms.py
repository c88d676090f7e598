"""quant/histograms.py: streaming statistics and scales."""

import math

import numpy as np
import pytest
from models import random

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.quant import histograms as calibration
from onnx2trt.quant.histograms import Collector, Histogram, scale_of


def filled(*arrays):
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    return histogram


def normal(size=50_000, seed=0, scale=1.0):
    return random(size, seed=seed, scale=scale)


def test_every_value_is_counted_in_its_bucket():
    values = np.concatenate([normal(20_000, seed=i, scale=scale) for i, scale in enumerate((1e-6, 0.01, 1.0, 3e4))])
    histogram = filled(values)
    bits = np.abs(values).view(np.uint32) >> 16
    assert np.array_equal(histogram.counts, np.bincount(bits, minlength=calibration.BUCKETS))
    assert histogram.largest == np.abs(values).max()


@pytest.mark.parametrize(
    "values",
    [
        [0.0, -0.0],
        [0.0, 1.5, -1.5],
        [2.0**-40, -(2.0**40) * 0.999, 0.0],  # the ends of what is counted at once
        [2.0**40, 1.0],
        [2.0**-41, 1.0, 0.0],
        [1e-45, -1e-39, 0.0],  # below the normal range; the smallest of them fall into the bucket of zero
        [1e30, -3e38, 1e-20],
    ],
)
def test_values_of_any_size_are_counted(values):
    values = np.array(values, np.float32)
    histogram = filled(values)
    bits = np.abs(values).view(np.uint32) >> 16
    assert np.array_equal(histogram.counts, np.bincount(bits, minlength=calibration.BUCKETS))
    assert histogram.largest == np.abs(values).max()


def test_counts_stay_exact_beyond_one_chunk(monkeypatch):
    monkeypatch.setattr(calibration, "CHUNK", 1000)
    values = normal(10_500)
    chunked = filled(values)
    monkeypatch.undo()
    assert np.array_equal(chunked.counts, filled(values).counts) and chunked.counts.sum() == 10_500


def test_equal_bins_agree_with_numpys_histogram():
    values = normal(400_000)
    histogram = filled(values)
    direct, _ = np.histogram(np.abs(values), bins=200, range=(0, histogram.largest))
    assert histogram.over_range(200).sum() == pytest.approx(values.size)
    assert np.abs(np.cumsum(histogram.over_range(200)) - np.cumsum(direct)).max() < 0.003 * values.size


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4, 5)])
def test_any_shape_and_memory_order_is_counted(shape):
    values = np.asarray(np.full(shape, -2.5, np.float32))
    histogram = filled(values.T if values.ndim > 1 else values)
    assert histogram.counts.sum() == values.size and histogram.largest == 2.5


def test_parts_merge_to_the_whole():
    parts = [normal(scale=scale, seed=i) for i, scale in enumerate((5.0, 0.02, 1.0))]
    whole, merged = filled(*parts), filled(parts[0])
    for part in parts[1:]:
        merged.merge(filled(part))
    assert np.array_equal(merged.counts, whole.counts)
    assert merged.largest == whole.largest


def test_an_empty_part_merges_as_nothing():
    whole, empty = filled(normal()), Histogram()
    counts = whole.counts.copy()
    whole.merge(empty)
    assert np.array_equal(whole.counts, counts)
    empty.merge(whole)
    assert np.array_equal(empty.counts, counts) and empty.largest == whole.largest


def test_zeros_first_then_values():
    histogram = filled(np.zeros(100, np.float32), np.ones(50, np.float32))
    assert histogram.counts[0] == 100 and histogram.counts.sum() == 150 and histogram.largest == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError):
        Histogram().add(np.float32([1, bad]))
    with pytest.raises(ConversionError, match="tensor 'inner'") as caught:
        Collector().visit("inner", np.float32([1, bad]))
    assert caught.value.code is ExitCode.CALIBRATION


def test_minmax_is_exact():
    assert scale_of(filled(np.float32([-3.7, 1.0])), "minmax") == pytest.approx(3.7 / 127, rel=1e-7)


def test_percentile_cuts_one_in_ten_thousand():
    values = np.abs(normal(1_000_000)).reshape(1000, 1000)
    monotone = filled(*values)
    assert scale_of(monotone, "percentile") * 127 == pytest.approx(np.percentile(values, 99.99), rel=0.004)


def drawn(kind):
    """Values of one kind, most of them small."""
    draw = np.random.default_rng(7)
    values = {
        "laplace": lambda: draw.laplace(size=60_000),
        "normal": lambda: draw.standard_normal(60_000),
        "behind a ReLU": lambda: np.maximum(draw.standard_normal(60_000), 0),
        "even": lambda: draw.uniform(-1, 1, 60_000),
        "heavy tails": lambda: draw.standard_t(2, 60_000),
        "outliers": lambda: np.append(draw.standard_normal(60_000), [30.0, -25.0, 28.0]),
        "two heaps": lambda: np.append(draw.standard_normal(50_000), 12 + 0.1 * draw.standard_normal(10_000)),
        "few values": lambda: draw.integers(-9, 10, 1000) / 3,
    }[kind]()
    return values.astype(np.float32)


@pytest.mark.parametrize("kind", ["laplace", "normal", "behind a ReLU", "even", "heavy tails", "outliers", "two heaps", "few values"])
def test_mse_finds_the_threshold_that_a_search_over_the_values_finds(kind):
    values = drawn(kind)

    def error(threshold):
        scale = threshold / 127
        return ((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2).mean()

    candidates = np.geomspace(0.05, 1, 400) * np.abs(values).max()
    best = min(map(error, candidates))
    tolerance = 1.5 if kind == "few values" else 1.02  # those fall on steps or not; in the buckets of a histogram they are spread
    assert error(scale_of(filled(values), "mse") * 127) <= best * tolerance


def brute_force_entropy(histogram):
    """The published loop, bin by bin (8-bit inference with TensorRT, GTC 2017)."""
    counts = histogram.over_range(2048)
    counts[0] = counts[1]
    best, best_divergence = None, math.inf
    for end in range(128, 2049, 8):
        p = counts[:end].copy()
        q = np.zeros(end)
        edges = np.linspace(0, end, 129).astype(int)
        for start, stop in zip(edges[:-1], edges[1:]):
            occupied = [i for i in range(start, stop) if p[i] > 0]
            for i in occupied:
                q[i] = sum(p[start:stop]) / len(occupied)
        p[-1] += counts[end:].sum()
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(a * math.log(a / max(b, 1e-12)) for a, b in zip(p, q) if a > 0)
        if divergence < best_divergence:
            best, best_divergence = end, divergence
    return best / 2048 * histogram.largest / 127


@pytest.mark.parametrize("seed, tail", [(0, 3.0), (1, 12.0)])
def test_entropy_is_the_published_algorithm(seed, tail):
    values = np.concatenate([normal(40_000, seed), normal(200, seed + 10, tail)])
    histogram = filled(values)
    assert scale_of(histogram, "entropy") == pytest.approx(brute_force_entropy(histogram), rel=1e-9)


@pytest.mark.parametrize("low", [0.05, 0.3, 0.8])
def test_entropy_does_not_cut_off_values_that_stay_away_from_zero(low):
    """The smallest value alone in its bin is all that a small threshold keeps, and of that it keeps everything."""
    random = np.random.default_rng(0)
    bright = np.append(low, random.uniform(low + 0.02, 1.0, 5000)).astype(np.float32)
    for values in (bright, -bright, np.append(bright, np.zeros(100, np.float32))):
        assert scale_of(filled(values), "entropy") * 127 > 0.9


def test_entropy_clips_an_outlier_and_minmax_does_not():
    values = np.concatenate([normal(100_000), np.float32([60.0])])
    assert scale_of(filled(values), "entropy") * 127 < 10 < scale_of(filled(values), "minmax") * 127


def test_a_heap_of_zeros_does_not_decide():
    half_normal = np.abs(normal(50_000))
    without = scale_of(filled(half_normal), "entropy")
    with_zeros = scale_of(filled(half_normal, np.zeros(200_000, np.float32)), "entropy")
    assert with_zeros == pytest.approx(without, rel=0.05)


def test_a_tensor_that_is_always_zero_gets_no_scale():
    collector = Collector()
    collector.visit("dead", np.zeros(10, np.float32))
    collector.visit("alive", np.ones(10, np.float32))
    for method in calibration.METHODS:
        assert set(collector.scales(method)) == {"alive"}


def test_zeros_are_no_values_that_tell_where_a_distribution_ends():
    collector = Collector()
    collector.visit("few", np.concatenate([normal(calibration.FEWEST_VALUES - 1), np.zeros(9999, np.float32)]))
    collector.visit("many", normal(calibration.FEWEST_VALUES))
    assert collector.sparse() == {"few"}


def test_memory_does_not_grow_with_samples():
    histogram = Histogram()
    for seed in range(50):
        histogram.add(normal(10_000, seed))
    assert histogram.counts.shape == (calibration.BUCKETS,)


def test_the_peak_of_one_inference_is_told():
    histogram = Histogram()
    for values in (random_of_size(3.0), random_of_size(0.5), np.zeros((2, 2), np.float32), random_of_size(1e-30)):
        largest = float(np.abs(values).max())
        assert largest <= histogram.add(values) <= 1.008 * largest


def random_of_size(size):
    values = normal(1000)
    return (values * (size / np.abs(values).max())).astype(np.float32)
