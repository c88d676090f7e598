"""Several engines of one model: built in turn, timed against each other, and the one that was asked for handed on."""

from __future__ import annotations

import math
from dataclasses import replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline.attempt import Attempt, time_in_turn
from onnx2trt.pipeline.engine import Made, make_engine
from onnx2trt.pipeline.structures import Int8Engines, build_int8, build_with_own_weights, give_slow_layers_back
from onnx2trt.plan.precision_arguments import EIGHT_BIT, LAYER_PRECISIONS
from onnx2trt.plan.variants import BEST
from onnx2trt.report.result import Result
from onnx2trt.stages import fp16_baseline as baseline
from onnx2trt.stages.fp16_baseline import Baseline


def make_all(job: Job, result: Result, run: Run) -> Made:
    """The engine that was asked for; with --compare, --precision best, or INT8 on a GPU, others to hold against it.

    Args:
        result: becomes that of the engine that is handed on.

    Raises:
        ConversionError: of the engine that was asked for; of --precision best, where none passes.
    """
    plan = job.plan
    if len(plan.variants) == 1 and plan.precision != BEST:
        made = make_engine(job, result, run)
        _warn_of_wrong_numbers(made, run)
        return made
    known = baseline.recall(job, run) if plan.precision in EIGHT_BIT and not plan.compare else None
    attempts, calibrated = _make_attempts(job, result, run, known)
    fp16 = known or attempts.get("fp16")
    others = {name: attempt for name, attempt in attempts.items() if name not in calibrated}
    labelled = {attempt.label or name: attempt for name, engines in calibrated.items() for attempt in engines.attempts}
    time_in_turn(job, {**others, **labelled}, fp16, run)
    for name, engines in calibrated.items():
        if plan.executes_here:
            give_slow_layers_back(job, engines, fp16, run)
            build_with_own_weights(job, engines, fp16, run)
            engines.remember(run)
        attempts[name] = engines.chosen
    if plan.precision == BEST and calibrated:  # some were timed since, and not beside all others
        time_in_turn(job, attempts, fp16, run)
    return _hand_on(job, attempts, calibrated, result, run, known)


def _make_attempts(job: Job, common: Result, run: Run, known: Baseline | None) -> tuple[dict[str, Attempt], dict[str, Int8Engines]]:
    """(an engine of each precision of the plan, int8 and fp8 -> all engines of it)"""
    plan, calibrated = job.plan, {}
    attempts: dict[str, Attempt] = {}
    for precision in plan.variants:
        if known and precision == "fp16":
            continue
        if precision in EIGHT_BIT:
            calibrated[precision] = _calibrated(job, precision, common, run)
        attempts[precision] = calibrated[precision].chosen if precision in calibrated else _attempt(job, precision, common, run)
        error = attempts[precision].error
        if precision == plan.precision and error and (not plan.compare or error.code is not ExitCode.VALIDATION):
            break  # what is wrong with it is wrong with the others, too, or nobody asked for them
    if plan.precision == BEST and "fp32" not in attempts and not any(attempt.made for attempt in attempts.values()):
        attempts["fp32"] = _attempt(job, "fp32", common, run)
    return attempts, calibrated


def _calibrated(job: Job, precision: str, common: Result, run: Run) -> Int8Engines:
    """The INT8 or FP8 engines: one for each structure that is to be measured, else one."""
    plan = job.plan.for_precision(precision)
    if plan.structures and not job.info.quantized:
        return build_int8(replace(job, plan=plan), common, run)
    return Int8Engines([_attempt(job, precision, common, run)], plan.calibration.effort.builds - 1)


def _attempt(job: Job, precision: str, common: Result, run: Run) -> Attempt:
    plan = replace(job.plan.for_precision(precision), layer_precisions=_overrides(job.plan.layer_precisions, precision))
    attempt = Attempt(precision, common.variant(), run.labelled(precision))
    try:
        attempt.made = make_engine(replace(job, plan=plan), attempt.result, attempt.run)
    except ConversionError as error:
        attempt.fail(error)
        if precision != job.plan.precision:
            attempt.run.console.info(f"no engine: {error.message}")
    return attempt


def _overrides(asked: tuple[tuple[str, str], ...], precision: str) -> tuple[tuple[str, str], ...]:
    """The --layer-precisions of an engine: what 16 bits are there, they were in the precision that was asked for."""
    known = LAYER_PRECISIONS.get(precision)
    return tuple((pattern, to if to in known else known[-1]) for pattern, to in asked) if known else ()  # all layers of FP32 are FP32


def _hand_on(
    job: Job, attempts: dict[str, Attempt], calibrated: dict[str, Int8Engines], result: Result, run: Run, known: Baseline | None
) -> Made:
    rows = [attempt.row() for attempt in attempts.values()] + ([known.row] if known else [])
    chosen = _fastest(attempts) if job.plan.precision == BEST else attempts[job.plan.precision]
    calibrated_ones = [one for engines in calibrated.values() for one in engines.attempts]
    every = {id(attempt): attempt for attempt in (*attempts.values(), *calibrated_ones)}
    others = sum(sum(attempt.run.console.timings.values()) for attempt in every.values() if attempt is not chosen)
    own = calibrated.get(chosen.precision)
    if own and own.run:
        run.adopt(own.run)
    run.adopt(chosen.run)
    run.console.timings["variants"] = others
    result.adopt(chosen.result)
    result.take(variants=rows, structures=[row for engines in calibrated.values() for row in engines.rows()])
    if chosen.error:
        raise chosen.error
    if job.plan.precision == BEST:
        if not job.plan.executes_here:
            run.console.warn(
                f"nothing was timed: {chosen.precision} is the fastest by what the engines' plans and data sheets tell, an estimate"
            )
        result.take(precision=replace(result.precision, requested=BEST))
    _warn_of_wrong_numbers(chosen.made, run)
    for name in EIGHT_BIT:
        slower = _not_faster(name, attempts)
        if slower:
            run.console.warn(slower)
    return chosen.made


def _warn_of_wrong_numbers(made: Made, run: Run) -> None:
    if made.faithful.falls_short:
        run.console.warn(f"TensorRT may compute wrong numbers here: {made.faithful.falls_short}")


def _fastest(attempts: dict[str, Attempt]) -> Attempt:
    """Of those that passed; where none did, the first.

    Where none was timed, that with the smallest lower bound of its time, on the GPU that gains least; FP16, the first, where nothing is
    known of the others.
    """
    passed = [attempt for attempt in attempts.values() if attempt.made]
    if all(attempt.p50_ms == math.inf for attempt in passed):
        half = (attempts["fp16"].least_ms if "fp16" in attempts else None) or {}
        return min(passed, key=lambda attempt: _bound(attempt.least_ms or {}, half), default=next(iter(attempts.values())))
    return min(passed, key=lambda attempt: attempt.p50_ms)


def _bound(least_ms: dict[str, float], half: dict[str, float]) -> float:
    """Largest part of the bound of FP16, over the GPUs; 1 where nothing is known."""
    return max((ms / half[gpu] for gpu, ms in least_ms.items() if half.get(gpu)), default=1.0)


def _not_faster(precision: str, attempts: dict[str, Attempt]) -> str:
    latency = precision in attempts and attempts[precision].result.latency
    if not latency or not latency.fp16_p50_ms or latency.p50_ms < latency.fp16_p50_ms:
        return ""
    return (
        f"{precision.upper()} is not faster than FP16 here: p50 {latency.p50_ms:.3f} ms against {latency.fp16_p50_ms:.3f} ms; "
        "it pays with larger batches and wider layers"
    )
