"""Stage 'calibrate': activation scales, from a cache, on the CPU, or by TensorRT's own calibrator."""

from __future__ import annotations

import os
from dataclasses import replace

import calibration
from core import calibration_cache
from core.calibration_cache import Cache, Identity
from core.errors import ConversionError, ExitCode
from graph.graph import Graph
from graph.guard import choose_scales
from graph.observe import observe_parallel
from graph.qdq import Layer, quantizable_layers
from stages.data import Feeds
from stages.job import Job
from stages.run import Run
from trt.memory import Cuda

METHOD_SAMPLES = 8  # on which calibration methods are compared
NATIVE_METHODS = {"auto": "entropy", "entropy": "entropy", "minmax": "minmax"}  # what TensorRT's calibrators compute themselves


def find_scales(job: Job, graph: Graph, layers: tuple[Layer, ...], run: Run, half: bool) -> dict[str, float]:
    """Tensor -> scale, from the cache where it exists, else by calibration on the CPU, which writes the cache.

    Raises:
        ConversionError: CALIBRATION.
    """
    names = list(dict.fromkeys(layer.activation for layer in layers))
    cache = read_cache(job, run)
    if cache is None:
        return _calibrate(job, graph, layers, names, run, half)
    silent = cache.identity.silent if cache.identity else ()
    missing = [name for name in names if name not in cache.scales and name not in silent]
    if missing:
        raise ConversionError(
            f"calibration cache {cache.path} has no scale for {len(missing)} of {len(names)} tensors of this model, first {missing[0]!r}",
            hint="It belongs to another model: calibrate with --calibration-dir and another --calibration-cache.",
            code=ExitCode.CALIBRATION,
        )
    return cache.scales


def read_cache(job: Job, run: Run) -> Cache | None:
    """The cache named by --calibration-cache, checked; None where there is none yet.

    Raises:
        ConversionError: CALIBRATION, where it is damaged or stale.
    """
    path = job.plan.calibration.cache
    if not path or not os.path.exists(path):
        return None
    cache = calibration_cache.read(path)
    warning = calibration_cache.check_identity(cache, _identity(job), job.plan.calibration.accept_stale)
    if warning:
        run.console.warn(warning)
    describe(run, (cache.identity and cache.identity.chosen) or cache.algorithm, None, 0, path, 0.0)
    return cache


def _calibrate(job: Job, graph: Graph, layers: tuple[Layer, ...], names: list[str], run: Run, half: bool) -> dict[str, float]:
    plan, data = job.plan, job.data
    feeds = Feeds(data.reader, data.calibration, run, "calibrating")
    collector = calibration.Collector()
    with run.stage("calibrate", f"calibrating on {len(data.calibration.paths)} samples of {data.calibration.origin}"):
        observe_parallel(graph, job.profiles, names, feeds, lambda: collector.visit)
        used, skipped = feeds.used, len(feeds.skipped)
        method = plan.calibration.method
        candidates = {name: collector.scales(name) for name in (calibration.METHODS if method == "auto" else (method,))}
        if method == "auto":
            few = Feeds(data.reader, data.calibration.at_most(METHOD_SAMPLES), run, "comparing methods")
            method, noise = choose_scales(graph, layers, candidates, few, half)
            run.console.debug("noise share by method: " + ", ".join(f"{name} {share:.4f}" for name, share in noise.items()))
    silent = tuple(name for name in names if name not in candidates[method])
    write_cache(job, calibration_cache.to_text(candidates[method], method), method, run, silent)
    describe(run, method, used, skipped, plan.calibration.cache, run.console.timings["calibrate"])
    return candidates[method]


def all_scales(job: Job, graph: Graph, run: Run) -> dict[str, float]:
    """Scales of every floating-point tensor by a method that TensorRT's calibrators do not have; writes the cache."""
    return _calibrate(job, graph, quantizable_layers(graph), graph.float_tensors(), run, half=False)


