"""Calibration: streaming statistics of tensors, scales from them, and the class that TensorRT's own calibration calls.

Every sample passes once through the FP32 model; its tensors become histograms at once, so memory grows with the number of
tensors and never with the number of samples. Histograms merge, so parts of a data set can be calibrated apart.

The entropy method is that of TensorRT: Migacz, "8-bit Inference with TensorRT", GTC 2017.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.opencv import opencv
from onnx2trt.rewrite.number_formats import INT8, NumberFormat

BUCKETS = 2**15  # magnitudes of float32 by their upper 15 bits: 8 of the exponent, 7 of the mantissa, 0.8 % wide
FIRST_NONFINITE = 0x7F80  # bucket of infinity; NaN lies above
USUAL = (0x2B80, 0x5380)  # buckets of 2^-40 to 2^40: all values of most tensors but zeros, and less to clear and to add for each
CHUNK = 2**20  # values counted by one call; OpenCV counts in float32, which is exact up to 2**24
QUANTIZED_BINS = 128  # levels of |x| in symmetric INT8
ENTROPY_BINS = 2048  # TensorRT's resolution (8-bit inference with TensorRT, GTC 2017)
ENTROPY_ENDS = np.arange(QUANTIZED_BINS, ENTROPY_BINS + 1, 8)  # numbers of bins that are tried
LEVEL_EDGES = np.stack([np.linspace(0, end, QUANTIZED_BINS + 1).astype(np.intp) for end in ENTROPY_ENDS])  # [ends, levels + 1]
MOST_CUT_OFF = 0.05  # of the values that are not 0, by the entropy method
EMPTY = 1e-12  # share given to a last bin that is empty but for outliers
MSE_THRESHOLDS = np.geomspace(0.05, 1.0, 300)  # of the largest value
MSE_STRIDE = 6  # thresholds that are tried first; the error has few minima
MSE_LOOKED_AT = 3  # of those, around which all others are tried
MSE_BINS = 8192  # fine against the smallest step that is tried
PERCENTILE = 99.99  # of the absolute values
METHODS = INT8.methods

# lower edge of each bucket, and the upper edge of the last finite one
EDGES = (np.arange(FIRST_NONFINITE + 1, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
EDGES[-1] = np.finfo(np.float32).max
# values other than 0, 16 for each level of INT8, below which a cut of the range follows chance: on 12 samples of 40 values entropy cut off
# half of a range, and was the best of the methods on these samples by 4 dB, the worst by 8 on others
FEWEST_VALUES = 2048


_scratch = threading.local()


@dataclass
class Histogram:
    """Distribution of |x| of one tensor: every value counted, in buckets of 0.8 % over the whole range of float32.

    The bucket of a value is the upper half of its bits, so counting needs neither a range nor a pass for it, and histograms
    of parts of the data merge by adding. Counting every second value only, but all of the largest 2 %, was tried: it saved a
    third of the time and moved the entropy scales of 8 of 61 tensors by more than 1 %, one by 24 %.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BUCKETS))
    largest: float = 0.0  # max |x|, exact; 0 where nothing or only zeros were seen

    def add(self, values: np.ndarray) -> float:
        """Count the values of one inference.

        Args:
            values: float32, any shape.

        Returns:
            The upper edge of the last bucket that has got any: max |x|, or up to 0.8 % more.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        flat, peak = np.ascontiguousarray(values, dtype="<f4").reshape(-1), 0.0
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK]
            last = _count(chunk, self.counts)
            if last >= FIRST_NONFINITE:
                raise ValueError(f"values from {flat.min()} to {flat.max()}")
            peak = max(peak, float(EDGES[last + 1]) if last else 0.0)
            if EDGES[last + 1] > self.largest:  # only then can a value of this chunk be larger
                self.largest = max(self.largest, float(chunk.max()), -float(chunk.min()))
        return peak

    def merge(self, other: Histogram) -> None:
        """Take in what another histogram of the same tensor saw."""
        self.largest = max(self.largest, other.largest)
        self.counts += other.counts

    def cumulative(self, edges: np.ndarray) -> np.ndarray:
        """How many |x| lie below each edge; values are taken as spread evenly over their bucket, up to the largest."""
        last = int(np.searchsorted(EDGES, self.largest, side="right"))
        positions = np.append(EDGES[:last], self.largest)
        return np.interp(edges, positions, np.concatenate([[0.0], np.cumsum(self.counts[:last])]))

    def over_range(self, bins: int) -> np.ndarray:
        """Counts in `bins` equal bins over [0, largest]."""
        return np.diff(self.cumulative(np.linspace(0.0, self.largest, bins + 1)))


def _count(flat: np.ndarray, counts: np.ndarray) -> int:
    """Count by the upper 15 bits of |x|. OpenCV's histogram of uint16 is three times faster than numpy's bincount.

    Args:
        flat: at least one float32 value, at most CHUNK.
        counts: of each bucket, to be added to.

    Returns:
        The last bucket that has got any.
    """
    cv2 = opencv()
    if not hasattr(_scratch, "upper"):
        _scratch.upper = np.empty((1, CHUNK), np.uint16)  # fresh memory for every call would cost as much as counting
    upper = cv2.extractChannel(flat.view(np.uint16).reshape(1, -1, 2), 1, _scratch.upper[:, : flat.size])
    np.bitwise_and(upper, BUCKETS - 1, out=upper)  # without the sign
    zeros = flat.size - cv2.countNonZero(upper)
    for first, end in (USUAL, (1, BUCKETS)):
        found = cv2.calcHist([upper], [0], None, [end - first], [first, end]).reshape(-1)
        if zeros + found.sum(dtype=np.float64) == flat.size:
            break
    counts[0] += zeros
    counts[first:end] += found
    return end - 1 - int(np.argmax(found[::-1] > 0)) if zeros < flat.size else 0


def scale_of(histogram: Histogram, method: str, number_format: NumberFormat = INT8) -> float:
    """Scale of symmetric INT8 (x = scale * q, -127 <= q <= 127), or FP8 (448); 0 for a tensor that is always zero."""
    if histogram.largest == 0.0:
        return 0.0
    if method == "mse":
        return _mse(histogram, number_format) / number_format.largest
    return {"entropy": _entropy, "minmax": _minmax, "percentile": _percentile}[method](histogram) / number_format.largest


def _minmax(histogram: Histogram) -> float:
    return histogram.largest


def _percentile(histogram: Histogram) -> float:
    """The value below which PERCENTILE % of all |x| lie."""
    last = int(np.searchsorted(EDGES, histogram.largest, side="right"))
    positions = np.append(EDGES[:last], histogram.largest)
    below = histogram.cumulative(positions)
    return float(np.interp(below[-1] * PERCENTILE / 100, below, positions))


def _mse(histogram: Histogram, number_format: NumberFormat) -> float:
    """The clipping threshold with the smallest mean squared error of rounding and clipping together."""
    width = histogram.largest / MSE_BINS
    counts, centers = histogram.over_range(MSE_BINS), (np.arange(MSE_BINS) + 0.5) * width
    occupied = counts > 0
    counts, centers = counts[occupied], centers[occupied]

    def error(place: int) -> float:
        scale = MSE_THRESHOLDS[place] * histogram.largest / number_format.largest
        return float(counts @ (number_format.nearest(centers / scale) * scale - centers) ** 2)

    tried = {place: error(place) for place in range(0, len(MSE_THRESHOLDS), MSE_STRIDE)}
    around = sorted(tried, key=tried.__getitem__)[:MSE_LOOKED_AT]
    near = {place + shift for place in around for shift in range(1 - MSE_STRIDE, MSE_STRIDE)}
    tried.update((place, error(place)) for place in near.difference(tried) if 0 <= place < len(MSE_THRESHOLDS))
    return float(MSE_THRESHOLDS[min(sorted(tried), key=tried.__getitem__)]) * histogram.largest


def _entropy(histogram: Histogram) -> float:
    """The threshold whose 128 levels keep most of the information (smallest Kullback-Leibler divergence).

    8-bit inference with TensorRT, S. Migacz, GTC 2017: for each number of bins i, P is the first i bins with all outliers
    added to the last, Q the same bins quantised to 128 levels and expanded again over the bins that are not empty.
    Zeros are exact at any scale; left in, the heap of them after a ReLU would outweigh everything else.

    Of values that stay away from 0, as the pixels of bright images, the first bins hold next to nothing: the smallest value alone makes a P
    of one bin, which Q equals, and everything else would be cut off. So no end counts that cuts off a large part.
    """
    counts = histogram.over_range(ENTROPY_BINS)
    counts[0] = counts[1]
    kept = np.cumsum(counts)[ENTROPY_ENDS - 1]
    divergences = np.where(kept >= (1 - MOST_CUT_OFF) * counts.sum(), _divergences(counts), math.inf)
    best = ENTROPY_ENDS[int(np.argmin(divergences))] if np.isfinite(divergences).any() else ENTROPY_BINS
    return float(best) * histogram.largest / ENTROPY_BINS


def _divergences(counts: np.ndarray) -> np.ndarray:
    """KL(P || Q) for each number of bins in ENTROPY_ENDS; infinite where Q is empty.

    With c the counts, n their number, s the sum of the first i, l the height of a bin's level and o the outliers,
    KL = sum p log(p / q), p = c / n and q = l / s, is (sum c log c - sum c log l) / n + log(s / n), in which o counts as part of
    the last c. The sums over bins and over levels are differences of running totals, so all ends are computed at once.
    """
    total = counts.sum()
    below = np.append(0.0, np.cumsum(counts))
    informative = np.append(0.0, np.cumsum(_times_log(counts)))
    occupied = np.append(0, np.cumsum(counts > 0))
    sums = np.diff(below[LEVEL_EDGES], axis=1)  # [ends, levels]
    filled = np.diff(occupied[LEVEL_EDGES], axis=1)
    heights = np.divide(sums, filled, out=np.zeros_like(sums), where=sums > 0)
    last, kept = counts[ENTROPY_ENDS - 1], below[ENTROPY_ENDS]
    outliers = np.maximum(total - kept, 0.0)
    own = informative[ENTROPY_ENDS] - _times_log(last) + _times_log(last + outliers)
    by_level = np.sum(sums * np.log(heights, out=np.zeros_like(heights), where=heights > 0), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        for_outliers = outliers * np.log(np.where(last > 0, heights[:, -1], EMPTY * kept))
        divergences = (own - by_level - np.where(outliers > 0, for_outliers, 0.0)) / total + np.log(kept / total)
    return np.where(kept > 0, divergences, math.inf)


def _times_log(values: np.ndarray) -> np.ndarray:
    """x log x, 0 at 0."""
    return values * np.log(values, out=np.zeros_like(values), where=values > 0)


class Collector:
    """Histograms of many tensors, filled by model.observe."""

    def __init__(self, histograms: dict[str, Histogram] | None = None):
        self.histograms = histograms or {}

    def visit(self, name: str, values: np.ndarray) -> float:
        """Count one tensor of one inference; its max |x|, as Histogram.add tells it.

        Raises:
            ConversionError: CALIBRATION, where the FP32 model itself makes NaN or infinity of the data.
        """
        try:
            return self.histograms.setdefault(name, Histogram()).add(values)
        except ValueError as error:
            raise ConversionError(
                f"the FP32 model makes {error} in tensor {name!r} of the calibration data",
                hint="Check the preprocessing flags (--mean, --std, --input-range) and the data.",
                code=ExitCode.CALIBRATION,
            ) from None

    def sparse(self) -> frozenset[str]:
        """The tensors of which too few values are known to tell where their distribution ends."""
        return frozenset(name for name, histogram in self.histograms.items() if histogram.counts[1:].sum() < FEWEST_VALUES)

    def merge(self, other: Collector) -> None:
        """Take in what another collector saw."""
        for name, histogram in other.histograms.items():
            self.histograms.setdefault(name, Histogram()).merge(histogram)

    def scales(self, method: str, number_format: NumberFormat = INT8, whole: Container[str] = ()) -> dict[str, float]:
        """Tensor -> scale by one of its methods; tensors that were always zero are left out.

        Args:
            whole: tensors of which nothing is cut off, whatever the method.
        """
        by = {name: METHODS[0] if name in whole else method for name in self.histograms}
        scales = {name: scale_of(histogram, by[name], number_format) for name, histogram in self.histograms.items()}
        return {name: scale for name, scale in scales.items() if scale > 0}
