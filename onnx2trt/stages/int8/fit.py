"""Stage 'fit': INT8 (or FP8) weights that make up for what INT8 does to the activations; see quant/weight_solver.py."""

from __future__ import annotations

from onnx2trt.conversion.int8 import Calibrated
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.holdout import Parts, choose_split
from onnx2trt.model.graph import Graph
from onnx2trt.quant.weight_fitting import Samples, fit_weights
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer

FIT_SAMPLES = 64  # more hardly change the weights


def fit(job: Job, graph: Graph, layers: tuple[Layer, ...], found: Calibrated, with_weights: bool, run: Run) -> tuple[Fit, ...]:
    """Scales with the weights that go with them: one for each trial of the calibration, and last from all samples.

    Args:
        graph: FP32, the one that was calibrated.
        with_weights: fit them to the data, where there is data that may be fitted to; else they are rounded to the nearest.
    """
    split = choose_split(job.data)
    weights: list[dict] = [{}] * (len(found.trials) + 1)
    if with_weights and split is not None and split.may_fit:
        with run.stage("fit", f"fitting {job.number_format.label} weights"):
            parts = Parts(job.data, split, run.console, "looking at the layers' inputs", FIT_SAMPLES)
            samples = Samples(
                parts,
                parts.inferences,
                len(found.trials),
                trial=lambda: parts.current,
                counted=lambda fits, total: run.console.track(fits, total, "fitting what reads the same inputs"),
            )
            weights = fit_weights(graph, job.profiles, layers, found.scales, samples)
    fp16_scales = job.fp16_scales(graph)
    return tuple(Fit(scales, rounded, fp16_scales) for scales, rounded in zip((*found.trials, found.scales), weights))
