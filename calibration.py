"""INT8 calibration: streaming statistics of tensors, scales from them, and the class that TensorRT's own calibration calls.

Every sample passes once through the FP32 model; its tensors become histograms at once, so memory grows with the number of
tensors and never with the number of samples. Histograms merge, so parts of a data set can be calibrated apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from core.errors import ConversionError, ExitCode
from core.opencv import opencv

BUCKETS = 2**15  # magnitudes of float32 by their upper 15 bits: 8 of the exponent, 7 of the mantissa, 0.8 % wide
FIRST_NONFINITE = 0x7F80  # bucket of infinity; NaN lies above
CHUNK = 2**23  # values counted by one call: OpenCV counts in float32, which is exact up to 2**24
QUANTIZED_BINS = 128  # levels of |x| in symmetric INT8
ENTROPY_BINS = 2048  # TensorRT's resolution (8-bit inference with TensorRT, GTC 2017)
MSE_BINS = 8192  # fine against the smallest step that is tried
PERCENTILE = 99.99  # of the absolute values
METHODS = ("entropy", "minmax", "percentile", "mse")

# lower edge of each bucket, and the upper edge of the last finite one
EDGES = (np.arange(FIRST_NONFINITE + 1, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)
EDGES[-1] = np.finfo(np.float32).max


@dataclass
class Histogram:
    """Distribution of |x| of one tensor: every value counted, in buckets of 0.8 % over the whole range of float32.

    The bucket of a value is the upper half of its bits, so counting needs neither a range nor a pass for it, and histograms
    of parts of the data merge by adding.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BUCKETS))
    minimum: float = math.inf
    maximum: float = -math.inf

    @property
    def largest(self) -> float:
        """max |x|, exact; 0 where nothing or only zeros were seen."""
        return max(abs(self.minimum), abs(self.maximum)) if self.minimum <= self.maximum else 0.0

    def add(self, values: np.ndarray) -> None:
        """Count the values of one inference.

        Args:
            values: float32, any shape.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"values from {low} to {high}")
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        flat = np.ascontiguousarray(values, dtype="<f4").reshape(-1)
        for start in range(0, flat.size, CHUNK):
            self.counts += _bucket_counts(flat[start : start + CHUNK])

    def merge(self, other: Histogram) -> None:
        """Take in what another histogram of the same tensor saw."""
        self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        self.counts += other.counts

    def cumulative(self, edges: np.ndarray) -> np.ndarray:
        """How many |x| lie below each edge; values are taken as spread evenly over their bucket, up to the largest."""
        last = int(np.searchsorted(EDGES, self.largest, side="right"))
        positions = np.append(EDGES[:last], self.largest)
        return np.interp(edges, positions, np.concatenate([[0.0], np.cumsum(self.counts[:last])]))

    def over_range(self, bins: int) -> np.ndarray:
        """Counts in `bins` equal bins over [0, largest]."""
        return np.diff(self.cumulative(np.linspace(0.0, self.largest, bins + 1)))


def _bucket_counts(flat: np.ndarray) -> np.ndarray:
    """Counts by the upper 15 bits of |x|. OpenCV's histogram of uint16 is three times faster than numpy's bincount."""
    upper = np.ascontiguousarray(flat.view(np.uint16)[1::2]).reshape(1, -1)
    signed = opencv().calcHist([upper], [0], None, [2 * BUCKETS], [0, 2 * BUCKETS]).reshape(2, BUCKETS)
    return signed[0].astype(np.float64) + signed[1]


def scale_of(histogram: Histogram, method: str) -> float:
    """Scale of symmetric INT8 (x = scale * q, -127 <= q <= 127) by one of METHODS; 0 for a tensor that is always zero."""
    if histogram.largest == 0.0:
        return 0.0
    return {"entropy": _entropy, "minmax": _minmax, "percentile": _percentile, "mse": _mse}[method](histogram) / 127


def _minmax(histogram: Histogram) -> float:
    return histogram.largest


def _percentile(histogram: Histogram) -> float:
    """The value below which PERCENTILE % of all |x| lie."""
    last = int(np.searchsorted(EDGES, histogram.largest, side="right"))
    positions = np.append(EDGES[:last], histogram.largest)
    below = histogram.cumulative(positions)
    return float(np.interp(below[-1] * PERCENTILE / 100, below, positions))


def _mse(histogram: Histogram) -> float:
    """The clipping threshold with the smallest mean squared error of rounding and clipping together."""
    width = histogram.largest / MSE_BINS
    counts, centers = histogram.over_range(MSE_BINS), (np.arange(MSE_BINS) + 0.5) * width
    best, best_error = histogram.largest, math.inf
    for threshold in np.geomspace(0.05, 1.0, 300) * histogram.largest:
        scale = threshold / 127
        error = float(counts @ (np.minimum(np.rint(centers / scale), 127) * scale - centers) ** 2)
        if error < best_error:
            best, best_error = float(threshold), error
    return best


def _entropy(histogram: Histogram) -> float:
    """The threshold whose 128 levels keep most of the information (smallest Kullback-Leibler divergence).

    8-bit inference with TensorRT, S. Migacz, GTC 2017: for each number of bins i, P is the first i bins with all outliers
    added to the last, Q the same bins quantised to 128 levels and expanded again over the bins that are not empty.
    Zeros are exact at any scale; left in, the heap of them after a ReLU would outweigh everything else.
    """
    counts = histogram.over_range(ENTROPY_BINS)
    counts[0] = counts[1]
    best, best_divergence = ENTROPY_BINS, math.inf
    for end in range(QUANTIZED_BINS, ENTROPY_BINS + 1, 8):
        reference = counts[:end].copy()
        occupied = reference > 0
        starts = np.linspace(0, end, QUANTIZED_BINS + 1).astype(np.intp)[:-1]
        sums = np.add.reduceat(counts[:end], starts)
        filled = np.add.reduceat(occupied, starts)
        level = np.repeat(np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0), np.diff(np.append(starts, end)))
        quantized = np.where(occupied, level, 0.0)
        reference[-1] += counts[end:].sum()
        divergence = _divergence(reference, quantized)
        if divergence < best_divergence:
            best, best_divergence = end, divergence
    return best * histogram.largest / ENTROPY_BINS


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(P || Q) of two histograms of equal length; infinite where Q is empty and P is not."""
    total_p, total_q = p.sum(), q.sum()
    if not total_p or not total_q:
        return math.inf
    used = p > 0
    p, q = p[used] / total_p, q[used] / total_q
    if (q == 0).any():
        q = np.maximum(q, 1e-12)
    return float(np.sum(p * np.log(p / q)))


