"""Optimization profiles from shape flags, and which input takes an image. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import ImageInput, Profile, TensorSpec, dims
from onnx2trt.base.words import to_type
from onnx2trt.plan.parts import Shapes

BOUNDS = ("min", "opt", "max")
IMAGE_CHANNELS = (1, 3, 4)
IMAGE_DTYPES = ("float32", "float16", "uint8")


def make_profiles(inputs: tuple[TensorSpec, ...], shapes: Shapes) -> tuple[Profile, ...]:
    """A complete profile for every input.

    A free first dimension is the batch: min 1, opt = max = --max-batch-size. Other free dimensions need --opt-shapes;
    what --min-shapes and --max-shapes do not say is taken from opt, but for the batch.

    Raises:
        ConversionError: USAGE, with the flag to add or the shape that does not fit the model.
    """
    typed = _typed(inputs, shapes)
    lacking = tuple(spec for spec in inputs if _lacks(spec, typed))
    if lacking:
        raise shapes_missing(lacking, {spec.name: example_shape(spec) for spec in lacking})
    profiles = tuple(_profile(spec, {bound: typed[bound].get(spec.name) for bound in typed}, shapes.max_batch) for spec in inputs)
    profiles = _one_size(inputs, profiles, typed["min"])
    batches = [spec.shape[0] if spec.shape else None for spec in inputs if spec.shape != ()]
    if shapes.max_batch > 1 and not any(batch == shapes.max_batch or not isinstance(batch, int) for batch in batches):
        fixed = ", ".join(f"{spec.name} {dims(spec.shape or ())}" for spec in inputs)
        raise ConversionError(
            f"--max-batch-size {shapes.max_batch}, but every input of the model has another fixed batch: {fixed}",
            hint="Export the model with a free batch dimension, or leave the flag out.",
            code=ExitCode.USAGE,
        )
    return profiles


def _one_size(inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...], typed: dict[str, tuple[int, ...]]) -> tuple[Profile, ...]:
    """A first dimension whose symbol stands in another input, too, but not first, is never smaller than it is there: of [time, batch,
    features] and the lengths [batch], one tells the size of both.
    """
    least: dict[str, int] = {}
    for spec, profile in zip(inputs, profiles):
        for dim, size in list(zip(spec.shape or (), profile.min))[1:]:
            if isinstance(dim, str) and dim:
                least[dim] = max(size, least.get(dim, 1))
    found = []
    for spec, profile in zip(inputs, profiles):
        first = least.get(spec.shape[0], 1) if spec.shape and spec.name not in typed else 1
        fits = first > profile.min[0] and first <= profile.opt[0] if profile.min else False
        found.append(replace(profile, min=(first, *profile.min[1:])) if fits else profile)
    return tuple(found)


BATCH_NAMES = frozenset(("b", "n", "bs", "batch", "batchsize", "batch_size"))


def batch_axes(inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...]) -> dict[str, int]:
    """Input -> axis of a batch of which the profiles allow several samples; empty where there is none.

    It is the first axis of every input that is not fixed, where that is free; else the one that is called a batch.
    """
    free = [spec for spec in inputs if spec.dynamic]
    if any(spec.shape is None for spec in free):
        return {}
    axes = {spec.name: 0 for spec in free if not isinstance(spec.shape[0], int)}
    if len(axes) < len(free):
        named = {dim for spec in free for dim in spec.shape if isinstance(dim, str) and dim.lower() in BATCH_NAMES}
        axes = {spec.name: spec.shape.index(dim) for dim in named for spec in free if dim in spec.shape} if len(named) == 1 else {}
    return axes if all(profile.max[axes[profile.name]] >= 2 for profile in profiles if profile.name in axes) else {}


def _by_name(pairs, inputs: tuple[TensorSpec, ...], flag: str) -> dict[str, tuple[int, ...]]:
    names = [spec.name for spec in inputs]
    found = {}
    for name, shape in pairs:
        if not name and len(names) == 1:
            name = names[0]
        if name not in names:
            asked = f"names input {name!r}" if name else "names no input"
            raise ConversionError(
                f"{flag} {asked}; the model's inputs are {', '.join(repr(n) for n in names) or 'none'}",
                hint=f"Write for example {flag} {names[0]}:{dims(shape)}" if names else "Leave the flag out.",
                code=ExitCode.USAGE,
            )
        if name in found:
            raise ConversionError(f"{flag} names input {name!r} twice, once without its name", code=ExitCode.USAGE)
        found[name] = shape
    return found


def _profile(spec: TensorSpec, typed: dict[str, tuple[int, ...] | None], max_batch: int) -> Profile:
    shape = spec.shape
    if shape is None:
        shape = (None,) * len(typed["opt"])
    for bound, value in typed.items():
        _check_fits(spec, shape, bound, value)
    given = typed["opt"] or typed["max"] or typed["min"]

    def fill(batch: int, others) -> tuple[int, ...]:
        return tuple(dim if isinstance(dim, int) else (others[i] if i else batch) for i, dim in enumerate(shape))

    opt = typed["opt"] or fill(typed["max"][0] if typed["max"] else max_batch, given)
    low = typed["min"] or fill(1, opt)
    high = typed["max"] or fill(max(max_batch, *opt[:1]) if opt else 1, opt)
    if typed["max"] and max_batch > high[0] and not isinstance(shape[0], int):
        raise ConversionError(f"--max-batch-size {max_batch}, but --max-shapes {spec.name}:{dims(high)}", code=ExitCode.USAGE)
    if not all(a <= b <= c for a, b, c in zip(low, opt, high)):
        raise ConversionError(
            f"input {spec.name!r}: min {dims(low)}, opt {dims(opt)}, max {dims(high)} are not in ascending order",
            hint="Check --min-shapes, --opt-shapes, --max-shapes and --max-batch-size.",
            code=ExitCode.USAGE,
        )
    return Profile(spec.name, low, opt, high)


def _check_fits(spec: TensorSpec, shape, bound: str, value) -> None:
    if value is None:
        return
    fits = len(value) == len(shape) and all(not isinstance(dim, int) or dim == v for dim, v in zip(shape, value))
    if not fits:
        raise ConversionError(
            f"--{bound}-shapes {spec.name}:{dims(value)} does not fit the model's {spec.name} {dims(shape)}",
            hint="Free dimensions are shown by name or ?; the fixed ones must be repeated as they are.",
            code=ExitCode.USAGE,
        )


def _typed(inputs: tuple[TensorSpec, ...], shapes: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    """min, opt, max -> input -> shape, of the shapes that were given, and of those that follow from them: one symbol is one size."""
    typed = {bound: _by_name(getattr(shapes, bound), inputs, f"--{bound}-shapes") for bound in BOUNDS}
    sizes: dict[str, set[tuple[int, ...]]] = {}
    for spec in inputs:
        if not _lacks(spec, typed) and spec.shape is not None:
            profile = _profile(spec, {bound: typed[bound].get(spec.name) for bound in BOUNDS}, shapes.max_batch)
            for dim, *triple in zip(spec.shape, profile.min, profile.opt, profile.max):
                if isinstance(dim, str) and dim.isidentifier():  # "?" and the like stand for anything
                    sizes.setdefault(dim, set()).add(tuple(triple))
    known = {dim: next(iter(found)) for dim, found in sizes.items() if len(found) == 1}
    _take_image_size(inputs, typed, shapes)
    for spec in inputs:
        if _lacks(spec, typed) and spec.shape is not None and all(isinstance(dim, int) or dim in known for dim in spec.shape):
            for place, bound in enumerate(BOUNDS):
                typed[bound][spec.name] = tuple(dim if isinstance(dim, int) else known[dim][place] for dim in spec.shape)
    return typed


def image_axes(spec: TensorSpec) -> tuple[int, int] | None:
    """The axes of height and width, of an input that looks like images; None for others."""
    if spec.shape is None or len(spec.shape) != 4:
        return None
    return (2, 3) if spec.shape[1] in IMAGE_CHANNELS else (1, 2) if spec.shape[3] in IMAGE_CHANNELS else None


def _take_image_size(inputs: tuple[TensorSpec, ...], typed: dict[str, dict[str, tuple[int, ...]]], shapes: Shapes) -> None:
    """Add to the usual shapes what --imgsz says.

    Raises:
        ConversionError: USAGE, where no input takes images, or one has another size.
    """
    if shapes.image_size is None:
        return
    asked, images = f"--imgsz {dims(shapes.image_size)}", [spec for spec in inputs if image_axes(spec)]
    if not images:
        raise ConversionError(
            f"{asked}: no input of the model looks like images, with 1, 3 or 4 channels: "
            + ", ".join(f"{spec.name} {dims(spec.shape or ())}" for spec in inputs),
            hint="Give shapes with --opt-shapes NAME:DIMS.",
            code=ExitCode.USAGE,
        )
    for spec in images:
        size = dict(zip(image_axes(spec), shapes.image_size))
        given = typed["opt"].get(spec.name, spec.shape)
        if any(isinstance(given[axis], int) and given[axis] != side for axis, side in size.items()):
            what = f"--opt-shapes {spec.name}:{dims(given)}" if spec.name in typed["opt"] else f"input {spec.name!r} is {dims(given)}"
            raise ConversionError(f"{asked}, but {what}", hint="Leave --imgsz out, or give the size that is there.", code=ExitCode.USAGE)
        if spec.name not in typed["opt"]:
            most = typed["max"].get(spec.name)
            batch = most[0] if most else shapes.max_batch
            typed["opt"][spec.name] = tuple(dim if isinstance(dim, int) else size.get(axis, batch) for axis, dim in enumerate(spec.shape))


def _lacks(spec: TensorSpec, typed: dict[str, dict[str, tuple[int, ...]]]) -> bool:
    """Whether an input has free dimensions, besides the batch, and was given no shape."""
    given = any(spec.name in typed[bound] for bound in (("opt",) if spec.shape is None else BOUNDS))
    return not given and (spec.shape is None or any(not isinstance(dim, int) for dim in spec.shape[1:]))


def given_shapes(inputs: tuple[TensorSpec, ...], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Input -> its usual shape, of those that were given or follow from others."""
    typed = _typed(inputs, shapes)
    return {**typed["min"], **typed["max"], **typed["opt"]}


