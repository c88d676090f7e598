"""The metrics by their names: which outputs they fit, and those that turn a sample into two numbers. Pure.

The agreement over many samples is sum(parts) / sum(wholes), so that large and small images weigh by what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import dims

MASK_THRESHOLD = 0.3  # of a probability map; text and salient-object detectors are used near it
PAST_THE_ENDS = 2.0**-20  # a sigmoid of ONNX Runtime gives 1.0000001 on some CPUs
SQNR_LIMIT_DB = 200.0  # stands for "identical": JSON has no infinity
LARGEST_PERCENT = 1e9
FORMS = {  # metric of the user's choice -> outputs that it fits, in words
    "top1": "[N, C > 1], or with further dimensions of 1",
    "argmax": "[N, C > 1, H, W] and the like, or [N, T, C > 1]",
    "mask": "[N, ...]",
    "rows": "[N, rows, ...] or [rows, ...]",
}


def are_shares(low, high):
    """Whether what lies between these, numbers or arrays of them, is within 0..1, as probabilities are."""
    return (low >= -PAST_THE_ENDS) & (high <= 1 + PAST_THE_ENDS)


def fits(metric: str, shape: tuple, channels_last: bool = False) -> bool:
    """Whether a metric of the user's choice can compare an output.

    Args:
        metric: values, top1, argmax, mask:T, equal, rows, cosine or noise.
        shape: [N, ...] as declared or as measured; a dimension that is no number may become anything.
        channels_last: the model is NHWC.
    """
    wide = [not isinstance(dim, int) or dim > 1 for dim in shape[1:]]
    if metric == "top1":
        return len(shape) >= 2 and any(wide) and sum(isinstance(dim, int) and dim > 1 for dim in shape[1:]) < 2
    if metric == "argmax":
        return len(shape) >= 3 and wide[-1 if _classes_last(shape, channels_last) else 0]
    if metric == "rows":
        return len(shape) >= 1
    return len(shape) >= 2 if metric.startswith("mask:") else True


def _classes_last(shape: tuple, channels_last: bool) -> bool:
    """[N, H, W, C] and [N, T, C], the form in which sequences come."""
    return channels_last or len(shape) == 3


def class_axis(metric: str, shape: tuple[int, ...], channels_last: bool = False) -> int:
    """The axis of the classes in a sample, for top1 and argmax.

    Args:
        shape: [N, ...] as measured.
    """
    if metric == "top1":
        return next((axis for axis, size in enumerate(shape[1:]) if size > 1), 0)
    return -1 if _classes_last(shape, channels_last) else 0


def misfit(asked: Mapping[str, str], shapes: dict[str, tuple | None], channels_last: bool = False) -> ConversionError | None:
    """The error of a choice that fits no output, or not the one that it was made for; None where it fits one, or may.

    Args:
        asked: the user's choice: output -> metric; of "" for all outputs that it fits.
        shapes: output -> shape, None where it is not known.
    """
    for name, metric in asked.items():
        if name and name not in shapes:
            return ConversionError(
                f"--metric {name}:{metric}: the model has no output {name!r}",
                hint=f"Its outputs are {', '.join(map(repr, shapes))}.",
                code=ExitCode.USAGE,
            )
        concerned = {name: shapes[name]} if name else shapes
        if metric == "auto" or any(shape is None or fits(metric, shape, channels_last) for shape in concerned.values()):
            continue
        outputs = ", ".join(f"{output!r} is {dims(shape)}" for output, shape in concerned.items())
        what = f"--metric {name}:{metric} does not fit this output" if name else f"--metric {metric} fits no output of the model"
        return ConversionError(
            f"{what}: {outputs}",
            hint=f"It compares outputs of shape {FORMS[metric.partition(':')[0]]}. Any output takes values, equal, cosine or noise.",
            code=ExitCode.USAGE,
        )
    return None


def measure(metric: str, reference: np.ndarray, output: np.ndarray) -> tuple[float, float]:
    """(part, whole) of one sample.

    Args:
        metric: mask:T, equal, cosine, noise.
        reference, output: the sample without its batch axis, float or integer, same shape.
    """
    if metric == "equal":
        return float((np.rint(reference) == np.rint(output)).sum()), float(reference.size)
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


def drop_percent(metric: str, parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """100 x (1 - agreement), or 100 x noise share (1 % is an SQNR of 20 dB), over all samples (the last axis) together."""
    part, whole = np.sum(parts, -1, dtype=np.float64), np.sum(wholes, -1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = part / whole
    if metric == "noise":
        return np.minimum(np.where(whole > 0, 100 * share, np.where(part > 0, LARGEST_PERCENT, 0.0)), LARGEST_PERCENT)
    return np.where(whole != 0, np.maximum(100 * (1 - share), 0.0), 0.0)  # an empty union is full agreement


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within what JSON can hold."""
    if noise == 0:
        return SQNR_LIMIT_DB
    ratio = signal / noise
    return max(-SQNR_LIMIT_DB, min(SQNR_LIMIT_DB, 10 * math.log10(ratio))) if ratio else -SQNR_LIMIT_DB
