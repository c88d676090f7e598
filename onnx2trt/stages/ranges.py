"""Stage 'ranges': the largest value of every tensor, and what has to stay in FP32 for it."""

from __future__ import annotations

from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import range_feeds
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BF16, FP16
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.session import CannotLoad
from onnx2trt.quant.equalize.equalization import Equalization
from onnx2trt.rewrite.keep_fp32 import KEPT_FP32_ABOVE, choose_kept_fp32


def measure_ranges(job: Job, graph: Graph, run: Run, of: str = "") -> dict[str, float]:
    """Tensor -> max |x|; empty where nothing asks for it, or it cannot be measured.

    Args:
        of: whose ranges, where it is not the model as it came; for the user.
    """
    plan, data = job.plan, job.data
    if plan.build.plugins:
        run.console.warn("with --plugins ONNX Runtime cannot run the model: no ranges are measured, no layer is kept in FP32 for them")
        return {}
    if not (plan.keep_layers or plan.calibrator or plan.calibration.cache):
        return {}
    source = data.any()
    with run.stage("ranges", f"measuring ranges{of} on {source.called}"):
        try:
            scales = job.scales_by_range
            maxima = absolute_maxima(graph, job.profiles, range_feeds(data, run.console, for_scales=scales), exact=scales)
        except CannotLoad as error:
            run.console.warn(f"no ranges are measured, and no layer is kept in FP32 for them: {error.message}")
            return {}
    if source.kind == "synthetic":
        run.console.warn("ranges were measured on made-up inputs; --calibration-dir or --validate gives real ones")
    return maxima


def equalized_ranges(job: Job, equalization: Equalization, graph: Graph, maxima: dict[str, float], run: Run) -> dict[str, float]:
    """The same of the model with equalized channels: upper bounds where equalizing cannot have brought a tensor near what is kept in FP32.

    Args:
        graph: with them.
        maxima: of the model as it came.
    """
    reaches = equalization.reaches(maxima)
    far = all(FP16.smallest_normal <= low and high <= KEPT_FP32_ABOVE for low, high in reaches.values())
    if not maxima or not far or job.scales_by_range:
        return measure_ranges(job, graph, run, of=" of the equalized model")
    return {**maxima, **{name: high for name, (_, high) in reaches.items()}}


def kept_fp32(job: Job, graph: Graph, maxima: dict[str, float]) -> dict[str, str]:
    """The nodes that stay in FP32, by measured ranges and by layer precision overrides; node -> reason."""
    plan, made_up = job.plan, job.data.any().kind == "synthetic"
    measured = maxima if plan.keep_layers else {}
    return choose_kept_fp32(graph, measured, plan.layer_precisions, job.half if plan.keep_layers else None, job.strong, made_up)


def offer_bf16(job: Job, graph: Graph, in_fp32: dict[str, str], run: Run) -> None:
    """One line, where nodes of an FP16 engine stay in FP32 that BF16 would not keep there, and library and GPU have it.

    Args:
        in_fp32: node -> reason, by kept_fp32.
    """
    plan = job.plan
    if plan.precision != "fp16" or not plan.bf16 or "bf16" in plan.variants or not in_fp32:
        return
    count = len(in_fp32.keys() - choose_kept_fp32(graph, {}, plan.layer_precisions, BF16, job.strong).keys())
    if count:
        run.console.info(
            f"{count} node{'s' * (count > 1)} in FP32, for which FP16 has too small a range: --precision bf16 has that of FP32"
        )
