"""plan/idle.py: in every way to run the tool, each flag has an effect, is refused, or is named in the one warning."""

import contextlib
import re
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import pytest
from helpers import LIBRARIES, flag_actions, parse, quiet_run, typing
from models import conv_net, random

from onnx2trt.base.errors import ConversionError
from onnx2trt.plan.capabilities import NO_LIBRARY
from onnx2trt.plan.door_arguments import build_door_parser
from onnx2trt.plan.effects import Effect
from onnx2trt.plan.idle import Facts, idle_flags, in_words
from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.rules import flag_problem
from onnx2trt.stages import preflight

ACTIONS = {max(action.option_strings, key=len): action for action in flag_actions()}
NO_GPU = replace(LIBRARIES["rtx"], gpu="", gpu_arch="", driver="", driver_problem="no GPU answers")
ARRAYS, FIXED = Facts(images=False), Facts(free=False)

# groups of flags, written down from what they are for
SHAPES = {"--imgsz", "--max-batch-size", "--min-shapes", "--opt-shapes", "--max-shapes"}
IMAGES = {"--input-range", "--mean", "--std", "--color", "--resize"}
CALIBRATION = {"--calibration-cache", "--accept-stale-cache", "--calibration-method", "--quantization", "--quantization-effort"}
COMPARED = {"--validate", "--test-image", "--validation-dir", "--max-accuracy-drop", "--metric"}
NOT_ON_RTX = {"--dla-core", "--plugins", "--version-compatible", "--hardware-compatibility-level", "--triton-repository"}
REFIT = {"--refit", "--refittable", "--strip-weights"}
NOT_ON_RTX |= REFIT  # without a GPU
IDLE_ON_RTX = {"--tactic-sources", "--disable-tactic-sources", "--timing-cache", "--strongly-typed"}
BUILD = {
    "--output",
    "--gpu-arch",
    "--workspace-size",
    "--builder-optimization-level",
    "--tf32",
    "--io-types",
    "--save-onnx",
    "--keep-failed",
    "--profile",
}
BUILD |= {"--dry-run", "--skip-unchanged", "--compare", "--no-baseline", "--layer-precisions", "--precision-constraints", "--no-validate"}
BUILD |= {"--disable-strict-types", "--calibration-dir", "--calibration-samples"} | CALIBRATION | IDLE_ON_RTX | (NOT_ON_RTX - {"--plugins"})
ALWAYS = {"--json", "--report", "--verbose", "--quiet"}


@dataclass
class Mode:
    """A way to run the tool, and what becomes of the flags in it."""

    words: tuple[str, ...]
    library: object = NO_GPU
    facts: Facts = field(default_factory=Facts)
    door: str | None = None
    named: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


RTX = {"refused": NOT_ON_RTX | {"--require-execution"}}  # without a GPU
WEAK = {"library": LIBRARIES["weak"], "refused": {"--gpu-arch"}}
ON_INT8 = {"library": LIBRARIES["weak"], "refused": {"--gpu-arch", "--refit"}}  # the engine has its precision already
INT8 = ("--precision", "int8")
FP32_RTX = IDLE_ON_RTX | CALIBRATION | {"--calibration-samples", "--no-baseline", "--min-int8-share", "--precision-constraints"}
FP32_RTX |= {"--disable-strict-types"} | COMPARED | {"--calibration-dir"}

