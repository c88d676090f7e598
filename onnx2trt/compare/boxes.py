"""Boxes among the columns of a list of detections: told by what the reference gives, so that their errors count by the boxes' size."""

from __future__ import annotations

import numpy as np

SURE = 0.999  # share of the boxes whose second corner lies behind the first
INSIDE = 0.95  # share of the boxes, given by centre and size, that do not leave the image
MARGIN = 0.1  # of the image, that they may


class Boxes:
    """Whether the first four slices are corners (x1, y1, x2, y2) or centre and size (x, y, w, h), and how large the boxes are."""

    FEWEST = 16  # boxes in a sample, below which nothing is told

    def __init__(self):
        self._boxes = 0
        self._corners = 0
        self._spans = 0
        self._areas = np.zeros(2)  # sums, were they corners or centre and size
        self._far = 0.0
        self._sums = np.zeros((2, 4))

    def add(self, columns: np.ndarray) -> None:
        """[4, boxes]"""
        first, second, third, fourth = columns
        self._boxes += columns.shape[1]
        self._sums += (columns.sum(1), (columns**2).sum(1))
        wide, high = third - first, fourth - second
        self._corners += int(((wide >= 0) & (high >= 0)).sum())
        self._far = max(self._far, float(np.abs(columns).max(initial=0.0)))
        margin = MARGIN * self._far
        inside = (third >= 0) & (fourth >= 0) & (first >= third / 2 - margin) & (second >= fourth / 2 - margin)
        inside &= (first + third / 2 <= self._far + margin) & (second + fourth / 2 <= self._far + margin)
        self._spans += int(inside.sum())
        self._areas += (float((np.maximum(wide, 0) * np.maximum(high, 0)).sum()), float((third * fourth).sum()))

    @property
    def _form(self) -> int | None:
        """0: corners, 1: centre and size."""
        mean, square = self._sums / max(self._boxes, 1)
        spread = square - mean**2
        alike = spread.min() > 1e-4 * max(spread.max(), 1e-30)  # all four are lengths
        if not alike or self._boxes < self.FEWEST:
            return None
        if self._corners >= SURE * self._boxes and self._areas[0] > 0:
            return 0
        return 1 if self._spans >= INSIDE * self._boxes and self._areas[1] > 0 else None

    @property
    def found(self) -> bool:
        return self._form is not None

    @property
    def size(self) -> float:
        """A quarter of the mean area: the square of what a shift is held against, from the centre to the edge."""
        return float(self._areas[self._form] / self._boxes) / 4
