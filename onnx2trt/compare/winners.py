"""Outputs that hold classes: which one wins, how often another one does, and whether the values look like classes at all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.metrics import are_shares

KEPT_OF_SAMPLE, KEPT = 2**14, 2**20  # numbers of the reference, by which it is told what the values are
TIE = 0.01  # of the range of the values
NOT_ONE = 0.01  # by which a sum of probabilities may differ from 1
CLEARLY = 3.0  # times the lead that the largest of as many independent normal values has
TOGETHER = 1.2  # times the lead that it has where the values of each class are shuffled: classes exclude each other
OPPOSITE, FEWEST_OPPOSITE = -0.8, 8  # correlation of the two logits of two classes; positions that tell it
LEAST_PROBABILITY = 1e-4  # smaller ones are all the same
FEW_ZEROS = 0.1  # share of exact zeros, above which values are features after a ReLU, or an empty grid
SAME_SCALE = 100.0  # of a class's variance to that of another one that is no rare exception; boxes beside scores differ by more
# (classes, lead of the largest of so many independent normal values over the second, in standard deviations of all but the largest)
LEADS = (
    (3, 2.01), (4, 1.28), (5, 1.03), (8, 0.75), (16, 0.56), (32, 0.46), (64, 0.40), (128, 0.36), (256, 0.33), (1024, 0.28), (8192, 0.25)
)  # fmt: skip


@dataclass
class Winners:
    """The best class along one axis, over the samples."""

    axis: int
    positions: list[int] = field(default_factory=list)  # of each sample
    possible: bool = True
    _classes: int | None = None
    _shares: bool = True  # at every position the values are in 0..1 and sum to 1
    _logarithms: bool = True  # their exponentials do
    _low: float = math.inf
    _high: float = -math.inf
    _wrong: list[float] = field(default_factory=list)  # positions of each sample whose winner is another one, and no tie in any range
    _gaps: list[np.ndarray] = field(default_factory=list)  # of each sample, where another winner may be a tie in the range of all samples
    _kept: list[np.ndarray] = field(default_factory=list)  # some positions of the reference, [positions, classes] each

    def add(self, reference: np.ndarray, output: np.ndarray) -> None:
        """One sample, without its batch axis; NaN never wins."""
        if not self._fits(reference):
            return
        self.count(reference, output)
        self._look(_by_position(reference, self.axis))

    def count(self, reference: np.ndarray, output: np.ndarray) -> None:
        """Only whether the winners agree."""
        expected, found = _by_position(reference, self.axis), _by_position(output, self.axis)
        low, high = _range(expected)
        self._low, self._high = min(self._low, low), max(self._high, high)
        first, second = expected.argmax(1), found.argmax(1)
        other = np.flatnonzero(first != second)
        gaps = _gaps(expected[other], first[other], second[other])
        in_range = not _probabilities(expected[other])
        limit = self._tie if in_range else -TIE * math.log(LEAST_PROBABILITY)
        gaps = gaps[~(gaps <= limit)]  # the range can only grow: what is a tie stays one
        keep = in_range and sum(kept.size for kept in self._gaps) < KEPT
        self._gaps.append(gaps.astype(np.float32) if keep else np.zeros(0, np.float32))
        self._wrong.append(0.0 if keep else float(len(gaps)))
        self.positions.append(len(expected))

    @property
    def _tie(self) -> float:
        return TIE * (self._high - self._low)

    @property
    def agreed(self) -> list[float]:
        """Positions of each sample whose winner is the same, or all but tied: within a hundredth of the range of all samples."""
        return [self._agreed(sample) for sample in range(len(self.positions))]

    @property
    def last_agreed(self) -> float:
        """Of the last sample alone, by the range so far."""
        return self._agreed(-1)

    def _agreed(self, sample: int) -> float:
        lost = self._wrong[sample] + int((~(self._gaps[sample] <= np.float32(self._tie))).sum())
        return self.positions[sample] - lost

    def _fits(self, reference: np.ndarray) -> bool:
        if self.possible:
            classes = reference.shape[self.axis] if -reference.ndim <= self.axis < reference.ndim else 0
            self._classes = self._classes or classes
            self.possible = classes == self._classes > 1
        return self.possible

    def _look(self, values: np.ndarray) -> None:
        """[positions, classes], of which a part is looked at; where there are none, there is nothing to see."""
        if not values.size:
            return
        values = values[:: -(-values.size // KEPT_OF_SAMPLE)].astype(np.float64)
        if self._shares:
            self._shares = bool(values.min() >= -1e-6 and np.abs(values.sum(1) - 1).max() < NOT_ONE)
        if self._logarithms:
            self._logarithms = bool(values.max() < NOT_ONE and np.abs(np.exp(values).sum(1) - 1).max() < NOT_ONE)
        if sum(kept.size for kept in self._kept) < KEPT:
            if not np.isfinite(values).all():  # masked classes are far below all others
                values = np.where(np.isfinite(values), values, values[np.isfinite(values)].min(initial=0.0))
            self._kept.append(values.astype(np.float32))

    @property
    def shares(self) -> bool:
        """The values are probabilities that sum to 1, or their logarithms."""
        return self.possible and bool(self._kept) and (self._shares or self._logarithms)

    @property
    def clear(self) -> bool:
        """The winner stands out as it does in trained classifiers, and not as the largest of any numbers.

        The largest of some numbers always leads. Of logits it leads by far more, since that is what they are trained for, and by more than
        it would if the classes had nothing to do with each other. An embedding or an image has a largest value, too, but that is chance,
        and nothing is lost where another one takes its place.
        """
        if not self.possible or not self._kept:
            return False
        values = np.concatenate(self._kept).astype(np.float64)
        variance = values.var(0)
        bounded = are_shares(values.min(), values.max())
        if bounded or (values == 0).mean() > FEW_ZEROS or len(np.unique(values.argmax(1))) < 2:
            return False
        if not np.quantile(variance, 0.9) <= SAME_SCALE * np.quantile(variance, 0.1):
            return False
        if values.shape[1] == 2:
            return len(values) >= FEWEST_OPPOSITE and bool(np.corrcoef(values.T)[0, 1] < OPPOSITE)
        lead, rest = _lead(values)
        alone, _ = _lead(np.random.default_rng(0).permuted(values, axis=0))
        known, leads = np.array(LEADS).T
        usual = float(np.exp(np.interp(np.log(values.shape[1]), np.log(known), np.log(leads))))
        return lead > CLEARLY * usual * rest and lead > TOGETHER * alone

    @property
    def classes(self) -> int:
        return self._classes or 0


def _lead(values: np.ndarray) -> tuple[float, float]:
    """(lead of the largest over the second, standard deviation of all but the largest), means over the rows of [positions, classes]."""
    ordered = np.partition(values, (-2, -1), axis=1)
    return float((ordered[:, -1] - ordered[:, -2]).mean()), float(ordered[:, :-1].std(1).mean())


def _gaps(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """By how much the value of another winner is below the largest; of probabilities, by which factor, as a logarithm.

    Args:
        values: [positions, classes] of the reference, where another class wins.
        first, second: [positions], the winners of the reference and of the candidate.
    """
    values = values.astype(np.float64)
    if _probabilities(values):
        values = np.log(np.maximum(values, LEAST_PROBABILITY))
    places = np.arange(len(values))
    with np.errstate(invalid="ignore"):
        return values[places, first] - values[places, second]


def _probabilities(values: np.ndarray) -> bool:
    """[positions, classes]"""
    return bool(values.size) and bool(values.min() >= 0) and bool(np.abs(values.sum(1, dtype=np.float64) - 1).max() < NOT_ONE)


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _by_position(values: np.ndarray, axis: int) -> np.ndarray:
    """[positions, classes]; NaN as the smallest of all."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