MODES = {
    "FP16": Mode((), named=IDLE_ON_RTX | CALIBRATION | {"--calibration-samples", "--no-baseline", "--min-int8-share"}, **RTX),
    "FP16 on arrays": Mode(
        (), facts=ARRAYS, named=IDLE_ON_RTX | CALIBRATION | IMAGES | {"--calibration-samples", "--no-baseline", "--min-int8-share"}, **RTX
    ),
    "FP16 of fixed size": Mode(
        (), facts=FIXED, named=IDLE_ON_RTX | CALIBRATION | SHAPES | {"--calibration-samples", "--no-baseline", "--min-int8-share"}, **RTX
    ),
    "FP16 with calibration data": Mode(
        ("--calibration-dir", "d"), named=IDLE_ON_RTX | CALIBRATION | {"--no-baseline", "--min-int8-share"}, **RTX
    ),
    "FP16 of a model with Q/DQ": Mode(
        (), facts=Facts(quantized=True), named=IDLE_ON_RTX | CALIBRATION | {"--calibration-samples", "--no-baseline"}, **RTX
    ),
    "FP16 on a GPU": Mode((), named=CALIBRATION | {"--calibration-samples", "--no-baseline", "--min-int8-share"}, **WEAK),
    "FP16 not validated": Mode(
        ("--no-validate",),
        named=IDLE_ON_RTX | CALIBRATION | COMPARED | {"--calibration-samples", "--no-baseline", "--min-int8-share"},
        refused=NOT_ON_RTX | {"--require-execution", "--compare"},
    ),
    "FP32": Mode(("--precision", "fp32"), named=FP32_RTX, refused=RTX["refused"] | {"--layer-precisions"}),
    "FP32, rewritten": Mode(
        ("--precision", "fp32"),
        facts=Facts(rewritten=True),
        named=FP32_RTX - COMPARED - {"--calibration-dir"},
        refused=RTX["refused"] | {"--layer-precisions"},
    ),
    "FP32, rewritten by a flag": Mode(
        ("--precision", "fp32", "--io-types", "x:fp16"),
        named=FP32_RTX - COMPARED - {"--calibration-dir"},
        refused=RTX["refused"] | {"--layer-precisions"},
    ),
    "FP32 on a GPU": Mode(
        ("--precision", "fp32"),
        named=FP32_RTX - IDLE_ON_RTX - COMPARED - {"--calibration-dir"},
        library=LIBRARIES["weak"],
        refused={"--gpu-arch", "--layer-precisions", "--refit"},
    ),
    "FP32 on a GPU, measured on other data": Mode(
        ("--precision", "fp32", "--validation-dir", "v"),
        named=FP32_RTX - IDLE_ON_RTX - COMPARED,
        library=LIBRARIES["weak"],
        refused={"--gpu-arch", "--layer-precisions", "--refit"},
    ),
    "INT8": Mode((*INT8, "--calibration-dir", "d"), named=IDLE_ON_RTX | {"--accept-stale-cache"}, **RTX),
    "INT8 from a cache": Mode(
        (*INT8, "--calibration-cache", "c"),
        named=IDLE_ON_RTX | {"--calibration-samples"} | {"--max-accuracy-drop", "--metric"},
        **RTX,
    ),
    "INT8 of a model with Q/DQ": Mode(
        INT8, facts=Facts(quantized=True), named=IDLE_ON_RTX | CALIBRATION | {"--calibration-samples", "--no-baseline"}, **RTX
    ),
    "INT8 not validated": Mode(
        (*INT8, "--calibration-dir", "d", "--no-validate"),
        named=IDLE_ON_RTX | COMPARED | {"--accept-stale-cache"},
        refused=NOT_ON_RTX | {"--require-execution", "--compare"},
    ),
    "INT8 on a GPU": Mode((*INT8, "--calibration-dir", "d"), named={"--accept-stale-cache"}, **ON_INT8),
    "INT8 with plugins": Mode(
        (*INT8, "--calibration-dir", "d", "--plugins", "p.so"),
        named=COMPARED | {"--accept-stale-cache", "--quantization-effort"},
        **ON_INT8,
    ),
    "FP16 with plugins": Mode(
        ("--plugins", "p.so"),
        named=COMPARED | CALIBRATION | {"--calibration-samples", "--calibration-dir", "--no-baseline", "--min-int8-share"},
        **WEAK,
    ),
    "all side by side": Mode(
        ("--compare", "--calibration-dir", "d"),
        named=IDLE_ON_RTX | {"--accept-stale-cache", "--no-baseline"},
        refused=RTX["refused"] | {"--no-validate"},
    ),
    "the best": Mode(
        ("--precision", "best", "--calibration-dir", "d"),
        named={"--accept-stale-cache", "--no-baseline"},
        library=LIBRARIES["weak"],
        refused={"--gpu-arch", "--no-validate"} | REFIT,
    ),
    "an engine that is there": Mode(
        ("--validate-only", "e"),
        library=LIBRARIES["weak"],
        facts=Facts(candidate="engine"),
        named=SHAPES,
        refused=BUILD,
    ),
    "the door calibrate": Mode(
        ("--calibration-dir", "d", "--calibration-cache", "c"), door="calibrate", library=NO_LIBRARY, named=set(), refused=set()
    ),
    "the door calibrate, nothing measured": Mode(
        ("--calibration-dir", "d", "--calibration-cache", "c", "--no-validate"),
        door="calibrate",
        library=NO_LIBRARY,
        named={"--validation-dir", "--max-accuracy-drop", "--metric", "--min-int8-share"},
    ),
    "the door preprocess": Mode(("image.png",), door="preprocess", library=NO_LIBRARY),
    "the door preprocess, arrays": Mode(("x.npy",), door="preprocess", library=NO_LIBRARY, facts=ARRAYS, named=IMAGES),
    "the door validate, an engine": Mode(("e",), door="validate", library=LIBRARIES["weak"], facts=Facts(candidate="engine"), named=SHAPES),
    "the door validate, an ONNX": Mode(
        ("e.onnx",), door="validate", library=NO_LIBRARY, facts=Facts(candidate="onnx"), named={"--backend", "--plugins"}
    ),
}
MODE_OF_ITS_OWN = {"--precision", "--validate-only"}  # the same flags in another mode
CASES = [(mode, flag) for mode in MODES for flag in ACTIONS if flag not in MODE_OF_ITS_OWN]
WITHOUT_REPORT = {"--detector"}  # named in every mode, as none of them writes a report
OUTSIDE = {"--backend", "--verbose", "--quiet"}  # of the plan: the library to load, and what is printed


