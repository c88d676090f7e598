"""Outputs that are the columns of one list: their rows matched, and what is lost counted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx2trt.compare.boxes import Boxes
from onnx2trt.compare.intervals import allowance, shown_share
from onnx2trt.compare.row_matching import Rows, match
from onnx2trt.compare.slices import Moments

FEWEST_ROWS = 5  # of a list that is known by its order
MOST_LABELS = 256  # different whole numbers in a floating-point column of class numbers
EXCUSED = 0.1  # of the rows of a list without scores: as many, and one in any case, may come or go at the border
SMALLEST_SHARE = 1e-4  # of a squared column, at most of 1, as its variance: columns that hardly change rule nothing
LARGEST_PERCENT = 1e9

Pair = tuple[np.ndarray, np.ndarray]  # reference and candidate of one sample, [rows, ...]


@dataclass(frozen=True)
class ListFinding:
    """How far an output whose rows were matched is from the reference's."""

    drop_percent: float
    shown_percent: float
    drops: tuple[float, ...]  # of each sample
    energies: tuple[float, float]  # of the reference's matched rows and of their errors
    column: int | None  # the worst, where its errors count for more than rows without a partner


@dataclass(frozen=True)
class Member:
    """One output of a list."""

    name: str
    pairs: list[Pair]
    whole: bool  # it holds labels or indices

    @cached_property
    def tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(_table(a), _table(b)) for a, b in self.pairs]

    @cached_property
    def moments(self) -> Moments:
        """Of the reference's columns."""
        moments = Moments(self.tables[0][0].shape[1])
        for reference, _ in self.tables:
            moments.add(reference.T)
        return moments

    @cached_property
    def labels(self) -> np.ndarray:
        """bool [columns]: they hold class numbers or indices, which are the same or not."""
        if self.whole:
            return np.ones(len(self.moments.count), bool)
        table = np.concatenate([reference for reference, _ in self.tables])
        whole = (table == np.rint(table)).all(0) & (self.moments.variance > 0)
        return whole & np.array([len(np.unique(column)) <= MOST_LABELS for column in table.T], bool)

    @cached_property
    def scale(self) -> np.ndarray:
        """[columns]: what squared errors are held against."""
        moments = self.moments
        scale = np.maximum(moments.variance, SMALLEST_SHARE * np.minimum(moments.mean**2 + moments.variance, 1.0))
        return np.where(self.labels, np.inf, np.maximum(scale, 1e-30))

    @cached_property
    def boxes(self) -> tuple[int, float] | None:
        """(their first column, what the square of a shift of all of them is held against), where four neighbouring columns are boxes."""
        for first in range(len(self.labels) - 3):
            boxes = Boxes()
            for reference, _ in self.tables:
                boxes.add(reference[:, first : first + 4].T)
            if boxes.found:
                return first, boxes.size
        return None


@dataclass
class _Sample:
    """What the rows of one sample come to."""

    weight: float  # of all rows, of both lists
    missed: float  # of those without a partner
    effective: float  # rows of one weight that would tell as much
    errors: list[np.ndarray]  # of each member: weighted squares, [columns]
    shifts: list[np.ndarray]  # and weighted errors
    matched: float  # weight of the reference's rows with a partner
    energies: list[tuple[float, float]]


