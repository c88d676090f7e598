"""How long kernels take at least on GPUs that are not here: the longer of their traffic and their arithmetic, by data sheets.

The roofline model (Williams, Waterman and Patterson, Communications of the ACM 52(4), 2009). It is a bound and no measurement: caches,
launches, and how well a kernel uses the GPU are not in it. It tells where INT8 cannot pay, not that it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnx2trt.trt.plan_text import Kernel

RATES = {
    "half": "fp16",
    "bf16": "fp16",
    "fp8": "int8",
    "fp8_e4m3": "int8",
    "int8": "int8",
}  # type that a kernel reads -> the rate that it has at best


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet, dense rates."""

    name: str
    arch: str  # compute capability
    gigabytes_per_s: float
    fp32_tflops: float  # without tensor cores, since real FP32 is the default
    fp16_tflops: float  # tensor cores that accumulate in FP16: what an FP16 kernel may reach
    int8_tops: float  # also that of FP8, where there is FP8


# NVIDIA's white papers on Turing, GA102, Ada and RTX Blackwell; of each generation one large and one small GPU where there are two
GPUS = (
    Gpu("GeForce RTX 2080 Ti", "7.5", 616, 13.4, 107.6, 215.2),
    Gpu("GeForce RTX 3080", "8.6", 760, 29.8, 119, 238),
    Gpu("GeForce RTX 4060", "8.9", 272, 15.1, 60.5, 121),
    Gpu("GeForce RTX 4090", "8.9", 1008, 82.6, 330.3, 660.6),
    Gpu("GeForce RTX 5080", "12.0", 960, 56.3, 225.1, 450.2),
    Gpu("GeForce RTX 5090", "12.0", 1792, 104.8, 419, 838),
)


def targets(archs: tuple[str, ...]) -> tuple[Gpu, ...]:
    """The GPUs that an engine for these compute capabilities may run on; of a portable one (none named) all from 8.0 on."""
    return tuple(gpu for gpu in GPUS if (gpu.arch in archs if archs else gpu.arch != "7.5"))


def kernel_ms(kernel: Kernel, macs: Mapping[str, int], gpu: Gpu) -> float:
    """The least time of a kernel, in milliseconds.

    Args:
        macs: node -> multiply-accumulates.
    """
    rate = {"fp16": gpu.fp16_tflops, "int8": gpu.int8_tops}.get(RATES.get(kernel.reads, ""), gpu.fp32_tflops)
    work = sum(macs.get(node, 0) for node in kernel.nodes) if kernel.multiplies else 0
    arithmetic_ms = 2 * work / (rate * 1e9)
    return max(kernel.moved_bytes / (gpu.gigabytes_per_s * 1e6), arithmetic_ms)


def least_ms(kernels: Iterable[Kernel], macs: Mapping[str, int], gpu: Gpu) -> float:
    """The least time of all kernels in turn, in milliseconds."""
    return sum(kernel_ms(kernel, macs, gpu) for kernel in kernels)
