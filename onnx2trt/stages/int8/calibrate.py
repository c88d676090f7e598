"""Stage 'calibrate': activation scales by histograms of the calibration data, on the CPU."""

from __future__ import annotations

from onnx2trt.base.cores import peak_memory_mb
from onnx2trt.conversion.int8 import Calibrated
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import batches_to_compare
from onnx2trt.data.holdout import Parts, choose_split, without
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe_parallel
from onnx2trt.quant.candidates import Bench
from onnx2trt.quant.histograms import METHODS, Collector
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite.qdq import Layer

TRIED_SAMPLES = 8  # to try calibration methods with, and as many to judge them by


def open_bench(job: Job, graph: Graph, layers: tuple[Layer, ...], run: Run) -> Bench:
    """Where ways to INT8 are compared, on a few samples that are read when they are needed.

    Args:
        graph: FP32, not equalized.
        layers: that may become INT8.
    """

    def few():
        datasets = choose_split(job.data).to_try(TRIED_SAMPLES)
        seen, fresh = ([batch.arrays for batch in batches_to_compare(job.data, [dataset])] for dataset in datasets)
        return (seen or fresh, fresh or seen)  # of damaged files nothing is left

    methods = METHODS if job.plan.calibration.method == "auto" else (job.plan.calibration.method,)
    return Bench(graph, job.profiles, layers, methods, few, job.fp16_scales(graph), run.console)


def calibrate(job: Job, graph: Graph, bench: Bench, names: tuple[str, ...], run: Run, with_weights: bool) -> Calibrated:
    """Scales of these tensors, by the method that suits best.

    Args:
        graph: that of the bench, equalized or not.
        with_weights: weights shall be fitted to the scales; so methods are compared with fitted weights.

    Raises:
        ConversionError: CALIBRATION.
    """
    split = choose_split(job.data)
    parts = Parts(job.data, split, run.console, "calibrating")
    collectors: dict[int, Collector] = {}
    with run.stage("calibrate", f"calibrating on {len(parts)} samples of {split.fitted.origin}"):
        observe_parallel(graph, job.profiles, names, parts, lambda: collectors.setdefault(parts.current, Collector()).visit)
        outcome = None
        if len(bench.methods) > 1 or with_weights or graph is not bench.graph:
            outcome = bench.try_methods(graph, without(collectors, split.judged, Collector), with_weights)
        method = outcome.method if outcome else bench.methods[0]
        found = without(collectors, (), Collector).scales(method)  # in the order in which threads came to the tensors
        scales = {name: found[name] for name in names if name in found}
        trials = tuple(without(collectors, (trial,), Collector).scales(method) for trial in range(split.trials))
    silent = tuple(name for name in names if name not in scales)
    seconds = round(run.console.timings["calibrate"], 3)
    about = Calibration(method, parts.feeds.used, len(parts.feeds.skipped), job.plan.calibration.cache, seconds, peak_memory_mb())
    return Calibrated(method, scales, silent, trials, about, with_weights, outcome)
