"""Why outputs do not pass, as the error that ends the run."""

from __future__ import annotations

from onnx2trt.base.errors import AccuracyError
from onnx2trt.compare.accuracy import LEAST_SQNR_DB, Accuracy


def failure(accuracies: tuple[Accuracy, ...], limit_percent: float) -> AccuracyError | None:
    """Why this accuracy does not pass; None where it does."""
    for row in accuracies:
        if row.nonfinite:
            return not_finite((row,))
        if row.excess(limit_percent) > 1:
            otherwise = (
                "" if row.chosen else f" If it is no {row.kind or 'such output'}, --metric {row.output}:METRIC says how to compare it."
            )
            return AccuracyError(
                f"{_where(row)}: {_why(row, limit_percent)}; SQNR {row.sqnr_db:.1f} dB",
                hint="Use a higher --precision, other calibration data or --calibration-method, keep layers in a higher precision with "
                f"--layer-precisions, or accept the difference with a larger --max-accuracy-drop.{otherwise}",
                drop_percent=limit_percent * row.excess(limit_percent) if limit_percent else row.drop_percent,
            )
    return None


def not_finite(accuracies: tuple[Accuracy, ...]) -> AccuracyError | None:
    """The error of values that are no numbers where the model's are; None where there are none."""
    for row in accuracies:
        if row.nonfinite:
            return AccuracyError(
                f"{_where(row)}: {row.nonfinite} values are NaN or infinite where the ONNX model's are finite",
                hint="Keep the layers that overflow in FP32 with --layer-precisions PATTERN:fp32, or use --precision fp32.",
                drop_percent=None,
            )
    return None


def _where(row: Accuracy) -> str:
    number = f"{row.steps} steps in a row" if row.steps else f"{row.samples} sample{'s' * (row.samples > 1)}"
    return f"output {row.output!r} on {row.inputs} ({number})"


def _why(row: Accuracy, limit_percent: float) -> str:
    """What is above its limit."""
    worst = f", {row.worst_slice}" if row.worst_slice else ""
    if row.shown > limit_percent:
        drop = f"{row.drop_percent:.2f} % ({row.metric}{worst})"
        return f"differs from the ONNX model by {drop}, more than --max-accuracy-drop {limit_percent:g}"
    if row.stuck:
        return "gives the same values for every sample, the ONNX model does not"
    if row.signal_percent is not None and row.signal_percent > row.signal_limit_percent:
        return (
            f"agrees by {row.metric} (drop {row.drop_percent:.2f} %), but {row.signal_percent:.0f} % of what varies is lost{worst}, "
            f"more than {max(row.signal_limit_percent, limit_percent):g}"
        )
    return f"agrees by {row.metric} (drop {row.drop_percent:.2f} %), but the error is louder than {LEAST_SQNR_DB:g} dB below the signal"
