"""Stage 'calibrate': activation scales, from a cache, on the CPU, or by TensorRT's own calibrator."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.datasets import Feeds
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe_parallel
from onnx2trt.quant import calibration_cache
from onnx2trt.quant import histograms as calibration
from onnx2trt.quant.calibration_cache import Cache, Identity
from onnx2trt.quant.histograms import Collector
from onnx2trt.quant.sensitivity import choose_scales
from onnx2trt.quant.weight_fitting import fit_weights
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer
from onnx2trt.stages.int8.holdout import Parts, Split, without

ROUGHLY = 4  # times fewer rows than for the final fit are enough to compare methods
IMPLAUSIBLE = 1000.0  # between a scale's reach and the largest value seen; on noise, scales made of images reach 0.09 to 3.2 times as far
METHOD_SAMPLES = 16  # on half of which calibration methods are compared; weights are fitted to the other half


def scales_of(cache: Cache, names: tuple[str, ...], more: tuple[str, ...]) -> dict[str, float]:
    """The scales of a cache that has one for each of these tensors, and for `more` as far as it has them.

    Raises:
        ConversionError: CALIBRATION.
    """
    silent = cache.identity.silent if cache.identity else ()
    missing = [name for name in names if name not in cache.scales and name not in silent]
    if missing:
        raise ConversionError(
            f"calibration cache {cache.path} has no scale for {len(missing)} of {len(names)} tensors of this model, first {missing[0]!r}",
            hint="It belongs to another model: calibrate with --calibration-dir and another --calibration-cache.",
            code=ExitCode.CALIBRATION,
        )
    return {name: cache.scales[name] for name in (*names, *more) if name in cache.scales}


def check_plausible(job: Job, cache: Cache, names: tuple[str, ...], ranged: dict[str, float], run: Run) -> None:
    """Refuse a foreign cache whose scales have nothing to do with what the tensors hold: damage that no line betrays.

    Caches of ours are known by the hash in their side file.

    Args:
        names: of the tensors whose scales will be used.
        ranged: scales by the ranges of the tensors, which were measured on whatever data there is, and be it synthetic.

    Raises:
        ConversionError: CALIBRATION, unless --accept-stale-cache was given.
    """
    if cache.identity is not None:
        return
    for name in names:
        reach, seen = 127 * cache.scales.get(name, 0.0), 127 * ranged.get(name, 0.0)
        if reach > 0 and seen > 0 and not 1 / IMPLAUSIBLE < reach / seen < IMPLAUSIBLE:
            found = f"calibration cache {cache.path}: the scale of {name!r} reaches to {reach:.3g}, the tensor to {seen:.3g}"
            if not job.plan.calibration.accept_stale:
                raise ConversionError(
                    f"{found} on {job.data.any().origin} data",
                    hint="The file is damaged or of another model: calibrate with --calibration-dir, or insist with --accept-stale-cache.",
                    code=ExitCode.CALIBRATION,
                )
            run.console.warn(found)


def read_cache(job: Job, run: Run) -> Cache | None:
    """The cache named by --calibration-cache, checked; None where there is none yet.

    Raises:
        ConversionError: CALIBRATION, where it is damaged or stale.
    """
    path = job.plan.calibration.cache
    if not (path and os.path.exists(path)):
        return None
    cache = calibration_cache.read(path)
    warning = calibration_cache.check_identity(cache, _identity(job), job.plan.calibration.accept_stale)
    if warning:
        run.console.warn(warning)
    describe(run, (cache.identity and cache.identity.chosen) or cache.algorithm, None, 0, path, 0.0)
    return replace(cache, fits=cache.identity is not None and not warning)


@dataclass(frozen=True)
class Calibrated:
    """Scales by one method."""

    method: str
    scales: dict[str, float]  # from all samples
    silent: tuple[str, ...] = ()  # tensors that were always zero
    trials: tuple[dict[str, float], ...] = ()  # without the samples that each trial of the split is measured on


def calibrate(
    job: Job, graph: Graph, layers: tuple[Layer, ...], names: tuple[str, ...], split: Split, run: Run, half: bool, with_weights: bool
) -> Calibrated:
    """Scales of these tensors, calibrated on the CPU.

    Args:
        layers: on which --calibration-method auto compares the methods.
        with_weights: weights will be fitted to the scales, so they are for the comparison, too.

    Raises:
        ConversionError: CALIBRATION.
    """
    parts = Parts(job.data, split, run, "calibrating")
    collectors: dict[int, Collector] = {}
    with run.stage("calibrate", f"calibrating on {len(parts)} samples of {split.fitted.origin}"):
        observe_parallel(graph, job.profiles, names, parts, lambda: collectors.setdefault(parts.current, Collector()).visit)
        methods = calibration.METHODS if job.plan.calibration.method == "auto" else (job.plan.calibration.method,)
        total = without(collectors, None, Collector)
        found = {method: total.scales(method) for method in methods}  # in the order in which threads came to the tensors
        candidates = {method: {name: scales[name] for name in names if name in scales} for method, scales in found.items()}
        method = methods[0]
        if len(methods) > 1:
            method = _compare_methods(job, graph, layers, candidates, split, run, half, with_weights)
        trials = tuple(without(collectors, trial, Collector).scales(method) for trial in range(split.trials))
    describe(run, method, parts.feeds.used, len(parts.feeds.skipped), job.plan.calibration.cache, run.console.timings["calibrate"])
    silent = tuple(name for name in names if name not in candidates[method])
    return Calibrated(method, candidates[method], silent, trials)


def _compare_methods(job, graph, layers, candidates: dict[str, dict[str, float]], split, run, half: bool, with_weights: bool) -> str:
    """The method whose scales change the outputs least, on samples that the weights were not fitted to (where there are several)."""
    few = list(Feeds(job.data.reader, split.to_fit(METHOD_SAMPLES), run, "reading samples")())
    seen, fresh = (few[::2], few[1::2]) if len(few) > 1 else (few, few)
    fits = {}
    for name, scales in run.console.track(candidates.items(), len(candidates), "comparing calibration methods"):
        as_if = ROUGHLY * len(seen)  # samples, of which each gives so many fewer rows
        rounded = fit_weights(graph, job.profiles, layers, scales, lambda: seen, as_if)[0] if with_weights else {}
        fits[name] = Fit(scales, rounded)
    method, changes = choose_scales(graph, layers, fits, lambda: fresh, half)
    run.console.debug("change of the outputs by method: " + ", ".join(f"{name} {share:.2%}" for name, share in changes.items()))
    return method


@dataclass(frozen=True)
class Written:
    """A cache that this run has written."""

    path: str
    text: str
    identity: Identity


def write_cache(job: Job, text: str, method: str, run: Run, silent: tuple[str, ...]) -> Written | None:
    """Write cache and side file where a cache was asked for; they are worth having even if the build fails.

    Args:
        silent: tensors without a scale because they were always zero.
    """
    path = job.plan.calibration.cache
    if not path:
        return None
    identity = replace(_identity(job), chosen=method, silent=silent)
    side = calibration_cache.side_text(text, identity).encode()
    # the side file first: killed in between, we leave no cache of unknown origin, which a later run would refuse
    run.write_now({calibration_cache.side_file(path): side, path: text.encode("utf-8", "surrogateescape")})
    return Written(path, text, identity)


def describe(run: Run, method: str, used: int | None, skipped: int, cache: str | None, seconds: float) -> None:
    """The result's `calibration` object; `used` is None where the scales come from a cache."""
    run.result["calibration"] = {
        "method": method,
        "samples_used": used,
        "samples_skipped": skipped,
        "cache": cache,
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
    }


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, in MB of 10**6 bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def _identity(job: Job) -> Identity:
    chosen = job.data.calibration
    return Identity(
        model_sha256=job.info.sha256,
        data_sha256=calibration_cache.hash_files(chosen.paths, chosen.origin) if chosen else None,
        samples=len(chosen.paths) if chosen else None,
        preprocessing=job.data.reader.preprocessing.describe() if job.data.reader.preprocessing else None,
        method=job.plan.calibration.method,
    )
