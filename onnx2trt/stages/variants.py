"""Several engines of one model: built in turn, timed against each other, and the one that was asked for handed on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run, Variant
from onnx2trt.plan.plan import BEST
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages import fp16_baseline as baseline
from onnx2trt.stages import read_back as reading
from onnx2trt.stages import validate as checking
from onnx2trt.stages.fp16_baseline import Baseline
from onnx2trt.stages.slow_layers import slower_in_int8, time_layers
from onnx2trt.trt.builder import BuiltEngine


@dataclass(frozen=True)
class Made:
    """An engine that passed, and what it was made of."""

    job: Job
    prepared: Prepared
    built: BuiltEngine
    status: str


Make = Callable[[Job], Made]  # all stages from the preparation to the check; raises ConversionError
Remake = Callable[[Job, Prepared], Made]  # the same for a model that is prepared already


@dataclass
class _Attempt:
    precision: str
    variant: Variant
    made: Made | None = None
    error: ConversionError | None = None


def make_all(job: Job, run: Run, make: Make, remake: Remake) -> Made:
    """The engine that was asked for; with --compare, --precision best, or INT8 on a GPU, others to hold against it.

    Raises:
        ConversionError: of the engine that was asked for; of --precision best, where none passes.
    """
    plan = job.plan
    if len(plan.variants) == 1 and plan.precision != BEST:
        return make(job)
    attempts: dict[str, _Attempt] = {}
    known = baseline.recall(job, run) if plan.precision == "int8" and not plan.compare else None
    for precision in plan.variants:
        if known and precision == "fp16":
            continue
        attempts[precision] = _attempt(job, precision, run, make)
        error = attempts[precision].error
        if precision == plan.precision and error and (not plan.compare or error.code is not ExitCode.VALIDATION):
            break  # what is wrong with it is wrong with the others, too, or nobody asked for them
    if plan.precision == BEST and "fp32" not in attempts and not any(attempt.made for attempt in attempts.values()):
        attempts["fp32"] = _attempt(job, "fp32", run, make)
    _time(job, attempts, run, known)
    if plan.executes_here:
        _give_slow_layers_back(job, attempts, run, remake, known)
    return _hand_on(job, attempts, run, known)


def _attempt(job: Job, precision: str, run: Run, make: Make) -> _Attempt:
    plan = replace(job.plan, precision=precision)
    if precision == "fp32":
        plan = replace(plan, layer_precisions=())  # all its layers are FP32
    with run.variant(precision) as variant:
        attempt = _Attempt(precision, variant)
        try:
            attempt.made = make(replace(job, plan=plan))
        except ConversionError as error:
            attempt.error = error
            if precision != job.plan.precision:
                run.console.info(f"no engine: {error.message}")
    return attempt


def _time(job: Job, attempts: dict[str, _Attempt], run: Run, known: Baseline | None) -> None:
    """Latencies of all engines, taken in turn, so that they can be compared."""
    made = {name: attempt.made for name, attempt in attempts.items() if attempt.made}
    if job.plan.executes_here and len(made) > 1:
        _time_in_turn(job, attempts, made, run)
    fp16 = attempts["fp16"].variant.result["latency"] if "fp16" in made else known and known.row
    for name in made:
        latency = attempts[name].variant.result["latency"]
        if fp16 and latency and attempts[name].precision == "int8":
            latency["fp16_p50_ms"] = fp16["p50_ms"]


def _time_in_turn(job: Job, attempts: dict[str, _Attempt], made: dict[str, Made], run: Run) -> None:
    with ExitStack() as stack:
        engines = {}
        for name, one in made.items():
            engines[name] = stack.enter_context(
                reading.loaded_engine(job.library, job.plan, one.built.data, run, job.plan.build.version_compatible)
            )
        with run.stage("latency", "timing the engines in turn"):
            kept: dict[str, list[float]] = {}
            found = checking.latencies(job, engines, kept)
    for name, latency in found.items():
        attempts[name].variant.evidence.latency_ms = kept[name]
        attempts[name].variant.result["latency"] = latency


def _give_slow_layers_back(job: Job, attempts: dict[str, _Attempt], run: Run, remake: Remake, known: Baseline | None) -> None:
    """Build INT8 once more without the layers that FP16 computes faster, and keep it where it really is."""
    int8, fp16 = attempts.get("int8"), attempts.get("fp16")
    if not (int8 and int8.made and (known or fp16 and fp16.made)):
        return
    with run.stage("profile", "timing the layers"):
        timed = known.timed if known else time_layers(job, fp16.made, run)
        slow = slower_in_int8(job, int8.made, time_layers(job, int8.made, run), timed)
    if slow and int8.made.prepared.without:
        _build_without(slow, job, attempts, run, remake, known)
    if not known:  # after the last time that it was timed
        baseline.remember(job, _row(fp16), timed, run)


def _build_without(slow: dict[str, str], job: Job, attempts: dict[str, _Attempt], run: Run, remake: Remake, known: Baseline | None) -> None:
    """
    Args:
        slow: INT8 node -> why it should rather be FP16.
    """
    int8 = attempts["int8"]
    run.console.info(f"{len(slow)} INT8 layers are slower than in FP16: built once more without them")
    for node, reason in slow.items():
        run.console.debug(f"{node}: {reason}")
    with run.variant("int8") as variant:
        second = _Attempt("int8", variant)
        try:
            second.made = remake(int8.made.job, int8.made.prepared.without(slow))
        except ConversionError as error:  # TensorRT takes FP16 for more of them, say: then the first stays
            run.console.info(f"no engine: {error.message}")
            return
    both = {"first": int8, "int8": second, **({} if known else {"fp16": attempts["fp16"]})}
    _time(job, both, run, known)
    before, after = (attempt.variant.result["latency"]["p50_ms"] for attempt in (int8, second))
    run.console.info(f"p50 {before:.3f} ms with them, {after:.3f} ms without: the {'second' if after < before else 'first'} engine is kept")
    if after < before:
        attempts["int8"] = second


def _hand_on(job: Job, attempts: dict[str, _Attempt], run: Run, known: Baseline | None) -> Made:
    rows = [_row(attempt) for attempt in attempts.values()] + ([known.row] if known else [])
    chosen = _fastest(attempts) if job.plan.precision == BEST else attempts[job.plan.precision]
    others = sum(sum(attempt.variant.timings.values()) for attempt in attempts.values() if attempt is not chosen)
    run.adopt(chosen.variant)
    run.console.timings["variants"] = others
    run.result["variants"] = rows
    if chosen.error:
        raise chosen.error
    if job.plan.precision == BEST:
        run.result["precision"]["requested"] = BEST
    slower = _not_faster(attempts)
    if slower:
        run.console.warn(slower)
        run.result["warnings"] = list(run.console.warnings)
    return chosen.made


def _fastest(attempts: dict[str, _Attempt]) -> _Attempt:
    """Of those that passed; where none did, the first."""
    passed = [attempt for attempt in attempts.values() if attempt.made]
    return min(passed, key=lambda attempt: attempt.variant.result["latency"]["p50_ms"], default=next(iter(attempts.values())))


def _not_faster(attempts: dict[str, _Attempt]) -> str:
    latency = "int8" in attempts and attempts["int8"].variant.result["latency"]
    if not latency or not latency["fp16_p50_ms"] or latency["p50_ms"] < latency["fp16_p50_ms"]:
        return ""
    return (
        f"INT8 is not faster than FP16 here: p50 {latency['p50_ms']:.3f} ms against {latency['fp16_p50_ms']:.3f} ms; "
        "it pays with larger batches and wider layers"
    )


def _row(attempt: _Attempt) -> dict:
    """One line of the comparison; None where it is not known."""
    result = attempt.variant.result
    precision, latency = result["precision"] or {}, result["latency"] or {}
    worst = max(result["accuracy"], key=lambda row: row["drop_percent"], default={})
    p50 = latency.get("p50_ms")
    rows = next((shape[0] for shape in latency.get("shape", {}).values() if shape), 1)
    error = attempt.error.message if attempt.error else None
    return {
        "precision": attempt.precision,
        "status": attempt.made.status if attempt.made else "failed",
        "delivered": precision.get("delivered"),
        "int8_mac_share": precision.get("int8_mac_share"),
        "engine_bytes": attempt.made.built.nbytes if attempt.made else None,
        "p50_ms": p50,
        "p99_ms": latency.get("p99_ms"),
        "throughput_per_s": round(1000 * rows / p50, 3) if p50 else None,
        "drop_percent": worst.get("drop_percent"),
        "metric": worst.get("metric"),
        "sqnr_db": worst.get("sqnr_db"),
        "build_s": round(attempt.variant.timings.get("build", 0.0), 3),
        "error": error,
    }
