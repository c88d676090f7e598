"""Which data is used for what, decided before any long work; and feeding it to graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import ModelInfo, Profile
from onnx2trt.conversion.run import Run
from onnx2trt.data import samples
from onnx2trt.data.reader import Batch, Preprocessing, Reader, make_preprocessing
from onnx2trt.data.samples import Dataset
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.shapes import image_input

LEAST_USABLE = 0.5  # share of the calibration files that must be readable
RANGE_SAMPLES = 8  # for the largest values of every tensor; the margin of rewrite.keep_fp32.HELD_ABOVE covers the others
VALIDATION_SAMPLES = 500
COMPARED_SAMPLES = 20  # of the calibration data, where no other was given


@dataclass(frozen=True)
class Data:
    """The data sets of a run; None where the user gave none."""

    reader: Reader
    calibration: Dataset | None
    validation: Dataset | None
    test: Dataset | None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the image input."""
        pre = self.reader.preprocessing
        return (pre.height, pre.width) if pre else None

    @property
    def channels_last(self) -> bool:
        pre = self.reader.preprocessing
        return pre is not None and pre.layout == "NHWC"

    def any(self) -> Dataset:
        """The richest data there is; synthetic where there is none."""
        return self.calibration or self.validation or self.test or samples.synthetic()

    def to_compare(self) -> tuple[Dataset, ...]:
        """What accuracy is measured on: the user's data for that, else calibration data (the unused first), else synthetic data."""
        given = tuple(data for data in (self.validation, self.test) if data)
        if given or self.calibration is None:
            return given or (samples.synthetic(),)
        return (replace(self.calibration, paths=self.calibration.unused or self.calibration.paths).at_most(COMPARED_SAMPLES),)


def choose_data(plan: Plan, model: ModelInfo, profiles: tuple[Profile, ...]) -> Data:
    """Find the files, and prove that the test file can be read.

    Raises:
        ConversionError: CALIBRATION or VALIDATION for the data, USAGE where images do not go with the model.
    """
    calibration = validation = test = None
    if plan.calibration.directory:
        calibration = samples.find(plan.calibration.directory, "--calibration-dir", plan.calibration.samples, ExitCode.CALIBRATION)
    if plan.validation.directory and plan.validation.enabled:
        validation = samples.find(plan.validation.directory, "--validation-dir", VALIDATION_SAMPLES, ExitCode.VALIDATION)
    if plan.validation.test_image and plan.validation.enabled:
        test = samples.single(plan.validation.test_image, "--test-image", ExitCode.VALIDATION)
    images = any(data and data.kind == "images" for data in (calibration, validation, test))
    preprocessing: Preprocessing | None = None
    if images:
        preprocessing = make_preprocessing(plan.preprocess, image_input(model.inputs, profiles))
    reader = Reader(model.inputs, profiles, preprocessing)
    if test:
        for batch in reader.batches(test):  # raises where it cannot be read
            _check_shapes(batch.arrays, profiles, test)
    return Data(reader, calibration, validation, test)


def _check_shapes(arrays: dict[str, np.ndarray], profiles: tuple[Profile, ...], data: Dataset) -> None:
    """Data outside the optimization profile could not be fed to the engine."""
    for profile in profiles:
        shape = arrays[profile.name].shape
        fits = len(shape) == len(profile.min) and all(a <= b <= c for a, b, c in zip(profile.min, shape, profile.max))
        if not fits:
            raise ConversionError(
                f"{data.origin}: {profile.name!r} has shape {list(shape)}, outside the profile {list(profile.min)} to {list(profile.max)}",
                hint="Give data of a fitting shape, or widen --min-shapes / --max-shapes.",
                code=data.code,
            )


@dataclass
class Feeds:
    """A data set as arrays for a graph, any number of times; counts what was skipped."""

    reader: Reader
    data: Dataset
    run: Run
    label: str
    used: int = 0  # samples of the last pass
    skipped: list[tuple[str, str]] = field(default_factory=list)
    paths: tuple[str, ...] = ()  # files of the present arrays
    cuts: tuple[Dataset, ...] = ()  # the data in pieces, where no batch may reach from one into the next

    def __call__(self) -> Iterator[dict[str, np.ndarray]]:
        """One pass.

        Raises:
            ConversionError: the data's own code, where too few files are usable.
        """
        self.used, self.skipped, flat = 0, [], 0
        batches = chain.from_iterable(self.reader.batches(piece, self.skipped) for piece in self.cuts or (self.data,))
        for batch in self.run.console.track(batches, max(len(self.data.paths), 1), self.label):
            _check_shapes(batch.arrays, self.reader.profiles, self.data)
            self.used += len(batch.paths)
            self.paths = tuple(batch.paths)
            flat += all(array.size and array.min() == array.max() for array in batch.arrays.values())
            yield batch.arrays
        self._judge(flat)

    def _judge(self, flat: int) -> None:
        total = self.used + len(self.skipped)
        reasons = "; ".join(f"{path} {reason}" for path, reason in self.skipped[:3])
        if self.skipped and self.used < LEAST_USABLE * total:
            raise ConversionError(
                f"only {self.used} of {total} files of {self.data.origin} can be used: {reasons}",
                hint="Remove or replace the damaged files.",
                code=self.data.code,
            )
        if self.skipped:
            self.run.console.warn(f"{len(self.skipped)} of {total} files of {self.data.origin} were skipped: {reasons}")
        if flat:
            if flat == self.used and self.data.kind != "synthetic":
                raise ConversionError(
                    f"every sample of {self.data.origin} is one constant value",
                    hint="Give real data: constant samples say nothing about the ranges of a model.",
                    code=self.data.code,
                )
            self.run.console.warn(f"{flat} of {self.used} samples of {self.data.origin} are one constant value")


def batches_to_compare(data: Data, pieces: Iterable[Dataset]) -> Iterator[Batch]:
    """Data sets to measure accuracy on. Damaged files of calibration data are left out, as in calibration, which has said so.

    Raises:
        ConversionError: VALIDATION, for a damaged file of data that was given to be measured on.
    """
    for piece in pieces:
        yield from data.reader.batches(piece, [] if piece.code is ExitCode.CALIBRATION else None)


def range_feeds(data: Data, run: Run) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    """A few samples of the richest data, for the ranges of all tensors."""
    return Feeds(data.reader, data.any().at_most(RANGE_SAMPLES), run, "measuring ranges")
