"""Several engines of one model: built in turn, timed against each other, and the one that was asked for handed on."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace

from onnx2trt.base.errors import ConversionError, ExitCode, in_words
from onnx2trt.conversion.comparing import worst_output
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline.engine import Made, build_and_check, make_engine
from onnx2trt.pipeline.int8 import Int8Choice
from onnx2trt.plan.plan import BEST
from onnx2trt.report.result import Result, VariantRow
from onnx2trt.stages import fp16_baseline as baseline
from onnx2trt.stages.fp16_baseline import Baseline
from onnx2trt.stages.latency import latencies
from onnx2trt.stages.load import loaded_engine
from onnx2trt.stages.slow_layers import slower_in_int8, time_layers
from onnx2trt.trt.profile import Timed


@dataclass
class Attempt:
    """One of several engines, and what came of it."""

    precision: str
    result: Result
    run: Run
    made: Made | None = None
    error: ConversionError | None = None

    def row(self) -> VariantRow:
        """One line of the comparison."""
        precision, latency, built = self.result.precision, self.result.latency, self.made and self.made.built
        rows, plan = self.result.accuracy, self.result.plan
        worst = worst_output(rows, plan["max_accuracy_drop"])[0] if rows else None
        rows = next((shape[0] for shape in latency.shape.values() if shape), 1) if latency else 1
        return VariantRow(
            precision=self.precision,
            status=self.result.status if self.made else "failed",
            delivered=precision and precision.delivered,
            int8_mac_share=precision and precision.int8_mac_share,
            engine_bytes=built.nbytes if built else None,
            p50_ms=latency and latency.p50_ms,
            p99_ms=latency and latency.p99_ms,
            throughput_per_s=round(1000 * rows / latency.p50_ms, 3) if latency else None,
            drop_percent=worst and worst.drop_percent,
            metric=worst and worst.metric,
            sqnr_db=worst and worst.sqnr_db,
            build_s=round(self.run.console.timings.get("build", 0.0), 3),
            error=self.error.message if self.error else None,
        )


def make_all(job: Job, result: Result, run: Run) -> Made:
    """The engine that was asked for; with --compare, --precision best, or INT8 on a GPU, others to hold against it.

    Args:
        result: becomes that of the engine that is handed on.

    Raises:
        ConversionError: of the engine that was asked for; of --precision best, where none passes.
    """
    plan = job.plan
    if len(plan.variants) == 1 and plan.precision != BEST:
        return make_engine(job, result, run)
    attempts: dict[str, Attempt] = {}
    known = baseline.recall(job, run) if plan.precision == "int8" and not plan.compare else None
    for precision in plan.variants:
        if known and precision == "fp16":
            continue
        attempts[precision] = _attempt(job, precision, result, run)
        error = attempts[precision].error
        if precision == plan.precision and error and (not plan.compare or error.code is not ExitCode.VALIDATION):
            break  # what is wrong with it is wrong with the others, too, or nobody asked for them
    if plan.precision == BEST and "fp32" not in attempts and not any(attempt.made for attempt in attempts.values()):
        attempts["fp32"] = _attempt(job, "fp32", result, run)
    _time(job, attempts, run, known)
    if plan.executes_here:
        _give_slow_layers_back(job, attempts, run, known)
    return _hand_on(job, attempts, result, run, known)


def _attempt(job: Job, precision: str, common: Result, run: Run) -> Attempt:
    plan = replace(job.plan, precision=precision)
    if precision == "fp32":
        plan = replace(plan, layer_precisions=())  # all its layers are FP32
    attempt = Attempt(precision, common.variant(), run.labelled(precision))
    try:
        attempt.made = make_engine(replace(job, plan=plan), attempt.result, attempt.run)
    except ConversionError as error:
        attempt.error = error
        attempt.result.fail(error)
        if precision != job.plan.precision:
            attempt.run.console.info(f"no engine: {error.message}")
    return attempt


def _time(job: Job, attempts: dict[str, Attempt], run: Run, known: Baseline | None) -> None:
    """Latencies of all engines, taken in turn, so that they can be compared.

    Engines that do not run beside each other, for want of GPU memory, say, keep the latencies that were measured one by one.
    """
    made = {name: attempt for name, attempt in attempts.items() if attempt.made}
    if job.plan.executes_here and len(made) > 1:
        try:
            _time_in_turn(job, made, run)
        except Exception as error:  # of whatever kind: the engines are good
            run.console.warn(f"the engines were not timed in turn, so their latencies are less comparable: {in_words(error)}")
    fp16 = made["fp16"].result.latency if "fp16" in made else known and known.row
    for attempt in made.values():
        if fp16 and attempt.result.latency and attempt.precision == "int8":
            attempt.result.latency = replace(attempt.result.latency, fp16_p50_ms=fp16.p50_ms)


def _time_in_turn(job: Job, made: dict[str, Attempt], run: Run) -> None:
    with ExitStack() as stack:
        engines = {name: stack.enter_context(_loaded(job, attempt.made, run)) for name, attempt in made.items()}
        with run.stage("latency", "timing the engines in turn"):
            found = latencies(job, engines)
    for name, (latency, each_ms) in found.items():
        made[name].run.evidence.latency_ms = each_ms
        made[name].result.latency = latency


def _loaded(job: Job, made: Made, run: Run):
    return loaded_engine(job.library, job.plan, made.built.data, run, job.plan.build.version_compatible)


def _give_slow_layers_back(job: Job, attempts: dict[str, Attempt], run: Run, known: Baseline | None) -> None:
    """Build INT8 once more without the layers that FP16 computes faster, and keep it where it really is."""
    int8, fp16 = attempts.get("int8"), attempts.get("fp16")
    if not (int8 and int8.made and (known or fp16 and fp16.made)):
        return
    try:
        with run.stage("profile", "timing the layers"):
            timed = known.timed if known else _timed_layers(job, fp16.made, run)
            slow = slower_in_int8(job, int8.made.prepared.graph, _timed_layers(job, int8.made, run), timed)
    except Exception as error:  # of whatever kind: the engine is good
        run.console.warn(f"the layers were not timed, so none goes back to FP16 for being slow: {in_words(error)}")
        return
    if slow and isinstance(int8.made.choice, Int8Choice):
        attempts["int8"] = _faster_of(int8, slow, attempts, run, known)
    if not known:  # after the last time that it was timed
        baseline.remember(job, fp16.row(), timed, run)


def _timed_layers(job: Job, made: Made, run: Run) -> Timed:
    with _loaded(job, made, run) as engine:
        return time_layers(job, made.prepared.graph, engine)


def _faster_of(first: Attempt, slow: dict[str, str], attempts: dict[str, Attempt], run: Run, known: Baseline | None) -> Attempt:
    """The INT8 engine as it is, or one without these layers, whichever is faster.

    Args:
        slow: INT8 node -> why it should rather be FP16.
    """
    job, choice = first.made.job, first.made.choice
    run.console.info(f"{len(slow)} INT8 layers are slower than in FP16: built once more without them")
    for node, reason in slow.items():
        run.console.debug(f"{node}: {reason}")
    second = Attempt("int8", first.result.variant(), run.labelled("int8"))
    try:
        second.made = build_and_check(job, choice, choice.prepared(second.run, slow), second.result, second.run)
    except Exception as error:  # TensorRT takes FP16 for more of them, say: then the first stays
        second.run.console.info(f"no engine: {in_words(error)}")
        return first
    _time(job, {"first": first, "int8": second, **({} if known else {"fp16": attempts["fp16"]})}, run, known)
    before, after = (_p50(attempt) for attempt in (first, second))
    kept = "second" if after < before else "first"
    run.console.info(f"p50 {before:.3f} ms with them, {after:.3f} ms without: the {kept} engine is kept")
    return second if after < before else first


def _hand_on(job: Job, attempts: dict[str, Attempt], result: Result, run: Run, known: Baseline | None) -> Made:
    rows = [attempt.row() for attempt in attempts.values()] + ([known.row] if known else [])
    chosen = _fastest(attempts) if job.plan.precision == BEST else attempts[job.plan.precision]
    others = sum(sum(attempt.run.console.timings.values()) for attempt in attempts.values() if attempt is not chosen)
    run.adopt(chosen.run)
    run.console.timings["variants"] = others
    result.adopt(chosen.result)
    result.take(variants=rows)
    if chosen.error:
        raise chosen.error
    if job.plan.precision == BEST:
        result.take(precision=replace(result.precision, requested=BEST))
    slower = _not_faster(attempts)
    if slower:
        run.console.warn(slower)
    return chosen.made


def _fastest(attempts: dict[str, Attempt]) -> Attempt:
    """Of those that passed; where none did, the first."""
    passed = [attempt for attempt in attempts.values() if attempt.made]
    return min(passed, key=_p50, default=next(iter(attempts.values())))


def _p50(attempt: Attempt) -> float:
    """In milliseconds; what could not be timed is not faster than anything."""
    return attempt.result.latency.p50_ms if attempt.result.latency else math.inf


def _not_faster(attempts: dict[str, Attempt]) -> str:
    latency = "int8" in attempts and attempts["int8"].result.latency
    if not latency or not latency.fp16_p50_ms or latency.p50_ms < latency.fp16_p50_ms:
        return ""
    return (
        f"INT8 is not faster than FP16 here: p50 {latency.p50_ms:.3f} ms against {latency.fp16_p50_ms:.3f} ms; "
        "it pays with larger batches and wider layers"
    )
