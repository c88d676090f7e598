"""compare/best_scores.py: the best score of each class in each sample."""

import numpy as np
import pytest

from onnx2trt.compare.best_scores import BestScores
from onnx2trt.compare.variation import Variation

AXES = (0,)


def moved(references, candidates, axis=0):
    """In points, of samples [classes, places]."""
    variation, best = Variation(), BestScores()
    for reference, candidate in zip(references, candidates):
        variation.add(reference, np.ones(reference.shape, bool))
        best.add(reference, candidate, AXES)
    return best.moved(axis, variation)


def scores(seed=0, samples=6, classes=5, places=400):
    """Next to nothing everywhere but in one place of some classes."""
    random = np.random.default_rng(seed)
    found = random.uniform(0, 0.01, (samples, classes, places))
    for sample in found:
        for one in random.choice(classes, 2, replace=False):
            sample[one, random.integers(places)] = random.uniform(0.5, 0.95)
    return found


@pytest.mark.parametrize("points", [0.0, 0.5, 4.0])
def test_the_mean_over_all_that_is_there(points):
    found = scores()
    assert moved(found, np.where(found > 0.3, found - points / 100, found)) == pytest.approx(points, abs=1e-9)


def test_another_place_is_no_other_score_and_what_is_not_there_counts_for_nothing():
    found = scores()
    assert moved(found, found[:, :, ::-1]) == 0
    assert moved(found, np.where(found < 0.3, 0.0, found)) == 0


def test_the_root_of_the_mean_square():
    found = scores(samples=1)
    peaks = np.flatnonzero((found > 0.3).any(2)[0])
    other = found.copy()
    other[0, peaks[0]] = np.where(other[0, peaks[0]] > 0.3, other[0, peaks[0]] - 0.04, other[0, peaks[0]])
    assert moved(found, other) == pytest.approx(4 / np.sqrt(len(peaks)))


@pytest.mark.parametrize("change", [lambda a: -a, lambda a: 2 * a, lambda a: 1 - a, lambda a: a + 0.2])
def test_other_values_are_no_scores(change):
    found = change(scores())
    assert moved(found, found + 0.01) is None


def test_an_axis_that_holds_no_classes_has_none():
    found = scores()
    assert moved(found, found, axis=None) is None and moved(found, found, axis=1) is None and BestScores().moved(0, Variation()) is None
