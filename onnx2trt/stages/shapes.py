"""Stage 'shapes': what was made runs at the smallest and the largest shapes that the profiles promise, as the model does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.memory import available_bytes
from onnx2trt.base.model_info import dims, groups_of
from onnx2trt.compare.states import Runner
from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.conversion.comparing import as_declared
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.promised_shapes import MOST_OF_MEMORY, Sizes, bounds_of, described, made_up, too_much
from onnx2trt.conversion.run import Run
from onnx2trt.data.reader import Arrays, Batch
from onnx2trt.model.session import CannotLoad, Session
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.trt.engine import Engine

LABEL = "trying the smallest and the largest shapes"
WEAK_DB = 10.0  # of signal to noise; below it nothing is left of the outputs at other shapes


def try_prepared(job: Job, prepared: Prepared, run: Run) -> None:
    """The prepared model on the CPU, before it is built.

    Raises:
        ConversionError: VALIDATION, where it does not run, or its outputs have other shapes or are not finite.
    """
    if prepared.changed and _to_be_tried(job):
        with run.stage("shapes", LABEL), suppress(CannotLoad):  # conversion/promised_shapes.py has said so
            session = Session.from_graph(simulation(prepared.graph))
            _try(job, as_declared(job, session.run), "the prepared model", run)


def try_onnx(job: Job, candidate: OnnxCandidate, run: Run) -> None:
    """A prepared ONNX of any tool.

    Raises:
        ConversionError: as try_prepared.
    """
    if _to_be_tried(job):
        with run.stage("shapes", LABEL), suppress(CannotLoad):  # conversion/promised_shapes.py has said so
            _try(job, candidate.runner(job.info)[0], candidate.info.path, run)


def try_engine(job: Job, engine: Engine | None, run: Run) -> None:
    """The engine, where it can be executed here; also at shapes that take the model too long, where nothing is compared.

    Raises:
        ConversionError: VALIDATION; MACHINE, where the GPU has no room for a shape.
    """
    if engine is not None and _to_be_tried(job):
        with run.stage("shapes", LABEL), suppress(CannotLoad):  # conversion/promised_shapes.py has said so
            _try(job, as_declared(job, engine.run, cast_inputs=False), "the engine", run, engine.attempt)


def _to_be_tried(job: Job) -> bool:
    return job.plan.validation.enabled and not job.plan.build.plugins and len(_promised(job)) > 1


def _promised(job: Job) -> list[Sizes]:
    """The smallest and the largest shapes of each optimization profile; of several that do not vary, each one's."""
    found: list[Sizes] = []
    for group in groups_of(job.profiles):
        found += [
            sizes for sizes in bounds_of(group).values() if not any(sizes == one and sizes.values_of == one.values_of for one in found)
        ]
    return found


def _try(job: Job, candidate: Runner, what: str, run: Run, attempt: Callable[[Arrays], None] | None = None) -> None:
    """Hold a candidate against the model at each bound of the profiles.

    Args:
        attempt: runs the candidate alone, its outputs left where they are; for shapes that the model is not run at.
    """
    reference, graph, seconds = job.reference(), job.graph(), 0.0
    for shapes in _promised(job):
        reason = too_much(graph, shapes, seconds)
        if reason and (attempt is None or not _has_room(job, shapes)):
            run.console.warn(f"{what} was not tried at {described(shapes)}: {reason}")
            continue
        feed = made_up(job.info.inputs, shapes)
        if reason:
            _tried(attempt, feed, f"{what} does not run at {described(shapes)}")
            run.console.warn(f"{what} runs at {described(shapes)}, but was not compared with the model there: {reason}")
            continue
        started = time.monotonic()
        try:
            expected = reference.run(feed)
        except ConversionError as error:  # made-up values are none that it takes; conversion/promised_shapes.py has said so
            run.console.debug(f"{what} was not tried at {described(shapes)}: {error.message}")
            continue
        seconds = max(seconds, 2 * (time.monotonic() - started) / max(sum(array.size for array in feed.values()), 1))
        batch = Batch(feed, 0, 0, (described(shapes),))
        found = _tried(candidate, batch, f"{what} does not run at {described(shapes)}, where the model does")
        _compare(job, expected, found, (what, described(shapes)), run)


def _has_room(job: Job, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether the inputs alone have room in the host's memory."""
    needed = sum(math.prod(shapes[spec.name]) * np.dtype(spec.dtype).itemsize for spec in job.info.inputs)
    left = available_bytes()
    return left is None or needed <= MOST_OF_MEMORY * left


def _tried(run_it: Callable, given: Batch | Arrays, otherwise: str):
    """What a run gives.

    Args:
        otherwise: said where it does not run.

    Raises:
        ConversionError: MACHINE, where there is no room; otherwise VALIDATION.
    """
    try:
        return run_it(given)
    except ConversionError as error:
        no_room = error.code == ExitCode.MACHINE
        raise ConversionError(
            f"{otherwise}: {error.message}",
            hint=(no_room and error.hint) or "Give the shapes that it takes with --min-shapes, --opt-shapes and --max-shapes.",
            code=ExitCode.MACHINE if no_room else ExitCode.VALIDATION,
        ) from error


def _compare(job: Job, expected: Arrays, found: Arrays, which: tuple[str, str], run: Run) -> None:
    """Shapes and finite values must be the same; how near the values are is judged on data, and here only said where nothing is left.

    Args:
        which: (what was tried, at which shapes).
    """
    what, shapes = which
    for name, a in expected.items():
        b = found[name]
        if a.shape != b.shape:
            if a.ndim == b.ndim and a.shape[1:] == b.shape[1:] and _declared_free(job, name):
                continue  # a list, whose length hangs on values
            raise ConversionError(
                f"at {shapes}, output {name!r} of {what} is {dims(b.shape)}, the model's {dims(a.shape)}", code=ExitCode.VALIDATION
            )
        if a.dtype.kind != "f":
            continue
        told = np.isfinite(a)
        lost = int((~np.isfinite(b[told])).sum())
        if lost:
            raise ConversionError(
                f"at {shapes}, {lost} values in output {name!r} of {what} are NaN or infinite, which the model's are not",
                hint="Give data with --validate: layers that overflow in it are kept in FP32.",
                code=ExitCode.VALIDATION,
            )
        signal, noise = (float(np.square(values[told], dtype=np.float64).sum()) for values in (a, b - a))
        if not job.quantizes and noise > signal * 10 ** (-WEAK_DB / 10):
            run.console.warn(f"at {shapes}, output {name!r} of {what} has little in common with the model's on synthetic inputs")


def _declared_free(job: Job, name: str) -> bool:
    shape = next(spec.shape for spec in job.info.outputs if spec.name == name)
    return shape is None or not shape or not isinstance(shape[0], int)
