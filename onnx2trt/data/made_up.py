"""Arrays that take the place of data, or stand beside it: noise, and nothing at all."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnx2trt.data.pixels import Preprocessing, image_tensor

Arrays = dict[str, np.ndarray]


def noise(like: Arrays, preprocessing: Preprocessing | None) -> Arrays:
    """Arrays as `like`, with random values: floats in [0, 1), or what an image of random pixels becomes; integers as they are.

    Args:
        like: of one inference.
        preprocessing: of the images, where the model's only input takes some.
    """
    random = np.random.default_rng(0)
    if preprocessing is not None:
        return _images(like, preprocessing, random.integers(0, 256, _pixels(preprocessing), np.uint8))
    made = dict(like)
    for name, array in like.items():
        if array.dtype.kind == "f":
            made[name] = random.random(array.shape, np.float32).astype(array.dtype)
    return made


def blank(like: Arrays, preprocessing: Preprocessing | None, indices: Collection[str]) -> list[Arrays]:
    """Inputs as `like` in which nothing is: all values zero, and, where that is something else, black images.

    Args:
        like: of one inference.
        preprocessing: as for noise.
        indices: integer inputs of which zero is a valid value; other integers (masks, lengths) keep their values.
    """
    cleared = [name for name, array in like.items() if array.dtype.kind == "f" or array.dtype == np.uint8 or name in indices]
    found = [{name: np.zeros_like(array) if name in cleared else array for name, array in like.items()}]
    if preprocessing is not None:
        black = _images(like, preprocessing, np.zeros(_pixels(preprocessing), np.uint8))
        if any(array.any() for array in black.values()):
            found.append(black)
    return found if cleared else []


def _pixels(preprocessing: Preprocessing) -> tuple[int, ...]:
    size = preprocessing.height, preprocessing.width
    return size if preprocessing.channels == 1 else (*size, preprocessing.channels)


def _images(like: Arrays, preprocessing: Preprocessing, pixels: np.ndarray) -> Arrays:
    tensor = image_tensor(pixels, preprocessing)
    return {name: np.broadcast_to(tensor, array.shape).copy() for name, array in like.items()}
