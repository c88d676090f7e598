"""Samples that hold values such as few others do: a calibration method that cuts those off looks good on all other samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

FACTOR = 1.5  # times what half of the samples reach: from there on, a sample is rare
MOST_RARE = 4
SMALLEST = 1e-38
BUCKET = 0.008  # by how much a peak may be too large (Histogram.add)


def may_be_rare(peaks: Sequence[Mapping[str, float]]) -> bool:
    """Whether `rare` can find any, whatever the scales."""
    return bool(rare(peaks, dict.fromkeys((name for peak in peaks for name in peak), SMALLEST)))


def rare(peaks: Sequence[Mapping[str, float]], narrow: Mapping[str, float]) -> list[int]:
    """The inferences that hold rare values, by number; the rarest first, MOST_RARE at the most.

    Args:
        peaks: tensor -> max |x|, of each inference.
        narrow: tensor -> the largest |x| that the narrowest scale holds.

    Returns:
        Those in which a tensor reaches more than the narrowest scale holds, and FACTOR times what it reaches in half of the inferences.
    """
    names = [name for name in narrow if narrow[name] > 0]
    if not names or not peaks:
        return []
    table = np.array([[peak.get(name, 0.0) for name in names] for peak in peaks])
    held, usual = np.array([narrow[name] for name in names]), np.median(table, 0)
    beyond = np.where(table >= FACTOR * usual, table / np.maximum(usual, held), 0.0).max(1)
    return [int(number) for number in np.argsort(-beyond, kind="stable")[:MOST_RARE] if beyond[number] > 1 + BUCKET]
