"""What was asked for, held against what the model is: refused before any work on it."""

from __future__ import annotations

import os
from dataclasses import replace

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.apart import apart
from onnx2trt.plan.plan import NATIVE_METHODS, Plan
from onnx2trt.plan.precision_arguments import EIGHT_BIT, FP8_FROM
from onnx2trt.rewrite.element_types import HALF, as_float32
from onnx2trt.rewrite.number_formats import FP8

UPDATE_ONNX = "Update it (pip install -U onnx): 1.19 and newer have them."


def say_what_it_carries(job: Job, run: Run) -> None:
    """What the model is already, and what it lacks for what was asked for.

    Raises:
        ConversionError: MODEL, CALIBRATION, or MACHINE where onnx is too old for BF16 or FP8.
    """
    plan, info = job.plan, job.info
    if info.half and plan.precision == "fp16":
        run.console.warn("the model carries FP16 tensors already; they stay as they are")
    elif info.half:
        run.console.warn(f"the model carries FP16 tensors: for {plan.precision} they become FP32, which holds the same values")
    if job.half.dtype.itemsize != 2:  # of onnx before 1.19
        raise ConversionError(
            f"--precision {plan.precision} needs onnx 1.19 or newer, which can write {job.half.label} weights",
            hint="pip install 'onnx>=1.19'",
            code=ExitCode.MACHINE,
        )
    if info.quantized:
        data = ", calibration data only for the ranges of the other layers" if plan.calibration.directory else ""
        run.console.warn(f"the model carries Q/DQ already; its own scales are used{data}")
        return
    cache = plan.calibration.cache
    if plan.precision == "fp8" and not FP8.available:
        raise ConversionError("--precision fp8: the installed onnx has no arrays of FP8", hint=UPDATE_ONNX, code=ExitCode.MACHINE)
    if plan.precision == "fp8" and plan.backend == "tensorrt-rtx" and not plan.gpu_archs and not plan.executes_here:
        run.console.warn(f"an engine with FP8 runs on GPUs of compute capability {FP8_FROM} and newer alone (Ada, Hopper, Blackwell)")
    if plan.precision in EIGHT_BIT and not plan.calibration.directory and not (cache and os.path.exists(cache)):
        raise ConversionError(
            f"--precision {plan.precision} needs calibration data: neither --calibration-dir nor an existing --calibration-cache was given",
            hint="Give --calibration-dir a folder of typical images (some hundred), or of .npz files.",
            code=ExitCode.CALIBRATION,
        )
    if plan.precision in EIGHT_BIT and plan.build.plugins:
        _check_plugins(plan)


def without_half(job: Job) -> Job:
    """The job with a model of FP32, where one that carries FP16 shall become FP32 or INT8; inputs and outputs keep their types."""
    if not job.info.half or job.plan.precision == "fp16":
        return job
    model, weights = apart(as_float32(job.as_given(), (HALF,), same_io=True).to_model())
    return replace(job, model=model, weights=weights, info=replace(job.info, half=False, adopted=True))


def _check_plugins(plan: Plan) -> None:
    """What has to be calibrated on the CPU cannot be where only TensorRT can run the model.

    Raises:
        ConversionError: MACHINE.
    """
    from_cache = plan.calibration.cache is not None and os.path.exists(plan.calibration.cache)
    if plan.calibrator:
        if plan.native_method is None and not from_cache:
            raise ConversionError(
                f"--calibration-method {plan.calibration.method} is computed on the CPU, where ONNX Runtime does not have the --plugins",
                hint=f"TensorRT calibrates such a model itself, by {' or '.join(NATIVE_METHODS)}: name one of them, or leave the flag out.",
                code=ExitCode.MACHINE,
            )
    elif plan.calibration.directory:
        raise ConversionError(
            "Q/DQ is calibrated on the CPU, where ONNX Runtime does not have the --plugins",
            hint="Give a --calibration-cache of this model without --calibration-dir; or use TensorRT 8.6 to 10 without "
            "--quantization qdq, whose own calibrator runs the plugins.",
            code=ExitCode.MACHINE,
        )


def check_io_types(job: Job) -> None:
    """
    Raises:
        ConversionError: USAGE, where --io-types does not fit the model.
    """
    plan, info = job.plan, job.info
    declared = {spec.name: spec.dtype for spec in (*info.inputs, *info.outputs)}
    for name, precision in plan.io_types:
        if declared.get(name) not in ("float32", "float16"):
            known = ", ".join(f"{own} ({dtype})" for own, dtype in declared.items())
            raise ConversionError(
                f"--io-types {name}:{precision}: {name!r} is no floating-point input or output; the model has {known}", code=ExitCode.USAGE
            )
        if declared[name] == "float16" and precision == "fp32":
            raise ConversionError(f"--io-types {name}:fp32: the model itself declares {name!r} as float16", code=ExitCode.USAGE)
