"""Lists whose rows have an order of their own: what TopK, NonMaxSuppression and detectors with either of them inside give.

That an output is one is told by what the reference does over the data: a column that falls from row to row in every sample, a number of
rows that differs from sample to sample although the inputs do not, indices of which none comes twice. Outputs with as many rows belong
together.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.row_groups import FEWEST_ROWS, Group, ListFinding, Member, Pair

MOST_ROWS, MOST_COLUMNS = 1000, 1024  # of a list; longer ones are compared place by place
MOST_BYTES = 2**27  # of lists that are remembered until the data is through; later samples are left out
LOOKED_AT = 8  # samples after which what has shown no sign of being a list is forgotten
SURE_BITS = 30.0  # of evidence that a column is sorted: one order of n values is log2(n!) bits
SURE_COLLISIONS = 20.0  # indices that would have come twice, were they random


@dataclass
class ListOutput:
    """One output that may be a list, with its samples."""

    name: str
    unbatched: bool = False  # its first axis is none of a batch
    pairs: list[Pair] = field(default_factory=list)
    falling: np.ndarray | None = None  # bool [columns]: it falls, or stays, from row to row in every sample
    bits: np.ndarray | None = None  # [columns]
    counts: list[tuple[int, int]] = field(default_factory=list)  # rows of the reference and of the candidate
    distinct: bool = True  # no row of the reference comes twice
    collisions: float = 0.0

    def add(self, reference: np.ndarray, output: np.ndarray) -> bool:
        """One sample, [rows, ...]; False where it is none.

        A list of one row, of a model without a batch, looks as if it were one sample of a batch of one.
        """
        if self.pairs and reference.ndim == self.pairs[0][0].ndim - 1:
            reference, output = reference[None], output[None]
        elif self.pairs and reference.ndim == self.pairs[0][0].ndim + 1:
            shorter = [(a[None], b[None]) for a, b in self.pairs]
            self.pairs, self.counts, self.falling, self.distinct, self.collisions = [], [], None, True, 0.0
            for a, b in shorter:
                self.add(a, b)
        if not reference.ndim or reference.ndim != output.ndim or reference.shape[1:] != output.shape[1:]:
            return False
        if self.pairs and reference.shape[1:] != self.pairs[0][0].shape[1:]:
            return False
        self.pairs.append((reference, output))
        self.counts.append((len(reference), len(output)))
        self._look(reference.reshape(len(reference), math.prod(reference.shape[1:])))
        return True

    def _look(self, table: np.ndarray) -> None:
        """[rows, columns] of the reference."""
        if self.falling is None:
            self.falling, self.bits = np.full(table.shape[1], table.dtype.kind == "f"), np.zeros(table.shape[1])
        if self.falling.any():
            steps = np.diff(table, axis=0)
            self.falling &= (steps <= 0).all(0)
            self.bits += np.array([math.lgamma(count + 2) / math.log(2) for count in (steps < 0).sum(0)])
        if table.dtype.kind in "iu" and len(table) and self.distinct:
            self.distinct = len(np.unique(table, axis=0)) == len(table)
            room = float(np.log2(np.ptp(table.astype(np.float64), axis=0) + 1).sum())
            self.collisions += len(table) ** 2 / 2 ** min(1 + room, 1000.0)

    @property
    def sorted_column(self) -> int | None:
        """The scores by which the rows are sorted; where most columns fall, the rows are rather levels, as the channels of an image."""
        if self.falling is None or max(self.counts)[0] < FEWEST_ROWS:
            return None
        sure = np.flatnonzero(self.falling & (self.bits >= SURE_BITS))
        return int(sure[0]) if sure.size and (self.columns == 1 or sure.size <= self.columns / 2) else None

    @property
    def other_counts(self) -> bool:
        """The candidate has another number of rows than the reference, and not always the same one, which would be another shape."""
        return self.varying and any(a != b for a, b in self.counts)

    @property
    def varying(self) -> bool:
        """How many rows there are differs from sample to sample, or without a batch from the candidate's."""
        over_samples = any(len(set(one)) > 1 for one in zip(*self.counts))
        return over_samples or self.unbatched and any(a != b for a, b in self.counts)

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
        self._inputs: set = set()  # shapes of all inputs of an inference
        self._bytes = 0
        self._samples = 0
        self._over = False

    def add(self, sample: dict[str, Pair], inputs: object = None, unbatched: Collection[str] = ()) -> None:
        """All outputs of one sample, without their batch axis.

        Args:
            inputs: stands for the shapes of the inputs.
            unbatched: outputs that are given as they are, for they have none.
        """
        if self._over:
            return
        self._samples += 1
        self._inputs.add(inputs)
        for name, (reference, output) in sample.items():
            if reference.size == 1 and reference.dtype.kind in "iu":
                self._numbers.setdefault(name, []).append(int(reference.reshape(-1)[0]))
            if self._samples == 1 and self._may_be(name, reference):
                self._outputs[name] = ListOutput(name)
            if name in self._outputs:
                self._outputs[name].unbatched |= name in unbatched
                self._bytes += reference.nbytes + output.nbytes
                if not self._outputs[name].add(reference.copy(), output.copy()):
                    del self._outputs[name]
        signs = any(self._is_key(one) or one.falling.any() or one.distinct and one.whole for one in self._outputs.values() if one.pairs)
        self._over = self._bytes > MOST_BYTES or self._samples >= LOOKED_AT and not signs
        if self._over and not signs:
            self._outputs.clear()

    def _may_be(self, name: str, reference: np.ndarray) -> bool:
        rows, columns = (reference.shape[0], math.prod(reference.shape[1:])) if reference.ndim else (0, 0)
        return name in self._asked or rows <= MOST_ROWS and columns <= MOST_COLUMNS and reference.ndim > 0

    def _is_key(self, one: ListOutput) -> bool:
        """Whether an output shows by itself that it is a list."""
        varying = one.other_counts or one.varying and len(self._inputs) == 1
        return varying or one.sorted_column is not None or one.indices or one.name in self._asked

    def findings(self) -> dict[str, ListFinding]:
        """Of each output that is a list, once the data is through."""
        found: dict[str, ListFinding] = {}
        for key, group in self._groups():
            members = [Member(one.name, one.pairs, one.whole) for one in group]
            of_group = Group(members, group.index(key), key.sorted_column, key.varying)
            found |= of_group.findings()
            for name, numbers in self._numbers.items():  # one that says how many rows of a padded list there are
                if name not in found and of_group.told and numbers[: len(of_group.told)] == of_group.told:
                    found[name] = ListFinding(0.0, 0.0, (0.0,) * len(numbers), (1.0, 0.0), None)
        return found

    def _groups(self) -> list[tuple[ListOutput, list[ListOutput]]]:
        """(the output that tells the order, all that belong together)"""
        left = {name: one for name, one in self._outputs.items() if one.pairs}
        groups = []
        for key in sorted(left.values(), key=lambda one: (one.sorted_column is None, not one.varying)):
            if key.name not in left or not self._is_key(key):
                continue
            group = [one for one in left.values() if one.counts == key.counts]
            alone = len(group) == 1 and key.columns == 1 and not key.whole
            if alone and key.name not in self._asked:
                continue  # numbers in a falling order stand at the right place by themselves; of others no row can be told
            groups.append((key, group))
            for one in group:
                del left[one.name]
        return groups