def parsed(mode: Mode, *words):
    if mode.door is None:
        return parse(*mode.words, *words)
    return build_door_parser(mode.door).parse_args(["--onnx", "model.onnx", *mode.words, *words])


def outcome(mode: Mode, flag: str) -> str:
    """effect | named | refused | part of the mode"""
    words = {"--gpu-arch": ["--gpu-arch", "89"], "--output": ["--output", "y.npy"]}.get(flag) or typing(ACTIONS[flag])
    if flag in mode.words:
        return "part of the mode"
    with contextlib.suppress(SystemExit):
        args = parsed(mode, *words)
        if flag_problem(args):
            return "refused"
        try:
            plan = make_plan(args, mode.library)
        except ConversionError:
            return "refused"
        effects = plan.effects + idle_flags(plan, mode.facts)
        if any(name == flag and cell.effect is Effect.NO_EFFECT for name, cell in effects):
            assert re.search(rf"(: |; |, ){flag}( |, )", in_words(effects))
            return "named"
        without = make_plan(parsed(mode), mode.library)
        changes = replace(plan, typed=(), effects=()) != replace(without, typed=(), effects=())
        said = flag in OUTSIDE or any(name == flag for name, _ in effects)
        what_happens_anyway = flag == "--quantization" and not plan.calibrator  # Q/DQ was asked for, and it is
        return "effect" if changes or said or what_happens_anyway else "nothing"
    return "refused"


@pytest.mark.parametrize("mode, flag", CASES, ids=str)
def test_each_flag_has_an_effect_or_is_refused_or_is_named(mode, flag, capsys):
    what, found = MODES[mode], outcome(MODES[mode], flag)
    if found == "part of the mode":
        return
    taken = what.door is None or flag in build_door_parser(what.door)._option_string_actions
    if flag in WITHOUT_REPORT and taken:
        assert found == "named" and outcome(replace(what, words=(*what.words, "--report", "r.html")), flag) == "effect"
        return
    expected = "named" if flag in what.named else "refused" if flag in what.refused or not taken else "effect"
    assert found == expected


def test_an_engine_that_is_there_has_its_precision():
    plans = [make_plan(parse("--validate-only", "e", "--precision", name), LIBRARIES["weak"]) for name in ("fp32", "int8")]
    said = [in_words(idle_flags(plan, Facts(candidate="engine"))) for plan in plans]
    assert said == ["without effect here: --precision (the engine has its precision already)", ""]
    assert "--precision best cannot go with it" in flag_problem(parse("--validate-only", "e", "--precision", "best"))


def test_the_modes_name_only_flags_that_there_are():
    for mode in MODES.values():
        assert mode.named | mode.refused <= set(ACTIONS) and not mode.named & mode.refused


def test_inspection_refuses_all_but_what_it_needs():
    for flag in set(ACTIONS) - ALWAYS - {"--plugins", "--report"}:
        from onnx2trt.plan.arguments import build_parser

        args = build_parser().parse_args(["--inspect", "e", *typing(ACTIONS[flag])])
        assert f"so {flag} cannot go with it" in flag_problem(args)


def test_flags_of_one_reason_stand_together_in_one_sentence():
    plan = make_plan(parse("--calibration-method", "mse", "--quantization-effort", "best", "--no-baseline"), NO_GPU)
    assert in_words(idle_flags(plan, Facts())) == (
        "without effect here: --no-baseline (only an INT8 or FP8 engine is held against an FP16 one); "
        "--calibration-method, --quantization-effort (only INT8 and FP8 are calibrated)"
    )
    assert in_words(idle_flags(make_plan(parse(), NO_GPU), Facts())) == ""


# ---- what the preflight knows of model and data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "model.onnx")
    np.save("x.npy", random(1, 3, 16, 16))


def job_of(*words):
    run = quiet_run()
    return preflight.preflight(None, make_plan(parse(*words), NO_GPU), run), run.console.warnings


def test_the_warning_and_the_plan_of_the_result_name_them(folder):
    job, warnings = job_of("--test-image", "x.npy", "--mean", "0.5", "--calibration-method", "mse")
    assert warnings == [
        "without effect here: --calibration-method (only INT8 and FP8 are calibrated); --mean (none of the data are images)"
    ]
    flags = {row["flag"]: row["effect"] for row in preflight.describe(job)["plan"]["flags"]}
    assert flags == {"--mean": "no effect", "--calibration-method": "no effect"}
    assert job_of("--test-image", "x.npy")[1] == []


def test_shapes_of_a_model_that_leaves_no_size_free(folder):
    assert job_of("--max-batch-size", "4")[1] == []
    assert "--max-batch-size (--max-shapes says it)" in job_of("--max-batch-size", "4", "--max-shapes", "x:4x3x16x16")[1][0]
    onnx.save(conv_net(batch=1), "model.onnx")
    assert "--opt-shapes (every size of the model is fixed)" in job_of("--opt-shapes", "x:1x3x16x16")[1][0]
