"""Stage 'calibrate': activation scales by histograms of the calibration data, on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

from onnx2trt.base.cores import peak_memory_mb
from onnx2trt.base.words import base_name
from onnx2trt.conversion.int8 import Calibrated
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import batches_to_compare
from onnx2trt.data.holdout import Parts, choose_split, without
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe_parallel
from onnx2trt.quant.candidates import best_of, compare_methods
from onnx2trt.quant.histograms import Collector
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer

METHOD_SAMPLES = 8  # on which calibration methods are compared


@dataclass(frozen=True)
class Wanted:
    """What is to be calibrated."""

    names: tuple[str, ...]  # of the tensors
    layers: tuple[Layer, ...]  # on which --calibration-method auto compares the methods
    samples: int | None = None  # at most


def calibrate(job: Job, graph: Graph, wanted: Wanted, run: Run) -> Calibrated:
    """Scales of the tensors of a graph.

    Raises:
        ConversionError: CALIBRATION.
    """
    split = choose_split(job.data)
    parts = Parts(job.data, split, run.console, "calibrating", wanted.samples)
    collectors: dict[int, Collector] = {}
    with run.stage("calibrate", f"calibrating on {len(parts)} samples of {base_name(split.fitted.origin)}"):
        observe_parallel(graph, job.profiles, wanted.names, parts, lambda: collectors.setdefault(parts.current, Collector()).visit)
        method = job.plan.calibration.method
        if method == "auto":
            method = _choose_method(job, graph, wanted, without(collectors, split.judged, Collector), run)
        found = without(collectors, (), Collector).scales(method, job.number_format)  # in the order in which threads came to the tensors
        scales = {name: found[name] for name in wanted.names if name in found}
        trials = tuple(without(collectors, (trial,), Collector).scales(method, job.number_format) for trial in range(split.trials))
    silent = tuple(name for name in wanted.names if name not in scales)
    seconds = round(run.console.timings["calibrate"], 3)
    about = Calibration(method, parts.feeds.used, len(parts.feeds.skipped), job.plan.calibration.cache, seconds, peak_memory_mb())
    return Calibrated(method, scales, silent, trials, about)


def _choose_method(job: Job, graph: Graph, wanted: Wanted, collector: Collector, run: Run) -> str:
    """The one that suits best, on samples that are not in the collector (where there are several)."""
    fresh = [batch.feed for batch in batches_to_compare(job.data, [choose_split(job.data).to_judge(METHOD_SAMPLES)])]
    methods, number_format = job.number_format.methods, job.number_format
    if not fresh:  # all of them are damaged
        return methods[0]
    fits = ((method, Fit(collector.scales(method, number_format), fp16_scales=job.fp16_scales(graph))) for method in methods)
    tracked = run.console.track(fits, len(methods), "comparing calibration methods")
    outcomes = compare_methods(graph, wanted.layers, tracked, fresh, job.comparison().change)
    run.console.debug("change of the outputs by method: " + ", ".join(f"{one.method} {one.change:.2%}" for one in outcomes))
    return best_of(outcomes).method
