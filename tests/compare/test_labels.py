"""compare/labels.py: equal entries, lost labels, and integers that are brightness."""

import numpy as np
import pytest

from onnx2trt.compare.labels import MOST_LABELS, Labels


def compared(reference, output) -> Labels:
    labels = Labels()
    for a, b in zip(reference, output):
        labels.add(a, b)
    return labels


def regions(random, n=4, side=24, number=6) -> np.ndarray:
    blocks = random.integers(0, number, (n, side // 4, side // 4))
    return blocks.repeat(4, 1).repeat(4, 2)


def test_entries_are_counted_for_each_sample():
    labels = compared([np.array([1, 2, 3]), np.array([1, 1, 1])], [np.array([1, 2, 4]), np.array([1, 1, 1])])
    assert labels.equal == [2, 3] and labels.entries == [3, 3] and labels.labels == 3


def test_bools_and_floats_of_whole_numbers():
    assert compared([np.array([True, False])], [np.array([True, True])]).equal == [1]
    floats = compared([np.float32([0, 3, 3])], [np.float32([0.1, 3.2, 2.4])])
    assert floats.whole and floats.equal == [2], "rounded to the nearest"
    assert not compared([np.float32([0, 3.5])], [np.float32([0, 3.5])]).whole
    assert not compared([np.float32([0, np.inf])], [np.float32([0, 1])]).whole
    assert compared([np.float32([0, 3])], [np.float32([0, np.nan])]).equal == [1]


def test_a_label_that_is_lost_is_seen_however_few_entries_have_it():
    reference = np.zeros((5, 40, 40), np.int64)
    reference[:, 3:6, 3:6] = 1
    ratio, shown, label = compared(reference, np.zeros_like(reference)).lost()
    assert label in (0, 1) and ratio > 99 and shown > 45


def test_borders_that_tip_over_are_no_loss():
    random = np.random.default_rng(0)
    reference = regions(random, n=10)
    output = np.where(random.random(reference.shape) < 0.004, np.roll(reference, 1, 1), reference)
    assert compared(reference, output).lost()[1] < 5


def test_a_handful_of_entries_rules_nothing():
    reference = np.zeros((5, 40, 40), np.int64)
    reference[0, 0, :4] = 1
    assert compared(reference, np.zeros_like(reference)).lost() == (0.0, 0.0, None)
    assert compared([np.zeros(9, int)], [np.zeros(9, int)]).lost() == (0.0, 0.0, None), "one label"


def test_indices_are_no_labels():
    many = np.arange(2 * MOST_LABELS)
    labels = compared([many], [many + 1])
    assert labels.lost() == (0.0, 0.0, None) and labels.equal == [0]


@pytest.mark.parametrize("seed", range(3))
def test_brightness_is_told_from_labels(seed):
    random = np.random.default_rng(seed)
    line = np.linspace(0, 6, 32)
    image = (120 + 100 * np.sin(line + 9 * random.random((4, 3, 1, 1))) * np.cos(line[:, None])).astype(np.uint8)
    labels = regions(random, 4, 64, 150).astype(np.uint8)
    assert compared(image, image).brightness and not compared(labels, labels).brightness
    assert not compared(image.astype(np.int64), image.astype(np.int64)).brightness, "indices, class numbers"
