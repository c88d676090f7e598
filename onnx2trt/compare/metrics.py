"""How far outputs are from the model's: one number a user can set a limit for, and what stands behind it. Pure.

A metric turns the outputs of one sample into two numbers (part, whole); the agreement over many samples is
sum(parts) / sum(wholes), so that large and small images weigh by what they hold.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import dims

MASK_THRESHOLD = 0.3  # of a probability map; text and salient-object detectors are used near it
BOOTSTRAP_ROUNDS = 200
SQNR_LIMIT_DB = 200.0  # stands for "identical": JSON has no infinity


def choose_metric(shape: tuple[int, ...], low: float, high: float, image: tuple[int, int] | None, channels_last: bool = False) -> str:
    """The metric that fits an output.

    Args:
        shape: of the reference output, [N, ...].
        low, high: range of its values over the data.
        image: (height, width) of the model's image input, None where it has none.
        channels_last: the model is NHWC.

    Returns:
        top1 for [N, C > 1]; argmax for [N, C > 1, H, W]; mask:0.3 for one channel in [0, 1] at image size; else noise.
    """
    if len(shape) == 2 and shape[1] > 1:
        return "top1"
    if len(shape) == 4:
        channels, size = (shape[3], shape[1:3]) if channels_last else (shape[1], shape[2:4])
        if channels > 1:
            return "argmax_last" if channels_last else "argmax"
        if tuple(size) == image and low >= 0 and high <= 1:
            return f"mask:{MASK_THRESHOLD}"
    if len(shape) == 3 and tuple(shape[1:]) == image and low >= 0 and high <= 1:
        return f"mask:{MASK_THRESHOLD}"
    return "noise"


FORMS = {  # metric of the user's choice -> outputs that it fits, in words
    "top1": "[N, C > 1], or with further dimensions of 1",
    "argmax": "[N, C > 1, H, W] and the like, or [N, T, C > 1]",
    "mask": "[N, ...]",
}


def fits(metric: str, shape: tuple, channels_last: bool = False) -> bool:
    """Whether a metric of the user's choice can compare an output.

    Args:
        metric: top1, argmax, mask:T, cosine or noise.
        shape: [N, ...] as declared or as measured; a dimension that is no number may become anything.
        channels_last: the model is NHWC.
    """
    wide = [not isinstance(dim, int) or dim > 1 for dim in shape[1:]]
    if metric == "top1":
        return len(shape) >= 2 and any(wide) and sum(isinstance(dim, int) and dim > 1 for dim in shape[1:]) < 2
    if metric == "argmax":
        return len(shape) >= 3 and wide[-1 if _classes_last(shape, channels_last) else 0]
    return len(shape) >= 2 if metric.startswith("mask:") else True


def _classes_last(shape: tuple, channels_last: bool) -> bool:
    """[N, H, W, C] and [N, T, C], the form in which sequences come."""
    return channels_last or len(shape) == 3


def metric_for(asked: str, automatic: str, shape: tuple[int, ...], channels_last: bool = False) -> str:
    """The user's choice where it fits the output, else the automatic one."""
    if asked == "auto" or not fits(asked, shape, channels_last):
        return automatic
    return "argmax_last" if asked == "argmax" and _classes_last(shape, channels_last) else asked


def misfit(asked: str, shapes: dict[str, tuple | None], channels_last: bool = False) -> ConversionError | None:
    """The error of a choice that fits no output; None where it fits one, or may: a shape that is not known is None."""
    if asked == "auto" or any(shape is None or fits(asked, shape, channels_last) for shape in shapes.values()):
        return None
    outputs = ", ".join(f"{name!r} is {dims(shape)}" for name, shape in shapes.items())
    return ConversionError(
        f"--metric {asked} fits no output of the model: {outputs}",
        hint=f"It compares outputs of shape {FORMS[asked.partition(':')[0]]}. Any output takes --metric cosine or noise.",
        code=ExitCode.USAGE,
    )


def measure(metric: str, reference: np.ndarray, output: np.ndarray) -> tuple[float, float]:
    """(part, whole) of one sample.

    Args:
        metric: top1, argmax, argmax_last, mask:T, cosine, noise.
        reference, output: the sample without its batch axis, float or integer, same shape.
    """
    if metric == "top1":
        return float(reference.argmax() == output.argmax()), 1.0
    if metric in ("argmax", "argmax_last"):
        axis = 0 if metric == "argmax" else -1
        equal = reference.argmax(axis) == output.argmax(axis)
        return float(equal.sum()), float(equal.size)
    if metric.startswith("mask:"):
        threshold = float(metric[5:])
        a, b = reference > threshold, output > threshold
        return float((a & b).sum()), float((a | b).sum())
    if metric == "cosine":
        return _cosine(reference.astype(np.float64).reshape(-1), output.astype(np.float64).reshape(-1))
    error = output.astype(np.float64) - reference
    return float((error**2).sum()), float((reference.astype(np.float64) ** 2).sum())


