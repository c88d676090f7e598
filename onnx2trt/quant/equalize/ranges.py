"""The range that INT8 should cover in each channel of a tensor: what clipping and rounding cost together, smallest."""

from __future__ import annotations

import numpy as np

BINS = 256
STEPS = 255  # between the lowest and the highest of the levels of INT8
POSITIONS = 8192  # of each channel counted in one inference, evenly spread


class ChannelRanges:
    """Extremes of each channel, then a histogram between them: all values have to be seen twice."""

    def __init__(self, axis: int):
        """axis: of the channels."""
        self._axis = axis
        self.low: np.ndarray | None = None  # [C]
        self.high: np.ndarray | None = None
        self.seen: np.ndarray | None = None  # [C]: number of values that were not zero
        self._sums: np.ndarray | None = None  # [3, C]: number, sum, and sum of squares of the values
        self._counts: np.ndarray | None = None  # [C, BINS]

    @property
    def values(self) -> float:
        """How many were seen of each channel."""
        return 0.0 if self._sums is None else float(self._sums[0].min())

    def measure(self, values: np.ndarray) -> None:
        """First: float32, the tensor of one inference."""
        others = tuple(axis for axis in range(values.ndim) if axis != self._axis)
        low, high = values.min(axis=others).astype(np.float64), values.max(axis=others).astype(np.float64)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        seen = np.count_nonzero(values, axis=others)
        self.seen = seen if self.seen is None else self.seen + seen
        total, squares = (np.add.reduce(part, axis=others, dtype=np.float64) for part in (values, np.square(values)))
        sums = np.stack([np.full(len(low), values.size / len(low)), total, squares])
        self._sums = sums if self._sums is None else self._sums + sums

    def rows(self, values: np.ndarray) -> np.ndarray:
        """What is counted of the tensor of one inference, [C, n]; maybe a view."""
        rows = np.moveaxis(values, self._axis, 0).reshape(values.shape[self._axis], -1)
        return rows[:, :: max(1, rows.shape[1] // POSITIONS)]

    def count(self, rows: np.ndarray) -> None:
        """Second, when all have been measured."""
        channels = len(self.low)
        bins = (rows - self.low[:, None].astype(np.float32)) * (BINS / self._extent()).astype(np.float32)[:, None]
        indices = np.clip(bins.astype(np.int32), 0, BINS - 1) + (np.arange(channels, dtype=np.int32) * BINS)[:, None]
        counts = np.bincount(indices.reshape(-1), minlength=channels * BINS).reshape(channels, BINS)
        self._counts = counts if self._counts is None else self._counts + counts

    def _extent(self) -> np.ndarray:
        return np.where(self.high > self.low, self.high - self.low, 1.0)  # a channel of one value falls into the first bin

    def symmetric(self) -> np.ndarray:
        """[C]: the t for which -t..t loses least."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        thresholds = largest[:, None] * np.linspace(0.05, 1.0, 96)
        losses = self._beyond(thresholds) + self._beyond(-thresholds, above=False) + self._rounding(2 * thresholds)
        return np.take_along_axis(thresholds, losses.argmin(axis=1)[:, None], 1)[:, 0]

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """[C], [C]: the low and the high end of the range that loses least; first the end with the longer tail is moved."""
        low, high = self.low.copy(), self.high.copy()
        shares = np.linspace(0.05, 1.0, 96)
        for _ in range(2):
            ends = low[:, None] + (self.high - low)[:, None] * shares
            high = _best(ends, self._beyond(ends) + self._rounding(ends - low[:, None]))
            ends = high[:, None] - (high - self.low)[:, None] * shares
            low = _best(ends, self._beyond(ends, above=False) + self._rounding(high[:, None] - ends))
        return low, high

    def spread(self, around: np.ndarray) -> np.ndarray:
        """[C]: root of the mean squared distance from the value `around` [C]."""
        number, total, squares = self._sums
        return np.sqrt(np.maximum(squares - 2 * around * total + number * around**2, 0.0) / number)

    def _rounding(self, extents: np.ndarray) -> np.ndarray:
        """Summed squared error of rounding to steps of extent / STEPS: step^2 / 12 for each value."""
        return self._counts.sum(axis=1)[:, None] * (extents / STEPS) ** 2 / 12

    def _beyond(self, ends: np.ndarray, above: bool = True) -> np.ndarray:
        """Summed squared distance [C, n] of the values above (below) each end [C, n]."""
        width = self._extent()[:, None] / BINS
        centres = self.low[:, None] + (np.arange(BINS) + 0.5) * width
        moments = [
            np.concatenate([np.zeros((len(width), 1)), np.cumsum(self._counts * centres**power, axis=1)], axis=1) for power in range(3)
        ]
        edges = np.clip(np.rint((ends - self.low[:, None]) / width), 0, BINS).astype(np.intp)
        zeroth, first, second = (np.take_along_axis(m, edges, 1) for m in moments)
        if above:
            zeroth, first, second = (m[:, -1:] - part for m, part in zip(moments, (zeroth, first, second)))
        return np.maximum(second - 2 * ends * first + ends**2 * zeroth, 0.0)


def _best(ends: np.ndarray, losses: np.ndarray) -> np.ndarray:
    return np.take_along_axis(ends, losses.argmin(axis=1)[:, None], 1)[:, 0]
