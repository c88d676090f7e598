"""Outputs that are whole numbers or yes and no: how many entries are equal, and whether any label has been lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.intervals import allowance

MOST_LABELS = 256  # told apart; more are indices, numbers of tokens and the like
LABELS_OF_FLOATS = 64  # that a floating-point output of whole numbers may have; more are brightnesses, counts and the like
SMALLEST_SHARE = 1e-4  # of all entries: rarer labels rule nothing
FEWEST_ENTRIES = 8  # of a label that may rule
MOST_ALLOWED = 2.0  # the most that few entries excuse, as a factor
LEVELS = 64  # from which on small integers may be brightnesses
SMOOTH = 0.5  # of the mean square between two entries anywhere: neighbours of images differ by less, those of labels do not


@dataclass
class Labels:
    """Equality of the entries, over the samples."""

    equal: list[float] = field(default_factory=list)  # entries of each sample
    entries: list[int] = field(default_factory=list)
    whole: bool = True  # every value of the reference is a whole number
    _counts: Counter = field(default_factory=Counter)  # label -> entries of the reference
    _wrong: Counter = field(default_factory=Counter)  # label -> entries that have it in one of both alone
    _many: bool = False
    _steps: np.ndarray = field(default_factory=lambda: np.zeros(2))  # between unlike neighbours: squares, their number
    _sums: np.ndarray = field(default_factory=lambda: np.zeros(3))  # number, sum, sum of squares

    def add(self, reference: np.ndarray, output: np.ndarray) -> None:
        """One sample, without its batch axis."""
        if reference.dtype.kind == "f":
            self.whole = self.whole and bool(np.isfinite(reference).all() and (reference == np.rint(reference)).all())
            if not self.whole:
                return
            output = np.rint(np.nan_to_num(output, nan=np.inf))
        same = reference == output
        self.equal.append(float(same.sum()))
        self.entries.append(int(same.size))
        self._count(reference, output, same)
        if reference.dtype.kind in "iu" and reference.dtype.itemsize <= 2:
            self._look(reference.astype(np.float64))

    def _count(self, reference: np.ndarray, output: np.ndarray, same: np.ndarray) -> None:
        if self._many:
            return
        self._counts.update(dict(zip(*(found.tolist() for found in np.unique(reference, return_counts=True)))))
        self._many = len(self._counts) > MOST_LABELS
        for values in (reference[~same], output[~same]):
            self._wrong.update(dict(zip(*(found.tolist() for found in np.unique(values, return_counts=True)))))

    def _look(self, values: np.ndarray) -> None:
        flat = np.squeeze(values)
        self._sums += (values.size, values.sum(), (values**2).sum())
        if flat.ndim >= 2:
            steps = np.diff(flat, axis=-1 if flat.shape[-1] > 4 else -2)
            self._steps += (float((steps**2).sum()), int((steps != 0).sum()))

    @property
    def labels(self) -> int:
        """How many different ones; more than MOST_LABELS are not counted."""
        return len(self._counts)

    @property
    def brightness(self) -> bool:
        """Small integers that are an image: many levels, and unlike neighbours differ by little."""
        number, total, square = self._sums
        if self.labels < LEVELS or not self._steps[1] or not number:
            return False
        variance = square / number - (total / number) ** 2
        return self._steps[0] / self._steps[1] < SMOOTH * 2 * variance

    def lost(self) -> tuple[float, float, float | None]:
        """(share of the worst label that is wrong, what is shown of it, the label), both in percent.

        As for values: entries that are wrong, as a share of the variance of having the label.
        """
        worst = (0.0, 0.0, None)
        total = sum(self._counts.values())
        if self._many or not total or len(self._counts) < 2:
            return worst
        for label, count in self._counts.items():
            if min(count, total - count) < FEWEST_ENTRIES:
                continue
            share = count / total
            ratio = 100 * self._wrong[label] / total / max(share * (1 - share), SMALLEST_SHARE)
            allowed = min(float(allowance(min(count, total - count))), MOST_ALLOWED)
            worst = max(worst, (ratio, ratio / allowed, label), key=lambda found: found[1])
        return worst
