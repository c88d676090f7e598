"""Stage 'latency': how long the engine takes on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnx2trt.base.model_info import groups_of
from onnx2trt.compare.latency import measure_in_turn
from onnx2trt.conversion.job import Job
from onnx2trt.data.arrays import synthetic_arrays
from onnx2trt.report.built import ProfileRow
from onnx2trt.report.result import Latency
from onnx2trt.trt.engine import Engine

COVERS = "the engine alone on inputs in device memory, between CUDA events; no copies, no pre- or post-processing"


def profile_rows(job: Job, engine: Engine | None) -> list[ProfileRow]:
    """Each of several optimization profiles, timed at its own opt shapes where there is an engine to time; none where there is one."""
    rows = []
    for (name, _), group in zip(job.plan.shapes.profiles, groups_of(job.profiles)):
        latency = latencies(replace(job, profiles=group), {"": engine})[""][0] if engine is not None else None
        rows.append(ProfileRow(name, [profile.to_dict() for profile in group], latency and latency.p50_ms, latency and latency.p99_ms))
    return rows


def latencies(
    job: Job, engines: dict[str, Engine], warn: Callable[[str], None] = lambda text: None
) -> dict[str, tuple[Latency, list[float]]]:
    """Name -> latency at the opt shapes, and the milliseconds of each inference; see compare.latency. Several engines take turns.

    Args:
        warn: takes a sentence where the GPU had other work, so that times hardly tell which engine is faster.
    """
    for engine in engines.values():
        engine.load(synthetic_arrays(job.info.inputs, job.profiles))
    kept: dict[str, list[float]] = {}
    found = measure_in_turn({name: engine.time_ms for name, engine in engines.items()}, kept, warn)
    shape = {profile.name: list(profile.opt) for profile in job.profiles}
    return {name: (Latency(**times, shape=shape, covers=COVERS), kept[name]) for name, times in found.items()}
