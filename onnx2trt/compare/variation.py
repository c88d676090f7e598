"""What the reference does over the data, and what an error is held against by it: the variance of each slice.

An error matters by what the output tells, which is what varies over the data. See docs/accuracy.md for the formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnx2trt.compare.boxes import Boxes
from onnx2trt.compare.intervals import ENOUGH
from onnx2trt.compare.metrics import are_shares
from onnx2trt.compare.slices import Moments, Neighbours, axes_of, by_slice

PLACES_KEPT = 2**20  # of one output, of which the variance over the samples is taken place by place
PLACE_AXIS = 16  # slices; shorter axes are channels, coordinates and the like, however alike their slices are
ALIKE = 0.5  # correlation of neighbours from which on an axis counts places
# The variance of an output is that between its places (an image has dark and bright ones) and that over the samples. The latter is what
# the output tells, but the former is what a rounding error is a share of: where samples hardly differ, it counts for a part.
PLACES_SHARE = 0.2
MOST_LENT = 50.0  # times the variance over the samples: a constant answer is never within 2 %
SMALLEST_BOUNDED = 1e-4  # variance of slices within 0..1: classes that do not occur in the data
SMALL_PEAK = 0.05  # outputs within 0..1 that never get so far have a scale of their own
SMALLEST_OF_LARGEST = 1e-8  # of the largest variance along the axis
NUMERICAL = 1e-10  # of it, below which a slice is rounding errors of nothing
SMALLEST_OF_SQUARE = 3e-4  # of the squared mean: 0.17 % of a value that is nearly constant is 1 %
KIND_FACTOR = 30.0  # between the mean squares of slices of one kind and those of the next; lengths and scores differ by far more
ONE_KIND_SHARE = 0.5  # of the mean variance of the slices of one kind: what a quieter one is held against
OCCURS = 0.1  # of the highest peak of slices within 0..1: a class that stays below it does not occur in the data
CLEARLY_FEATURES = 1.0  # difference of Axis.contrast by which one axis holds the features rather than another
FEWEST_EVENTS = 20.0  # values in each slice that tell how slices differ, as Moments.effective_count has it of all together
TWO_VALUED = 0.55  # of the variance that a map of zeros and ones of the same mean has; a map of grey values has a third


@dataclass(frozen=True)
class Scale:
    """What the errors of the slices along one axis are held against."""

    axis: int | None  # of the sample; None: all values are one slice
    variance: np.ndarray  # [slices], positive
    told: np.ndarray  # [slices]: the same as it was measured, where it may be far below what counts at least
    count: np.ndarray  # [slices]: how many values tell it (slices.Moments.effective_count)
    bounded: np.ndarray  # [slices]: all values lie in 0..1
    box_size: float | None = None  # the first four slices are boxes: what the square of their shift is held against


@dataclass
class Axis:
    """One axis (None: all values together) over the samples."""

    index: int | None
    moments: Moments
    neighbours: Neighbours | None
    boxes: Boxes | None
    fixed: bool = True  # as long in every sample

    @property
    def places(self) -> bool:
        """It counts places, no features."""
        return self.neighbours is not None and self.neighbours.correlation > ALIKE

    @property
    def alive(self) -> np.ndarray:
        """[slices]: it changes at all."""
        moments = self.moments
        return moments.variance > np.maximum(1e-12 * moments.mean**2, NUMERICAL * moments.variance.max(initial=0.0))

    @property
    def contrast(self) -> float:
        """How much the slices differ in level and scale: log of the variance of all values - mean log of that of each slice.

        It is 0 where all slices are alike. For lengths in pixels beside scores it is ten and more, for features that differ by factors
        of two 0.5.
        """
        moments, alive = self.moments, self.alive
        if not alive.any():
            return 0.0
        inside, mean, weight = moments.variance[alive], moments.mean[alive], moments.count[alive]
        middle = np.average(mean, weights=weight)
        logs = np.log(inside) + _too_small(moments.effective_count[alive])
        return float(np.log(np.average(inside + (mean - middle) ** 2, weights=weight)) - np.average(logs, weights=weight))


@dataclass
class Variation:
    """Statistics of one output of the reference, in one pass."""

    samples: int = 0
    energy: float = 0.0  # sum of squares
    values: int = 0  # finite ones
    shape: tuple[int, ...] | None = None  # of the first sample
    channels_last: bool = False  # the model is NHWC
    varies: bool = False  # other samples have other shapes
    axes: list[Axis] = field(default_factory=list)
    _within: Within | None = None

    def add(self, reference: np.ndarray, known: np.ndarray) -> None:
        """
        Args:
            reference: one sample without its batch axis, float64, 0 where it is not finite.
            known: where it is finite.
        """
        if self.shape is None:
            self._start(reference)
        self.samples += 1
        complete = bool(known.all())
        self.values += int(known.size if complete else known.sum())
        self.energy += float((reference**2).sum())
        same = reference.shape == self.shape
        self.varies |= not same
        for axis in self.axes:
            if not same and axis.index is not None:
                axis.fixed &= len(self.shape) == reference.ndim and reference.shape[axis.index] == self.shape[axis.index]
                if not axis.fixed:
                    continue
            sliced = by_slice(reference, axis.index)
            axis.moments.add(sliced, None if complete else by_slice(known, axis.index))
            if axis.neighbours is not None:
                axis.neighbours.add(sliced)
            if axis.boxes is not None:
                axis.boxes.add(sliced[:4])
        if self._within is not None:
            if self.varies:
                self._within = None
            else:
                self._within.add(reference)

    def _start(self, reference: np.ndarray) -> None:
        self.shape = reference.shape
        wide = sum(size > 1 for size in reference.shape)
        for index in axes_of(reference.shape):
            size = reference.shape[index]
            boxes = Boxes() if wide == 2 and size >= 4 and reference.size // size >= Boxes.FEWEST else None
            self.axes.append(Axis(index, Moments(size), Neighbours(size) if size > PLACE_AXIS and wide > 1 else None, boxes))
        self.axes.append(Axis(None, Moments(1), None, None))
        self._within = Within(reference) if reference.size else None

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """Of each axis whose slices count; of all values together, where there is none. Asked for once the data is through."""
        counting = [axis for axis in self.axes if self._counts(axis)]
        if len(counting) == 2:
            counting = self._features(*counting)
        return tuple(self._scale(axis) for axis in counting or self.axes[-1:])

    def _features(self, first: Axis, last: Axis) -> list[Axis]:
        """Which of two axes holds the features, by whose slices differ; of maps the channels, where that does not tell; of tables both."""
        difference = last.contrast - first.contrast
        told = self.axes[-1].moments.effective_count[0] / max(len(axis.alive) for axis in (first, last))
        if abs(difference) > CLEARLY_FEATURES and told >= FEWEST_EVENTS:  # of few events, most slices are empty by chance
            return [last if difference > 0 else first]
        if sum(size > 1 for size in self.shape) < 3:
            return [first, last]
        return [last if self.channels_last else first]

    @property
    def two_valued(self) -> bool:
        """Whether values in 0..1 are nearly all near one of the two ends."""
        moments = self.axes[-1].moments
        mean = float(moments.mean[0])
        return float(moments.variance[0]) >= TWO_VALUED * mean * (1 - mean) or not 0 < mean < 1

    def scale_of(self, index: int | None) -> Scale | None:
        """Of one axis where it counts, else of all values together; None before the first sample."""
        fitting = [axis for axis in self.axes if axis.index == index and self._counts(axis)] or self.axes[-1:]
        return self._scale(fitting[0]) if fitting else None

    def _counts(self, axis: Axis) -> bool:
        """A single sample of features has one value in each slice, which tells nothing."""
        return axis.index is not None and axis.fixed and not axis.places and bool((axis.moments.count >= 2).any())

    def _scale(self, axis: Axis) -> Scale:
        moments = axis.moments
        count, total = moments.effective_count, moments.variance
        variance = total
        if self._within is not None and self.samples > 1:
            over_samples = total * self._within.share(axis.index)
            variance = np.clip(PLACES_SHARE * total, over_samples, MOST_LENT * over_samples)
        if self.samples == 1 and sum(size > 1 for size in self.shape) < 2:  # nothing tells the features of a single sample from each other
            variance = np.maximum(variance, self.energy / max(self.values, 1))
        bounded = are_shares(moments.low, moments.high)
        if self._fixed(axis, variance) and self.samples > 1:
            count = np.full(len(count), ENOUGH)  # nothing is left to chance
        size = axis.boxes.size if axis.boxes is not None and axis.boxes.found else None
        return Scale(axis.index, np.maximum(variance, self._smallest(axis, variance, bounded)), variance, count, bounded, size)

    def _fixed(self, axis: Axis, variance: np.ndarray) -> bool:
        """It is a constant."""
        return not axis.alive.any() or not variance.max() > 1e-12 * self.energy / max(self.values, 1)

    def _smallest(self, axis: Axis, variance: np.ndarray, bounded: np.ndarray) -> np.ndarray:
        """What counts as variance at least: slices that do nothing in the data shall not rule."""
        moments, square, alive = axis.moments, self.energy / max(self.values, 1), axis.alive
        if self._fixed(axis, variance):  # held against its own size
            return np.full(len(variance), square or SMALLEST_BOUNDED)
        peak = float(moments.high[bounded].max()) if bounded.any() else 0.0
        of_bounded = SMALLEST_BOUNDED * min(1.0, peak / SMALL_PEAK) ** 2
        floor = np.maximum(SMALLEST_OF_LARGEST * variance.max(), SMALLEST_OF_SQUARE * moments.mean**2)
        floor = np.where(bounded, of_bounded, floor)
        quiet = ~alive | bounded & (moments.high <= OCCURS * peak)
        for those, most in ((bounded, 1.0), (~bounded, np.inf)):  # held against others of the kind; where there are none, against all
            loud = those & ~quiet if (those & ~quiet).any() else ~quiet
            if loud.any():
                floor = np.where(those & quiet, np.maximum(floor, ONE_KIND_SHARE * min(float(np.median(variance[loud])), most)), floor)
        few = moments.effective_count < FEWEST_EVENTS  # their variance is chance; how large they are is not
        for kind in kinds(np.where(alive, np.where(few, moments.mean**2, 0.0) + variance, 0.0)):
            floor[kind] = np.maximum(floor[kind], ONE_KIND_SHARE * variance[kind].mean())
        return np.maximum(floor, 1e-30)

    @property
    def change(self) -> float | None:
        """By how much the values of a place differ over the samples, as a share of their size; None where it cannot be told."""
        share, square = self.over_samples, self.energy / max(self.values, 1)
        return None if share is None or not square else math.sqrt(share * float(self.axes[-1].moments.variance[0]) / square)

    @property
    def over_samples(self) -> float | None:
        """The share of the variance that is over the samples, in 0..1; None where places cannot be held against each other."""
        return None if self._within is None or self.samples < 2 else float(min(self._within.share(None)[0], 1.0))


class Within:
    """How much of the variance is over the samples, place by place; of a part of the places where there are many."""

    def __init__(self, first: np.ndarray):
        self._chosen = None if first.size <= PLACES_KEPT else np.random.default_rng(0).choice(first.size, PLACES_KEPT, replace=False)
        self._shape = first.shape
        self._first = self._of(first).copy()
        self._count = 0
        self._sums = np.zeros((2, self._first.size))

    def _of(self, values: np.ndarray) -> np.ndarray:
        flat = values.reshape(-1)
        return flat if self._chosen is None else flat[self._chosen]

    def add(self, values: np.ndarray) -> None:
        off = self._of(values) - self._first
        self._count += 1
        self._sums[0] += off
        off *= off
        self._sums[1] += off

    def share(self, axis: int | None) -> np.ndarray:
        """[slices]: variance over the samples (mean of the places) / variance of all values of the slice, as Moments has it."""
        mean = self._sums[0] / self._count
        spread = np.maximum(self._sums[1] / self._count - mean**2, 0.0)  # of each place, n in the denominator
        number, where = 1, np.zeros(self._first.size, np.intp)
        if axis is not None:
            number = self._shape[axis]
            places = np.arange(self._first.size) if self._chosen is None else self._chosen
            where = places // math.prod(self._shape[axis + 1 :]) % number
        size = np.maximum(np.bincount(where, minlength=number), 1)
        level = self._first + mean
        middle = np.bincount(where, level, number) / size
        between = np.bincount(where, (level - middle[where]) ** 2, number) / size
        inside = np.bincount(where, spread, number) / size
        values = np.maximum(size * self._count, 2)
        total = (inside + between) * values / (values - 1)
        inside = inside * self._count / max(self._count - 1, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total > 0, inside / total, 1.0)


def kinds(squares: np.ndarray) -> list[np.ndarray]:
    """Slices (their numbers) of one kind each: a gap in the order of their mean squares divides them; those of 0 are none."""
    order = np.argsort(squares, kind="stable")[int((squares <= 0).sum()) :]
    if not order.size:
        return []
    return np.split(order, np.flatnonzero(np.diff(np.log(squares[order])) > np.log(KIND_FACTOR)) + 1)


def _too_small(count: np.ndarray) -> np.ndarray:
    """By how much the logarithm of a variance that so many values tell is too small, in the mean."""
    freedom = np.maximum(count - 1, 0.5)
    return 1 / freedom + 1 / (3 * freedom**2)
