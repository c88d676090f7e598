"""How much outputs have changed, as one number to rank layers by: what the verdict on the whole is made of.

A layer that hurts what is judged must not look free, so this is the same error of the worst slice, over the same variances. It is taken of
a few samples only: of those that the first verdict has found to lose most (`most_telling`), since classes that do not occur in the few
tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnx2trt.compare.best_scores import POINTS_PER_PERCENT, BestScores
from onnx2trt.compare.rows import Lists
from onnx2trt.compare.slices import by_slice
from onnx2trt.compare.variation import Scale, Variation

MANY = 16  # values of a slice, whose mean no single one rules; of slices with fewer the worst tenth counts for nothing
MOST_SLICES = 0.9
ONE_PERCENT = 0.1  # the change whose square is 1 % of the variance
ENERGY = ("noise", "cosine")  # metrics of the user's choice that hold errors against the size of all values

Outputs = Mapping[str, np.ndarray]


class Change:
    """Holds outputs against the expected ones; made once, asked for every layer."""

    def __init__(self, expected: Sequence[Outputs], learned: Mapping[str, Variation] | None = None, asked: Mapping[str, str] | None = None):
        """
        Args:
            expected: of the reference, for a few batches.
            learned: what the reference does over all of the data, by output; where it is not known, over `expected`.
            asked: metrics of the user's choice, by output.
        """
        self._expected = expected
        self._asked = asked or {}
        self._variations = {name: (learned or {}).get(name) or _learn([batch[name] for batch in expected]) for name in expected[0]}

    def __call__(self, found: Sequence[Outputs]) -> float:
        """Of the worst output: the root mean square error of its worst slice in standard deviations of that slice; 0.01 stands for 40 dB.
        Of outputs that hold scores, what is nearer to its limit: that, or how far the best scores are off.

        Labels count by how many of them differ, lists by their rows. Values that are not finite in the reference count for nothing, those
        that are not finite in `found` alone make the change infinite, and so does another shape of what is no list.
        """
        names = list(self._expected[0])
        other = {name for a, b in zip(self._expected, found) for name in names if a[name].shape != b[name].shape}
        lists = self._lists(found) if other else {}
        changes = [
            lists.get(name, math.inf) if name in other else self._of_output(name, [batch[name] for batch in found]) for name in names
        ]
        return max(changes, default=0.0)

    def each(self, found: Sequence[Outputs]) -> tuple[float, ...]:
        """The same of each batch alone, against what varies over all of them."""
        return tuple(Change([one], self._variations, self._asked)([other]) for one, other in zip(self._expected, found))

    def _of_output(self, name: str, found: list[np.ndarray]) -> float:
        variation = self._variations[name]
        pairs = zip([batch[name] for batch in self._expected], found)
        samples = [sample for a, b in pairs for sample in _samples(a, b, variation) if sample[0].size]
        if samples and samples[0][0].dtype.kind != "f":
            return float(np.mean([(reference != output).mean() for reference, output in samples]))
        errors, best, scored = [], BestScores(), tuple(scale.axis for scale in variation.scales if scale.bounded.any())
        for reference, output in samples:
            told = np.isfinite(reference)
            if not np.isfinite(output[told]).all():
                return math.inf
            pair = np.where(told, reference, 0).astype(np.float64), np.where(told, output, 0).astype(np.float64)
            errors.append(pair[1] - pair[0])
            best.add(*pair, scored)
        if self._asked.get(name, self._asked.get("")) in ENERGY:
            square = sum(float((error**2).sum()) for error in errors) / max(sum(error.size for error in errors), 1)
            return math.sqrt(square / max(variation.energy / max(variation.values, 1), 1e-24))
        points = max((best.moved(axis, variation) or 0.0 for axis in scored), default=0.0)
        return max([ONE_PERCENT * points / POINTS_PER_PERCENT, *(_worst(errors, scale) for scale in variation.scales)])

    def _lists(self, found: Sequence[Outputs]) -> dict[str, float]:
        """Of outputs that are lists: the share of what is lost, as an amplitude."""
        lists = Lists()
        for a, b in zip(self._expected, found):
            lists.add({name: (a[name], b[name]) for name in a}, unbatched=tuple(a))
        return {name: math.sqrt(finding.drop_percent / 100) for name, finding in lists.findings().items()}


def _worst(errors: list[np.ndarray], scale: Scale) -> float:
    """Root mean square of the worst slice, in standard deviations."""
    fitting = [
        error for error in errors if scale.axis is None or scale.axis < error.ndim and error.shape[scale.axis] == len(scale.variance)
    ]
    if not fitting:
        return 0.0
    sliced = np.concatenate([by_slice(error, scale.axis) for error in fitting], 1)
    ratios = np.sqrt((sliced**2).mean(1) / scale.variance)
    return float(ratios.max() if sliced.shape[1] >= MANY else np.quantile(ratios, MOST_SLICES, method="higher"))


def _samples(expected: np.ndarray, found: np.ndarray, variation: Variation):
    """Of each row where the reference's statistics are those of rows, else the whole."""
    rows = variation.shape is not None and expected.ndim == len(variation.shape) + 1
    return zip(expected, found) if rows else ((expected, found),)


def _learn(expected: list[np.ndarray]) -> Variation:
    """Of a few batches, whose first axis counts samples where it may."""
    variation = Variation()
    for batch in expected:
        for sample in batch if batch.ndim > 1 or batch.ndim == 1 and len(expected) == 1 else [batch]:
            told = np.isfinite(sample) if sample.dtype.kind == "f" else np.ones(sample.shape, bool)
            variation.add(np.where(told, sample, 0).astype(np.float64), told)
    return variation


def most_telling(lost: Iterable[np.ndarray], most: int) -> list[int]:
    """The samples, by number, that hold most of what was lost: for the slice that is worst in what is left, the one that lost most of it.

    Args:
        lost: of each output, [samples, slices].
    """
    table = np.concatenate([np.nan_to_num(one, posinf=0.0) for one in lost], 1)
    left, chosen = table.sum(0), []
    while len(chosen) < min(most, len(table)):
        column = table[:, int(left.argmax())].copy()
        column[chosen] = -1.0
        chosen.append(int(column.argmax()))
        left = left - table[chosen[-1]]
    return sorted(chosen)
