"""plan/refit.py: what goes with --refit, --refittable and --strip-weights, and which library and machine can do it."""

import json
import random
import re
from dataclasses import replace

import pytest
from helpers import LIBRARIES, parse, refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.refit import OF_THE_DATA, OF_THE_ENGINE, as_built, flag_of, to_remember
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


# ---- what an engine remembers of its flags

REMEMBERED = {
    "--precision": ("fp32", "int8"),
    "--layer-precisions": ("*/attn/*:fp32", "a:0:fp16,b*:fp32"),
    "--precision-constraints": ("obey",),
    "--strongly-typed": ("",),
    "--io-types": ("x:fp16", "x:0:fp16,y:fp32"),
    "--tf32": ("",),
    "--imgsz": ("640", "480x640"),
    "--max-batch-size": ("8",),
    "--min-shapes": ("1x3x8x8", "x:0:0x8,y:2"),
    "--opt-shapes": ("x:1,3,8,8", "[1, 3, 8, 8]"),
    "--shape-values": ("size:8x8:16x16:40x40,keep:-5", "a:b:7"),
    "--bind-input": ("sr=16000", "mask=[1,1,0]", "a=b=c.npy"),
    "--workspace-size": ("0.5", "1e-1"),
    "--builder-optimization-level": ("0", "5"),
    "--tactic-sources": ("+CUBLAS,cudnn",),
    "--dla-core": ("1",),
    "--version-compatible": ("",),
    "--hardware-compatibility-level": ("ampere_plus",),
    "--gpu-arch": ("sm_89,8.9", "120"),
    "--refittable": ("",),
    "--input-range": ("255",),
    "--mean": ("0.1,-0.25,1e-17", "-1"),
    "--std": ("0.2",),
    "--color": ("bgr",),
    "--resize": ("crop",),
    "--min-int8-share": ("33.3",),
}


def random_flags(seed: int) -> list[str]:
    chosen, words = random.Random(seed), []
    for flag in chosen.sample(list(REMEMBERED), chosen.randrange(1, 9)):
        values = chosen.sample(REMEMBERED[flag], chosen.randrange(1, len(REMEMBERED[flag]) + 1))
        words += [f"{flag}={value}" if value else flag for value in values]
    return words


@pytest.mark.parametrize("seed", range(60))
def test_what_is_remembered_is_what_was_typed(seed):
    args, again = parse(*random_flags(seed)), parse("--refit", "e")
    as_built(again, json.loads(json.dumps(to_remember(args))))
    for dest in (*OF_THE_ENGINE, *OF_THE_DATA):
        assert getattr(again, dest) == getattr(args, dest), dest
    assert to_remember(again) == to_remember(args)


def test_every_flag_that_is_remembered_is_tried_here():
    known = {flag_of(dest) for dest in (*OF_THE_ENGINE, *OF_THE_DATA)}
    assert known - REMEMBERED.keys() == {"--max-shapes", "--profile", "--disable-strict-types", "--disable-tactic-sources"}, "as others"
    args, again = parse("--profile", "small=x:1x8:2x8:4x8,y:1x4", "large=x:8x8", "--max-shapes=x:1x3"), parse()
    as_built(again, to_remember(args))
    assert again.profile == args.profile and again.max_shapes == args.max_shapes


@pytest.mark.parametrize(
    "word, said",
    [
        ("--output=/etc/passwd", "is no flag that an engine is built with"),
        ("--plugins=evil.so", "is no flag that an engine is built with"),
        ("--help", "is no flag that an engine is built with"),
        ("-o", "is no flag that an engine is built with"),
        ("evil.onnx", "is no flag that an engine is built with"),
        ("", "is no flag that an engine is built with"),
        ("--precision=fp17", "invalid choice"),
        ("--precision", "expected one argument"),
        ("--tf32=yes", "ignored explicit argument"),
        ("--opt-shapes=x:-1x3", "is not NAME:DIMS"),
        ("--max-batch-size=99999999999", "is not a whole number"),
        ("--mean=nan", "is not a finite number"),
        ("--workspace-size=1e300", "is not a number of GB"),
    ],
)
def test_what_nobody_could_have_typed_is_refused(word, said, capsys):
    with pytest.raises(ValueError, match=re.escape(said)):
        as_built(parse("--refit", "e"), ["--refittable", word])
    assert capsys.readouterr() == ("", "")


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
