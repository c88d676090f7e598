"""Which precisions a run builds engines of, and where FP8 is to be had."""

from __future__ import annotations

from onnx2trt.plan.capabilities import Capabilities
from onnx2trt.plan.precision_arguments import EIGHT_BIT, FP8_FROM, FP8_METHODS

BEST = "best"  # --precision best


def variants_of(args, executes: bool, bf16: bool, fp8: bool) -> tuple[str, ...]:
    """--compare: all. best: what can win; FP32 only where nothing else passes. INT8 and FP8 on a GPU: FP16, too, to say what they are good
    for. FP8 beside others needs data: a cache holds scales of one format."""
    calibrated = args.calibration_dir or args.calibration_cache
    both = fp8 and args.calibration_dir and not args.calibration_cache and not args.plugins
    eight_bit = EIGHT_BIT if both and args.quantization != "calibrator" and args.calibration_method in FP8_METHODS else ("int8",)
    half = ("fp16", "bf16") if bf16 else ("fp16",)
    asked = ((*half, *eight_bit) if calibrated else half) if args.precision == BEST else (args.precision,)
    if args.compare:
        others = eight_bit if args.precision != "fp8" or both else ()
        return tuple(dict.fromkeys((*asked, "fp32", *half, *others)))
    baseline = not (args.no_baseline or args.no_validate or args.validate_only) and args.precision in EIGHT_BIT and executes
    return (*asked, "fp16") if baseline else asked


def fp8_beside(caps: Capabilities, archs: tuple[str, ...]) -> bool:
    """Whether FP8 is among what --compare and --precision best look at: all GPUs that the engines are for have it."""
    return bool(archs or caps.executes(archs)) and not fp8_problem(caps, archs)


def fp8_problem(caps: Capabilities, archs: tuple[str, ...]) -> str:
    """Why there is no FP8 here; empty where there is, or where nothing is built."""
    if caps.backend is None:
        return ""
    if not caps.fp8:
        return f"{caps.backend} {caps.version} has no strongly typed FP8; TensorRT 10 and newer and TensorRT-RTX have it"
    unfit = [arch for arch in archs or filter(None, (caps.gpu_arch,)) if float(arch) < FP8_FROM]
    if unfit:
        whose = "--gpu-arch names" if archs else f"{caps.gpu or 'the GPU'} has"
        return f"{whose} compute capability {', '.join(unfit)}, and FP8 begins with {FP8_FROM} (Ada, Hopper, Blackwell)"
    return ""