def missing_shapes(inputs: tuple[TensorSpec, ...], shapes: Shapes) -> tuple[TensorSpec, ...]:
    """The inputs with free dimensions, besides the batch, to which no shape was given, and of which none follows from the others.

    Raises:
        ConversionError: USAGE, for a shape that is of no input.
    """
    typed = _typed(inputs, shapes)
    return tuple(spec for spec in inputs if _lacks(spec, typed))


def shapes_missing(
    lacking: tuple[TensorSpec, ...],
    examples: dict[str, tuple[int, ...]],
    tried: str = "",
    bounds: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = MappingProxyType({}),
) -> ConversionError:
    """All inputs that need a shape, in one error.

    Args:
        examples: input -> a shape to write in the hint.
        tried: what is known of these shapes.
        bounds: input -> (smallest, largest) shape to write there, too, where sizes vary.
    """
    ranked = [spec for spec in lacking if spec.shape is not None]
    rankless = [spec for spec in lacking if spec.shape is None]
    lines = [f"input {spec.name!r} has free dimensions besides the batch: {_free(spec)} of {dims(spec.shape)}" for spec in ranked]
    lines += [f"input {spec.name!r} has no declared rank" for spec in rankless]
    flags = [to_type(spec.name, dims(examples[spec.name])) for spec in ranked] + [to_type(spec.name, "DIMS") for spec in rankless]
    words = " with the sizes you will use (and --min-shapes / --max-shapes for a range)" if ranked else " with all its dimensions"
    if bounds:
        least, most = (" ".join(to_type(name, dims(both[place])) for name, both in bounds.items()) for place in (0, 1))
        words = f" --min-shapes {least} --max-shapes {most}"
    alone = f", or {_image_size_flag(lacking[0], examples)}" if len(lacking) == 1 and image_axes(lacking[0]) else ""
    return ConversionError("\n  ".join(lines), hint=f"Add --opt-shapes {' '.join(flags)}{words}{alone}.{tried}", code=ExitCode.USAGE)


