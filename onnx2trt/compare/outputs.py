"""Compare what was built with what was asked for: outputs of the engine (or of the prepared model) against the ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode
from onnx2trt.base.read_ahead import map_in_order
from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.compare.evidence import Watch
from onnx2trt.compare.metrics import OutputComparison, choose_metric, metric_for, misfit
from onnx2trt.data.reader import Batch

Runner = Callable[[Batch], dict[str, np.ndarray]]  # a batch of the model's inputs -> its outputs


class OtherShape(ConversionError):
    """An output has another shape than the ONNX model's, as lists of what was found can have."""


@dataclass(frozen=True)
class Comparison:
    """How the outputs of one model are compared."""

    outputs: tuple[str, ...]  # their names
    metric: str = "auto"  # the user's choice (--metric), for the outputs that it fits
    image: tuple[int, int] | None = None  # (height, width) of the image input, for the choice of metric
    channels_last: bool = False  # the model is NHWC
    executed_on: str = "simulated"  # or gpu

    def compare(
        self, reference: Runner, candidate: Runner, batches: Iterable[Batch], origin: str, watch: Watch | None = None, at_once: int = 1
    ) -> tuple[Accuracy, ...]:
        """Run both on every batch and compare each output.

        Args:
            reference: the ONNX model as the user gave it.
            candidate: the engine, or the simulation of the prepared model.
            batches: the data.
            origin: where the data comes from; on synthetic data `auto` is noise, since classes mean nothing there.
            watch: looks on, for the report.
            at_once: batches that several threads may give to `candidate` at the same time; `reference` gets them one by one, in order.

        Raises:
            ConversionError: VALIDATION, where shapes differ or there is no sample; USAGE, where `metric` fits no output.
        """
        comparisons: dict[str, OutputComparison] = {}
        for batch, found in map_in_order(batches, candidate, at_once):
            expected = reference(batch)
            unfit = misfit(self.metric, {name: expected[name].shape for name in self.outputs}, self.channels_last)
            if unfit:
                raise unfit
            for name in self.outputs:
                a, b = expected[name], found[name]
                if a.shape != b.shape:
                    raise OtherShape(
                        f"output {name!r} has shape {list(b.shape)}, the ONNX model gives {list(a.shape)}", code=ExitCode.VALIDATION
                    )
                if name not in comparisons:
                    comparisons[name] = OutputComparison(name, self._metric_of(a, origin))
                by_row = comparisons[name].metric in ("top1", "argmax", "argmax_last")
                for reference_sample, sample, path in _samples(a, b, batch, by_row):
                    comparisons[name].add(reference_sample, sample, path)
                    if watch is not None:
                        watch.see(comparisons[name], reference_sample, sample, path)
        if not comparisons:
            raise ConversionError(f"no sample of {origin} could be read", code=ExitCode.VALIDATION)
        if watch is not None:
            watch.end(comparisons)
        return tuple(_accuracy(comparison, origin, self.executed_on) for comparison in comparisons.values())

    def _metric_of(self, expected: np.ndarray, origin: str) -> str:
        """By what an output is compared that looks like this."""
        found = "noise" if origin == "synthetic" else choose_metric(expected.shape, *_range(expected), self.image, self.channels_last)
        return metric_for(self.metric, found, expected.shape, self.channels_last)


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _samples(a: np.ndarray, b: np.ndarray, batch: Batch, by_row: bool):
    """(reference, output, file) of each real row; an output without the batch axis is one sample.

    Args:
        by_row: the metric's own definition says that the first axis counts samples, even where the inputs have no common one.
    """
    if a.ndim and (a.shape[0] == batch.rows or by_row):
        for row in range(batch.real_rows if a.shape[0] == batch.rows else a.shape[0]):
            yield a[row], b[row], batch.paths[min(row, len(batch.paths) - 1)]
    else:
        yield a, b, batch.paths[0]


def _accuracy(comparison: OutputComparison, origin: str, executed_on: str) -> Accuracy:
    worst, worst_drop = comparison.worst()
    several = len(comparison.parts) > 1
    return Accuracy(
        executed_on=executed_on,
        inputs=origin,
        output=comparison.name,
        metric=comparison.metric.replace("_last", ""),
        drop_percent=comparison.drop,
        standard_error=comparison.drop_error,
        sqnr_db=comparison.sqnr_db,
        max_abs_error=comparison.max_abs_error,
        nonfinite=comparison.nonfinite,
        samples=len(comparison.parts),
        worst=worst if several else None,
        worst_drop_percent=worst_drop if several else None,
        constant=comparison.constant,
    )


def failure(accuracies: tuple[Accuracy, ...], limit_percent: float) -> AccuracyError | None:
    """Why this accuracy does not pass; None where it does."""
    for row in accuracies:
        where = f"output {row.output!r} on {row.inputs} ({row.samples} sample{'s' * (row.samples > 1)})"
        if row.nonfinite:
            return AccuracyError(
                f"{where}: {row.nonfinite} values are NaN or infinite where the ONNX model's are finite",
                hint="Keep the layers that overflow in FP32 with --layer-precisions PATTERN:fp32, or use --precision fp32.",
                drop_percent=None,
            )
        if row.drop_percent > limit_percent:
            return AccuracyError(
                f"{where}: differs from the ONNX model by {row.drop_percent:.2f} % ({row.metric}), "
                f"more than --max-accuracy-drop {limit_percent:g}; SQNR {row.sqnr_db:.1f} dB",
                hint="Use a higher --precision, other calibration data or --calibration-method, keep layers in a higher precision with "
                "--layer-precisions, or accept the difference with a larger --max-accuracy-drop.",
                drop_percent=row.drop_percent,
            )
    return None
