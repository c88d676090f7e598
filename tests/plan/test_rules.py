"""plan/rules.py: flags that are wrong by themselves."""

import os

import pytest
from helpers import parse

from onnx2trt.base.model_info import dims
from onnx2trt.plan.rules import flag_problem

PROBLEMS = [  # flags, what the message holds
    (["--min-shapes", "x:1x3", "x:2x3"], "--min-shapes names an input twice"),
    (["--opt-shapes", "x:1x3,x:1x3"], "--opt-shapes names an input twice"),
    (["--max-shapes", "1x3", "2x3"], "--max-shapes names an input twice"),
    (["--min-shapes", "x:2x3", "--opt-shapes", "x:1x3"], "--min-shapes x:2x3 is not within --opt-shapes 1x3"),
    (["--opt-shapes", "x:1x4", "--max-shapes", "x:1x3"], "--opt-shapes x:1x4 is not within --max-shapes 1x3"),
    (["--min-shapes", "x:9", "--max-shapes", "x:8"], "--min-shapes x:9 is not within --max-shapes 8"),
    (["--min-shapes", "x:1x3", "--max-shapes", "x:1x3x3"], "--min-shapes x:1x3 is not within --max-shapes 1x3x3"),
    (["--mean", "0.1", "0.2"], "--mean takes one number, or one for each channel (1, 3 or 4): got [0.1, 0.2]"),
    (["--std", "1,1,1,1,1"], "--std takes one number"),
    (["--mean", ""], "--mean takes one number"),
    (["--std", "0"], "--std must be above 0: got [0.0]"),
    (["--std", "1", "-1", "1"], "--std must be above 0: got [1.0, -1.0, 1.0]"),
    (["--no-validate", "--require-execution"], "--no-validate and --require-execution contradict each other"),
    (["--disable-strict-types", "--layer-precisions", "a:fp32"], "--disable-strict-types keeps no layer"),
    (["--disable-tactic-sources", "--tactic-sources", "CUBLAS"], "--disable-tactic-sources and --tactic-sources contradict"),
    (["--precision-constraints", "none", "--layer-precisions", "a:fp32"], "--precision-constraints none binds nothing"),
    (["--disable-strict-types", "--precision-constraints", "obey"], "--disable-strict-types and --precision-constraints obey"),
    (["--strongly-typed", "--quantization", "calibrator"], "--strongly-typed and --quantization calibrator contradict"),
    (["--precision", "fp32", "--layer-precisions", "a:fp32"], "--layer-precisions needs --precision fp16, bf16, int8 or fp8"),
    (
        ["--precision", "bf16", "--layer-precisions", "b:bf16,a:fp16"],
        "a:fp16 cannot go with --precision bf16: there, layers are bound to fp32 or bf16",
    ),
    (["--layer-precisions", "a:bf16"], "a:bf16 cannot go with --precision fp16: there, layers are bound to fp32 or fp16"),
    (["--precision", "int8", "--layer-precisions", "a:bf16"], "a:bf16 cannot go with --precision int8"),
    (["--gpu-arch", "75,89"], "sm_75"),
    (["--gpu-arch", "8.9", "--gpu-arch", "7.5"], "sm_75"),
    (["--compare", "--no-validate"], "--no-validate cannot go with it"),
    (["--precision", "best", "--no-validate"], "--no-validate cannot go with it"),
    (["--output", ""], "--output is empty"),
    (["--output", "a\0b"], "--output is empty or holds a NUL character: 'a\\x00b'"),
    (["--calibration-dir", ""], "--calibration-dir is empty"),
    (["--calibration-cache", ""], "--calibration-cache is empty"),
    (["--test-image", "\0"], "--test-image is empty or holds a NUL"),
    (["--validation-dir", ""], "--validation-dir is empty"),
    (["--save-onnx", ""], "--save-onnx is empty"),
    (["--json", ""], "--json is empty"),
    (["--report", ""], "--report is empty"),
    (["--output", "model.onnx"], "--onnx and --output name the same file: model.onnx"),
    (["--output", "./x/../model.onnx"], "--onnx and --output name the same file"),
    (["--save-onnx", "model.onnx"], "--onnx and --save-onnx name the same file"),
    (["--json", "model.onnx"], "--onnx and --json name the same file"),
    (["--calibration-cache", "model.onnx"], "--onnx and --calibration-cache name the same file"),
    (["--report", "model.onnx"], "--onnx and --report name the same file"),
    (["--report", "model.engine.json"], "--report and --output's side file name the same file"),
    (["--report", "r", "--json", "r"], "--report and --json name the same file: r"),
    (["--report", "c.json", "--calibration-cache", "c"], "side file and --report name the same file"),
    (["--json", "model.engine"], "--json and --output name the same file"),
    (["--save-onnx", "model.engine"], "--save-onnx and --output name the same file"),
    (["--save-onnx", "model.engine.json"], "--save-onnx and --output's side file name the same file"),
    (["--calibration-cache", "model.engine.json"], "--calibration-cache and --output's side file name the same file"),
    (["--save-onnx", "a", "--json", "a"], "--json and --save-onnx name the same file: a"),
    (["--calibration-cache", "a", "--save-onnx", "a"], "name the same file: a"),
    (["--timing-cache", "t", "--calibration-cache", "t"], "--timing-cache and --calibration-cache name the same file: t"),
    (["--timing-cache", "model.onnx"], "--onnx and --timing-cache name the same file"),
    (["--plugins", "a.so", "b.so", "--output", "b.so"], "--plugins and --output name the same file: b.so"),
    (["--bind-input", "t=t.npy", "--report", "t.npy"], "--bind-input and --report name the same file: t.npy"),
    (["--timing-cache", "t", "--output", "t.lock"], "--timing-cache's lock file and --output name the same file: t.lock"),
    *(
        (["--validate-only", "e", *flag.split()], f"--validate-only builds nothing, so {flag.split()[0]} cannot go with it")
        for flag in (
            "--output o",
            "--no-validate",
            "--dry-run",
            "--skip-unchanged",
            "--save-onnx s",
            "--keep-failed",
            "--calibration-dir d",
            "--calibration-cache c",
            "--timing-cache t",
        )
    ),
    (["--validate-only", ""], "--validate-only is empty"),
    (["--test-image", "model.engine"], "--test-image and --output name the same file"),
    (["--test-image", "r.json", "--json", "r.json"], "--test-image and --json name the same file"),
    (["--output", "engines/"], "--output names a folder: engines/"),
]

