"""Stage 'latency': how long the engine takes on the GPU."""

from __future__ import annotations

from onnx2trt.compare.latency import measure_in_turn
from onnx2trt.conversion.job import Job
from onnx2trt.data.arrays import synthetic_arrays
from onnx2trt.report.result import Latency
from onnx2trt.trt.engine import Engine

COVERS = "the engine alone on inputs in device memory, between CUDA events; no copies, no pre- or post-processing"


def latencies(job: Job, engines: dict[str, Engine]) -> dict[str, tuple[Latency, list[float]]]:
    """Name -> latency at the opt shapes, and the milliseconds of each inference; see compare.latency. Several engines take turns."""
    for engine in engines.values():
        engine.load(synthetic_arrays(job.info.inputs, job.profiles))
    kept: dict[str, list[float]] = {}
    found = measure_in_turn({name: engine.time_ms for name, engine in engines.items()}, kept)
    shape = {profile.name: list(profile.opt) for profile in job.profiles}
    return {name: (Latency(**times, shape=shape, covers=COVERS), kept[name]) for name, times in found.items()}
