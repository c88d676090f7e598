"""Which data is used for what, decided before any long work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import ModelInfo, Profile, dims, groups_of
from onnx2trt.base.words import to_type
from onnx2trt.data import samples
from onnx2trt.data.reader import Preprocessing, Reader, make_preprocessing
from onnx2trt.data.rows import rows_of
from onnx2trt.data.samples import Dataset
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.shapes import image_input, image_refusal

VALIDATION_SAMPLES = 500
COMPARED_SAMPLES = 20  # of the calibration data, where no other was given


@dataclass(frozen=True)
class Data:
    """The data sets of a run; None where the user gave none."""

    reader: Reader
    calibration: Dataset | None
    validation: Dataset | None
    test: Dataset | None
    unseen: Preprocessing | None = None  # of an input that looks like images, where no data were given: what a deployment shall do

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is recorded for a deployment."""
        return self.reader.preprocessing or self.unseen

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
        return (replace(self.calibration, samples=self.calibration.unused or self.calibration.samples).at_most(COMPARED_SAMPLES),)


def choose_data(plan: Plan, model: ModelInfo, profiles: tuple[Profile, ...], independent: bool = True) -> Data:
    """Find the samples, and prove that the test file can be read.

    Args:
        independent: the outputs for one entry along the first axis do not depend on the others, so each is a sample.

    Raises:
        ConversionError: CALIBRATION or VALIDATION for the data, USAGE where images do not go with the model.
    """
    rows = rows_of(model.inputs, profiles, independent)
    count = partial(rows.count, inputs=model.inputs)
    calibration = validation = test = None
    if plan.calibration.directory:
        calibration = samples.find(plan.calibration.directory, "--calibration-dir", plan.calibration.samples, ExitCode.CALIBRATION, count)
    if plan.validation.directory and plan.validation.enabled:
        validation = samples.find(plan.validation.directory, plan.validation.flags[1], VALIDATION_SAMPLES, ExitCode.VALIDATION, count)
    if plan.validation.test_image and plan.validation.enabled:
        test = samples.single(plan.validation.test_image, plan.validation.flags[0], ExitCode.VALIDATION, count)
    images = any(data and data.kind == "images" for data in (calibration, validation, test))
    preprocessing, unseen = None, None
    if images:
        preprocessing = make_preprocessing(plan.preprocess, image_input(model.inputs, profiles))
    elif not (calibration or validation or test or image_refusal(model.inputs, profiles)):
        unseen = make_preprocessing(plan.preprocess, image_input(model.inputs, profiles))
    reader = Reader(model.inputs, profiles, preprocessing, rows, model.bound)
    if test:
        for batch in reader.batches(test):  # raises where it cannot be read
            check_shapes(batch.arrays, profiles, test)
    return Data(reader, calibration, validation, test, unseen)


def has_arrays(plan: Plan) -> bool:
    """Whether the user gave files of arrays, rather than images."""
    folders = (plan.calibration.directory, plan.validation.directory)
    return samples.is_array(plan.validation.test_image or "") or any(samples.holds_arrays(folder) for folder in folders if folder)


def check_shapes(arrays: dict[str, np.ndarray], profiles: tuple[Profile, ...], data: Dataset) -> None:
    """Data outside the optimization profile could not be fed to the engine; where there are several, one of them has to take all inputs."""
    groups = groups_of(profiles)
    shapes = {profile.name: arrays[profile.name].shape for profile in profiles}
    fitting = next((group for group in groups if all(part.takes(shapes[part.name]) for part in group)), None)
    if fitting is None and len(groups) > 1:
        given = ", ".join(f"{name}:{dims(shape)}" for name, shape in shapes.items())
        raise ConversionError(f"{data.origin}: {given} fits none of the {len(groups)} profiles", hint="Widen a --profile.", code=data.code)
    for profile in fitting or profiles:
        shape = shapes[profile.name]
        if not profile.takes(shape):
            raise ConversionError(
                f"{data.origin}: {profile.name!r} has shape {list(shape)}, outside the profile {list(profile.min)} to {list(profile.max)}",
                hint="Give data of a fitting shape, or widen --min-shapes / --max-shapes.",
                code=data.code,
            )
        if profile.values is not None:
            _check_values(arrays[profile.name], profile, data)


def _check_values(array: np.ndarray, profile: Profile, data: Dataset) -> None:
    """Of an input whose values decide about shapes."""
    least, _, most = profile.values
    if not all(a <= b <= c for a, b, c in zip(least, array.flat, most)):
        raise ConversionError(
            f"{data.origin}: {profile.name!r} is {array.tolist()}, outside of what is promised, {list(least)} to {list(most)}",
            hint=f"Give other data, or widen --shape-values {to_type(profile.name, 'MIN:OPT:MAX')}.",
            code=data.code,
        )
