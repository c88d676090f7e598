"""TensorRT's own INT8 calibrator during a build: fed with data, or with scales that are known already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from onnx2trt.base.cores import peak_memory_mb
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import inferences
from onnx2trt.data.reader import Batch, Reader
from onnx2trt.quant import calibration_cache
from onnx2trt.report.result import Calibration
from onnx2trt.trt.calibrator import make_calibrator
from onnx2trt.trt.memory import Cuda, open_cuda


@dataclass(frozen=True)
class Calibrated:
    """What TensorRT's own calibration has found."""

    method: str
    text: str  # of the cache that it made
    silent: tuple[str, ...]  # tensors that were always zero
    about: Calibration  # for the result

    @property
    def scales(self) -> dict[str, float]:
        """Tensor -> scale."""
        return calibration_cache.parse(self.text, "TensorRT's calibration cache")[2]


@contextmanager
def opened(job: Job, scales: dict[str, float] | None, run: Run) -> Iterator[Calibrator | None]:
    """The calibrator for one build, with the device memory that it reads from; None where the build needs none.

    Args:
        scales: that are known already; None: TensorRT computes them from the calibration data.
    """
    if not (job.quantizes and job.plan.calibrator):
        yield None
        return
    cuda = open_cuda()
    try:
        yield Calibrator(job, scales, cuda, run)
    finally:
        cuda.close()


class Calibrator:
    """One calibrator for one build; it has to be kept until the build has ended."""

    def __init__(self, job: Job, scales: dict[str, float] | None, cuda: Cuda, run: Run):
        self._job, self._scales, self._cuda, self._run = job, scales, cuda, run
        self._buffers: dict[str, tuple[int, int]] = {}  # input -> (address, bytes)
        self._skipped: list[tuple[str, str]] = []
        self._object = None

    @property
    def needs_data(self) -> bool:
        return self._scales is None

    def for_tensorrt(self):
        """The object that the builder config takes."""
        job = self._job
        bases, version = job.library.calibrator_bases(), job.library.cache_version
        if self._scales is not None:
            text = calibration_cache.to_text(self._scales, "entropy", version).encode("utf-8", "surrogateescape")
            self._object = make_calibrator(bases["entropy"], 1, iter(()), self._upload, text)
            return self._object
        reader, data = self._reader(), job.data.calibration
        batches = self._run.console.track(self._full(reader.batches(data, self._skipped)), inferences(reader, data), "calibrating")
        size = reader.batch_size(data)
        self._object = make_calibrator(bases[job.plan.native_method], size, batches, self._upload, None, self._run.abort)
        return self._object

    def _reader(self) -> Reader:
        """TensorRT's calibrator takes the opt shapes alone, so where the batch is free they tell how many samples it holds."""
        reader, opt = self._job.data.reader, self._job.profiles[0].opt
        if reader.rows.block != 1 or not opt:
            return reader
        return replace(reader, rows=replace(reader.rows, batch=reader.rows.batch if reader.rows.shared else opt[0], images=opt[0]))

    def _full(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Without the last batch where samples are missing in it: TensorRT would count what fills it. A batch alone is taken as it is."""
        for number, batch in enumerate(batches):
            missing = batch.rows - batch.real_rows
            if missing and number:
                self._run.console.info(f"the last {batch.real_rows} samples are left out: they do not fill a batch of {batch.rows}")
                return
            if missing:
                few = f"{batch.real_rows} samples do not fill a batch of {batch.rows}"
                self._run.console.warn(f"{few}: TensorRT counts the last one {missing + 1} times")
            yield batch

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

    def found(self, seconds: float) -> Calibrated | None:
        """What TensorRT has found, once the build has ended; None where it was given its scales.

        Args:
            seconds: that the build took.

        Raises:
            ConversionError: CALIBRATION, where TensorRT never asked for data.
        """
        if self._scales is not None:
            return None
        if not self._object.batches_used or not self._object.written:
            raise ConversionError(
                "TensorRT built without asking its calibrator for data, so there are no scales", code=ExitCode.CALIBRATION
            )
        text, silent = calibration_cache.without_zeros(self._object.written.decode("utf-8", "surrogateescape"))
        if silent:
            self._run.console.debug(f"tensors without a scale, always zero in calibration: {', '.join(silent)}")
        method, cache = self._job.plan.native_method, self._job.plan.calibration.cache
        used, skipped = self._object.samples_used, len(self._skipped)
        about = Calibration(method, used, skipped, cache, round(seconds, 3), peak_memory_mb(), profile=self._job.usual_profile)
        return Calibrated(method, text, silent, about)
