"""INT8 where no engine can be timed: TensorRT-RTX tells in an engine's plan what it moves, so layers that cannot gain go back to FP16.

What is compared are lower bounds of the time (trt.roofline), never times; whoever reads of it is told so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onnx2trt.base.errors import ConversionError
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.pipeline.int8 import Int8Choice
from onnx2trt.plan.precision_arguments import FP8_FROM
from onnx2trt.rewrite.fp16 import forget_halves
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.qdq import quantized_layers
from onnx2trt.rewrite.shares import macs_of
from onnx2trt.stages.build import build_engine
from onnx2trt.stages.slow_layers import served_by, slower_in_int8
from onnx2trt.trt.builder import BuiltEngine
from onnx2trt.trt.inspector import EngineLayer
from onnx2trt.trt.plan_text import Kernel, kernels_of, traffic_of
from onnx2trt.trt.profile import Timed
from onnx2trt.trt.roofline import Gpu, kernel_ms, least_ms, targets

LAUNCH_MS = 0.001  # about what starting a kernel takes; where the kernels are shorter than that, the plan tells nothing of speed
REASON = "cannot gain from {} by the engine's own plan: what is converted moves more than it saves (an estimate, nothing was timed)"


def give_back(job: Job, choice: Int8Choice, run: Run) -> BuiltEngine | None:
    """Where INT8 as a whole takes longer than FP16, leave those layers of a choice in FP16 that cannot gain, as long as builds are left.

    The choice keeps what an FP16 engine would move, too.

    Returns:
        The engine of the choice as it is left; None where none was built, or FP16 alone.
    """
    builds, gpus = job.plan.calibration.effort.builds, _gpus(job)
    label = job.number_format.label
    best: BuiltEngine | None = None
    why = f"{label} is not always faster than FP16"
    run.console.info(f"{why}: both are built, and the engines' own plans say what they move through memory")
    try:
        fp16 = choice.in_fp16()
        choice.fp16_kernels, _ = _kernels(job, fp16, run, "an FP16 engine to compare with")
        macs = macs_of(fp16.graph, job.profiles)
        times = {gpu: least_ms(choice.fp16_kernels, macs, gpu) for gpu in gpus if choice.fp16_kernels}
        weights = {gpu: 1 / time for gpu, time in times.items() if max(times.values()) > LAUNCH_MS * len(choice.fp16_kernels)}
        least, known = math.inf, {}
        for _ in range(builds if weights and builds > 1 else 0):
            prepared = choice.prepared(run)
            kernels, built = _kernels(job, prepared, run, _described(label, len(choice.by_plan)))
            found = sum(weight * least_ms(kernels, macs, gpu) for gpu, weight in weights.items()) / len(weights)
            if not kernels or found >= least:
                choice.by_plan = known
                break
            run.console.debug(f"{label} takes at least {found:.3f} of what FP16 takes at least; {len(choice.by_plan)} layers left in FP16")
            least, known, best = found, choice.by_plan, built
            if found <= 1:
                break
            int8, half = (_timed(*one, macs, weights) for one in ((prepared.graph, kernels), (fp16.graph, choice.fp16_kernels)))
            slow = slower_in_int8(job, prepared.graph, int8, half)
            if not slow:
                break
            choice.by_plan = {**known, **dict.fromkeys(slow, REASON.format(label))}
        else:
            choice.by_plan = known
    except ConversionError as error:
        choice.by_plan, best = {}, None
        run.console.debug(f"what the engines move was not compared: {error.message}")
    forget_halves()  # of the FP16 engine
    return best


def _described(label: str, back: int) -> str:
    """An engine that is built to be compared, for the user, who sees several of them."""
    return f"an {label} engine " + (f"with {back} layer{'s' * (back > 1)} more in FP16, to compare again" if back else "to compare")


def about(job: Job, choice: object, graph: Graph, kernels: Sequence[Kernel]) -> dict:
    """What the plans tell, as fields of the result's engine.

    Args:
        choice: what the engine was made by; one of INT8 layers knows of the FP16 engine, too.
        graph: that it was built from.
    """
    macs = macs_of(graph, job.profiles) if kernels else {}
    found = {"least_ms": _bounds(job, kernels, macs)}
    half = choice.fp16_kernels if isinstance(choice, Int8Choice) else ()
    traffic = traffic_of(half)
    if not traffic:
        return found
    in_fp16 = {"fp16_kernels": traffic.kernels, "fp16_moved_bytes": traffic.moved_bytes}
    return {**found, **in_fp16, "fp16_least_ms": _bounds(job, half, macs)}


def bounds(job: Job, graph: Graph, kernels: Sequence[Kernel]) -> dict[str, float] | None:
    """Name of a GPU that the engine is for -> least time in milliseconds; None where the plan tells nothing.

    Args:
        graph: FP32 or as it was built from.
    """
    return _bounds(job, kernels, macs_of(graph, job.profiles)) if kernels else None


def _bounds(job: Job, kernels: Sequence[Kernel], macs: Mapping[str, int]) -> dict[str, float] | None:
    return {gpu.name: round(least_ms(kernels, macs, gpu), 4) for gpu in _gpus(job)} if kernels else None


def _gpus(job: Job) -> tuple[Gpu, ...]:
    """Those that the engine is for."""
    found = targets(job.plan.gpu_archs)
    return tuple(gpu for gpu in found if float(gpu.arch) >= FP8_FROM) if job.plan.precision == "fp8" else found


def _kernels(job: Job, prepared: Prepared, run: Run, what: str) -> tuple[tuple[Kernel, ...], BuiltEngine]:
    built = build_engine(job, prepared, None, None, run, what)
    return kernels_of(job.plan.backend, built.data), built


def _timed(graph: Graph, kernels: Sequence[Kernel], macs: Mapping[str, int], weights: Mapping[Gpu, float]) -> Timed:
    """The kernels as layers, with their least times: parts of that of the FP16 engine, on average over the GPUs."""
    nodes, low = {node.name for node in graph.nodes}, quantized_layers(graph)
    layers, times = [], {}
    for index, kernel in enumerate(kernels):
        computed = tuple(name for name in kernel.nodes if name in nodes)
        precision = "int8" if kernel.multiplies and low.intersection(computed) else "fp16"
        layers.append(EngineLayer(str(index), "kernel", precision, precision, None, computed, ""))
        times[str(index)] = sum(weight * kernel_ms(kernel, macs, gpu) for gpu, weight in weights.items()) / len(weights)
    return served_by(graph, tuple(layers)), times
