"""What a part of the samples tells of a choice of INT8 layers, next to one that was measured on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.conversion.exact import Exact
from onnx2trt.model.graph import Graph

FAR = 1.25  # times the limit: what is expected to lose more than that has failed; few samples are off by so much
MOST_KEPT = 2**17  # numbers that tell what one choice has lost

Lost = Mapping[str, np.ndarray]  # output -> [samples, slices]: what was lost, in percent; the first column is that of all slices


@dataclass(frozen=True)
class Looked:
    """A choice of which the first part of the samples was computed."""

    outputs: Exact
    lost: dict[str, np.ndarray]

    def of(self, trial: int, _graph: Graph) -> Exact:
        """As conversion.exact.Known: who measures the choice on all samples need not compute these again."""
        return Exact(()) if trial else self.outputs


@dataclass
class Looks:
    """Choices that were measured, each by the layers that it gave up: how much of what they lost, others lose on the same samples.

    Some samples lose more than others, and some slices of an output, whatever the choice is; so few samples alone tell little.
    """

    _measured: dict[tuple[str, ...], tuple[tuple[Accuracy, ...], dict[str, np.ndarray]]] = field(default_factory=dict)

    def add(self, kept: Sequence[str], rows: tuple[Accuracy, ...], lost: Lost) -> None:
        """What was measured on all samples; nothing where an output is not judged by the size of its errors, which few samples may tell."""
        if sum(table.size for table in lost.values()) <= MOST_KEPT and all(row.metric == "values" and row.steps is None for row in rows):
            self._measured[tuple(kept)] = rows, {name: table.astype(np.float32) for name, table in lost.items()}

    def near(self, kept: Sequence[str]) -> tuple[str, ...] | None:
        """The measured choice that gave up as many layers as can be; None where there is none to compare with."""
        return min(self._measured, key=lambda other: abs(len(other) - len(kept)), default=None)

    def rows(self, near: tuple[str, ...], lost: Lost) -> tuple[tuple[Accuracy, float], ...] | None:
        """(output of the measured choice, what the other one loses on all samples as a share of it); None where that cannot be told.

        Args:
            near: the measured choice.
            lost: by the other one, on the first of the samples.
        """
        rows, tables = self._measured[near]
        ratios = [expected_ratio(lost[row.output], tables[row.output]) for row in rows]
        return None if None in ratios else tuple(zip(rows, ratios))


def expected_ratio(lost: np.ndarray, whole: np.ndarray) -> float | None:
    """The loss in the worst slice over all samples, as a share of another choice's.

    Args:
        lost: of the first samples.
        whole: of all of them, by the other choice. In those that were not looked at, each slice is taken to lose as much of that as all
            slices together do in the first.

    Returns:
        None where these samples do not tell.
    """
    seen = len(lost)
    if not 0 < seen < len(whole) or lost.shape[1:] != whole.shape[1:] or whole.shape[1] < 2:
        return None
    lost, whole = lost[:, 1:].astype(np.float64), whole[:, 1:].astype(np.float64)
    if not whole[:seen].sum() > 0:
        return None
    expected = lost.sum(0) + lost.sum() / whole[:seen].sum() * whole[seen:].sum(0)
    return float(expected.max() / whole.sum(0).max())
