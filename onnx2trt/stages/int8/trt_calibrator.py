"""TensorRT's own INT8 calibrator: fed with images, or with scales that are known already."""

from __future__ import annotations

from dataclasses import replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.quant import calibration_cache
from onnx2trt.quant import histograms as calibration
from onnx2trt.quant.fit_file import Found
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages.int8.calibrate import describe, write_cache
from onnx2trt.stages.int8.reuse import write_found
from onnx2trt.trt.memory import Cuda


class NativeCalibration:
    """TensorRT's own calibrator for one build, with the device memory that it reads from."""

    def __init__(self, job: Job, prepared: Prepared, run: Run):
        """Where the prepared model has no scales, TensorRT computes them from the calibration data."""
        self._job, self._run, self._prepared = job, run, prepared
        self._scales = prepared.scales
        self._cuda: Cuda | None = None
        self._buffers: dict[str, tuple[int, int]] = {}
        self._skipped: list[tuple[str, str]] = []

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
        return calibration.make_calibrator(bases[job.plan.native_method], reader.batch, tracked, self._upload, None, self._run.abort)

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
        method, kept = self._job.plan.native_method, self._prepared.fallback
        kept_fp32, fp16_fallback = ({node: reason for node, kind, reason in kept if kind == precision} for precision in ("fp32", "fp16"))
        written = write_cache(self._job, text, method, self._run, silent)
        write_found(
            self._job, self._prepared.graph, written, Found(method, Fit({}), kept_fp32=kept_fp32, fp16_fallback=fp16_fallback), self._run
        )
        describe(self._run, method, calibrator.samples_used, len(self._skipped), self._job.plan.calibration.cache, seconds)
        return calibration_cache.parse(text, "TensorRT's calibration cache")[2]
