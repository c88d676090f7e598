"""The shapes that the optimization profiles promise, tried with ONNX Runtime before anything long begins.

The smallest and the largest shapes are run, and a batch of two samples is held against the two alone. A batch that was written into the
graph by its export (a Reshape to 1x16x64, an initial state of one sample) shows itself here, and is named with its node.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import available_bytes
from onnx2trt.base.model_info import ModelInfo, Profile, TensorSpec, dims
from onnx2trt.base.padded import Padded
from onnx2trt.conversion.run import Run
from onnx2trt.data.arrays import synthetic_arrays
from onnx2trt.data.reader import Arrays
from onnx2trt.model.batch_relation import Relation, relations
from onnx2trt.model.batch_trace import Culprit, find_culprit, named
from onnx2trt.model.graph import Graph
from onnx2trt.model.inference_memory import peak_bytes
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.padding import of_samples
from onnx2trt.model.session import CannotLoad, Session
from onnx2trt.plan.shapes import batch_axes

MOST_SECONDS = 20.0  # that one trial may take, as far as the smaller ones foretell
MOST_OF_MEMORY = 0.5  # of what is left
MOST_SHOWN = 200  # characters of ONNX Runtime's words
HINT = "Give the shapes that the model takes with --min-shapes, --opt-shapes and --max-shapes, or export it with free dimensions."


@dataclass
class Trial:
    """Runs of one model at several shapes."""

    model: object  # onnx.ModelProto
    info: ModelInfo
    profiles: tuple[Profile, ...]
    run: Run
    session: Session
    seconds_per_value: float = 0.0

    @cached_property
    def graph(self) -> Graph:
        return Graph.from_model(self.model, self.profiles)

    def inputs_at(self, shapes: Sizes, seed: int = 0) -> Arrays:
        return made_up(self.info.inputs, shapes, seed)

    def outputs(self, feed: Arrays) -> dict[str, np.ndarray]:
        """One inference.

        Raises:
            ConversionError: MODEL.
        """
        started = time.monotonic()
        found = self.session.run(feed)
        self.seconds_per_value = max(self.seconds_per_value, (time.monotonic() - started) / _values(feed))
        return found


class Sizes(dict):
    """Input -> shape; `values` are those of the inputs whose values decide about other shapes."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], values: dict[str, tuple[int, ...]]):
        super().__init__(shapes)
        self.values_of = values


def made_up(inputs: tuple[TensorSpec, ...], shapes: Sizes, seed: int = 0) -> Arrays:
    """Synthetic inputs of these shapes."""
    values = {name: (given,) * 3 for name, given in shapes.values_of.items()}
    return synthetic_arrays(inputs, tuple(Profile(spec.name, *(shapes[spec.name],) * 3, values.get(spec.name)) for spec in inputs), seed)


def sizes_at(profiles: tuple[Profile, ...], bound: str) -> Sizes:
    """The shapes, and values that decide about shapes, at 'min', 'opt' or 'max'."""
    place = ("min", "opt", "max").index(bound)
    shapes = {profile.name: getattr(profile, bound) for profile in profiles}
    return Sizes(shapes, {profile.name: profile.values[place] for profile in profiles if profile.values is not None})


def bounds_of(profiles: tuple[Profile, ...]) -> dict[str, Sizes]:
    """'min' and 'max' -> what the inputs are there; the latter is missing where it is the same."""
    found = {bound: sizes_at(profiles, bound) for bound in ("min", "max")}
    same = found["min"] == found["max"] and found["min"].values_of == found["max"].values_of
    return {"min": found["min"]} if same else found


def too_much(graph: Graph, shapes: dict[str, tuple[int, ...]], seconds_per_value: float) -> str:
    """Why a run at these shapes is not tried; empty where it may be."""
    seconds = seconds_per_value * sum(map(math.prod, shapes.values()))
    if seconds > MOST_SECONDS:
        return f"it would take about {seconds:.0f} s"
    at_these = static_shapes(graph, tuple(Profile(name, shape, shape, shape) for name, shape in shapes.items()))
    left, needed = available_bytes(), peak_bytes(graph, at_these)
    if left is not None and needed > MOST_OF_MEMORY * left:
        return f"it would take about {needed / 1e9:.1f} GB of memory"
    return ""


def described(shapes: dict[str, tuple[int, ...]]) -> str:
    """As they are typed; of inputs whose values decide about shapes, the values."""
    values = shapes.values_of if isinstance(shapes, Sizes) else {}
    given = [f"{name}={dims(values[name])}" if name in values else f"{name}:{dims(shape)}" for name, shape in shapes.items()]
    return " ".join(given)


def with_batch(shapes: Sizes, axes: dict[str, int], size: int) -> Sizes:
    """The same shapes with another size of the batch."""
    changed = {name: tuple(size if axes.get(name) == axis else dim for axis, dim in enumerate(shape)) for name, shape in shapes.items()}
    return Sizes(changed, shapes.values_of)


