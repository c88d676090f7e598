"""The order of the stages, one line each; nobody else knows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode, in_words
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline import by_plan, int8, prepare
from onnx2trt.quant.fit_file import Found
from onnx2trt.report.result import Result
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.qdq import quantizable_layers
from onnx2trt.rewrite.refused import NOT_BUILT
from onnx2trt.stages import asked, shapes, timing_cache, validate
from onnx2trt.stages.build import build_engine
from onnx2trt.stages.faithful import Faithful, against_simulation
from onnx2trt.stages.int8 import cache as caches
from onnx2trt.stages.int8 import reuse, trt_calibrator
from onnx2trt.stages.latency import latencies, profile_rows
from onnx2trt.stages.load import loaded_engine
from onnx2trt.stages.read_back import LessThanAsked, judge_precision, read_precision
from onnx2trt.stages.refit import refit_engine
from onnx2trt.stages.write import keep_rejected
from onnx2trt.trt.builder import BuiltEngine
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.parser_errors import Refusal
from onnx2trt.trt.plan_text import Kernel, Traffic, kernels_of, traffic_of

Choice = prepare.Choice | prepare.HalfChoice | int8.Int8Choice


@dataclass(frozen=True)
class Made:
    """An engine that passed, and what it was made of."""

    job: Job
    choice: Choice
    prepared: Prepared
    built: BuiltEngine
    details: dict  # what the loaded engine says of itself
    faithful: Faithful = Faithful()  # to its simulation, where it is INT8, FP8 or BF16, and runs here

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """By the engine's own plan; none where it tells nothing."""
        return kernels_of(self.job.plan.backend, self.built.data)

    @property
    def told_by_plan(self) -> dict:
        """Fields of the result's engine."""
        return by_plan.about(self.job, self.choice, self.prepared.graph, self.kernels)

    @property
    def traffic(self) -> Traffic | None:
        """What the engine moves."""
        return traffic_of(self.kernels)


def make_engine(job: Job, result: Result, run: Run) -> Made:
    """All stages from the preparation to the check.

    Args:
        result: of this engine; it takes what the stages find.

    Raises:
        ConversionError: from any of them.
    """
    job, choice = choose(job, run)
    compared = by_plan.give_back(job, choice, run) if job.plan.by_plan and isinstance(choice, int8.Int8Choice) else None
    prepared = choice.prepared(run)
    try:
        return build_and_check(job, choice, prepared, result, run, _as_compared(job, compared))
    except AccuracyError as error:
        return build_and_check(job, choice, choice.lower(error, run), result, run)
    except LessThanAsked as error:
        bound = prepare.bound_to_half(job, prepared)
        if bound is None:
            raise
        run.console.warn(f"built once more with its layers bound to FP16, since TensorRT found others faster: {error.message}")
        return build_and_check(job, choice, bound, result, run)
    except ConversionError as error:
        half = error.code is ExitCode.BUILD and isinstance(choice, (prepare.HalfChoice, int8.Int8Choice))
        other = choice.with_bodies_in_fp32() if half else None
        if other is None:
            raise
        run.console.warn(f"{NOT_BUILT}: it stays in FP32. {error.message.splitlines()[0]}")
        return build_and_check(job, choice, other, result, run)


def _as_compared(job: Job, built: BuiltEngine | None) -> Callable | None:
    """For build_and_check: the engine that was built to be compared is the one, unless more is to be done with it; None to build it."""
    build = job.plan.build
    if built is None or build.timing_cache is not None or build.strip_weights:
        return None

    def take(job: Job, choice: Choice, prepared: Prepared, run: Run) -> tuple[BuiltEngine, Prepared]:
        shapes.try_prepared(job, prepared, run)
        run.console.info(f"the {job.number_format.label} engine that takes least of those compared is the one that is written")
        return built, prepared

    return take


def choose(job: Job, run: Run) -> tuple[Job, Choice]:
    """(the job as far as the model allows it, what was decided about its layers)

    Raises:
        ConversionError: from the stages before the build.
    """
    asked.say_what_it_carries(job, run)
    asked.check_io_types(job)
    job = asked.without_half(job)
    return job, int8.choose(job, run) if job.quantizes else prepare.choose(job, run)


