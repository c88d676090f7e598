"""compare/change.py: how much outputs have changed, to rank layers by."""

import math

import numpy as np
import pytest

from onnx2trt.compare.best_scores import POINTS_PER_PERCENT
from onnx2trt.compare.change import Change, most_telling
from onnx2trt.compare.variation import Variation


def outputs(*arrays, name="y"):
    return [{name: np.asarray(array, np.float32)[None]} for array in arrays]


def random(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def change(expected, found, **options) -> float:
    return Change(expected, **options)(found)


def test_the_same_outputs_have_not_changed():
    same = outputs(random(3, 8, 8), random(3, 8, 8, seed=1))
    assert change(same, same) == 0


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_it_is_the_mean_error_in_standard_deviations(factor):
    expected = random(8, 2, 30, 30) * factor
    error = 0.01 * factor * np.sign(random(8, 2, 30, 30, seed=1))
    assert change(outputs(*expected), outputs(*expected + error)) == pytest.approx(0.01, rel=0.05)


def test_a_quiet_slice_counts_as_much_as_a_loud_one():
    """Scores beside boxes."""
    loud, quiet = 300 * random(6, 4, 50), np.abs(random(6, 5, 50, seed=1)) % 1 * 0.5
    expected = np.concatenate([loud, quiet], 1)
    boxes, scores = expected.copy(), expected.copy()
    boxes[:, :4] += 3 * random(6, 4, 50, seed=2)
    scores[:, 4:] *= 0.5
    assert change(outputs(*expected), outputs(*scores)) > 10 * change(outputs(*expected), outputs(*boxes))


def test_what_is_known_of_all_the_data_is_used():
    data = random(500, 3) * [1, 1, 5]
    variation = Variation()
    for sample in data.astype(np.float64):
        variation.add(sample, np.ones(sample.shape, bool))
    few = outputs(*data[:4])
    found = change(few, outputs(*data[:4] + [0, 0, 0.5]), learned={"y": variation})
    assert found == pytest.approx(0.1, rel=0.1)


def test_what_tips_over_in_a_few_places_counts_as_it_does_in_the_verdict():
    """Scores of the few objects among many anchors: the others agree, and a mean of absolute errors would hardly see what is lost."""
    expected = np.full((4, 2, 1000), 1e-3, np.float32)
    for index, sample in enumerate(expected):
        sample[:, index::250] = 0.8
    lost = np.where(expected > 0.5, 0.6 * expected, expected)
    assert change(outputs(*-expected), outputs(*-lost)) == pytest.approx(0.4, rel=0.02), "no scores, as they are negative"
    assert change(outputs(*expected), outputs(*lost)) == pytest.approx(0.1 * 32 / POINTS_PER_PERCENT, rel=0.02), "scores: 32 points"


def test_squares_of_the_samples_add_up_and_the_worst_output_decides():
    expected = random(2, 3, 40, 40)
    found = [expected[0] + 0.01, expected[1] + 0.04]
    one = change(outputs(*expected), outputs(*found))
    assert one == pytest.approx(math.sqrt((0.01**2 + 0.04**2) / 2) / expected.std(), rel=0.2)
    both = [{"a": a["y"], "b": b["y"]} for a, b in zip(outputs(*expected), outputs(*expected))]
    changed = [{"a": a["y"], "b": b["y"]} for a, b in zip(outputs(*expected), outputs(*found))]
    assert change(both, changed) == pytest.approx(one)


def test_the_samples_that_tell_most_hold_what_the_worst_slices_lost():
    lost = np.zeros((10, 3))
    lost[2, 0], lost[7, 0], lost[4, 1] = 50, 40, 30  # the first slice in two samples, the second in one
    lost[:, 2] = 0.1
    assert most_telling([lost], 1) == [2] and most_telling([lost], 3) == [2, 4, 7]
    assert most_telling([lost[:, :1], lost[:, 1:]], 3) == [2, 4, 7] and len(set(most_telling([lost], 20))) == 10
    assert most_telling([np.array([[1.0], [np.inf], [2.0]])], 1) == [2], "what is no number tells nothing"


def test_rows_of_a_batch_are_samples():
    expected = random(6, 4) * [1, 10, 100, 1000]
    found = expected + expected.std(0) * 0.01
    assert change([{"y": expected}], [{"y": found}]) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_the_worst_of_all(bad):
    expected = outputs(np.ones(4), np.arange(4))
    found = outputs(np.ones(4), [0, bad, 2, 3])
    assert change(expected, found) == math.inf


def test_masked_classes_are_not_held_against_a_layer():
    expected = outputs([1.0, -np.inf, 3.0], [2.0, -np.inf, 1.0])
    assert 0 < change(expected, outputs([1.1, -np.inf, 2.9], [2.0, -np.inf, 1.0])) < 1
    assert change(outputs([-np.inf, np.nan]), outputs([0.0, 1.0])) == 0


def test_another_shape_is_the_worst_of_all_but_of_lists():
    assert change([{"y": np.ones(3, np.float32)}], [{"y": np.ones(2, np.float32)}]) == math.inf
    assert change([{"y": np.zeros((0, 4))}], [{"y": np.zeros((0, 4))}]) == 0
    boxes = random(40, 4, scale=100)
    assert 0 < change([{"y": boxes}] * 2, [{"y": boxes[:20]}] * 2) <= 1


def test_labels_count_by_how_many_differ():
    expected = [{"y": np.zeros((1, 100), np.int64)}] * 2
    found = [{"y": np.concatenate([np.ones((1, 4), np.int64), np.zeros((1, 96), np.int64)], 1)}] * 2
    assert change(expected, found) == pytest.approx(0.04)


def test_the_energy_counts_where_the_user_wants_it_to():
    expected, found = outputs([[1.0, -3.0]]), outputs([[1.1, -2.9]])
    assert change(expected, found, asked={"": "noise"}) == pytest.approx(0.1 / math.sqrt(5), rel=1e-3)
    assert change(expected, found, asked={"y": "cosine"}) == pytest.approx(0.1 / math.sqrt(5), rel=1e-3)