def _image_size_flag(spec: TensorSpec, examples: dict[str, tuple[int, ...]]) -> str:
    height, width = (examples[spec.name][axis] for axis in image_axes(spec))
    return f"--imgsz {height}" if height == width else f"--imgsz {height}x{width}"


def _free(spec: TensorSpec) -> str:
    return ", ".join(f"dimension {i} ({dim or '?'})" for i, dim in enumerate(spec.shape) if not isinstance(dim, int) and i)


def example_shape(spec: TensorSpec) -> tuple[int, ...]:
    """A shape to print in a hint: fixed dimensions as they are, batch 1, image sizes 224, others 16."""
    image = spec.shape is not None and len(spec.shape) == 4
    return tuple(dim if isinstance(dim, int) else (1 if i == 0 else 224 if image else 16) for i, dim in enumerate(spec.shape or ()))


def image_input(inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...]) -> ImageInput:
    """The input that an image can be fed to.

    Raises:
        ConversionError: USAGE, saying why images cannot be fed and what to give instead.
    """
    why = image_refusal(inputs, profiles)
    if why:
        names = ", ".join(spec.name for spec in inputs)
        raise ConversionError(
            f"images cannot be fed to this model: {why}",
            hint=f"Give .npz files with one array for each input ({names}) instead of images.",
            code=ExitCode.USAGE,
        )
    spec, opt = inputs[0], profiles[0].opt
    batch = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1
    if opt[1] in IMAGE_CHANNELS:
        return ImageInput(spec.name, "NCHW", batch, opt[1], opt[2], opt[3], spec.dtype)
    return ImageInput(spec.name, "NHWC", batch, opt[3], opt[1], opt[2], spec.dtype)


def image_refusal(inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...]) -> str:
    """Why no image can be fed; empty where one can."""
    if len(inputs) != 1:
        return f"it has {len(inputs)} inputs"
    spec, opt = inputs[0], profiles[0].opt
    if len(opt) != 4 or (opt[1] not in IMAGE_CHANNELS and opt[3] not in IMAGE_CHANNELS):
        return f"input {spec.name!r} is {dims(opt)}, neither NCHW nor NHWC with 1, 3 or 4 channels"
    if 0 in opt:
        return f"input {spec.name!r} is {dims(opt)}, which holds nothing"
    if spec.dtype not in IMAGE_DTYPES:
        return f"input {spec.name!r} is {spec.dtype}, neither float nor uint8"
    return ""
