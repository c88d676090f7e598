"""Statistics of the slices of an output along one axis, in one pass over any number of samples."""

from __future__ import annotations

import numpy as np

LONGEST_AXIS = 4096  # slices; anchors, samples of sound and vocabularies are no features that each has to be right by itself

FEWEST_EVENTS = 5.0  # values that even the rarest event counts as


def by_slice(values: np.ndarray, axis: int | None) -> np.ndarray:
    """[slices, values of each]; of all values together where `axis` is None."""
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def axes_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes whose slices may be features: the first and the last of those that are longer than 1.

    Channels come first or last; what lies between them is places. Of [C, H, W] both ends are looked at, and
    `Neighbours` tells the places.
    """
    wide = [axis for axis, size in enumerate(shape) if size > 1]
    return tuple(axis for axis in dict.fromkeys((wide[0], wide[-1]) if wide else ()) if shape[axis] <= LONGEST_AXIS)


class Moments:
    """Mean, variance, heaviness of the tails and range of each slice; sums are taken about the first sample's means."""

    def __init__(self, slices: int):
        self.count = np.zeros(slices)
        self.low, self.high = np.full(slices, np.inf), np.full(slices, -np.inf)
        self._shift: np.ndarray | None = None
        self._sums = np.zeros((4, slices))  # of the powers 1 to 4

    def add(self, values: np.ndarray, known: np.ndarray | None = None) -> None:
        """
        Args:
            values: [slices, n] float64.
            known: which of them count; None: all.
        """
        if not values.shape[1]:
            return
        count = np.full(len(values), float(values.shape[1])) if known is None else known.sum(1, dtype=np.float64)
        if self._shift is None:
            self._shift = values.sum(1, where=True if known is None else known) / np.maximum(count, 1)
        low, high = (values, values) if known is None else (np.where(known, values, np.inf), np.where(known, values, -np.inf))
        np.minimum(self.low, low.min(1), out=self.low)
        np.maximum(self.high, high.max(1), out=self.high)
        off = values - self._shift[:, None]
        if known is not None:
            off = np.where(known, off, 0.0)
        square = off * off
        self.count += count
        self._sums[0] += off.sum(1)
        self._sums[1] += square.sum(1)
        self._sums[2] += np.einsum("ij,ij->i", square, off)
        self._sums[3] += np.einsum("ij,ij->i", square, square)

    @property
    def _raw(self) -> np.ndarray:
        return self._sums / np.maximum(self.count, 1)

    @property
    def mean(self) -> np.ndarray:
        return self._raw[0] + (0.0 if self._shift is None else self._shift)

    @property
    def variance(self) -> np.ndarray:
        """Unbiased; 0 of a single value."""
        first, second = self._raw[:2]
        return np.maximum(second - first**2, 0.0) * self.count / np.maximum(self.count - 1, 1)

    @property
    def effective_count(self) -> np.ndarray:
        """How many values of a normal distribution would tell the variance as well: 2 n / (kurtosis - 1), at most n.

        A class that occurs once in a thousand places tells its variance by that one event, however many places there are. But then the
        event is what the error is at, too, so it counts as FEWEST_EVENTS; a single value is held against its own size, as surely.
        """
        first, second, third, fourth = self._raw
        square = np.maximum(second - first**2, 0.0)
        fourth = np.maximum(fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            kurtosis = np.where(square > 0, fourth / square**2, 3.0)
        least = np.where(self.count == 1, FEWEST_EVENTS, np.minimum(self.count, FEWEST_EVENTS))
        return np.clip(2 * self.count / np.maximum(kurtosis - 1, 1e-9), least, np.maximum(self.count, least))


class Neighbours:
    """How alike neighbouring slices are: places are (a pixel's neighbour, the next anchor, the next moment), features are not."""

    def __init__(self, slices: int):
        self._sums = np.zeros((3, slices))  # of values, of their squares, of products with the next slice's; about the shift
        self._count = 0
        self._shift: np.ndarray | None = None

    def add(self, values: np.ndarray) -> None:
        """[slices, n], finite."""
        if not values.shape[1]:
            return
        if self._shift is None:
            self._shift = values.mean(1)
        off = values - self._shift[:, None]
        self._count += values.shape[1]
        self._sums[0] += off.sum(1)
        self._sums[1] += np.einsum("ij,ij->i", off, off)
        self._sums[2, :-1] += np.einsum("ij,ij->i", off[:-1], off[1:])

    @property
    def correlation(self) -> float:
        """Mean over all pairs of neighbours; 0 where nothing varies."""
        if not self._count:
            return 0.0
        mean, square, product = self._sums / self._count
        deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
        norms = deviation[:-1] * deviation[1:]
        told = norms > 0
        return float(np.mean((product[:-1] - mean[:-1] * mean[1:])[told] / norms[told])) if told.any() else 0.0
