"""Two runners of one model against each other, as every stage that measures accuracy does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx2trt.compare.evidence import Watch
from onnx2trt.compare.outputs import Accuracy, Runner, compare
from onnx2trt.conversion.job import Job
from onnx2trt.data.reader import Arrays, Batch


def on_arrays(run: Callable[[Arrays], Arrays]) -> Runner:
    """What runs arrays as they are, as a runner of batches."""
    return lambda batch: run(batch.arrays)


def compare_runners(
    job: Job,
    reference: Runner,
    candidate: Runner,
    batches: Iterable[Batch],
    origin: str,
    executed_on: str = "simulated",
    watch: Watch | None = None,
    at_once: int = 1,
) -> tuple[Accuracy, ...]:
    """See validate.compare: all outputs, by the metric of the plan."""
    return compare(
        reference,
        candidate,
        batches,
        tuple(spec.name for spec in job.info.outputs),
        origin=origin,
        executed_on=executed_on,
        image=job.data.image_size,
        channels_last=job.data.channels_last,
        metric=job.plan.validation.metric,
        watch=watch,
        at_once=at_once,
    )
