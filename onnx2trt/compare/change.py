"""How much outputs have changed, as one number to rank layers by: by what the verdict on the whole is made of, but robust.

Squared errors and lost decisions are ruled by the few places where something tips over, which is chance: between two layers of equal noise
they differ by a factor of ten. Absolute errors and the geometric mean over the samples show the noise itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnx2trt.compare.rows import Lists
from onnx2trt.compare.slices import by_slice
from onnx2trt.compare.variation import Scale, Variation

MANY = 16  # values of a slice, whose mean no single one rules; of slices with fewer the worst tenth counts for nothing
MOST_SLICES = 0.9
SMALLEST = 1e-12  # stands for none at all
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
        """Of the worst output: the mean error of its worst slice in standard deviations of that slice; 0.01 stands for 40 dB.

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

    def _of_output(self, name: str, found: list[np.ndarray]) -> float:
        expected, variation = [batch[name] for batch in self._expected], self._variations[name]
        changes = []
        for a, b in zip(expected, found):
            for reference, output in _samples(a, b, variation):
                changes.append(_labels(reference, output) if a.dtype.kind != "f" else self._values(name, reference, output))
        return math.exp(float(np.mean(np.log(np.maximum(changes, SMALLEST))))) if changes else 0.0

    def _lists(self, found: Sequence[Outputs]) -> dict[str, float]:
        """Of outputs that are lists: the share of what is lost, as an amplitude."""
        lists = Lists()
        for a, b in zip(self._expected, found):
            lists.add({name: (a[name], b[name]) for name in a}, unbatched=tuple(a))
        return {name: math.sqrt(finding.drop_percent / 100) for name, finding in lists.findings().items()}

    def _values(self, name: str, reference: np.ndarray, output: np.ndarray) -> float:
        told = np.isfinite(reference)
        if not np.isfinite(output[told]).all():
            return math.inf
        error = np.abs(np.where(told, output, 0).astype(np.float64) - np.where(told, reference, 0))
        variation = self._variations[name]
        if self._asked.get(name, self._asked.get("")) in ENERGY:
            return float(error.mean() / math.sqrt(max(variation.energy / max(variation.values, 1), SMALLEST**2))) if error.size else 0.0
        return max([_worst(error, scale) for scale in variation.scales], default=0.0)


def _worst(error: np.ndarray, scale: Scale) -> float:
    """Mean error of the worst slice, in standard deviations."""
    if not error.size or scale.axis is not None and (error.ndim <= scale.axis or error.shape[scale.axis] != len(scale.variance)):
        return 0.0
    sliced = by_slice(error, scale.axis)
    ratios = sliced.mean(1) / np.sqrt(scale.variance)
    return float(ratios.max() if sliced.shape[1] >= MANY else np.quantile(ratios, MOST_SLICES, method="higher"))


def _labels(reference: np.ndarray, output: np.ndarray) -> float:
    return float((reference != output).mean()) if reference.size else 0.0


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
