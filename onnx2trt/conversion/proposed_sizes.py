"""Sizes to propose where none were given: those of the data, else some that the model runs with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.model_info import ModelInfo, TensorSpec
from onnx2trt.base.told import told_by
from onnx2trt.conversion.promised_shapes import Sizes, made_up, too_much
from onnx2trt.data.samples import arrays_of
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.shapes import IMAGE_CHANNELS, example_shape, given_shapes

IMAGE_SIZES = (224, 640, 320, 256, 512, 416, 384, 448, 288, 299, 336, 128, 96, 64, 48, 32, 28, 1024)
OTHER_SIZES = (16, 32, 8, 4, 2, 3, 17, 33, 64, 80, 100, 128, 256, 512, 576, 1024, 4096, 16000, 1)
USUAL_SIZES = {"images": (640,)}  # name of an input -> what models that call it so are mostly trained at: detectors
VALUES = (16, 8, 4, 2, 1, 32, 64, 224)
MOST_SECONDS = 6.0  # for all trials
MOST_VALUES = 2**24  # in the inputs of a trial
SURELY_SMALL = 300  # sizes up to here are tried without a look at the memory that they take
MOST_BYTES = 2**30  # of a model that is tried: a larger one takes longer to load than anybody waits for a hint

Variable = tuple[str, object]  # a free dimension, by its symbol or by its input and axis, or all values of an input


@dataclass(frozen=True)
class Example:
    """Sizes to write in a hint."""

    shapes: dict[str, tuple[int, ...]]
    values: dict[str, tuple[int, ...]]
    told: str = ""  # what is known of them
    bounds: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)  # smallest and largest shapes, where they vary


@dataclass
class _Unknowns:
    """What is free in the inputs, and what stands for it."""

    inputs: tuple[TensorSpec, ...]
    known: dict[str, tuple[int, ...]]  # input -> shape that was given
    values: dict[str, tuple[int, ...]]  # of inputs whose values decide about shapes
    valueless: tuple[TensorSpec, ...]
    candidates: dict[Variable, tuple[int, ...]] = field(default_factory=dict)

    def variable(self, spec: TensorSpec, axis: int) -> Variable:
        return ("symbol", spec.shape[axis]) if spec.shape[axis] else ("axis", (spec.name, axis))

    def at(self, chosen: dict[Variable, int]) -> Sizes:
        shapes = {}
        for spec in self.inputs:
            free = () if spec.name in self.known else enumerate(spec.shape or ())
            own = tuple(dim if isinstance(dim, int) else chosen[self.variable(spec, axis)] for axis, dim in free)
            shapes[spec.name] = self.known.get(spec.name, own)
        own = {spec.name: (chosen["values", spec.name],) * int(np.prod(spec.shape, dtype=np.int64)) for spec in self.valueless}
        return Sizes(shapes, {**self.values, **own})


def propose(
    plan: Plan,
    model,
    info: ModelInfo,
    lacking: tuple[TensorSpec, ...],
    valueless: tuple[TensorSpec, ...],
    values: dict[str, tuple[int, ...]],
) -> Example:
    """Shapes for the inputs that lack one, and values for those whose values decide about shapes.

    Args:
        model: onnx.ModelProto, of which `info` tells.
        values: of the other inputs of that kind.
    """
    if lacking and not valueless:
        in_data = _in_data(plan, lacking)
        if in_data:
            return in_data
    unknowns = _unknowns(plan, info, valueless, values)
    first = {variable: sizes[0] for variable, sizes in unknowns.candidates.items()}
    found = _search(unknowns, first, model, info) if not (plan.build.plugins or any(spec.shape is None for spec in info.inputs)) else None
    sizes = unknowns.at(found or first)
    shapes = {spec.name: sizes[spec.name] if spec.shape is not None else example_shape(spec) for spec in lacking}
    return Example(shapes, sizes.values_of, "The model runs with these sizes." if found else "")


def _in_data(plan: Plan, lacking: tuple[TensorSpec, ...]) -> Example | None:
    """The sizes of the first sample that holds something for each input, and the bounds of all where they vary; None where there is none.

    Sizes may hang on each other, so the usual ones of all inputs are those of one sample.
    """
    if any(spec.shape is None for spec in lacking):
        return None
    shapes = [[array.shape for array in arrays_of(plan, spec.name) if spec.takes(array.shape)] for spec in lacking]
    samples = list(zip(*shapes))
    usual = next((one for one in samples if all(0 not in shape for shape in one)), None)
    if usual is None:
        return None
    least, most = (_bound(lacking, samples, bound) for bound in (min, max))
    bounds = {spec.name: (_from_one(spec, low), high) for spec, low, high in zip(lacking, least, most) if low != high}
    return Example({spec.name: shape for spec, shape in zip(lacking, usual)}, {}, "These are the sizes in your data.", bounds)


def _from_one(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape whose first dimension, which may count the samples in a file, is 1 where it is free."""
    return shape if isinstance(spec.shape[0], int) else (1, *shape[1:])


def _bound(specs: tuple[TensorSpec, ...], samples: list[tuple[tuple[int, ...], ...]], bound: Callable) -> list[tuple[int, ...]]:
    """For each input, the smallest or largest size of each dimension. What is the sum of two others in every sample, as the length of a
    mask is that of a cache and of what comes to it, is the sum of theirs: that of all samples might not fit them.

    Args:
        samples: the shapes of all inputs in each.
        bound: min or max.
    """
    sizes = [[tuple(sample[number][axis] for sample in samples) for axis in range(len(spec.shape))] for number, spec in enumerate(specs)]
    free = dict.fromkeys(own for spec, axes in zip(specs, sizes) for dim, own in zip(spec.shape, axes) if not isinstance(dim, int))

    def of(own: tuple[int, ...]) -> int:
        for part in free if min(own) < max(own) else ():
            rest = tuple(size - less for size, less in zip(own, part))
            if part != own and rest != own and rest in free:
                return bound(part) + bound(rest)
        return bound(own)

    return [tuple(map(of, axes)) for axes in sizes]