class Group:
    """Outputs that are columns of one list."""

    def __init__(self, members: list[Member], key: int, column: int | None, varying: bool):
        """
        Args:
            key: the member that tells the order.
            column: of it, by which the rows are sorted; None: there are no scores.
            varying: the number of rows differs from sample to sample.
        """
        self._members, self._key, self._column, self._varying = members, members[key], column, varying

    @property
    def told(self) -> list[int]:
        """How many rows of each sample of the reference are no padding; empty where there are no scores to tell."""
        if self._column is None:
            return []
        lowest = self._key.moments.low[self._column]
        return [int((reference[:, self._column] > lowest).sum()) for reference, _ in self._key.tables]

    def findings(self) -> dict[str, ListFinding]:
        """Of each member."""
        samples = [self._compare(index) for index in range(len(self._key.pairs))]
        weight, missed = (np.array([getattr(one, name) for one in samples]) for name in ("weight", "missed"))
        effective = sum(one.effective for one in samples)
        share = float(missed.sum() / weight.sum()) if weight.sum() else 0.0
        each = 100 * np.divide(missed, weight, out=np.zeros(len(samples)), where=weight > 0)
        lost = 100 * share, shown_share(share * effective, max(effective, 1.0)), each
        return {member.name: _finding(member, index, samples, lost) for index, member in enumerate(self._members)}

    def _compare(self, index: int) -> _Sample:
        reference, found = self._rows(index, 0), self._rows(index, 1)
        a, b = match(reference, found)
        errors, shifts, energies = [], [], []
        for member in self._members:
            expected, given = (table[rows] for table, rows in zip(member.tables[index], (a, b)))
            error = given - expected
            errors.append((reference.weights[a, None] * error**2).sum(0))
            shifts.append((reference.weights[a, None] * error).sum(0))
            energies.append((float((expected**2).sum()), float((error**2).sum())))
        weight = float(reference.weights.sum() + found.weights.sum())
        missed, effective = self._missed(reference, found, a, b), _effective(reference.weights)
        return _Sample(weight, missed, effective, errors, shifts, float(reference.weights[a].sum()), energies)

    def _rows(self, index: int, which: int) -> Rows:
        """The list of one sample, of the reference (0) or the candidate (1)."""
        columns, labels = [], []
        for member in self._members:
            table = member.tables[index][which]
            labels.append(np.rint(table[:, member.labels]))
            columns.append((table / np.sqrt(np.maximum(member.moments.variance, 1e-30)))[:, ~member.labels])
        return Rows(np.concatenate(columns, 1), np.concatenate(labels, 1), self._weights(index, which))

    def _weights(self, index: int, which: int) -> np.ndarray:
        """By how much the score of a row is above the lowest: what just missed the list, or just came into it, is no loss."""
        tables, column = self._key.tables[index], self._column
        count = len(tables[which])
        if column is None:
            falling = self._key.whole and not self._varying  # the best indices, best first
            return 1 - np.arange(count) / count if falling else np.ones(count)
        lowest = float(self._key.moments.low[column]) if self._varying else float(tables[0][:, column].min(initial=np.inf))
        weights = np.nan_to_num(np.maximum(tables[which][:, column] - lowest, 0.0), posinf=0.0)
        return weights if np.isfinite(lowest) and weights.sum() > 0 else np.ones(count)

    def _missed(self, reference: Rows, found: Rows, a: np.ndarray, b: np.ndarray) -> float:
        """The weight of the rows without a partner, on both sides."""
        missed = 0.0
        for rows, matched in ((reference, a), (found, b)):
            alone = np.delete(rows.weights, matched)
            if self._column is None:
                alone = np.sort(alone)[: max(alone.size - max(1, int(EXCUSED * len(rows))), 0)]
            missed += float(alone.sum())
        return missed


def _finding(member: Member, index: int, samples: list[_Sample], lost: tuple[float, float, np.ndarray]) -> ListFinding:
    """
    Args:
        lost: (share of rows without a partner in percent, what is shown of it, of each sample).
    """
    share, shown, each = lost
    energies = tuple(sum(one.energies[index][part] for one in samples) for part in (0, 1))
    matched = np.array([one.matched for one in samples])
    if member.labels.all() or not matched.sum():
        return ListFinding(share, shown, tuple(map(float, each)), energies, None)
    errors = np.array([one.errors[index] for one in samples])
    ratios = errors.sum(0) / matched.sum() / member.scale
    if member.boxes is not None:
        first, size = member.boxes
        ratios[first : first + 4] += (sum(one.shifts[index][first : first + 4] for one in samples) / matched.sum()) ** 2 / size
    ratios = np.minimum(100 * ratios, LARGEST_PERCENT)
    worst = int(np.argmax(ratios))
    told = float(ratios[worst] / allowance(member.moments.effective_count[worst]))
    own = 100 * np.divide(errors, matched[:, None], out=np.zeros(errors.shape), where=matched[:, None] > 0) / member.scale
    drops = np.minimum(np.maximum(each, own.max(1)), LARGEST_PERCENT)
    by_column = ratios[worst] > share
    drop = float(ratios[worst]) if by_column else share
    return ListFinding(drop, max(told, shown), tuple(map(float, drops)), energies, worst if by_column else None)


def _table(values: np.ndarray) -> np.ndarray:
    """[rows, columns] float64; what is no number counts as 0."""
    table = values.reshape(len(values), math.prod(values.shape[1:]))
    return np.nan_to_num(table.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _effective(weights: np.ndarray) -> float:
    """How many rows of one weight would tell as much."""
    square = float((weights**2).sum())
    return float(weights.sum()) ** 2 / square if square else 0.0
