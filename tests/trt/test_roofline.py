"""trt/roofline.py: what kernels take at least, by data sheets."""

import random

import pytest

from onnx2trt.trt.plan_text import Kernel
from onnx2trt.trt.roofline import GPUS, kernel_ms, least_ms, targets

GPU = next(gpu for gpu in GPUS if gpu.name == "GeForce RTX 4090")


def test_a_kernel_takes_the_longer_of_its_bytes_and_its_arithmetic():
    mega = 1_000_000
    assert kernel_ms(Kernel(("a",), True, "half", 1008 * mega), {"a": 1}, GPU) == pytest.approx(1.0), "1008 GB/s"
    assert kernel_ms(Kernel(("a",), True, "half", 1), {"a": 330_300 * mega // 2}, GPU) == pytest.approx(1.0), "330.3 TFLOPS"
    assert kernel_ms(Kernel(("a",), True, "int8", 1), {"a": 330_300 * mega}, GPU) == pytest.approx(1.0), "660.6 TOPS"
    assert kernel_ms(Kernel(("a",), True, "float", 1), {"a": 82_600 * mega // 2}, GPU) == pytest.approx(1.0), "82.6 TFLOPS"
    assert kernel_ms(Kernel(("a",), False, "half", 1008), {"a": 10**15}, GPU) == pytest.approx(1e-6), "what takes part multiplies nothing"


def test_it_grows_with_bytes_and_work_and_never_falls_with_a_slower_gpu():
    draw = random.Random(7)
    for _ in range(200):
        moved, work, reads = draw.randrange(1, 10**9), draw.randrange(10**12), draw.choice(("half", "int8", "fp8", "float"))
        kernel, more = Kernel(("a",), True, reads, moved), Kernel(("a",), True, reads, 2 * moved)
        times = {gpu.name: kernel_ms(kernel, {"a": work}, gpu) for gpu in GPUS}
        assert times["GeForce RTX 5090"] < times["GeForce RTX 4090"] < times["GeForce RTX 4060"]
        for gpu in GPUS:
            one = times[gpu.name]
            assert one <= kernel_ms(more, {"a": work}, gpu) <= 2 * one
            assert least_ms([kernel, more], {"a": work}, gpu) >= 2 * one


def test_the_gpus_are_those_that_an_engine_is_for():
    assert {gpu.arch for gpu in targets(("8.9",))} == {"8.9"}
    assert {gpu.arch for gpu in targets(("8.6", "12.0"))} == {"8.6", "12.0"}
    assert targets(()) == tuple(gpu for gpu in GPUS if gpu.arch != "7.5"), "a portable engine is for 8.0 and newer"
