"""What the samples of a batch do to each other, by what comes out for two of them together and for each alone.

Names tell little: the first axis may be a batch, a sequence, or the points of a cloud. What is measured tells more. A batch has no order:
its samples are independent, or exchanging them exchanges their results (statistics over the batch). Where the order counts, the axis is a
sequence, or the samples are mixed up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum

import numpy as np

ROUNDING = 3e-5  # of the size of a tensor: two batch sizes take two kernels, which round differently
OF_DIFFERENCE = 0.02  # of what the two samples differ by: less is no influence
TIPPED_OVER = 1e-3  # share of the entries of integers, where rounding has decided a near tie

Outputs = Mapping[str, np.ndarray]


class Relation(IntEnum):
    """Of the samples of one batch; the larger ones need more care."""

    UNKNOWN = 0  # outputs that are lists, or the same for every sample
    INDEPENDENT = 1
    SYMMETRIC = 2  # they influence each other, whatever their order
    ORDERED = 3  # their order counts


def relations(alone: tuple[Outputs, Outputs], together: Outputs, exchanged: Callable[[], Outputs]) -> dict[str, Relation]:
    """Output -> what it tells.

    Args:
        alone: outputs for one sample, and for another.
        together: for both in one batch.
        exchanged: computes those for both in the other order; only asked where it is needed.
    """
    found, swapped = {}, None
    for name, whole in together.items():
        first, second = alone[0][name], alone[1][name]
        found[name] = _told_by_itself(first, second, whole)
        if found[name] is None:
            swapped = exchanged() if swapped is None else swapped
            found[name] = _by_exchange(first, second, whole, swapped[name])
    return found


def divided(whole: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The ways in which a tensor of two samples divides into two of this shape.

    Along some axis the entries of both stand in a regular pattern: one after the other, or in turn, as where a reshape has joined the
    batch with the axis before it.
    """
    for axis in range(whole.ndim):
        if len(shape) != whole.ndim or whole.shape != (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :]) or not whole.size:
            continue
        for inner in (size for size in range(shape[axis], 0, -1) if shape[axis] % size == 0):
            places = np.arange(2 * shape[axis]) // inner % 2
            yield np.compress(places == 0, whole, axis), np.compress(places == 1, whole, axis)


def carries(first: np.ndarray, second: np.ndarray, whole: np.ndarray) -> bool:
    """Whether a tensor holds, side by side, what it holds for each of two samples alone."""
    return any(_same(a, first, second) and _same(b, second, first) for a, b in divided(whole, first.shape)) and first.shape == second.shape


def _told_by_itself(first: np.ndarray, second: np.ndarray, whole: np.ndarray) -> Relation | None:
    """What two samples alone and together tell; None where the other order is needed."""
    if first.shape != second.shape or not first.size:
        return Relation.UNKNOWN  # a list, of which there is more in one than in the other
    if carries(first, second, whole):
        return Relation.UNKNOWN if _equal(first, second) else Relation.INDEPENDENT
    if whole.shape == first.shape:
        return Relation.UNKNOWN if whole.dtype.kind != "f" or _same(whole, first, second) and _equal(first, second) else None
    return None if next(divided(whole, first.shape), None) is not None else Relation.UNKNOWN


def _by_exchange(first: np.ndarray, second: np.ndarray, whole: np.ndarray, swapped: np.ndarray) -> Relation:
    if swapped.shape != whole.shape:
        return Relation.UNKNOWN
    if whole.shape == first.shape:  # one answer for the whole batch
        return Relation.SYMMETRIC if _same(whole, swapped, first if not _equal(first, whole) else second) else Relation.ORDERED
    pairs = zip(divided(whole, first.shape), divided(swapped, first.shape))
    exchanged = any(_same(a, d, b) and _same(b, c, a) for (a, b), (c, d) in pairs)
    return Relation.SYMMETRIC if exchanged else Relation.ORDERED


def _same(found: np.ndarray, expected: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tensors are one but for rounding, and for the number of the sample in a list.

    Args:
        other: what it would be for the other sample; by the difference from it influence is told from rounding.
    """
    if found.shape != expected.shape:
        return False
    return _near(found, expected, other) or _only_numbered(found, expected)


def _near(found: np.ndarray, expected: np.ndarray, other: np.ndarray) -> bool:
    if found.dtype.kind != "f":
        return float((found != expected).mean()) <= max(TIPPED_OVER, OF_DIFFERENCE * float((expected != other).mean()))
    told = np.isfinite(expected)
    if not np.array_equal(told, np.isfinite(found)) or not told.any():
        return np.array_equal(told, np.isfinite(found))
    size = _rms(expected[told])
    return _rms(found[told] - expected[told]) <= max(ROUNDING * size, OF_DIFFERENCE * _rms(np.where(told, expected - other, 0)), 1e-30)


def _only_numbered(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether columns of a table differ by one whole number each, as those do that number the samples of a batch."""
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all() or not np.isfinite(expected).all():
        return False
    difference = (found.astype(np.float64) - expected).reshape(-1, found.shape[-1] if found.ndim > 1 else 1)
    whole = np.rint(difference[0])
    columns = expected.reshape(difference.shape)
    numbered = (difference == whole).all(0) & (columns == np.rint(columns)).all(0)
    near = np.abs(difference).max(0) <= ROUNDING * np.maximum(np.abs(columns).max(0), 1e-30)
    return bool((numbered | near).all()) and bool((numbered & (whole != 0)).any())


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    """The same for both samples, so that nothing tells them from each other."""
    if first.dtype.kind != "f":
        return bool((first == second).all())
    return _rms(np.nan_to_num(first) - np.nan_to_num(second)) <= ROUNDING * _rms(np.nan_to_num(first))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0
