"""What an engine of TensorRT-RTX moves, and how long that takes at best, in words. Bounds, no times: nobody could run it here."""

from __future__ import annotations

from onnx2trt.report.result import mega

NOT_TIMED = "computed from data sheets, not measured: real times are usually longer"


def traffic(engine: dict) -> str:
    """
    Args:
        engine: of a result, with moved_bytes.
    """
    attentions = engine.get("fused_attentions")
    kernels = f"{engine['kernels']} kernels" + (f" ({attentions} of them a whole attention each)" if attentions else "")
    moved = f"{kernels} move {mega(engine['moved_bytes'])} through memory in one inference, by the engine's own plan"
    half = engine.get("fp16_moved_bytes")
    if half:
        more = "; where memory is the limit, that is the faster" * (engine["moved_bytes"] > half)
        moved += f"; in FP16 {engine['fp16_kernels']} would move {mega(half)}{more}"
    return f"{moved} (an estimate, not measured)"


def least_times(engine: dict) -> str:
    """
    Args:
        engine: of a result, with least_ms.
    """
    half = engine.get("fp16_least_ms") or {}
    unit, of, each = " ms", "in FP16 ", []  # said once
    for gpu, ms in engine["least_ms"].items():
        beside = f" ({of}{_ms(half[gpu])})" if gpu in half else ""
        each.append(f"{_short(gpu)} {_ms(ms)}{unit}{beside}")
        unit, of = "", ("" if beside else of)
    return ", ".join(each)


def _ms(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def _short(gpu: str) -> str:
    return gpu.removeprefix("GeForce ")