def build_and_check(job: Job, choice: Choice, prepared: Prepared, result: Result, run: Run, make=None) -> Made:
    """From a prepared model to an engine that passed.

    Args:
        make: (job, choice, prepared, run) -> (engine, prepared model); None: the engine is built.

    Raises:
        ConversionError: from any stage; --keep-failed then keeps the engine.
    """
    for warning in prepared.graph.repairs:
        run.console.warn(warning)
    result.take(calibration=choice.about)
    built, prepared = make(job, choice, prepared, run) if make else _build_what_is_read(job, choice, prepared, result, run)
    with loaded_engine(job.library, job.plan, built.runnable, run, job.plan.build.version_compatible) as engine:
        try:
            details = engine.describe() if engine else {}
            precision = replace(read_precision(job, prepared, built, engine, run), tried=choice.tried)
            result.take(precision=precision)
            judge_precision(job, prepared, precision, run)
            check(job, prepared, engine, result, run)
            simulated = job.quantizes or job.plan.precision == "bf16"
            judged = simulated and engine and job.plan.validation.enabled and not job.plan.build.plugins
            faithful = against_simulation(job, prepared, engine, run) if judged else Faithful()
        except ConversionError:
            keep_rejected(job, built, run)
            raise
    return Made(job, choice, prepared, built, details, faithful)


def check(job: Job, prepared: Prepared | None, engine, result: Result, run: Run) -> None:
    """Compare the outputs, and time the engine where it runs here; that it cannot be timed takes no good engine down.

    Raises:
        ConversionError: VALIDATION.
    """
    rows = validate.compare_outputs(job, prepared, engine, run)
    result.take(accuracy=[row.rounded() for row in rows or ()])
    result.take(**validate.judge(job, rows, engine is not None, run))
    shapes.try_engine(job, engine, run)
    result.take(optimization_profiles=profile_rows(job, None))
    if engine is not None and job.plan.validation.enabled:
        result.take(**_time(job, engine, run))


def _time(job: Job, engine: Engine, run: Run) -> dict:
    """The fields of the result that tell how long the engine takes, or why that is not known."""
    try:
        with run.stage("latency", "measuring the latency"):
            latency, run.evidence.latency_ms = latencies(job, {"": engine})[""]
            rows = profile_rows(job, engine)
    except Exception as error:  # of whatever kind: CUDA, the library, out of memory
        run.console.warn(f"the latency could not be measured: {in_words(error)}")
        return {"latency_not_measured_because": in_words(error)}
    return {"latency": latency, "optimization_profiles": rows}


def _build_what_is_read(job: Job, choice: Choice, prepared: Prepared, result: Result, run: Run) -> tuple[BuiltEngine, Prepared]:
    """The same as _build; where the parser refuses nodes that it takes in FP32, without these in the lower precision."""
    while True:
        shapes.try_prepared(job, prepared, run)
        try:
            return _build(job, prepared, result, run)
        except Refusal as error:  # each time more is given up, until the parser reads it, or there is nothing left
            prepared = choice.without_refused(error, prepared, run)


def _build(job: Job, prepared: Prepared, result: Result, run: Run) -> tuple[BuiltEngine, Prepared]:
    """(engine, prepared model); where TensorRT calibrated by itself, the equivalent Q/DQ model is known only now."""
    timings, about = timing_cache.read(job.plan, run)
    result.take(timing_cache=about)
    started = time.monotonic()
    with trt_calibrator.opened(job, prepared.scales, run) as calibrator:
        built = build_engine(job, prepared, calibrator, timings, run)
        found = calibrator.found(time.monotonic() - started) if calibrator else None
    result.take(timing_cache=timing_cache.write(job, built, timings, about, run))
    if job.plan.build.strip_weights:  # only with its weights does it run, and with these it is judged
        built = replace(built, whole=refit_engine(job, prepared, built.data, frozenset(), run).data)
    if found:
        result.take(calibration=found.about)
        _remember(job, prepared, found, run)
    scales = found.scales if found else prepared.scales
    if calibrator:
        run.evidence.scales = scales
    if calibrator and prepared.equivalent is None:
        bound = {**dict.fromkeys(prepared.half_nodes, "fp16"), **prepared.constraints}
        layers = tuple(layer for layer in quantizable_layers(prepared.graph) if bound.get(layer.node, "int8") == "int8")
        prepared = replace(prepared, scales=scales, equivalent=Fit(scales).apply(prepared.graph, layers))
    return built, prepared


def _remember(job: Job, prepared: Prepared, found: trt_calibrator.Calibrated, run: Run) -> None:
    """Keep the cache that TensorRT made, and what was decided about the layers."""
    kept = {"fp32": {}, "fp16": {}}
    for node, precision, reason in prepared.fallback:
        kept[precision][node] = reason
    written = caches.write_cache(job, found.text, found.method, run, found.silent)
    own = Found(found.method, Fit({}), kept_fp32=kept["fp32"], fp16_fallback=kept["fp16"])
    reuse.write_found(job, prepared.graph, written, own, run)