def try_shapes(model, info: ModelInfo, profiles: tuple[Profile, ...], declared_batch: bool, run: Run) -> bool:
    """Run the model at the smallest and at the largest shapes, and a batch of two samples against the two alone.

    Args:
        declared_batch: the user has said that the first axis is a batch.

    Returns:
        Whether the samples of a batch are independent, as far as could be told.

    Raises:
        ConversionError: MODEL, naming the node, where a promised shape does not run, or the samples of a batch are mixed up.
    """
    bounds, axes = bounds_of(profiles), batch_axes(info.inputs, profiles)
    if len(bounds) < 2 and not axes:
        return True
    started = time.monotonic()
    try:
        trial = Trial(model, info, profiles, run, Session.of_model(info, partial(Graph.from_model, model)))
    except CannotLoad as error:
        run.console.warn(f"the smallest and the largest shapes were not tried: {error.message}")
        return True
    if not _try_smallest(trial, bounds, axes):
        return True
    relation = _try_batch(trial, with_batch(bounds["min"], axes, 1), axes, declared_batch) if axes else Relation.UNKNOWN
    if "max" in bounds:
        _try_largest(trial, bounds)
    run.console.debug(f"tried the smallest and the largest shapes in {time.monotonic() - started:.2f} s")
    return relation not in (Relation.SYMMETRIC, Relation.ORDERED)


def rows_are_independent(model, info: ModelInfo, run: Run) -> bool:
    """Whether the rows of a fixed batch do not influence each other: exchanging the last one changes nothing of the others; True where
    that cannot be told.
    """
    shapes = Sizes({spec.name: spec.shape for spec in info.inputs}, {})
    size = info.inputs[0].shape[0]
    feed = Padded(made_up(info.inputs, shapes), size, size - 1)
    try:
        session = Session.of_model(info, partial(Graph.from_model, model))
        found, otherwise = session.run(feed), session.run(feed.filled_otherwise())
    except ConversionError as error:
        run.console.debug(f"whether rows are independent cannot be told: {error.message}")
        return True
    changed = [name for name, array in found.items() if not np.array_equal(array, otherwise[name])]
    return all(of_samples(feed, found[name], otherwise[name]) is not found[name] for name in changed)


def _try_smallest(trial: Trial, bounds: dict, axes: dict[str, int]) -> bool:
    """Whether made-up inputs run at the smallest shapes.

    Raises:
        ConversionError: MODEL, where they do not, but at others.
    """
    try:
        trial.session.run(trial.inputs_at(bounds["min"]))  # the first run of a session takes longer
        _check_declared(trial, bounds["min"], trial.outputs(trial.inputs_at(bounds["min"])))
        return True
    except ConversionError as error:
        problem = error
    for shapes in (with_batch(bounds["min"], axes, 1), sizes_at(trial.profiles, "opt"), *bounds.values()):
        if shapes == bounds["min"] or too_much(trial.graph, shapes, 0.0):
            continue
        try:
            trial.session.run(trial.inputs_at(shapes))
        except ConversionError:
            continue
        raise _does_not_run(trial, bounds["min"], shapes, problem)
    trial.run.console.warn(
        f"the smallest and the largest shapes were not tried: the model does not run on made-up inputs: {problem.message}"
    )
    return False


def _try_largest(trial: Trial, bounds: dict) -> None:
    reason = too_much(trial.graph, bounds["max"], trial.seconds_per_value)
    if reason:
        trial.run.console.warn(f"the largest shapes ({described(bounds['max'])}) were not tried: {reason}")
        return
    try:
        found = trial.outputs(trial.inputs_at(bounds["max"]))
    except ConversionError as error:
        raise _does_not_run(trial, bounds["max"], bounds["min"], error) from None
    _check_declared(trial, bounds["max"], found)


def _does_not_run(trial: Trial, shapes: dict, others: dict, error: ConversionError) -> ConversionError:
    """At these shapes, while it runs at others."""
    axes = batch_axes(trial.info.inputs, trial.profiles)
    what = "batch 1" if with_batch(shapes, axes, 1) == others else "a size"
    node = named(trial.graph, _failing(trial, shapes))
    return ConversionError(
        f"the model runs at {described(others)}, but not at {described(shapes)}, which was asked for: "
        f"{what} is written into {node or 'it'}. {_words(error)}",
        hint=HINT,
        code=ExitCode.MODEL,
    )


