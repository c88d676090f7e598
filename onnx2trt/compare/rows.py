"""Lists whose rows have an order of their own: what TopK, NonMaxSuppression and detectors with either of them inside give.

That an output is one is told by what the reference does over the data: a column that falls from row to row in every sample, a number of
rows that differs from sample to sample, indices of which none comes twice. Outputs with as many rows belong together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.boxes import Boxes
from onnx2trt.compare.intervals import allowance, shown_share
from onnx2trt.compare.row_matching import Rows, match
from onnx2trt.compare.slices import Moments

MOST_ROWS, MOST_COLUMNS = 1000, 1024  # of a list; longer ones are compared place by place
MOST_LABELS = 256  # different whole numbers in a floating-point column of class numbers
MOST_BYTES = 2**27  # of lists that are remembered until the data is through; later samples are left out
LOOKED_AT = 8  # samples after which what has shown no sign of being a list is forgotten
SURE_BITS = 30.0  # of evidence that a column is sorted: one order of n values is log2(n!) bits
SURE_COLLISIONS = 20.0  # indices that would have come twice, were they random
EXCUSED = 0.1  # of the rows of a list without scores: one may come or go at the border, of each side
LARGEST_PERCENT = 1e9

Pair = tuple[np.ndarray, np.ndarray]  # reference and candidate of one sample, [rows, ...]


@dataclass
class ListOutput:
    """One output that may be a list, with its samples."""

    name: str
    pairs: list[Pair] = field(default_factory=list)
    falling: np.ndarray | None = None  # bool [columns]: it falls, or stays, from row to row in every sample
    bits: np.ndarray | None = None  # [columns]
    counts: list[tuple[int, int]] = field(default_factory=list)  # rows of the reference and of the candidate
    distinct: bool = True  # no row of the reference comes twice
    collisions: float = 0.0

    def add(self, reference: np.ndarray, output: np.ndarray) -> None:
        """One sample, [rows, ...]."""
        self.pairs.append((reference, output))
        self.counts.append((len(reference), len(output)))
        table = reference.reshape(len(reference), -1) if len(reference) else reference.reshape(0, math.prod(reference.shape[1:]))
        if self.falling is None:
            self.falling, self.bits = np.full(table.shape[1], reference.dtype.kind == "f"), np.zeros(table.shape[1])
        if reference.dtype.kind == "f" and self.falling.any():
            self.falling &= (np.diff(table, axis=0) <= 0).all(0)
            steps = (np.diff(table, axis=0) < 0).sum(0)
            self.bits += np.array([math.lgamma(count + 2) / math.log(2) for count in steps])
        if reference.dtype.kind in "iu" and len(table) and self.distinct:
            self.distinct = len(np.unique(table, axis=0)) == len(table)
            room = float(np.prod(np.ptp(table, axis=0).astype(np.float64) + 1))
            self.collisions += len(table) ** 2 / (2 * room)

    @property
    def sorted_column(self) -> int | None:
        """The scores by which the rows are sorted."""
        sure = np.flatnonzero(self.falling & (self.bits >= SURE_BITS)) if self.falling is not None else np.zeros(0, int)
        return int(sure[0]) if sure.size else None

    @property
    def varying(self) -> bool:
        """How many rows there are differs from sample to sample, or from the candidate's."""
        return len({count for both in self.counts for count in both}) > 1

    @property
    def indices(self) -> bool:
        return self.pairs[0][0].dtype.kind in "iu" and self.distinct and self.collisions >= SURE_COLLISIONS

    @property
    def columns(self) -> int:
        return 0 if self.falling is None else len(self.falling)

    @property
    def whole(self) -> bool:
        """It holds labels or indices: whole numbers."""
        return self.pairs[0][0].dtype.kind in "iub"


@dataclass(frozen=True)
class ListFinding:
    """How far an output whose rows were matched is from the reference's."""

    drop_percent: float
    shown_percent: float
    drops: tuple[float, ...]  # of each sample
    energies: tuple[float, float]  # of the reference's matched rows and of their errors
    column: int | None  # the worst, where its errors count for more than rows without a partner


