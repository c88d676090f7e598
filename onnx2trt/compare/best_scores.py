"""The best score of each class in each sample, of outputs that hold scores: what a detector's threshold is held against.

Where nothing is, there is next to no score, so an error of 1 % of what varies may lie in the few places where something is: it moves a
score of 0.8 by 0.08. That is what a rounding error of 20 dB looks like, and no fault; but where there is a choice, it decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.slices import by_slice
from onnx2trt.compare.variation import Variation

RARE = 0.1  # mean of a slice, as a share of its highest value, up to which its values are scores of what occurs seldom
POINTS_PER_PERCENT = 1.2  # by how much they may differ for each percent of the limit where INT8 layers are chosen
OCCURS = 0.3  # of the highest score of all: a best score below it belongs to nothing that is there
MOST_KEPT = 2**22  # numbers


@dataclass
class BestScores:
    """Collects the highest values of each slice, along every axis that may hold the classes."""

    found: dict[int, list[np.ndarray]] = field(default_factory=dict)  # axis -> of each sample [2, slices]: of reference and candidate

    def add(self, reference: np.ndarray, output: np.ndarray, axes: tuple[int | None, ...]) -> None:
        """
        Args:
            reference, output: one sample without its batch axis.
            axes: that may hold the classes; None counts for nothing.
        """
        if not reference.size:
            return
        for axis in axes:
            kept = self.found.setdefault(axis, [])
            if axis is not None and (len(kept) + 1) * 2 * reference.shape[axis] <= MOST_KEPT:
                kept.append(np.stack([by_slice(values, axis).max(1) for values in (reference, output)]))

    def moved(self, axis: int | None, variation: Variation) -> float | None:
        """By how much they differ, as the root of the mean square in points (0.01); None where the slices along the axis are no scores.

        Args:
            variation: of the reference, over all of the data.
        """
        scale = next((one for one in variation.scales if one.axis == axis is not None), None)
        if scale is None:
            return None
        moments = next(one.moments for one in variation.axes if one.index == axis)
        scores = scale.bounded & (moments.count > 1) & (moments.mean <= RARE * moments.high)
        pairs = np.array([pair for pair in self.found.get(axis, ()) if pair.shape[1] == len(scores)])
        if not pairs.size or not scores.any():
            return None
        best, other = pairs[:, 0, scores], pairs[:, 1, scores]
        told = best >= OCCURS * moments.high[scores].max()
        return 100 * math.sqrt(float(np.square(best - other)[told].mean())) if told.any() else 0.0