def _unknowns(plan: Plan, info: ModelInfo, valueless: tuple[TensorSpec, ...], values: dict[str, tuple[int, ...]]) -> _Unknowns:
    """All that is free, with the sizes to try for each, the most likely one first."""
    known = given_shapes(info.inputs, plan.shapes)
    specs = {spec.name: spec for spec in info.inputs}
    told_by_name = {dim: size for name, shape in known.items() for dim, size in zip(specs[name].shape or (), shape) if isinstance(dim, str)}
    given = list(told_by_name.values())
    sums = sorted({a + b for place, a in enumerate(given) for b in given[place + 1 :]})  # as of what is in a cache and what comes to it
    unknowns = _Unknowns(info.inputs, known, values, valueless)
    told = _told_sizes(info)
    for spec in info.inputs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, int) or spec.name in known:
                continue
            sizes = (told_by_name[dim],) if dim in told_by_name else _candidates(spec, axis, told, plan.shapes.max_batch)
            if sizes is OTHER_SIZES:
                sizes = tuple(dict.fromkeys((*sizes[:1], *sums, *sizes[1:])))
            variable = unknowns.variable(spec, axis)
            if not axis or variable not in unknowns.candidates:  # a symbol that stands first anywhere is the batch
                unknowns.candidates[variable] = sizes
    unknowns.candidates |= {("values", spec.name): VALUES for spec in valueless}
    return unknowns


def _candidates(spec: TensorSpec, axis: int, told: dict[int, tuple[int, ...]], max_batch: int) -> tuple[int, ...]:
    if axis == 0:
        return tuple(dict.fromkeys((max_batch, 1)))
    if len(spec.shape) != 4:
        return OTHER_SIZES
    channel = 3 if spec.shape[3] in IMAGE_CHANNELS and spec.shape[1] not in IMAGE_CHANNELS else 1
    if axis == channel:
        return (3, 1, 4, *OTHER_SIZES)
    if spec.shape[channel] not in IMAGE_CHANNELS and isinstance(spec.shape[channel], int):
        return OTHER_SIZES  # a cache of keys and values, features
    side = sorted({1, 2, 3} - {channel}).index(axis)
    usual = USUAL_SIZES.get(spec.name, ())
    return tuple(dict.fromkeys((*told.get(side, ()), *usual, *IMAGE_SIZES)))


def _told_sizes(info: ModelInfo) -> dict[int, tuple[int, ...]]:
    """0 for heights, 1 for widths -> sizes that the model itself names: in its metadata, or as fixed ones of other inputs."""
    found: dict[int, list[int]] = {0: [], 1: []}
    for side, value in enumerate(told_by(info.metadata).size or ()):
        found[side].append(value)
    for spec in info.inputs:
        if spec.shape is not None and len(spec.shape) == 4:
            height, width = spec.shape[1:3] if spec.shape[3] in IMAGE_CHANNELS else spec.shape[2:]
            found[0] += [height] if isinstance(height, int) else []
            found[1] += [width] if isinstance(width, int) else []
    return {side: tuple(sizes + found[1 - side]) for side, sizes in found.items()}


def _search(unknowns: _Unknowns, first: dict[Variable, int], model, info: ModelInfo) -> dict[Variable, int] | None:
    """Sizes with which the model runs on made-up inputs; None where none were found in time."""
    if info.bytes > MOST_BYTES:
        return None
    until = time.monotonic() + MOST_SECONDS
    try:
        graph = Graph.from_model(model)
        session = Session.of_model(info, lambda: graph)
    except ConversionError:
        return None
    for chosen in _choices(unknowns.candidates, first):
        sizes = unknowns.at(chosen)
        if sum(int(np.prod(shape, dtype=np.int64)) for shape in sizes.values()) > MOST_VALUES:
            continue
        if not all(map(_is_small, chosen.values())) and too_much(graph, sizes, 0.0):
            continue
        with contextlib.suppress(ConversionError):
            session.run(made_up(info.inputs, sizes))
            return chosen
        if time.monotonic() > until:
            return None
    return None


def _choices(candidates: dict[Variable, tuple[int, ...]], first: dict[Variable, int]) -> Iterator[dict[Variable, int]]:
    """What to try: the likeliest sizes; another one for height and width; for one dimension; for all of a kind; for two."""
    yield first
    kinds: dict[tuple[int, ...], list[Variable]] = {}
    for variable, sizes in candidates.items():
        if len(sizes) > 1:
            kinds.setdefault(sizes, []).append(variable)
    free = [variable for together in kinds.values() for variable in together]
    for sizes, together in kinds.items():
        if set(IMAGE_SIZES) <= set(sizes):
            yield from ({**first, **dict.fromkeys(together, size)} for size in sizes[1:])
    for fits in (_is_small, lambda size: not _is_small(size)):  # large ones take long, and hide what small ones would tell
        for variable in free:
            yield from ({**first, variable: size} for size in filter(fits, candidates[variable][1:]))
        for sizes, together in kinds.items():
            yield from ({**first, **dict.fromkeys(together, size)} for size in filter(fits, sizes[1:]))
        for one, other in ((one, other) for index, one in enumerate(free) for other in free[index + 1 :]):
            yield from ({**first, one: a, other: b} for a in filter(fits, candidates[one]) for b in filter(fits, candidates[other]))


def _is_small(size: int) -> bool:
    return size <= SURELY_SMALL