def _try_batch(trial: Trial, shapes: dict, axes: dict[str, int], declared: bool) -> Relation:
    """A batch of two different samples against the two alone, at the smallest sizes.

    Args:
        shapes: of one sample.
        declared: as for try_shapes.
    """
    reason = too_much(trial.graph, with_batch(shapes, axes, 2), 5 * trial.seconds_per_value)
    if reason:
        trial.run.console.warn(f"whether a batch gives what its samples give one by one was not checked: {reason}")
        return Relation.UNKNOWN
    one = trial.inputs_at(shapes)
    other = {name: array if name in axes else one[name] for name, array in trial.inputs_at(shapes, seed=1).items()}
    both, exchanged = (_joined(pair, axes) for pair in ((one, other), (other, one)))
    try:
        first, second = trial.outputs(one), trial.outputs(other)
    except ConversionError:  # it takes more than one, which was promised by nobody
        return Relation.UNKNOWN
    try:
        together = trial.outputs(both)
    except ConversionError as error:
        if any(profile.min[axes[profile.name]] > 2 for profile in trial.profiles if profile.name in axes):
            return Relation.UNKNOWN
        raise _batch_does_not_run(trial, (one, other), both, error) from None
    _check_declared(trial, with_batch(shapes, axes, 2), together, alone=(first, second))
    found = relations((first, second), together, lambda: trial.session.run(exchanged))
    worst = max(found.values(), default=Relation.UNKNOWN)
    names = ", ".join(repr(name) for name, relation in found.items() if relation == worst)
    if worst in (Relation.SYMMETRIC, Relation.ORDERED):
        _judge_influence(trial, worst, names, lambda: find_culprit(trial.graph, (one, other), both), declared)
    elif worst == Relation.UNKNOWN:
        trial.run.console.info("whether the samples of a batch influence each other cannot be told: the outputs are lists or constant")
    return worst


def _judge_influence(trial: Trial, relation: Relation, names: str, culprit_of: Callable[[], Culprit | None], declared: bool) -> None:
    """Samples that influence each other: refused where that cannot be meant.

    Raises:
        ConversionError: MODEL.
    """
    culprit = culprit_of()
    where = f", first in {culprit}" if culprit else ""
    if relation == Relation.SYMMETRIC:
        trial.run.console.warn(
            f"the samples of a batch influence each other in {names}{where}, whatever their order, as statistics over a batch do: "
            "results depend on what else is in the batch"
        )
        return
    found = f"two samples in one batch give other results in {names} than each alone, and others again in the other order{where}"
    if culprit and culprit.reshapes:
        raise ConversionError(
            f"the samples of a batch are mixed up: {found}: batch 1 is written into it",
            hint="Convert for batch 1, or export the model with a free batch (x.shape[0] or -1 in the place of the 1).",
            code=ExitCode.MODEL,
        )
    if declared:
        raise ConversionError(
            f"--max-batch-size says that the first axis is a batch, but {found}",
            hint="Convert for batch 1, or export the model with a free batch. Where the axis is a sequence, give its lengths with "
            "--min-shapes, --opt-shapes and --max-shapes instead of --max-batch-size.",
            code=ExitCode.MODEL,
        )
    trial.run.console.warn(f"{found}: the axis is taken for a sequence, all of which is one sample")


def _batch_does_not_run(trial: Trial, alone: tuple[Arrays, Arrays], both: Arrays, error: ConversionError) -> ConversionError:
    values = sizes_at(trial.profiles, "opt").values_of
    graph, shapes = trial.graph, Sizes({name: array.shape for name, array in both.items()}, values)
    culprit = find_culprit(graph, alone, both, _failing(trial, shapes))
    where = f"{culprit}" if culprit else "a node"
    return ConversionError(
        f"the model runs for one sample only: batch 1 is written into {where}. At {described(shapes)}: {_words(error)}",
        hint="Convert for batch 1 (without --max-batch-size, or with 1 in --max-shapes), or export the model with a free batch.",
        code=ExitCode.MODEL,
    )


def _failing(trial: Trial, shapes: dict) -> str | None:
    """The node that ONNX Runtime cannot run, by the names that our graph has."""
    try:
        Session.from_graph(trial.graph, optimize=False).run(trial.inputs_at(shapes))
    except ConversionError as error:
        found = re.search(r"running \S+ node\. Name:'([^']+)'", error.message)
        return found[1] if found else None
    return None


def _words(error: ConversionError) -> str:
    """What ONNX Runtime says of it, without the place in its source."""
    text = re.sub(r"^.*Status Message: ", "", error.message)
    return re.sub(r"^/\S*onnxruntime\S*:\d+ .*? was false\. ", "", text)[:MOST_SHOWN]


def _check_declared(trial: Trial, shapes: dict, found: dict, alone: tuple[dict, ...] = ()) -> None:
    """Say where an output has another shape than the model declares.

    Args:
        alone: other outputs; those that do not have the declared shape there either, or different ones, promise nothing.
    """
    for spec in trial.info.outputs:
        given = [outputs[spec.name].shape for outputs in alone]
        if spec.shape is None or len(set(given)) > 1:
            continue
        real = found[spec.name].shape
        if not spec.takes(real):
            trial.run.console.warn(f"output {spec.name!r} is {dims(real)} at {described(shapes)}; the model declares {dims(spec.shape)}")


def _joined(pair: tuple[Arrays, Arrays], axes: dict[str, int]) -> Arrays:
    first, second = pair
    return {name: np.concatenate([array, second[name]], axes[name]) if name in axes else array for name, array in first.items()}


def _values(feed: Arrays) -> int:
    return max(sum(array.size for array in feed.values()), 1)