class Collector:
    """Histograms of many tensors, filled by graph.observe."""

    def __init__(self, histograms: dict[str, Histogram] | None = None):
        self.histograms = histograms or {}

    def visit(self, name: str, values: np.ndarray) -> None:
        """Count one tensor of one inference.

        Raises:
            ConversionError: CALIBRATION, where the FP32 model itself makes NaN or infinity of the data.
        """
        try:
            self.histograms.setdefault(name, Histogram()).add(values)
        except ValueError as error:
            raise ConversionError(
                f"the FP32 model makes {error} in tensor {name!r} of the calibration data",
                hint="Check the preprocessing flags (--mean, --std, --input-range) and the data.",
                code=ExitCode.CALIBRATION,
            ) from None

    def merge(self, other: Collector) -> None:
        """Take in what another collector saw."""
        for name, histogram in other.histograms.items():
            self.histograms.setdefault(name, Histogram()).merge(histogram)

    def scales(self, method: str) -> dict[str, float]:
        """Tensor -> scale by one of METHODS; tensors that were always zero are left out."""
        scales = {name: scale_of(histogram, method) for name, histogram in self.histograms.items()}
        return {name: scale for name, scale in scales.items() if scale > 0}


def make_calibrator(base: type, batch_size: int, batches, upload, cache: bytes | None, on_error=None):
    """The object that TensorRT's own calibration calls.

    Args:
        base: IInt8EntropyCalibrator2 or IInt8MinMaxCalibrator, injected by the trt room.
        batch_size: samples in one batch.
        batches: iterator of preprocess.Batch, all of the same shape.
        upload: input name -> array, to input name -> device address. The memory belongs to the caller and has to outlive
            the build.
        cache: text of a cache to use instead of data; None calibrates.
        on_error: called with an exception that stopped calibration. TensorRT swallows what its callbacks raise and would
            carry on as if the data had ended, so this is the chance to stop at once.

    Returns:
        A calibrator with `error` (what stopped it), `batches_used`, `samples_used` and `written` (cache text TensorRT made).
    """

    class Calibrator(base):
        def __init__(self) -> None:
            base.__init__(self)  # must be called by name: without it TensorRT crashes
            self.error: BaseException | None = None
            self.batches_used = 0
            self.samples_used = 0
            self.written: bytes | None = None

        def get_batch_size(self) -> int:
            return batch_size

        def get_batch(self, names, *_) -> list[int] | None:
            if self.error is not None:
                return None
            try:
                batch = next(batches, None)
                if batch is None:
                    return None
                addresses = upload(batch.arrays)
                self.batches_used += 1
                self.samples_used += batch.real_rows or 1
                return [addresses[name] for name in names]  # exactly one for each name: TensorRT copies without checking
            except BaseException as error:  # KeyboardInterrupt, too: none of them may pass through C++
                self.error = error
                if on_error is not None:
                    on_error(error)
                return None

        def read_calibration_cache(self, *_) -> bytes | None:
            return cache

        def write_calibration_cache(self, text, *_) -> None:
            if self.error is None:
                self.written = bytes(text)

    return Calibrator()