class Lists:
    """Looks on while outputs are compared, for those that turn out to be lists."""

    def __init__(self, asked: frozenset[str] = frozenset()):
        """
        Args:
            asked: outputs that are lists, whatever they look like.
        """
        self._asked = asked
        self._outputs: dict[str, ListOutput] = {}
        self._numbers: dict[str, list[int]] = {}  # outputs of one whole number -> that of each sample
        self._bytes = 0
        self._samples = 0
        self._over = False

    def add(self, sample: dict[str, Pair]) -> None:
        """All outputs of one sample, without their batch axis."""
        if self._over:
            return
        self._samples += 1
        for name, (reference, output) in sample.items():
            if reference.size == 1 and reference.dtype.kind in "iu":
                self._numbers.setdefault(name, []).append(int(reference.reshape(-1)[0]))
            if self._samples == 1 and self._may_be(name, reference):
                self._outputs[name] = ListOutput(name)
            if name in self._outputs:
                if _rows_first(reference, output) and reference.ndim:
                    self._outputs[name].add(reference.copy(), output.copy())
                    self._bytes += reference.nbytes + output.nbytes
                else:
                    del self._outputs[name]
        signs = any(one.varying or one.indices or one.falling.any() or name in self._asked for name, one in self._outputs.items())
        self._over = self._bytes > MOST_BYTES or self._samples >= LOOKED_AT and not signs
        if self._over and not signs:
            self._outputs.clear()

    def _may_be(self, name: str, reference: np.ndarray) -> bool:
        rows, columns = (reference.shape[0], math.prod(reference.shape[1:])) if reference.ndim else (0, 0)
        return name in self._asked or rows <= MOST_ROWS and columns <= MOST_COLUMNS and reference.ndim > 0

    def findings(self) -> dict[str, ListFinding]:
        """Of each output that is a list, once the data is through."""
        found: dict[str, ListFinding] = {}
        for group, key in self._groups():
            found |= _Group(group, key).findings()
            for name in self._counts_of(group, key):
                found[name] = ListFinding(0.0, 0.0, (0.0,) * self._samples, (1.0, 0.0), None)
        return found

    def _groups(self) -> list[tuple[list[ListOutput], ListOutput]]:
        """(outputs that belong together, the one that tells their order)"""
        left = {name: one for name, one in self._outputs.items() if one.pairs}
        groups = []
        order = sorted(left.values(), key=lambda one: (one.sorted_column is None, not one.varying))
        for key in order:
            if key.name not in left or not (key.sorted_column is not None or key.varying or key.indices or key.name in self._asked):
                continue
            group = [one for one in left.values() if one.counts == key.counts]
            alone = len(group) == 1 and key.columns == 1 and not key.whole
            if alone and key.name not in self._asked:
                continue  # numbers in a falling order stand at the right place by themselves; of others no row can be told
            groups.append((group, key))
            for one in group:
                del left[one.name]
        return groups

    def _counts_of(self, group: list[ListOutput], key: ListOutput) -> list[str]:
        """Outputs that say how many rows of a padded list there are."""
        column, names = key.sorted_column, {one.name for one in group}
        if column is None:
            return []
        scores = [reference.reshape(len(reference), -1)[:, column] for reference, _ in key.pairs]
        valid = [int((one > one.min(initial=0.0)).sum()) for one in scores]
        return [name for name, numbers in self._numbers.items() if name not in names and numbers[: len(valid)] == valid]


def _rows_first(reference: np.ndarray, output: np.ndarray) -> bool:
    return reference.ndim == output.ndim and reference.shape[1:] == output.shape[1:]


