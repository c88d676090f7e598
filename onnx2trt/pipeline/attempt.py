"""One of several engines of one model, and times that can be compared."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property

from onnx2trt.base.errors import ConversionError, in_words
from onnx2trt.conversion.comparing import worst_output
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline.by_plan import bounds
from onnx2trt.pipeline.engine import Made
from onnx2trt.plan.precision_arguments import EIGHT_BIT
from onnx2trt.report.built import VariantRow
from onnx2trt.report.result import Result
from onnx2trt.stages.faithful import SUSPECTED
from onnx2trt.stages.fp16_baseline import Baseline
from onnx2trt.stages.latency import latencies
from onnx2trt.stages.load import loaded_engine


@dataclass
class Attempt:
    """One of several engines, and what came of it."""

    precision: str
    result: Result
    run: Run
    made: Made | None = None
    error: ConversionError | None = None
    structure: str | None = None  # of INT8, where several are measured
    slow: dict[str, str] = field(default_factory=dict)  # layers that are FP16 for being slow in INT8, or wrong -> reason

    @property
    def label(self) -> str | None:
        """What tells it from other INT8 engines."""
        if not self.structure or not self.slow:
            return self.structure
        wrong = all(reason == SUSPECTED for reason in self.slow.values())
        return f"{self.structure}, {'grouped convolutions' if wrong else 'slow layers'} in FP16"

    @property
    def own_weights(self) -> frozenset[str]:
        """Nodes whose weights are those of the model, since TensorRT does not compute them in INT8."""
        return self.made.choice.structure.own_weights if self.made and self.structure else frozenset()

    def row(self) -> VariantRow:
        """One line of the comparison."""
        precision, latency, built = self.result.precision, self.result.latency, self.made and self.made.built
        rows, plan = self.result.accuracy, self.result.plan
        worst = worst_output(rows, plan["max_accuracy_drop"])[0] if rows else None
        rows = next((shape[0] for shape in latency.shape.values() if shape), 1) if latency else 1
        traffic, faithful = (self.made.traffic, self.made.faithful) if self.made else (None, None)
        return VariantRow(
            precision=self.precision,
            status=self.result.status if self.made else "failed",
            delivered=precision and precision.delivered,
            int8_mac_share=precision and precision.int8_mac_share,
            fp8_mac_share=precision and precision.fp8_mac_share,
            engine_bytes=built.nbytes if built else None,
            p50_ms=latency and latency.p50_ms,
            p99_ms=latency and latency.p99_ms,
            throughput_per_s=round(1000 * rows / latency.p50_ms, 3) if latency else None,
            drop_percent=worst and worst.drop_percent,
            metric=worst and worst.metric,
            sqnr_db=worst and worst.sqnr_db,
            build_s=round(self.run.console.timings.get("build", 0.0), 3),
            error=self.error.message if self.error else None,
            moved_bytes=traffic and traffic.moved_bytes,
            least_ms=self.least_ms,
            structure=self.label,
            falls_short=(faithful and faithful.falls_short) or None,
            off_simulation_db=faithful and faithful.off_db,
        )

    @cached_property
    def least_ms(self) -> dict[str, float] | None:
        """Name of a GPU -> lower bound of the time there, where the engine's plan tells it."""
        return bounds(self.made.job, self.made.prepared.graph, self.made.kernels) if self.made else None

    def fail(self, error: ConversionError) -> None:
        """There is no such engine, or none to be used."""
        self.error = error
        self.result.fail(error)

    @property
    def p50_ms(self) -> float:
        """In milliseconds; what could not be timed is not faster than anything."""
        return self.result.latency.p50_ms if self.result.latency else math.inf


def time_in_turn(job: Job, attempts: dict[str, Attempt], fp16: Attempt | Baseline | None, run: Run) -> None:
    """Latencies of all engines, taken in turn, so that they can be compared.

    Engines that do not run beside each other, for want of GPU memory, say, keep the latencies that were measured one by one.

    Args:
        fp16: what INT8 is held against: timed, too, or as an earlier run has measured it.
    """
    if isinstance(fp16, Attempt):
        attempts = {**attempts, "fp16": fp16}
    made = {name: attempt for name, attempt in attempts.items() if attempt.made}
    if job.plan.executes_here and len(made) > 1:
        try:
            _time(job, made, run)
        except Exception as error:  # of whatever kind: the engines are good
            run.console.warn(f"the engines were not timed in turn, so their latencies are less comparable: {in_words(error)}")
    latency = fp16.result.latency if isinstance(fp16, Attempt) else fp16 and fp16.row
    for attempt in made.values():
        if latency and attempt.result.latency and attempt.precision in EIGHT_BIT:
            attempt.result.latency = replace(attempt.result.latency, fp16_p50_ms=latency.p50_ms)


def _time(job: Job, made: dict[str, Attempt], run: Run) -> None:
    with ExitStack() as stack:
        engines = {name: stack.enter_context(loaded(job, attempt.made, run)) for name, attempt in made.items()}
        with run.stage("latency", "timing the engines in turn"):
            found = latencies(job, engines, run.console.warn)
    for name, (latency, each_ms) in found.items():
        made[name].run.evidence.latency_ms = each_ms
        made[name].result.latency = latency


def loaded(job: Job, made: Made, run: Run):
    """A context with its engine on the GPU."""
    return loaded_engine(job.library, job.plan, made.built.runnable, run, job.plan.build.version_compatible)