RIGHT = [
    [],
    ["--min-shapes", "x:1x3", "y:1x3", "--opt-shapes", "x:1x3", "--max-shapes", "x:2x3"],
    ["--min-shapes", "x:4", "--max-shapes", "y:1"],
    ["--mean", "0.5"],
    ["--mean", "1", "2", "3", "--std", "1,2,3,4"],
    ["--no-validate", "--keep-failed"],
    ["--disable-strict-types", "--precision", "fp32"],
    ["--disable-strict-types", "--precision-constraints", "none"],
    ["--precision-constraints", "obey", "--layer-precisions", "a:fp32"],
    ["--strongly-typed", "--quantization", "qdq"],
    ["--tactic-sources", "CUBLAS"],
    ["--validate-only", "e", "--test-image", "t", "--require-execution"],
    ["--precision", "int8", "--layer-precisions", "a:fp32"],
    ["--gpu-arch", "75"],
    ["--gpu-arch", "7.5,sm_75"],
    ["--gpu-arch", "89", "120"],
    ["--json", "-"],
    ["--json", "-", "--save-onnx", "-"],  # stdout, and a file of that name
    ["--json", "model.engine.json"],  # the side file: the same object
    ["--output", "elsewhere/model.onnx.engine", "--save-onnx", "elsewhere/model.onnx"],
    ["--validation-dir", "images", "--calibration-dir", "images"],
    ["--timing-cache", "none", "--save-onnx", "none"],
]


@pytest.mark.parametrize(("flags", "fragment"), PROBLEMS, ids=[" ".join(map(repr, flags)) for flags, _ in PROBLEMS])
def test_flag_problem(flags, fragment):
    assert fragment in flag_problem(parse(*flags))


@pytest.mark.parametrize("flags", RIGHT, ids=" ".join)
def test_no_flag_problem(flags):
    assert flag_problem(parse(*flags)) == ""


def test_an_empty_onnx_path_is_a_problem():
    args = parse()
    args.onnx = ""
    assert "--onnx is empty" in flag_problem(args)


def test_two_names_of_one_file_are_seen_through_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    flags = ["--output", str(tmp_path / "real"), "--json", str(tmp_path / "link")]
    assert "--json and --output name the same file" in flag_problem(parse(*flags))


def test_the_default_output_stands_in_the_current_folder():
    args = parse("--save-onnx", os.path.abspath("model.engine"))
    args.onnx = "/elsewhere/model.onnx"
    assert "--save-onnx and --output name the same file" in flag_problem(args)


@pytest.mark.parametrize(
    "flags",
    [
        ["--calibration-cache", "c", "--json", "c.json"],
        ["--calibration-cache", "c", "--output", "c.json"],
        ["--keep-failed", "--json", "model.engine.rejected"],
    ],
    ids=" ".join,
)
def test_derived_names_are_compared_too(flags):
    assert "name the same file" in flag_problem(parse(*flags))


@pytest.mark.parametrize("flags", [["--timing-cache", ""], ["--plugins", ""], ["--plugins", "a\0b"]], ids=repr)
def test_empty_paths_of_the_build_flags(flags):
    assert f"{flags[0]} is empty or holds a NUL" in flag_problem(parse(*flags))


def test_the_result_does_not_overwrite_the_engine_that_is_validated():
    assert "name the same file: e" in flag_problem(parse("--validate-only", "e", "--json", "e"))


@pytest.mark.parametrize(("shape", "text"), [((1, 3, "h", None), "1x3xhx?"), ((), "scalar"), ((5,), "5"), ((0, 2), "0x2"), ((None,), "?")])
def test_dims(shape, text):
    assert dims(shape) == text


@pytest.mark.parametrize(
    "flags, fragment",
    [
        (("--bind-input", "a=1", "a=2"), "'a' twice"),
        (("--bind-input", "a=1", "--opt-shapes", "a:1x2"), "--opt-shapes a"),
        (("--bind-input", "a=1", "--min-shapes", "b:1,a:1"), "--min-shapes a"),
        (("--bind-input", "a=1", "--io-types", "a:fp16"), "--io-types a"),
    ],
)
def test_an_input_that_is_a_constant_has_nothing_else(flags, fragment):
    assert fragment in flag_problem(parse(*flags))
    assert flag_problem(parse("--bind-input", "a=1", "--opt-shapes", "b:1x2")) == ""
