"""compare/values.py: errors in shares of what varies."""

import numpy as np
import pytest

from onnx2trt.compare.values import Errors, finding
from onnx2trt.compare.variation import Variation


def found(reference, output):
    variation, errors = Variation(), Errors()
    for a, b in zip(np.asarray(reference, np.float64), np.asarray(output, np.float64)):
        variation.add(a, np.ones(a.shape, bool))
        errors.add(b - a, tuple(axis.index for axis in variation.axes))
    return finding(variation.scales, errors)


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_one_percent_is_20_db_below_what_varies():
    reference = values(5000, 3) + 10
    result = found(reference, reference + 0.1 * reference.std(0) * np.sign(values(5000, 3, seed=1)))
    assert result.drop_percent == pytest.approx(1, rel=0.01) and result.shown_percent == pytest.approx(result.drop_percent)


def test_the_worst_slice_counts():
    reference = values(500, 4) * [1, 100, 0.01, 1]
    output = reference.copy()
    output[:, 2] = 0
    result = found(reference, output)
    assert (result.axis, result.slice) == (0, 2) and result.drop_percent == pytest.approx(100, rel=0.05)


def test_units_do_not_matter():
    reference, error = values(40, 5), values(40, 5, seed=1) * 0.05
    first = found(reference, reference + error)
    for factor in (1e-5, 1e5):
        assert found(reference * factor, (reference + error) * factor).drop_percent == pytest.approx(first.drop_percent, rel=1e-6)


@pytest.mark.parametrize("count", [3, 20, 200, 2000])
def test_few_values_show_less_than_they_seem_to(count):
    reference = values(count, 2)
    result = found(reference, reference + 0.2 * values(count, 2, seed=1))
    low, high = result.interval
    assert low <= result.shown_percent <= result.drop_percent <= high
    assert (result.shown_percent < result.drop_percent) == (count < 800)
    assert result.count == pytest.approx(count, rel=0.35)


def test_many_slices_show_together_what_no_single_one_does():
    """Three samples of an embedding at half its size."""
    reference = values(3, 256)
    assert found(reference, reference / 2).shown_percent > 10


def test_drops_of_the_samples_and_their_bootstrap():
    reference = values(50, 4)
    output = reference.copy()
    output[7] += 1
    result = found(reference, output)
    assert int(np.argmax(result.drops)) == 7 and len(result.drops) == 50 and result.standard_error > 0
    assert found(reference[:1], output[:1]).standard_error is None


def test_boxes_and_scores_are_named_apart():
    random = np.random.default_rng(0)
    reference = np.concatenate([random.random((20, 4, 60)) * 300, random.random((20, 5, 60)) ** 4], 1)
    output = reference.copy()
    output[:, 4:] *= 0.6
    boxes, scores = found(reference, output).parts
    assert (boxes.first, boxes.last, scores.first, scores.last) == (0, 3, 4, 8)
    assert boxes.drop_percent == 0 and boxes.sqnr_db == 200 and scores.drop_percent > 16 and scores.sqnr_db < 8
    assert found(values(9, 6), values(9, 6)).parts == ()


@pytest.mark.parametrize("score, still", [(0.9, False), (0.02, True), (1e-4, True)])
def test_scores_that_hardly_move_are_named_and_their_noise_is_held_against_what_they_do(score, still):
    """A detector on pictures without objects: 10 % of next to nothing is no loss, and no evidence either."""
    random = np.random.default_rng(0)
    scores = np.where(random.random((20, 5, 600)) < 0.01, score * random.random((20, 5, 600)), 0)
    reference = np.concatenate([random.random((20, 4, 600)) * 300, scores], 1)
    output = reference.copy()
    output[:, 4:] *= 1.1
    boxes, part = found(reference, output).parts
    assert part.still is still and not boxes.still and ("still" in part.as_dict) is still and "still" not in boxes.as_dict
    assert part.sqnr_db == pytest.approx(20, abs=0.5), "of what was there"
    assert (part.drop_percent < 0.5) is still


def test_a_shift_of_all_boxes_is_worse_than_noise_of_the_same_size():
    random = np.random.default_rng(0)
    centre, size = random.random((8, 200, 2)) * 300, 20 + 20 * random.random((8, 200, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1)
    noise = found(boxes, boxes + 3 * np.sign(random.standard_normal(boxes.shape)))
    shift = found(boxes, boxes + 3)
    assert noise.drop_percent < 1 < 3 < shift.drop_percent


def test_nothing_was_compared():
    assert finding([], Errors()).drop_percent == 0
