"""plan/variants.py: which precisions are built beside one another, and where FP8 is refused."""

from dataclasses import replace

import pytest
from helpers import LIBRARIES, parse, refused

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.capabilities import NO_LIBRARY
from onnx2trt.plan.plan import Route, make_plan
from onnx2trt.plan.rules import flag_problem
from onnx2trt.plan.variants import fp8_problem

DATA = ("--calibration-dir", "images")


def on(library: str, arch: str = "8.9", fp8: bool = True, **changes):
    return replace(LIBRARIES[library], gpu_arch=arch, fp8=fp8, **changes)


@pytest.mark.parametrize("library", ["weak", "strong", "rtx"])
def test_fp8_is_written_into_the_onnx_whatever_the_library(library):
    plan = make_plan(parse("--precision", "fp8", "--no-baseline", *DATA), on(library))
    assert (plan.precision, plan.variants, plan.route) == ("fp8", ("fp8",), Route.STRONG)
    assert plan.fp16_scales and not plan.calibrator and plan.native_method is None and plan.structures == ()
    assert plan.attention == (library == "rtx"), "TensorRT's own kernels for attention in FP8 were slower"


@pytest.mark.parametrize("arch", ["7.5", "8.0", "8.6", "8.7"])
@pytest.mark.parametrize("library", ["weak", "strong", "rtx"])
def test_a_gpu_without_fp8_is_refused_before_any_work(library, arch):
    with refused(ExitCode.MACHINE, "--precision fp8", arch, "8.9", hint="--precision int8"):
        make_plan(parse("--precision", "fp8", *DATA), on(library, arch))


@pytest.mark.parametrize("archs, problem", [(("75",), "7.5"), (("86", "89"), "8.6"), (("89",), ""), (("89", "120"), ""), (("120",), "")])
def test_the_architectures_that_are_built_for_decide(archs, problem):
    caps = on("rtx", "8.6", compute_capabilities=frozenset({"SM75", "SM80", "SM86", "SM89", "SM120"}))
    flags = parse("--precision", "fp8", *DATA, "--gpu-arch", *archs)
    if not problem:
        assert make_plan(flags, caps).precision == "fp8"
        return
    with pytest.raises(ConversionError) as caught:
        make_plan(flags, caps)
    assert caught.value.code is ExitCode.MACHINE or problem == "7.5"
    assert problem in caught.value.message


def test_a_library_without_strongly_typed_fp8_is_refused():
    with refused(ExitCode.MACHINE, "--precision fp8", "strongly typed"):
        make_plan(parse("--precision", "fp8", *DATA), on("weak", fp8=False))
    assert fp8_problem(NO_LIBRARY, ()) == "", "nothing is built"


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--quantization", "calibrator"), "calibrators make INT8 alone"),
        (("--calibration-method", "entropy"), "auto, minmax, percentile, mse"),
    ],
)
def test_what_is_for_int8_alone_contradicts_fp8(flags, words):
    assert words in flag_problem(parse("--precision", "fp8", *DATA, *flags))
    assert not flag_problem(parse("--precision", "int8", *DATA, *flags))


@pytest.mark.parametrize(
    "flags, arch, expected",
    [
        (("--precision", "best", *DATA), "8.9", ("fp16", "int8", "fp8")),
        (("--precision", "best", *DATA), "8.6", ("fp16", "int8")),
        (("--precision", "best"), "8.9", ("fp16",)),
        (("--precision", "best", *DATA, "--calibration-cache", "c"), "8.9", ("fp16", "int8")),
        (("--precision", "best", *DATA, "--calibration-method", "entropy"), "8.9", ("fp16", "int8")),
        (("--precision", "int8", "--compare", *DATA), "8.9", ("int8", "fp32", "fp16", "fp8")),
        (("--precision", "fp8", "--compare", *DATA), "9.0", ("fp8", "fp32", "fp16", "int8")),
        (("--precision", "fp8", "--compare", *DATA, "--calibration-cache", "c"), "9.0", ("fp8", "fp32", "fp16")),
        (("--precision", "fp16", "--compare"), "9.0", ("fp16", "fp32", "int8")),
        (("--precision", "fp8", *DATA), "9.0", ("fp8", "fp16")),
        (("--precision", "fp8", "--no-baseline", *DATA), "9.0", ("fp8",)),
    ],
)
def test_what_is_built_side_by_side(flags, arch, expected):
    plan = make_plan(parse(*flags), on("weak", arch))
    assert tuple(precision for precision in plan.variants if precision != "bf16") == expected, "BF16 stands beside FP16 where there is any"
    for precision in expected:
        route = Route.STRONG if precision == "fp8" else Route.WEAK
        assert plan.for_precision(precision).route is route