class _Group:
    """Outputs that are columns of one list."""

    def __init__(self, outputs: list[ListOutput], key: ListOutput):
        self._outputs, self._key = outputs, key
        self._moments, self._boxes = {}, {}
        for one in outputs:
            if one.whole:
                continue
            self._moments[one.name] = moments = Moments(one.columns)
            self._boxes[one.name] = boxes = Boxes()
            for reference, _ in one.pairs:
                table = _table(reference).T
                moments.add(table)
                if one.columns >= 4:
                    boxes.add(table[:4])
        self._labels = {name: self._label_columns(name) for name in self._moments}

    def _label_columns(self, name: str) -> np.ndarray:
        """bool [columns] of a floating-point output: class numbers."""
        tables = [_table(reference) for one in self._outputs if one.name == name for reference, _ in one.pairs]
        table = np.concatenate(tables)
        whole = (table == np.rint(table)).all(0) if len(table) else np.zeros(table.shape[1], bool)
        return whole & np.array([len(np.unique(column)) <= MOST_LABELS for column in table.T], bool) & (self._moments[name].variance > 0)

    def findings(self) -> dict[str, ListFinding]:
        count = len(self._key.pairs)
        weight, missed, effective = np.zeros(count), np.zeros(count), 0.0
        errors = {name: np.zeros((count, moments.count.size)) for name, moments in self._moments.items()}
        energies = {one.name: np.zeros(2) for one in self._outputs}
        weights = {name: np.zeros(count) for name in errors}
        for sample in range(count):
            reference, found = self._rows(sample, 0), self._rows(sample, 1)
            a, b = match(reference, found)
            weight[sample] = reference.weights.sum() + found.weights.sum()
            missed[sample] = self._missed(reference, found, a, b)
            effective += _effective(reference.weights)
            for one in self._outputs:
                expected, given = (_table(values)[rows] for values, rows in zip(one.pairs[sample], (a, b)))
                energies[one.name] += ((expected**2).sum(), ((given - expected) ** 2).sum())
                if one.name in errors:
                    errors[one.name][sample] = (reference.weights[a, None] * (given - expected) ** 2).sum(0)
                    weights[one.name][sample] = reference.weights[a].sum()
        share = float(missed.sum() / weight.sum()) if weight.sum() else 0.0
        each = 100 * np.divide(missed, weight, out=np.zeros(count), where=weight > 0)
        lost = 100 * share, shown_share(share * effective, max(effective, 1.0)), each

        def of(one: ListOutput) -> ListFinding:
            return self._finding(one.name, lost, errors.get(one.name), weights.get(one.name), energies[one.name])

        return {one.name: of(one) for one in self._outputs}

    def _finding(self, name: str, lost, errors, weights, energies) -> ListFinding:
        """
        Args:
            lost: (share of rows without a partner in percent, what is shown of it, of each sample).
            errors: [samples, columns], weighted squares of matched rows; None of labels.
            weights: [samples].
        """
        share, shown, each = lost
        total = (float(energies[0]), float(energies[1]))
        if errors is None or not weights.sum():
            return ListFinding(share, shown, tuple(map(float, each)), total, None)
        moments, boxes = self._moments[name], self._boxes[name]
        scale = np.maximum(moments.variance, 1e-4 * np.minimum(moments.mean**2 + moments.variance, 1.0))
        if boxes.found:
            scale[:4] = np.minimum(scale[:4], boxes.size)
        scale = np.where(self._labels[name], np.inf, np.maximum(scale, 1e-30))
        ratios = 100 * errors.sum(0) / weights.sum() / scale
        worst = int(np.argmax(ratios))
        told = float(ratios[worst] / allowance(moments.effective_count[worst]))
        own = 100 * np.divide(errors, weights[:, None], out=np.zeros(errors.shape), where=weights[:, None] > 0) / scale
        drops = np.minimum(np.maximum(each, own.max(1)), LARGEST_PERCENT)
        if ratios[worst] > share:
            return ListFinding(min(float(ratios[worst]), LARGEST_PERCENT), max(told, shown), tuple(map(float, drops)), total, worst)
        return ListFinding(share, max(told, shown), tuple(map(float, drops)), total, None)

    def _rows(self, sample: int, which: int) -> Rows:
        """The list of one sample, of the reference (0) or the candidate (1)."""
        columns, labels = [], []
        for one in self._outputs:
            table = _table(one.pairs[sample][which])
            if one.whole:
                labels.append(np.rint(table))
                continue
            moments, whole = self._moments[one.name], self._labels[one.name]
            labels.append(np.rint(table[:, whole]))
            columns.append(table[:, ~whole] / np.sqrt(np.maximum(moments.variance, 1e-30))[~whole])
        count = len(self._key.pairs[sample][which])
        joined = [np.concatenate(parts, 1) if parts else np.zeros((count, 0)) for parts in (columns, labels)]
        return Rows(joined[0], joined[1], self._weights(sample, which))

    def _weights(self, sample: int, which: int) -> np.ndarray:
        """By how much the score of a row is above the lowest: what just missed the list, or just came into it, is no loss."""
        reference, values = self._key.pairs[sample][0], self._key.pairs[sample][which]
        column = self._key.sorted_column
        if column is None:
            count = len(values)
            return 1 - np.arange(count) / count if self._key.indices and not self._key.varying else np.ones(count)
        scores, lowest = _table(values)[:, column], float(_table(reference)[:, column].min(initial=np.inf))
        if self._key.varying:
            lowest = float(self._moments[self._key.name].low[column])
        weights = np.nan_to_num(np.maximum(scores - lowest, 0.0), posinf=0.0)
        return weights if np.isfinite(lowest) and weights.sum() > 0 else np.ones(len(values))

    def _missed(self, reference: Rows, found: Rows, a: np.ndarray, b: np.ndarray) -> float:
        """The weight of the rows without a partner, on both sides."""
        missed = 0.0
        for rows, matched in ((reference, a), (found, b)):
            alone = np.delete(rows.weights, matched)
            if self._key.sorted_column is None:
                excused = max(1, int(EXCUSED * len(rows)))
                alone = np.sort(alone)[: max(alone.size - excused, 0)]
            missed += float(alone.sum())
        return missed


def _table(values: np.ndarray) -> np.ndarray:
    """[rows, columns] float64; what is no number counts as 0."""
    table = values.reshape(len(values), -1) if len(values) else values.reshape(0, math.prod(values.shape[1:]))
    return np.nan_to_num(table.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _effective(weights: np.ndarray) -> float:
    """How many rows of one weight would tell as much."""
    square = float((weights**2).sum())
    return float(weights.sum()) ** 2 / square if square else 0.0
