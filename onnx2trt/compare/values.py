"""Outputs that are values: the error against what the reference tells, slice by slice; the worst slice counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.intervals import MOST_ALLOWED, allowance, bootstrap, percentiles
from onnx2trt.compare.metrics import decibels
from onnx2trt.compare.slices import by_slice
from onnx2trt.compare.variation import Scale

MOST_KEPT = 2**22  # numbers: mean squares of samples and slices, for the worst sample and the interval
LARGEST_PERCENT = 1e9  # JSON has no infinity
FEWEST_SLICES = 8  # that together are many values
MOST_PARTS = 8  # runs of slices of one kind that are told apart
STILL = 0.5  # of what errors are held against, below which no slice of a part has shown what it does


@dataclass(frozen=True)
class Part:
    """Neighbouring slices of one kind: the boxes of a detector, or its scores."""

    first: int
    last: int
    drop_percent: float  # of the worst of them
    sqnr_db: float  # error against the variance as it was measured, of all of them
    still: bool = False  # hardly anything happens in any of them over these samples: their drop is a share of what is usual elsewhere

    @property
    def as_dict(self) -> dict:
        """For JSON."""
        return {name: value for name, value in vars(self).items() if name != "still" or value}


@dataclass(frozen=True)
class Finding:
    """How far values are from the reference's."""

    drop_percent: float  # of the worst slice
    shown_percent: float  # what so few values show at least
    interval: tuple[float, float]
    standard_error: float | None
    each: np.ndarray  # [samples, slices], in percent
    axis: int | None
    slice: int | None
    parts: tuple[Part, ...]
    count: float  # of values that tell it

    @property
    def drops(self) -> tuple[float, ...]:
        """Of each sample."""
        return tuple(float(value) for value in self.each.max(1)) if self.each.size else ()


NOTHING = Finding(0.0, 0.0, (0.0, 0.0), None, np.zeros((0, 1)), None, None, (), 0.0)


@dataclass
class Errors:
    """Squared errors of one output, slice by slice, over the samples."""

    sums: dict[int | None, np.ndarray] = field(default_factory=dict)  # axis -> sum of squares of each slice
    shifts: dict[int | None, np.ndarray] = field(default_factory=dict)  # axis -> sum of each slice
    counts: dict[int | None, np.ndarray] = field(default_factory=dict)
    samples: dict[int | None, list[np.ndarray]] = field(default_factory=dict)  # axis -> mean squares of each sample and slice
    shape: tuple[int, ...] | None = None

    def add(self, error: np.ndarray, axes: tuple[int | None, ...]) -> None:
        """
        Args:
            error: of one sample without its batch axis, float64.
            axes: whose slices may count.
        """
        if self.shape is None:
            self.shape = error.shape
        square = error * error
        for axis in axes:
            if axis is not None and (error.ndim != len(self.shape) or error.shape[axis] != self.shape[axis]):
                continue
            sliced = by_slice(square, axis)
            sums = sliced.sum(1)
            self.sums[axis] = self.sums.get(axis, 0.0) + sums
            self.shifts[axis] = self.shifts.get(axis, 0.0) + by_slice(error, axis).sum(1)
            self.counts[axis] = self.counts.get(axis, 0.0) + np.full(len(sums), float(sliced.shape[1]))
            kept = self.samples.setdefault(axis, [])
            if (len(kept) + 1) * len(sums) <= MOST_KEPT:
                kept.append((sums / max(sliced.shape[1], 1)).astype(np.float32))


def finding(scales: Iterable[Scale], errors: Errors, most_allowed: float = MOST_ALLOWED) -> Finding:
    """What was found once the data is through: of the axis with the worst slice.

    Args:
        scales: of the reference's Variation, for each axis that may count.
        most_allowed: the most that few values excuse, as a factor.
    """
    found = [_of_axis(scale, errors, most_allowed) for scale in scales if scale.axis in errors.sums]
    return max(found, key=lambda one: (one.shown_percent, one.drop_percent), default=NOTHING)


def _of_axis(scale: Scale, errors: Errors, most_allowed: float) -> Finding:
    count = np.maximum(errors.counts[scale.axis], 1)
    ratios = errors.sums[scale.axis] / count / scale.variance
    if scale.box_size is not None:  # single boxes that are a little off are noise, all of them at once are none
        ratios[:4] += (errors.shifts[scale.axis][:4] / count[:4]) ** 2 / scale.box_size
    ratios = np.minimum(100 * ratios, LARGEST_PERCENT)
    allowed = np.minimum(allowance(scale.count), most_allowed)
    worst = int(np.argmax(ratios / allowed))
    shown = float(ratios[worst] / allowed[worst])
    if len(ratios) >= FEWEST_SLICES:  # all slices together are many values
        shown = max(shown, float(np.median(ratios) / allowance(scale.count.sum())))
    kept = np.array(errors.samples[scale.axis], np.float64)
    drops = np.minimum(100 * kept / scale.variance, LARGEST_PERCENT)
    drawn = bootstrap(lambda rows: drops[rows, worst].mean(1), len(drops))
    low, high = percentiles(drawn) or (shown, float(ratios[worst]))
    high = max(high, float(ratios[worst] * allowed[worst]))
    return Finding(
        drop_percent=float(ratios[worst]),
        shown_percent=shown,
        interval=(min(low, shown), min(high, LARGEST_PERCENT)),
        standard_error=None if drawn is None else float(np.std(drawn)),
        each=drops,
        axis=scale.axis,
        slice=worst if scale.axis is not None else None,
        parts=_parts(scale, ratios),
        count=float(scale.count[worst]),
    )


def _parts(scale: Scale, ratios: np.ndarray) -> tuple[Part, ...]:
    """Runs of slices within 0..1 beside others; empty where all slices are of one kind."""
    edges = np.flatnonzero(np.diff(scale.bounded)) + 1
    if not 0 < len(edges) < MOST_PARTS:
        return ()
    bounds = [0, *edges.tolist(), len(ratios)]
    parts = []
    for first, end in zip(bounds, bounds[1:]):
        own, counted, lost = scale.told[first:end], scale.variance[first:end], ratios[first:end]
        db = decibels(float(own.sum()), float((lost * counted).sum()) / 100)
        still = bool(scale.bounded[first] and (own < STILL * counted).all())
        parts.append(Part(first, end - 1, float(lost.max()), db, still))
    return tuple(parts)
