"""plan/refit.py: what goes with --refit, --refittable and --strip-weights, and which library and machine can do it."""

from dataclasses import replace

import pytest
from helpers import LIBRARIES, parse, refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.rules import flag_problem

NO_GPU = {"gpu": "", "gpu_arch": "", "driver": "", "driver_problem": "the NVIDIA driver finds no GPU"}


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--refit e --precision int8", "--refit takes the network as the engine was built, so --precision cannot go with it"),
        ("--refit e --opt-shapes 1x3 --refittable", "so --opt-shapes and --refittable cannot go with it"),
        ("--refit e --skip-unchanged", "so --skip-unchanged cannot go with it"),
        ("--refit e --validate-only f", "cannot go with it"),
        ("--refittable --compare", "--refittable is for one engine, so --compare cannot go with it"),
        ("--strip-weights --precision best", "--strip-weights is for one engine, so --precision best cannot go with it"),
        ("--strip-weights --triton-repository r", "does not run yet, so --triton-repository cannot go with it"),
        ("--refit=", "--refit is empty"),
        ("--inspect e --refit e", "--inspect only reads an engine, so --refit cannot go with it"),
    ],
)
def test_what_cannot_go_together(flags, said):
    words = flags.split()
    args = parse(*words) if "--inspect" not in words else inspecting(words)
    assert said in flag_problem(args)


def inspecting(words):
    from onnx2trt.plan.arguments import build_parser

    return build_parser().parse_args(words)


@pytest.mark.parametrize(
    "flags",
    [
        "--refit e",
        "--refit e -o e",
        "--refit e --mean 0.5 --validation-dir v --json -",
        "--refittable --strip-weights",
        "--refit e --no-validate",
    ],
)
def test_what_can(flags):
    assert flag_problem(parse(*flags.split())) == ""


@pytest.mark.parametrize("flag", ["--refit e", "--refittable", "--strip-weights", "--refittable --strip-weights"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_library_is_asked(library, flag):
    make_plan(parse(*flag.split()), LIBRARIES[library])
    old = replace(LIBRARIES[library], refits=frozenset({"REFIT"}))
    with refused(ExitCode.MACHINE, flag.split()[0], "has no", "OnnxParserRefitter", hint="TensorRT 10 and 11"):
        make_plan(parse(*flag.split()), old)


@pytest.mark.parametrize("flag", ["--refit e", "--refittable", "--strip-weights"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_no_gpu_is_the_reason(library, flag):
    with refused(ExitCode.MACHINE, flag.split()[0], "the NVIDIA driver finds no GPU", hint="that the engine is for"):
        make_plan(parse(*flag.split()), replace(LIBRARIES[library], **NO_GPU))


def test_an_engine_for_another_gpu_cannot_be_refittable():
    with refused(ExitCode.MACHINE, "--refittable", "none of its targets"):
        make_plan(parse("--refittable", "--gpu-arch", "sm_120"), LIBRARIES["rtx"])
