"""compare/winners.py: agreement of the best class, ties, and whether values look like classes."""

import numpy as np
import pytest

from onnx2trt.compare.winners import Winners

INF, NAN = np.inf, np.nan


def agreed(reference, output, axis=0) -> tuple[float, int]:
    winners = Winners(axis)
    winners.count(np.asarray(reference, np.float32), np.asarray(output, np.float32))
    return winners.agreed[0], winners.positions[0]


CLASSES = np.float32([[[1, 5], [2, 0]], [[3, 4], [2, 1]]])  # [2, 2, 2]: the best along the first axis are [[1, 0], [either, 1]]


@pytest.mark.parametrize(
    ("reference", "output", "axis", "expected"),
    [
        ([1, 3, 2], [0, 9, 8], 0, (1, 1)),
        ([1, 3, 2], [0, 8, 9], 0, (0, 1)),
        (CLASSES, CLASSES + 7, 0, (4, 4)),
        (CLASSES, CLASSES[::-1], 0, (1, 4)),
        ([[1, 2], [4, 3]], [[1, 2], [3, 4]], -1, (1, 2)),
        ([-INF, -1, -2], [-INF, -2, -1], 0, (0, 1)),  # masked classes do not hide a wrong one
        ([1, 2, 3], [1, 2, NAN], 0, (0, 1)),  # what is no number never wins
    ],
)
def test_how_often_the_same_class_wins(reference, output, axis, expected):
    assert agreed(reference, output, axis) == expected


def test_an_output_without_any_position_says_nothing():
    winners = Winners(1)
    for shape in ((4, 2, 0), (4, 2, 3)):
        values = np.random.default_rng(0).random(shape, np.float32)
        winners.add(values, values)
    assert winners.positions == [0, 12] and winners.agreed == [0, 12]


@pytest.mark.parametrize(("gap", "tied"), [(0.0, True), (0.05, True), (0.099, True), (0.11, False), (1.0, False)])
def test_a_tie_lies_within_a_hundredth_of_the_range(gap, tied):
    assert agreed([0, 10 - gap, 10], [0, 10, 9])[0] == tied


def test_the_range_is_that_of_all_the_data():
    winners = Winners(0)
    winners.count(np.float32([-50, 50]), np.float32([-50, 50]))
    winners.count(np.float32([1, 1.5]), np.float32([1.5, 1]))
    assert winners.agreed == [1, 1]


@pytest.mark.parametrize(("first", "tied"), [(0.501, True), (0.52, True), (0.53, False), (0.9, False)])
def test_ties_of_probabilities_go_by_their_ratio(first, tied):
    assert agreed([first, 1 - first], [1 - first, first])[0] == tied


def looked_at(values, axis=-1) -> Winners:
    winners = Winners(axis)
    for sample in values:
        winners.add(sample, sample)
    return winners


def logits(random, *shape) -> np.ndarray:
    values = random.standard_normal(shape)
    best = random.integers(0, shape[-1], (*shape[:-1], 1))
    np.put_along_axis(values, best, 7.0, -1)
    return values.astype(np.float32)


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("shape", [(20, 5), (20, 1000), (3, 40, 30), (4, 12, 12, 7)])
def test_logits_of_trained_classifiers_are_classes(shape):
    assert looked_at(logits(np.random.default_rng(0), *shape)).clear


@pytest.mark.parametrize("shape", [(20, 2), (3, 3), (5, 40, 30)])
def test_probabilities_and_their_logarithms_are_classes(shape):
    values = np.random.default_rng(0).standard_normal(shape)
    assert looked_at(softmax(values)).shares and looked_at(np.log(softmax(values))).shares
    assert not looked_at(softmax(values) * 0.9).shares and not looked_at(values).shares


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(20, 10), (200, 128), (20, 4), (200, 2), (10, 16, 16, 4)])
def test_any_other_values_are_none(shape, seed):
    random = np.random.default_rng(seed)
    values = random.standard_normal(shape)
    several = {
        "normal": values,
        "positive": np.abs(values),
        "features after a ReLU": np.maximum(values, 0),
        "of unlike scales": values * np.exp(random.standard_normal(shape[-1])),
        "of unlike levels": values + np.arange(shape[-1]),
        "shares": 1 / (1 + np.exp(-3 * values)),
        "lengths beside scores": np.where(np.arange(shape[-1]) < 2, 300 * np.abs(values), 1 / (1 + np.exp(5 - values))),
    }
    for what, one in several.items():
        found = looked_at(one.astype(np.float32))
        assert not found.clear and not found.shares, what


def test_the_logits_of_two_classes_exclude_each_other():
    one = np.random.default_rng(0).standard_normal((50, 1)).astype(np.float32) * 3
    assert looked_at(np.concatenate([one, -one + 0.1], 1)).clear
    assert not looked_at(np.concatenate([np.abs(one), -np.abs(one)], 1)).clear, "the first is always the larger"
    assert not looked_at(np.concatenate([one, -one], 1)[:4]).clear, "four samples tell nothing"


def test_classes_that_change_in_number_are_none():
    winners = Winners(0)
    for size in (5, 6):
        winners.add(np.eye(1, size, dtype=np.float32)[0], np.eye(1, size, dtype=np.float32)[0])
    assert not winners.possible and not winners.shares and not winners.clear


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_samples_does_not_matter(seed):
    """What is a tie is told by the range over all samples, whichever comes first."""
    rng = np.random.default_rng(seed)
    samples = [rng.normal(0, rng.choice([0.01, 1.0, 30.0]), (5, 8, 8)).astype(np.float32) for _ in range(6)]
    outputs = [sample + rng.normal(0, 3, sample.shape).astype(np.float32) for sample in samples]
    counts = []
    for order in (range(6), reversed(range(6))):
        winners = Winners(0)
        for index in order:
            winners.count(samples[index], outputs[index])
        counts.append(sorted(winners.agreed))
    assert counts[0] == counts[1] and sum(counts[0]) < sum(winners.positions)
