"""Stage 'calibrate': activation scales by histograms of the calibration data, on the CPU."""

from __future__ import annotations

from onnx2trt.base.cores import peak_memory_mb
from onnx2trt.conversion.int8 import Calibrated
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import Feeds
from onnx2trt.data.holdout import Parts, choose_split, without
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe_parallel
from onnx2trt.quant.histograms import METHODS, Collector
from onnx2trt.quant.sensitivity import choose_scales
from onnx2trt.quant.weight_fitting import Samples, fit_weights
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer

ROUGHLY = 4  # times fewer rows than for the final fit are enough to compare methods
METHOD_SAMPLES = 16  # on half of which calibration methods are compared; weights are fitted to the other half


def calibrate(job: Job, graph: Graph, layers: tuple[Layer, ...], names: tuple[str, ...], run: Run, with_weights: bool) -> Calibrated:
    """Scales of these tensors.

    Args:
        layers: on which --calibration-method auto compares the methods.
        with_weights: weights will be fitted to the scales, so they are for the comparison, too.

    Raises:
        ConversionError: CALIBRATION.
    """
    split = choose_split(job.data)
    parts = Parts(job.data, split, run.console, "calibrating")
    collectors: dict[int, Collector] = {}
    with run.stage("calibrate", f"calibrating on {len(parts)} samples of {split.fitted.origin}"):
        observe_parallel(graph, job.profiles, names, parts, lambda: collectors.setdefault(parts.current, Collector()).visit)
        methods = METHODS if job.plan.calibration.method == "auto" else (job.plan.calibration.method,)
        total = without(collectors, None, Collector)
        found = {method: total.scales(method) for method in methods}  # in the order in which threads came to the tensors
        candidates = {method: {name: scales[name] for name in names if name in scales} for method, scales in found.items()}
        method = methods[0]
        if len(methods) > 1:
            method = _compare_methods(job, graph, layers, candidates, run, with_weights)
        trials = tuple(without(collectors, trial, Collector).scales(method) for trial in range(split.trials))
    silent = tuple(name for name in names if name not in candidates[method])
    seconds = round(run.console.timings["calibrate"], 3)
    about = Calibration(method, parts.feeds.used, len(parts.feeds.skipped), job.plan.calibration.cache, seconds, peak_memory_mb())
    return Calibrated(method, candidates[method], silent, trials, about)


def _compare_methods(
    job: Job, graph: Graph, layers: tuple[Layer, ...], candidates: dict[str, dict[str, float]], run: Run, with_weights: bool
) -> str:
    """The method whose scales change the outputs least, on samples that the weights were not fitted to (where there are several)."""
    dataset = choose_split(job.data).to_fit(METHOD_SAMPLES)
    few = list(Feeds(job.data.reader, dataset, run.console, "reading samples")())
    seen, fresh = (few[::2], few[1::2]) if len(few) > 1 else (few, few)
    samples = Samples(lambda: seen, ROUGHLY * len(seen))  # as if there were so many, of which each gives so many fewer rows
    fits = {}
    for name, scales in run.console.track(candidates.items(), len(candidates), "comparing calibration methods"):
        rounded = fit_weights(graph, job.profiles, layers, scales, samples)[0] if with_weights else {}
        fits[name] = Fit(scales, rounded, job.fp16_scales(graph))
    method, changes = choose_scales(graph, layers, fits, lambda: fresh, job.comparison().change)
    run.console.debug("change of the outputs by method: " + ", ".join(f"{name} {share:.2%}" for name, share in changes.items()))
    return method
