"""Shapes of all inputs, and the values of those that decide about other shapes: from the flags, and from the data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import ModelInfo, Profile, TensorSpec, dims, spanning
from onnx2trt.base.told import told_by
from onnx2trt.base.words import to_type
from onnx2trt.conversion.proposed_sizes import Example, propose
from onnx2trt.conversion.run import Run
from onnx2trt.data.samples import arrays_of
from onnx2trt.model.graph import Graph
from onnx2trt.model.shape_inputs import may_be_shape_input, shape_inputs
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.shapes import image_axes, make_profiles, missing_shapes, shapes_missing

Values = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # smallest, usual, largest


def input_profiles(plan: Plan, model, info: ModelInfo, run: Run) -> tuple[Profile, ...]:
    """A complete profile for every input.

    Args:
        model: onnx.ModelProto, whose inputs are those of `info`.

    Raises:
        ConversionError: USAGE, with all that is missing and the flags to add, at sizes that the model runs with where such are found.
    """
    values = _typed_values(plan, info)
    asked = [spec for spec in info.inputs if may_be_shape_input(spec) and spec.name not in values]
    names = shape_inputs(Graph.from_model(model), asked) if asked else ()
    found = {spec.name: _values_in_data(plan, spec) for spec in asked if spec.name in names}
    for name, given in found.items():
        if given:
            run.console.info(f"values of {name!r}, which decide about shapes: {_in_words(given)}, as in the data; --shape-values widens it")
            values[name] = given
    if plan.shapes.profiles:
        run.console.info(
            f"profile {plan.shapes.profiles[0][0]!r}, the first, is the usual one: calibrated, compared and timed at its opt shapes"
        )
        return _several(plan, info, values)
    lacking = missing_shapes(info.inputs, plan.shapes)
    valueless = tuple(spec for spec in asked if spec.name in names and spec.name not in values)
    if lacking or valueless:
        example = propose(plan, model, info, lacking, valueless, {name: given[1] for name, given in values.items()})
        raise _missing(lacking, valueless, example)
    profiles = make_profiles(info.inputs, plan.shapes)
    _check_stride(info, profiles)
    return tuple(replace(profile, values=values.get(profile.name)) for profile in profiles)


def _several(plan: Plan, info: ModelInfo, values: dict[str, Values]) -> tuple[Profile, ...]:
    """What --profile says: each with all inputs, together as profiles that span them.

    Raises:
        ConversionError: USAGE, naming the profile at fault.
    """
    groups = []
    for name, shapes in plan.shapes.profiles:
        try:
            made = make_profiles(info.inputs, shapes)
            _check_stride(info, made)
        except ConversionError as error:
            hint = f"Give every input with free sizes its shapes in --profile {name}=INPUT:MIN:OPT:MAX,INPUT:MIN:OPT:MAX."
            raise ConversionError(f"--profile {name}: {error.message}", hint=hint, code=error.code) from None
        groups.append(tuple(replace(profile, values=values.get(profile.name)) for profile in made))
    return spanning(groups)


def _check_stride(info: ModelInfo, profiles: tuple[Profile, ...]) -> None:
    """A model that says its stride takes no other sizes; without this ONNX Runtime would refuse them in words about some node.

    Raises:
        ConversionError: USAGE.
    """
    stride = told_by(info.metadata).stride
    for spec, profile in zip(info.inputs, profiles):
        axes = [axis for axis in image_axes(spec) or () if not isinstance(spec.shape[axis], int)]
        for bound in ("opt", "min", "max"):
            shape = getattr(profile, bound)
            if any(shape[axis] % stride for axis in axes):
                size = dims(tuple(shape[axis] for axis in image_axes(spec)))
                near = [dims(tuple(max(stride, _near(shape[axis], stride, up)) for axis in image_axes(spec))) for up in (False, True)]
                raise ConversionError(
                    f"{size} of input {spec.name!r} ({bound} {dims(shape)}) is no multiple of the model's stride, {stride}, "
                    "as the model says in its metadata",
                    hint=f"Take {' or '.join(dict.fromkeys(near))}, as --imgsz or in the shapes.",
                    code=ExitCode.USAGE,
                )


def _near(size: int, stride: int, up: bool) -> int:
    """The multiple of a stride next to a size, above or below."""
    return -(-size // stride) * stride if up else size // stride * stride


def _typed_values(plan: Plan, info: ModelInfo) -> dict[str, Values]:
    """What --shape-values says.

    Raises:
        ConversionError: USAGE, for an input that is not there, that TensorRT cannot take for one, or with another number of values.
    """
    specs, found = {spec.name: spec for spec in info.inputs}, {}
    for name, values in plan.shapes.shape_values:
        spec = specs.get(name)
        if spec is None:
            raise ConversionError(
                f"--shape-values names input {name!r}; the model's inputs are {', '.join(map(repr, specs))}", code=ExitCode.USAGE
            )
        if not may_be_shape_input(spec):
            shape = dims(spec.shape) if spec.shape is not None else "of any rank"
            raise ConversionError(
                f"--shape-values {name}: the input is {spec.dtype} {shape}; values that decide about shapes are int32 or int64, "
                "a scalar or a list of fixed length",
                hint="The sizes of an input itself are given with --opt-shapes.",
                code=ExitCode.USAGE,
            )
        count = math.prod(spec.shape)
        if len(values[0]) == 1 and count > 1:
            values = tuple(row * count for row in values)
        if len(values[0]) != count:
            raise ConversionError(
                f"--shape-values {name} has {len(values[0])} values; the input {name!r} has {count}",
                hint=f"Write --shape-values {to_type(name, dims(('V',) * count))}, or with a range {to_type(name, 'MIN:OPT:MAX')}.",
                code=ExitCode.USAGE,
            )
        found[name] = values
    return found


def _values_in_data(plan: Plan, spec: TensorSpec) -> Values | None:
    """The smallest, the middle and the largest values of an input in the user's data; None where they tell none."""
    rows = [array.reshape(-1) for array in arrays_of(plan, spec.name) if array.size == math.prod(spec.shape) and array.dtype.kind in "iu"]
    if not rows:
        return None
    ordered = np.sort(np.stack(rows).astype(np.int64), axis=0)
    return tuple(tuple(map(int, ordered[place])) for place in (0, len(ordered) // 2, -1))


def _in_words(values: Values) -> str:
    return dims(values[0]) if values[0] == values[2] else f"{dims(values[0])} to {dims(values[2])}"


def _missing(lacking: tuple[TensorSpec, ...], valueless: tuple[TensorSpec, ...], example: Example) -> ConversionError:
    """Everything that has to be given, in one error."""
    told = f" {example.told}" if example.told else ""
    if not valueless:
        return shapes_missing(lacking, example.shapes, told, example.bounds)
    lines = [f"values of input {spec.name!r} decide about shapes, and TensorRT needs to know between which they lie" for spec in valueless]
    flags = " ".join(to_type(spec.name, dims(example.values[spec.name])) for spec in valueless)
    hint = f"Add --shape-values {flags}, or with a range NAME:MIN:OPT:MAX, or give data that hold them; --bind-input makes it a constant."
    if lacking:
        shapes = shapes_missing(lacking, example.shapes)
        return ConversionError("\n  ".join([shapes.message, *lines]), hint=f"{shapes.hint} {hint}{told}", code=ExitCode.USAGE)
    return ConversionError("\n  ".join(lines), hint=hint + told, code=ExitCode.USAGE)
