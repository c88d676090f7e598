"""What an inference makes of the rows that only fill its batch: found by filling them otherwise, and cut out."""

from __future__ import annotations

import numpy as np

from onnx2trt.base.padded import Padded


def of_samples(feed: Padded, values: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The part of a tensor that belongs to samples.

    Reshapes and transpositions put the batch anywhere: first, after the time, in one axis with the places of an image. Along some axis its
    rows stand in a regular pattern all the same, and what changes with the rows that fill the batch lies in their places alone.

    Args:
        values: the tensor, computed with `feed`.
        otherwise: the same, computed with feed.filled_otherwise().

    Returns:
        `values` where nothing changes: then it has no rows, or they are all alike. All of it, too, where no pattern fits, or where the
        values decide about the shape.
    """
    if values.shape != otherwise.shape:
        return values
    changed = values != otherwise
    if not changed.any():
        return values
    for axis, size in enumerate(values.shape):
        if size % feed.rows:
            continue
        found = changed.any(axis=tuple(other for other in range(values.ndim) if other != axis))
        for inner in _divisors(size // feed.rows):
            real = np.arange(size) // inner % feed.rows < feed.real
            if not found[real].any():
                return np.compress(real, values, axis=axis)
    return values


def rows_of_samples(feed: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs without the rows that fill the batch, as far as their first axis is the batch."""
    if not isinstance(feed, Padded):
        return found
    return {name: array[: feed.real] if array.ndim and len(array) == feed.rows else array for name, array in found.items()}


def _divisors(number: int) -> list[int]:
    """From the largest: a batch that is first comes before one that is last."""
    return [divisor for divisor in range(number, 0, -1) if number % divisor == 0]