def _cosine(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(a . b, |a| |b|); where one is zero and the other not, nothing agrees, which the product of the norms would not say."""
    norms = math.sqrt(float(a @ a)), math.sqrt(float(b @ b))
    return float(a @ b), norms[0] * norms[1] if all(norms) else max(norms) ** 2


def drop_percent(metric: str, parts: np.ndarray, wholes: np.ndarray) -> float:
    """100 x (1 - agreement), or 100 x noise share (1 % is an SQNR of 20 dB), over all samples together."""
    part, whole = float(np.sum(parts)), float(np.sum(wholes))
    if metric == "noise":
        share = part / whole if whole else (0.0 if part == 0 else math.inf)
        return min(100.0 * share, 1e9)
    return max(100.0 * (1.0 - part / whole), 0.0) if whole else 0.0  # an empty union is full agreement


def standard_error(metric: str, parts: np.ndarray, wholes: np.ndarray) -> float | None:
    """Bootstrap over samples, fixed seed: the standard deviation of the drop, in percent; None for a single sample."""
    count = len(parts)
    if count < 2:
        return None
    chosen = np.random.default_rng(0).integers(0, count, (BOOTSTRAP_ROUNDS, count))
    drops = [drop_percent(metric, parts[row], wholes[row]) for row in chosen]
    return float(np.std(drops))


@dataclass
class OutputComparison:
    """Running comparison of one output over many samples."""

    name: str
    metric: str
    parts: list[float] = field(default_factory=list)
    wholes: list[float] = field(default_factory=list)
    error_energy: float = 0.0  # sum of (output - reference)^2
    reference_energy: float = 0.0
    max_abs_error: float = 0.0
    nonfinite: int = 0
    _flat: bool = False  # the first reference is one single value
    _checksum: int | None = None  # of the first reference
    _identical: bool = True  # every reference so far equals the first
    paths: list[str] = field(default_factory=list)

    def add(self, reference: np.ndarray, output: np.ndarray, path: str) -> None:
        """One sample, without its batch axis."""
        finite = np.isfinite(reference) & np.isfinite(output)
        expected = np.isfinite(reference)
        self.nonfinite += int((expected & ~finite).sum())
        self._look_for_change(reference)
        clean = output if finite.all() else np.where(finite, output, 0)
        base = reference if expected.all() else np.where(expected, reference, 0)
        error = clean.astype(np.float64) - base.astype(np.float64)
        self.error_energy += float((error**2).sum())
        self.reference_energy += float((base.astype(np.float64) ** 2).sum())
        self.max_abs_error = max(self.max_abs_error, float(np.abs(error).max()) if error.size else 0.0)
        if self.metric in ("top1", "argmax", "argmax_last"):  # masked classes are -inf: only NaN must not win
            base, clean = (np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf) for values in (reference, output))
        part, whole = measure(self.metric, base, clean)
        self.parts.append(part)
        self.wholes.append(whole)
        self.paths.append(path)

    def _look_for_change(self, reference: np.ndarray) -> None:
        checksum = zlib.crc32(np.ascontiguousarray(reference).tobytes())
        if self._checksum is None:
            self._checksum = checksum
            self._flat = bool(reference.size == 0 or (reference == reference.reshape(-1)[0]).all())
        self._identical = self._identical and checksum == self._checksum

    @property
    def constant(self) -> bool:
        """The reference never changed: one single value, or the same for every one of several samples."""
        return self._identical and (self._flat or len(self.parts) > 1)

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise), pooled over all samples."""
        if self.error_energy == 0:
            return SQNR_LIMIT_DB
        if self.reference_energy == 0:
            return -SQNR_LIMIT_DB
        return max(-SQNR_LIMIT_DB, min(SQNR_LIMIT_DB, 10 * math.log10(self.reference_energy / self.error_energy)))

    @property
    def drop(self) -> float:
        return drop_percent(self.metric, np.array(self.parts), np.array(self.wholes))

    @property
    def drop_error(self) -> float | None:
        return standard_error(self.metric, np.array(self.parts), np.array(self.wholes))

    def drops(self) -> list[float]:
        """Of each sample alone, in percent."""
        return [drop_percent(self.metric, np.array([part]), np.array([whole])) for part, whole in zip(self.parts, self.wholes)]

    def worst(self) -> tuple[str, float]:
        """(file, drop in percent) of the sample that agrees least."""
        drops = self.drops()
        index = int(np.argmax(drops))
        return self.paths[index], drops[index]
