"""Stage 'quantize': FP32 graph and data -> a equalized graph with scales and weights for its INT8 layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.plan.plan import EFFORTS, Effort
from onnx2trt.quant import calibration_cache
from onnx2trt.quant.fit_file import Found
from onnx2trt.quant.weight_fitting import fit_weights
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.placement import readings, tensors
from onnx2trt.rewrite.qdq import Layer, quantizable_layers
from onnx2trt.stages.int8 import calibrate as calibrating
from onnx2trt.stages.int8 import equalize as equalizing
from onnx2trt.stages.int8.calibrate import Calibrated, Written
from onnx2trt.stages.int8.equalize import Equalization
from onnx2trt.stages.int8.holdout import Parts, Split, choose_split
from onnx2trt.stages.int8.reuse import Known

FIT_SAMPLES = 64  # more hardly change the weights


@dataclass(frozen=True)
class Fitted:
    """A graph whose layers are ready to become INT8."""

    equalization: Equalization
    graph: Graph  # FP32, computes what the model computes; equalized for all of `layers`
    layers: tuple[Layer, ...]
    fit: Fit  # from all samples
    trials: tuple[Fit, ...]  # without the samples that each is measured on; empty where other data is measured on
    split: Split | None  # None: there is no data to measure on
    method: str  # of calibration
    fp16_fallback: dict[str, str] | None = None  # layers that INT8 does not suit, where an earlier run has found them; node -> reason
    native: bool = False  # TensorRT will calibrate by itself: these scales are only to judge the layers by
    written: Written | None = None  # the cache that this run has written
    others: dict[str, float] = field(default_factory=dict)  # scales of the tensors that nothing reads as INT8

    def graph_for(self, layers: Iterable[Layer]) -> Graph:
        """The graph, equalized for these INT8 layers; scales and weights that were fitted fit it, too."""
        usable, more = self.fit.placed(self.graph, layers)
        return self.equalization.graph(tensors(usable, more), usable)

    def found(self, kept_fp32: dict[str, str], fp16_fallback: dict[str, str]) -> Found:
        """All of it in the form in which it is kept for other runs."""
        shifts, factors = self.equalization.vectors()
        return Found(self.method, self.fit, shifts, factors, kept_fp32, fp16_fallback)


def fit(job: Job, graph: Graph, layers: tuple[Layer, ...], run: Run, half: bool, known: Known, ranged: dict[str, float]) -> Fitted:
    """What an earlier run found, else scales from the cache or by calibration; with the calibration data, channels are equalized and
    weights fitted, unless TensorRT will calibrate by itself.

    Args:
        graph: FP32, folded.
        layers: that may become INT8.
        half: Q/DQ scales will be FP16.
        ranged: scales by the ranges of all tensors, for those that calibration leaves out.

    Raises:
        ConversionError: CALIBRATION.
    """
    plan, split = job.plan, choose_split(job.data)
    if split is not None and split.blind:
        run.console.warn(
            f"{split.fitted.origin} holds one sample only: INT8 is measured on what it was fitted to, which tells nothing about other "
            "samples; give more, or --validation-dir"
        )
    names = tensors(layers, readings(graph, layers))
    others = known.cache.scales if known.cache else ranged
    if known.found is not None:
        fp16_fallback, found = known.found.fp16_fallback if known.chosen else None, known.found
        return Fitted(
            known.equalization,
            known.equalization.graph(names, layers),
            layers,
            found.fit,
            (),
            split,
            found.method,
            fp16_fallback,
            others=others,
        )
    native = plan.calibrator and plan.native_method is not None and known.cache is None
    effort = EFFORTS["fast"] if native else plan.calibration.effort
    written = None
    if known.cache is not None:
        scales = calibrating.scales_of(known.cache, tuple(layer.activation for layer in layers), names)
        calibrating.check_plausible(job, known.cache, names, ranged, run)
        equalization = Equalization(graph)
        found = Calibrated(known.cache.algorithm, scales, trials=(scales,) * (split.trials if split else 0))
    else:
        found, equalization, written = _calibrate(job, graph, layers, names, split, effort, run, half, native, ranged)
    graph = equalization.graph(names, layers)
    weights: list[dict] = [{}] * (len(found.trials) + 1)
    if effort.fit and split is not None and split.may_fit:
        with run.stage("fit", "fitting INT8 weights"):
            parts = Parts(job.data, split, run, "fitting INT8 weights", FIT_SAMPLES)
            trials = len(found.trials)
            weights = fit_weights(graph, job.profiles, layers, found.scales, parts, len(parts), trials, lambda: parts.current)
    fits = [Fit(scales, rounded) for scales, rounded in zip((*found.trials, found.scales), weights)]
    return Fitted(
        equalization, graph, layers, fits[-1], tuple(fits[:-1]), split, found.method, native=native, written=written, others=others
    )


def _calibrate(
    job, graph, layers, names, split, effort: Effort, run, half: bool, native: bool, ranged: dict[str, float]
) -> tuple[Calibrated, Equalization, Written | None]:
    """(scales, how the graph is equalized that they belong to, the cache)"""
    found = written = None
    if job.plan.calibration.cache or not effort.equalization:
        all_layers = quantizable_layers(graph)
        everything = tuple(dict.fromkeys([*tensors(all_layers, readings(graph, all_layers)), *names]))
        found = calibrating.calibrate(job, graph, layers, everything, split, run, half, with_weights=False)
        if not native:  # the cache keeps the scales of the model as it is, of all tensors: other programs may want them in INT8
            heard = {name: scale for name, scale in ranged.items() if name not in found.silent}
            text = calibration_cache.to_text({**heard, **found.scales}, found.method)
            written = calibrating.write_cache(job, text, found.method, run, found.silent)
    if found is not None and not effort.equalization:
        return found, Equalization(graph), written
    with run.stage("equalize", "equalizing channels"):
        equalization = equalizing.equalization(job, graph, names, split, run)
    return calibrating.calibrate(job, equalization.graph(names, layers), layers, names, split, run, half, effort.fit), equalization, written
