"""compare/variation.py: what errors are held against, by what the reference does over the data."""

import numpy as np
import pytest

from onnx2trt.compare.variation import MOST_LENT, PLACES_SHARE, Variation, kinds


def learned(samples, **options) -> Variation:
    variation = Variation(**options)
    for sample in np.asarray(samples):
        told = np.isfinite(sample)
        variation.add(np.where(told, sample, 0).astype(np.float64), told)
    return variation


def only(variation: Variation):
    """The scale where one axis counts."""
    (scale,) = variation.scales
    return scale


def test_features_are_held_against_their_own_variance():
    random = np.random.default_rng(0)
    values = random.standard_normal((300, 3)) * [1, 10, 0.01] + [5, 0, 0]
    scale = only(learned(values))
    assert scale.axis == 0 and scale.variance == pytest.approx(values.var(0, ddof=1)) and not scale.bounded.any()


def test_a_quiet_slice_is_held_against_others_of_its_kind():
    """Features of an embedding: one of them tells little, and may be as far off as the others."""
    assert [sorted(kind) for kind in kinds(np.array([1.0, 0.1, 0.01, 3.0]))] == [[0, 1, 2, 3]]
    assert [sorted(kind) for kind in kinds(np.array([1e4, 1e-3, 2e4, 0, 3e-3]))] == [[1, 4], [0, 2]] and kinds(np.zeros(3)) == []
    values = np.random.default_rng(0).standard_normal((2000, 8)) * [1, 1, 1, 1, 1, 1, 1, 0.2]
    assert only(learned(values)).variance == pytest.approx([*[1] * 7, 0.5 * 7.04 / 8], rel=0.1)


def test_channels_of_maps_are_the_slices_whatever_the_layout():
    values = np.random.default_rng(0).standard_normal((5, 3, 12, 16)) * np.array([1, 10, 0.1]).reshape(3, 1, 1)
    assert only(learned(values)).axis == 0
    last = learned(values.transpose(0, 2, 3, 1), channels_last=True)
    assert only(last).axis == 2 and only(last).variance == pytest.approx(only(learned(values)).variance)
    assert only(learned(values.transpose(0, 2, 3, 1))).axis == 2, "slices of several kinds are features even where channels come first"


def test_boxes_and_scores_in_one_tensor_are_told_apart():
    random = np.random.default_rng(0)
    joined = np.concatenate([random.random((4, 50, 4)) * 320, random.random((4, 50, 6)) ** 8], -1)
    for values, axis in ((joined, 1), (joined.transpose(0, 2, 1), 0)):
        scale = only(learned(values))
        assert scale.axis == axis and (scale.variance[:4] > 1000).all() and (scale.variance[4:] < 0.2).all()
        assert scale.bounded.tolist() == [False] * 4 + [True] * 6


def test_places_are_no_slices():
    """A map without channels: neighbouring rows are alike."""
    line = np.cumsum(np.random.default_rng(0).standard_normal((6, 1, 40, 50)), 2)
    assert only(learned(np.cumsum(line, 3))).axis is None
    sound = np.sin(np.arange(5000) / 9 + np.arange(20)[:, None])
    assert only(learned(sound)).axis is None, "as many values as that are moments, not features"


def test_what_is_the_same_in_every_sample_counts_for_a_part():
    """Coordinates of a grid: they vary by 100 from place to place, and by 3 over the samples."""
    grid = np.linspace(0, 400, 64).reshape(1, 1, 8, 8)
    values = np.repeat(grid, 2, 1) + np.random.default_rng(0).standard_normal((200, 2, 8, 8)) * 3
    variation = learned(values)
    total = variation.axes[0].moments.variance
    assert variation.over_samples == pytest.approx(9 / total[0], rel=0.05)
    assert only(variation).variance == pytest.approx(np.clip(PLACES_SHARE * total, 0, MOST_LENT * 9), rel=0.05)


@pytest.mark.parametrize("jitter", [1e-3, 0.1, 1.0, 30.0])
def test_a_constant_answer_is_never_within_the_default_limit(jitter):
    values = np.linspace(0, 400, 64).reshape(1, 1, 8, 8) + np.random.default_rng(0).standard_normal((50, 1, 8, 8)) * jitter
    error = ((values - values.mean(0)) ** 2).mean()
    scale = only(learned(values))
    assert error / scale.variance.max() > (0.01 if jitter > 0.5 else 0), "0.1 % of the size is what hardly varies"


def test_slices_that_do_nothing_do_not_rule():
    random = np.random.default_rng(0)
    scores = random.random((20, 100, 8)) ** 6
    scores[..., 5] *= 1e-4
    variance = learned(scores).scale_of(1).variance
    assert variance[5] == pytest.approx(0.5 * np.median(np.delete(variance, 5)), rel=0.05), "a class that does not occur"
    features = np.maximum(random.standard_normal((50, 16)), 0)
    features[:, 3] = 0
    scale = only(learned(features))
    assert scale.variance[3] > 0.05 * np.median(scale.variance)


def test_a_constant_is_held_against_its_own_size():
    assert only(learned(np.full((4, 3), 7.0))).variance == pytest.approx(49)
    assert only(learned(np.zeros((4, 3)))).variance == pytest.approx(1e-4)
    values = np.concatenate([np.random.default_rng(0).standard_normal((50, 1)), np.full((50, 1), 300.0)], 1)
    assert only(learned(values)).variance[1] >= 3e-4 * 300**2


def test_features_of_one_sample_are_held_against_their_size():
    assert only(learned([[40.0, 41.0, 40.5]])).variance == pytest.approx((40**2 + 41**2 + 40.5**2) / 3)
    maps = np.random.default_rng(0).standard_normal((1, 3, 9, 9))
    assert only(learned(maps)).variance == pytest.approx(maps[0].reshape(3, -1).var(1, ddof=1)), "a map has many places"


def test_axes_that_change_their_length_do_not_count():
    variation = Variation()
    for length in (5, 9, 7):
        sample = np.random.default_rng(length).standard_normal((length, 4)) * [1, 50, 1, 0.1]
        variation.add(sample, np.ones(sample.shape, bool))
    assert only(variation).axis == 1 and variation.over_samples is None


def test_a_shift_of_boxes_is_held_against_their_size():
    random = np.random.default_rng(0)
    centre, size = random.random((6, 100, 2)) * 640, np.full((6, 100, 2), 30.0) + random.random((6, 100, 2))
    values = np.concatenate([centre - size / 2, centre + size / 2], -1)
    assert learned(values).scale_of(1).box_size == pytest.approx(30.5**2 / 4, rel=0.02)
    assert learned(random.standard_normal((6, 100, 5))).scale_of(1).box_size is None


def test_what_is_not_finite_counts_for_nothing():
    random = np.random.default_rng(0)
    values = random.standard_normal((100, 3))
    values[::2, 1] = -np.inf
    assert only(learned(values)).variance[1] == pytest.approx(values[1::2, 1].var(ddof=1))
