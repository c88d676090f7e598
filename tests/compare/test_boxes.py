"""compare/boxes.py: which columns are boxes, and how large they are."""

import numpy as np
import pytest

from onnx2trt.compare.boxes import Boxes


def told(columns) -> Boxes:
    boxes = Boxes()
    for part in np.array_split(columns, 3, axis=1):
        boxes.add(part)
    return boxes


def made(random, count=300, image=320.0):
    """(corners, centre and size) [4, count]"""
    size = image * random.uniform(0.05, 0.3, (2, count))
    centre = size / 2 + random.random((2, count)) * (image - size)
    return np.concatenate([centre - size / 2, centre + size / 2]), np.concatenate([centre, size])


@pytest.mark.parametrize("image", [1.0, 320.0])
def test_corners_and_centres_are_known_with_their_size(image):
    corners, spans = made(np.random.default_rng(0), image=image)
    area = np.prod(spans[2:], 0).mean()
    for columns in (corners, spans):
        boxes = told(columns)
        assert boxes.found and boxes.size == pytest.approx(area / 4)


def test_other_columns_are_none():
    random = np.random.default_rng(0)
    others = {
        "features": random.standard_normal((4, 300)),
        "shares": random.random((4, 300)),
        "scores": random.random((4, 300)) ** 8,
        "constant": np.ones((4, 300)),
    }
    for what, columns in others.items():
        assert not told(columns).found, what


def test_few_rows_tell_nothing():
    corners, _ = made(np.random.default_rng(0), count=Boxes.FEWEST - 1)
    assert not told(corners).found
