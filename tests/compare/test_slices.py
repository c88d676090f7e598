"""compare/slices.py: one pass gives what NumPy gives of all the data."""

import numpy as np
import pytest

from onnx2trt.compare.slices import FEWEST_EVENTS, LONGEST_AXIS, Moments, Neighbours, axes_of, by_slice


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((), ()), ((1, 1), ()), ((7,), (0,)), ((1, 7, 1), (1,)), ((3, 8, 9), (0, 2)), ((1, 8, 9), (1, 2)), ((LONGEST_AXIS + 1, 6), (1,))],
)
def test_the_axes_that_may_hold_features(shape, axes):
    assert axes_of(shape) == axes


def test_slices_of_any_axis():
    values = np.arange(24).reshape(2, 3, 4)
    assert by_slice(values, 1).tolist() == [values[:, index].ravel().tolist() for index in range(3)]
    assert by_slice(values, None).shape == (1, 24)


@pytest.mark.parametrize("level", [0.0, 1e6])
def test_moments_are_those_of_all_samples_together(level):
    random = np.random.default_rng(0)
    samples = [random.gamma(0.5, 2, (4, 50 + 10 * index)) * np.array([[1], [10], [0.1], [0]]) + level for index in range(5)]
    moments = Moments(4)
    for sample in samples:
        moments.add(sample)
    together = np.concatenate(samples, 1)
    assert moments.mean == pytest.approx(together.mean(1), rel=1e-9) and (moments.count == together.shape[1]).all()
    assert moments.variance == pytest.approx(together.var(1, ddof=1), rel=1e-4, abs=1e-12)
    assert moments.low == pytest.approx(together.min(1)) and moments.high == pytest.approx(together.max(1))
    off = together[:3] - together[:3].mean(1, keepdims=True)
    kurtosis = (off**4).mean(1) / (off**2).mean(1) ** 2
    assert moments.effective_count[:3] == pytest.approx(2 * together.shape[1] / (kurtosis - 1), rel=0.01)


def test_what_is_not_known_counts_for_nothing():
    moments = Moments(2)
    moments.add(np.array([[1.0, 9.0, 3.0], [5.0, 5.0, 0.0]]), np.array([[True, False, True], [True, True, False]]))
    assert moments.count.tolist() == [2, 2] and moments.mean.tolist() == [2, 5] and moments.variance.tolist() == [2, 0]
    assert moments.low.tolist() == [1, 5] and moments.high.tolist() == [3, 5]
    moments.add(np.zeros((2, 0)))
    assert moments.count.tolist() == [2, 2]


def test_one_event_in_a_thousand_places_tells_as_much_as_a_few_values():
    values = np.zeros((2, 1000))
    values[0, 3] = 0.8
    values[1] = np.random.default_rng(0).standard_normal(1000)
    moments = Moments(2)
    moments.add(values)
    rare, normal = moments.effective_count
    assert rare == FEWEST_EVENTS and 800 < normal <= 1000


def test_neighbouring_places_are_alike_and_features_are_not():
    random = np.random.default_rng(0)
    line = np.cumsum(random.standard_normal((40, 200)), 0)  # each place is a little step from the one before
    features = random.standard_normal((40, 200)) * np.arange(1, 41)[:, None]
    for values, low, high in ((line, 0.8, 1), (features, -0.1, 0.1), (np.ones((40, 200)), 0, 0)):
        neighbours = Neighbours(40)
        for part in np.split(values, 4, 1):
            neighbours.add(part)
        assert low <= neighbours.correlation <= high
    assert Neighbours(3).correlation == 0