def write_cache(job: Job, text: str, method: str, run: Run, silent: tuple[str, ...] = ()) -> None:
    """Write cache and side file where a cache was asked for; they are worth having even if the build fails.

    Args:
        silent: tensors without a scale because they were always zero.
    """
    path = job.plan.calibration.cache
    if path:
        identity = replace(_identity(job), chosen=method, silent=silent)
        run.write_now(path, text.encode("utf-8", "surrogateescape"))
        run.write_now(calibration_cache.side_file(path), calibration_cache.side_text(text, identity).encode())


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


class NativeCalibration:
    """TensorRT's own calibrator for one build, with the device memory that it reads from."""

    def __init__(self, job: Job, run: Run):
        """Look for a cache; without one, data is needed.

        Raises:
            ConversionError: CALIBRATION.
        """
        self._job, self._run = job, run
        self.method = NATIVE_METHODS.get(job.plan.calibration.method)
        cache = read_cache(job, run)
        self._scales = cache.scales if cache else None
        self._cuda: Cuda | None = None
        self._buffers: dict[str, tuple[int, int]] = {}
        self._skipped: list[tuple[str, str]] = []

    def scales_from_cpu(self, scales: dict[str, float]) -> None:
        """Hand over scales that TensorRT's calibrators cannot compute, as a cache."""
        self._scales = scales

    @property
    def needs_data(self) -> bool:
        return self._scales is None

    def calibrator(self, cuda: Cuda):
        """The calibrator object; keep this NativeCalibration alive until the build has ended."""
        self._cuda, job = cuda, self._job
        bases, version = job.library.calibrator_bases(), job.library.cache_version
        if self._scales is not None:
            text = calibration_cache.to_text(self._scales, "entropy", version).encode("utf-8", "surrogateescape")
            return calibration.make_calibrator(bases["entropy"], 1, iter(()), self._upload, text)
        reader = replace(job.data.reader, batch=job.profiles[0].opt[0] if job.profiles[0].opt else 1)
        batches = reader.batches(job.data.calibration, self._skipped)
        total = -(-len(job.data.calibration.paths) // reader.batch)
        tracked = self._run.console.track(batches, total, "calibrating")
        return calibration.make_calibrator(bases[self.method], reader.batch, tracked, self._upload, None, self._run.abort)

    def _upload(self, arrays) -> dict[str, int]:
        for profile in self._job.profiles:
            array = arrays[profile.name]
            if array.shape != profile.opt:
                raise ConversionError(
                    f"{self._job.data.calibration.origin}: {profile.name!r} has shape {list(array.shape)}; "
                    f"TensorRT's calibrator takes {list(profile.opt)} only",
                    hint="Give data of the opt shape, or use --quantization qdq.",
                    code=ExitCode.CALIBRATION,
                )
            address, size = self._buffers.get(profile.name, (0, -1))
            if size < array.nbytes:
                address = self._cuda.allocate(array.nbytes)
                self._buffers[profile.name] = (address, array.nbytes)
            self._cuda.upload(address, array, 0)
        return {name: address for name, (address, _) in self._buffers.items()}

    def finish(self, calibrator, seconds: float) -> dict[str, float]:
        """After the build: write the cache that TensorRT made, and say what was used.

        Returns:
            Tensor -> scale.

        Raises:
            ConversionError: CALIBRATION, where TensorRT never asked for data.
        """
        if self._scales is not None:
            return self._scales
        if not calibrator.batches_used or not calibrator.written:
            raise ConversionError(
                "TensorRT built without asking its calibrator for data, so there are no scales", code=ExitCode.CALIBRATION
            )
        text, silent = calibration_cache.without_zeros(calibrator.written.decode("utf-8", "surrogateescape"))
        if silent:
            self._run.console.debug(f"tensors without a scale, always zero in calibration: {', '.join(silent)}")
        write_cache(self._job, text, self.method, self._run, silent)
        describe(self._run, self.method, calibrator.samples_used, len(self._skipped), self._job.plan.calibration.cache, seconds)
        return calibration_cache.parse(text, "TensorRT's calibration cache")[2]
