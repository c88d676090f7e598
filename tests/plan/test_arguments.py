"""plan/arguments.py: what may be typed, and what is said of what may not."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import LIBRARIES, ROOT, flag_actions, parse, typing

import onnx2trt
from onnx2trt.base.errors import ExitCode
from onnx2trt.plan import argument_types as types
from onnx2trt.plan import parser as parser_module
from onnx2trt.plan.argument_types import flatten
from onnx2trt.plan.arguments import EVERY_DAY, build_parser
from onnx2trt.plan.effects import typed_flags
from onnx2trt.plan.parser import ONE_MODEL, OTHER_NAMES
from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.precision_arguments import CALIBRATION_METHODS, PRECISIONS, QUANTIZATION_EFFORTS

DEFAULTS = {
    "output": None,
    "refit": None,
    "refittable": False,
    "strip_weights": False,
    "backend": "auto",
    "gpu_arch": [],
    "workspace_size": 4.0,
    "disable_tactic_sources": False,
    "max_batch_size": 1,
    "min_shapes": [],
    "opt_shapes": [],
    "profile": [],
    "max_shapes": [],
    "precision": "fp16",
    "layer_precisions": [],
    "disable_strict_types": False,
    "tf32": False,
    "calibration_dir": None,
    "calibration_samples": 500,
    "calibration_cache": None,
    "accept_stale_cache": False,
    "calibration_method": "auto",
    "quantization_effort": "default",
    "input_range": 1,
    "mean": [],
    "std": [],
    "color": None,
    "resize": "stretch",
    "test_image": None,
    "validation_dir": None,
    "validate": [],
    "imgsz": None,
    "max_accuracy_drop": 1.0,
    "metric": [],
    "min_int8_share": 10.0,
    "no_validate": False,
    "require_execution": False,
    "keep_failed": False,
    "save_onnx": None,
    "triton_repository": None,
    "json": None,
    "dry_run": False,
    "skip_unchanged": False,
    "timing_cache": None,
    "verbose": 0,
    "quiet": False,
}


def fails(capsys, *flags: str) -> str:
    """What is printed when the parser refuses the flags."""
    with pytest.raises(SystemExit) as caught:
        parse(*flags)
    assert caught.value.code == ExitCode.USAGE
    return capsys.readouterr().err


@pytest.mark.parametrize("dest", DEFAULTS)
def test_default(dest):
    assert getattr(parse(), dest) == DEFAULTS[dest]


@pytest.mark.parametrize(
    ("flags", "dest", "expected"),
    [
        (["-o", "a.engine"], "output", "a.engine"),
        (["--workspace-size", "0.5"], "workspace_size", 0.5),
        (["--max-batch-size", "2147483647"], "max_batch_size", 2**31 - 1),
        (["--max-accuracy-drop", "0"], "max_accuracy_drop", 0.0),
        (["--max-accuracy-drop", "100"], "max_accuracy_drop", 100.0),
        (["--metric", "cosine"], "metric", [(("", "cosine"),)]),
        (["--metric", "mask:.50"], "metric", [(("", "mask:0.5"),)]),
        (["--metric", "mask:-2"], "metric", [(("", "mask:-2.0"),)]),
        (["--metric", "scores:top1,out:0:values"], "metric", [(("scores", "top1"), ("out:0", "values"))]),
        (["--metric", "rows", "--metric", "a:mask:.5"], "metric", [(("", "rows"),), (("a", "mask:0.5"),)]),
        (["--metric", "mask:equal, mask:0.5:equal"], "metric", [(("mask", "equal"), ("mask:0.5", "equal"))]),
        (["--min-int8-share", "0.5"], "min_int8_share", 0.5),
        (["--min-int8-share", "100"], "min_int8_share", 100.0),
        (["--quantization-effort", "best"], "quantization_effort", "best"),
        (["--input-range", "255"], "input_range", 255),
        (["--json", "-"], "json", "-"),
        (["--mean", "0.485,0.456,0.406"], "mean", [(0.485, 0.456, 0.406)]),
        (["--mean", "0.485", "0.456", "0.406"], "mean", [(0.485,), (0.456,), (0.406,)]),
        (["--mean", "-0.5", "-1"], "mean", [(-0.5,), (-1.0,)]),
        (["--std", "1, 2"], "std", [(1.0, 2.0)]),
        (["--gpu-arch", "sm_89,8.9", "120"], "gpu_arch", [("89", "89"), ("120",)]),
        (["--gpu-arch", "SM75", "12.0"], "gpu_arch", [("75",), ("120",)]),
        (["--gpu-arch", "89", "--gpu-arch", "90"], "gpu_arch", [("89",), ("90",)]),
        (["--opt-shapes", "image:0:1x3x8x8,mask:1X8"], "opt_shapes", [(("image:0", (1, 3, 8, 8)), ("mask", (1, 8)))]),
        (["--min-shapes", "1x3"], "min_shapes", [(("", (1, 3)),)]),
        (["--min-shapes", "cache:1x2x0x16"], "min_shapes", [(("cache", (1, 2, 0, 16)),)]),
        (["--shape-values", "n:5,m:0:-1x8"], "shape_values", [(("n", ((5,),) * 3), ("m:0", ((-1, 8),) * 3))]),
        (["--shape-values", "in:0:8x8:16x16:40x40"], "shape_values", [(("in:0", ((8, 8), (16, 16), (40, 40))),)]),
        (["--bind-input", "sr=16000", "m=[1,2]"], "bind_input", [(("sr", "16000"),), (("m", "[1,2]"),)]),
        (["--max-shapes", "ids:2147483647"], "max_shapes", [(("ids", (2**31 - 1,)),)]),
        (["--tactic-sources", "+cublas, CUDNN"], "tactic_sources", ("CUBLAS", "CUDNN")),
        (["--dla-core", "0"], "dla_core", 0),
        (["--builder-optimization-level", "5"], "builder_optimization_level", 5),
        (["--io-types", "image:0:fp16"], "io_types", [(("image:0", "fp16"),)]),
        (["--layer-precisions", "*/attn/*:fp32,stem:0:FP16"], "layer_precisions", [(("*/attn/*", "fp32"), ("stem:0", "fp16"))]),
    ],
)
def test_accepted_value(flags, dest, expected):
    assert getattr(parse(*flags), dest) == expected


@pytest.mark.parametrize(
    ("flag", "text", "explanation"),
    [
        ("--max-batch-size", "0", "whole number from 1"),
        ("--max-batch-size", "-3", "whole number from 1"),
        ("--max-batch-size", "1.5", "whole number from 1"),
        ("--max-batch-size", "2147483648", "2147483647"),
        ("--calibration-samples", "many", "whole number from 1"),
        ("--workspace-size", "0", "number of GB from 0.001"),
        ("--workspace-size", "-1", "number of GB from 0.001"),
        ("--workspace-size", "1048576", "to 1048576"),
        ("--workspace-size", "4GB", "number of GB from 0.001"),
        ("--workspace-size", "nan", "number of GB from 0.001"),
        ("--workspace-size", "inf", "number of GB from 0.001"),
        ("--max-accuracy-drop", "100.1", "from 0 to 100"),
        ("--max-accuracy-drop", "-1", "from 0 to 100"),
        ("--metric", "iou", "'iou' is none of auto, values, top1, argmax, equal, rows, cosine, noise and mask:T"),
        ("--metric", "scores:iou", "nor OUTPUT:METRIC with one of them"),
        ("--metric", ":top1", "':top1' is none of auto"),
        ("--metric", "scores:mask", "'scores:mask' is none of auto"),
        ("--metric", "mask", "mask:0.5"),
        ("--metric", "mask:", "a number T such as mask:0.5"),
        ("--metric", "mask:nan", "a number T"),
        ("--metric", "top1:5", "none of auto"),
        ("--metric", "", "none of auto"),
        ("--min-int8-share", "0", "above 0, up to 100"),
        ("--min-int8-share", "100.5", "above 0, up to 100"),
        ("--min-int8-share", "half", "finite number"),
        ("--mean", "0.5,x", "finite number"),
        ("--std", "nan", "finite number"),
        ("--gpu-arch", "ada", "compute capability such as sm_89"),
        ("--gpu-arch", "8", "compute capability such as sm_89"),
        ("--gpu-arch", "sm_1200", "compute capability such as sm_89"),
        ("--opt-shapes", "x:", "NAME:DIMS"),
        ("--opt-shapes", "x:3xhx4", "NAME:DIMS"),
        ("--opt-shapes", "x", "NAME:DIMS"),
        ("--opt-shapes", "x:1x-1", "NAME:DIMS"),
        ("--opt-shapes", "x:0x3", "from 1 to 2147483647"),
        ("--max-shapes", "x:0x3", "from 1 to 2147483647"),
        ("--min-shapes", "x:2147483648", "from 0 to 2147483647"),
        ("--shape-values", "8x8", "NAME:VALUES"),
        ("--shape-values", "size:8x8:16x16:40", "NAME:VALUES"),
        ("--shape-values", "size:8.5", "NAME:VALUES"),
        ("--bind-input", "sr", "NAME=VALUE"),
        ("--max-shapes", "x:2147483648", "from 1 to 2147483647"),
        ("--layer-precisions", "conv1", "PATTERN:PRECISION"),
        ("--layer-precisions", ":fp32", "PATTERN:PRECISION"),
        ("--layer-precisions", "conv1:int8", "fp32, fp16 or bf16"),
        ("--io-types", "x:bf16", "fp32 or fp16"),
        ("--dla-core", "-1", "whole number from 0 to 255"),
        ("--dla-core", "256", "whole number from 0 to 255"),
        ("--tactic-sources", ",", "list of names"),
        ("--tactic-sources", "CU/BLAS", "list of names"),
        ("--io-types", "x:int8", "NAME:TYPE"),
        ("--builder-optimization-level", "6", "invalid choice"),
        ("--precision", "int4", "invalid choice"),
        ("--calibration-method", "max", "invalid choice"),
        ("--input-range", "2", "invalid choice"),
        ("--resize", "pad", "invalid choice"),
        ("--color", "hsv", "invalid choice"),
        ("--backend", "onnxruntime", "invalid choice"),
    ],
)
def test_refused_value_is_shown_with_flag_and_reason(capsys, flag, text, explanation):
    printed = fails(capsys, flag, text)
    assert f"argument {flag}" in printed
    assert text.split(",")[-1] in printed.splitlines()[-1]
    assert explanation in printed


def test_onnx_is_required(capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args([])
    assert caught.value.code == 2
    assert "one of the arguments --onnx --inspect is required" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--nonsense"], ["--std", "a"], ["-v", "-q"]])
def test_what_is_wrong_is_not_hidden_behind_all_flags(capsys, flags):
    usage, error = fails(capsys, *flags).splitlines()
    assert usage == f"usage: onnx2trt.py MODEL.onnx [--precision {{{','.join(PRECISIONS)}}}] [options] | --help"
    assert error.startswith("onnx2trt.py: error: ") and flags[0] in error


@pytest.mark.parametrize("typed, level", [((), 0), (("-v",), 1), (("--verbose",), 1), (("-vv",), 2), (("-v", "--verbose"), 2)])
def test_verbose_counts(typed, level):
    assert build_parser().parse_args(["net.onnx", *typed]).verbose == level


def test_verbose_and_quiet_exclude_each_other(capsys):
    assert "not allowed with" in fails(capsys, "-v", "-q")


def test_abbreviations_are_refused(capsys):
    assert "--calibration-sam" in fails(capsys, "--calibration-sam", "5")


def test_a_list_flag_does_not_leak_into_the_next_parse():
    parse("--gpu-arch", "89")
    assert parse().gpu_arch == []


def test_flatten():
    assert flatten([(1, 2), (), (3,)]) == (1, 2, 3)
    assert flatten([]) == ()


def test_help_names_every_flag_every_code_and_every_choice():
    text = build_parser().format_help()
    for action in flag_actions():
        for option in action.option_strings:
            assert option in text
    for code in ExitCode:
        if code is not ExitCode.SIGHUP:  # a terminal that went away reads no help
            assert f"{code:d} " in text or f"{code:d}," in text
    for word in (*PRECISIONS, *CALIBRATION_METHODS, *QUANTIZATION_EFFORTS):
        assert word in text


@pytest.mark.parametrize("action", flag_actions(), ids=lambda action: action.dest)
def test_help_of_a_flag_says_its_true_default(action):
    assert action.help
    if action.default not in (None, False, []):
        default = f"{action.default:g}" if isinstance(action.default, (int, float)) else action.default
        assert f"(default: {default}" in action.help


def test_help_and_errors_need_the_standard_library_alone():
    program = f"import sys; sys.path.insert(0, {ROOT!r})\nfrom onnx2trt.plan.arguments import build_parser"
    bare = [sys.executable, "-I", "-S", "-c", program + "\nbuild_parser().parse_args(sys.argv[1:])"]
    shown = subprocess.run([*bare, "--help"], capture_output=True, text=True, timeout=20)
    assert shown.returncode == 0 and "exit codes" in shown.stdout
    wrong = subprocess.run([*bare, "--onnx", "x", "--std", "a"], capture_output=True, text=True, timeout=20)
    assert wrong.returncode == 2 and "'a' is not a finite number" in wrong.stderr


@pytest.mark.parametrize("action", flag_actions(), ids=lambda action: action.dest)
def test_every_flag_can_be_typed(action):
    assert getattr(parse(*typing(action)), action.dest) != action.default


def test_negative_numbers_in_one_word():
    assert parse("--mean", "-0.5,-0.5,-0.5").mean == [(-0.5, -0.5, -0.5)]


def test_negative_number_with_exponent():
    assert parse("--mean", "-1e-3").mean == [(-0.001,)]


def test_workspace_below_one_byte_is_refused(capsys):
    assert "1e-12" in fails(capsys, "--workspace-size", "1e-12")


# ---- what a first user types


@pytest.mark.parametrize(
    "words", [["m.onnx"], ["m.onnx", "--precision", "int8"], ["--precision", "int8", "m.onnx"], ["-v", "m.onnx", "--tf32"]]
)
def test_the_model_needs_no_flag(words):
    assert build_parser().parse_args(words).onnx == "m.onnx"


@pytest.mark.parametrize(
    "words, said",
    [
        (["m.onnx", "--precison", "int8"], "unrecognized arguments: --precison int8; did you mean --precision?"),
        (["m.onnx", "--calibration_dir=d"], "did you mean --calibration-dir?"),
        (["m.onnx", "--OPT-SHAPES", "x:1"], "did you mean --opt-shapes?"),
        (["m.onnx", "--calibration-sam", "5"], "did you mean --calibration-samples?"),
        (["m.onnx", "--fp16"], "did you mean --precision fp16?"),
        (["m.onnx", "--minShapes=x:1"], "did you mean --min-shapes?"),
        (["m.onnx", "--zzz"], "unrecognized arguments: --zzz"),
        (["m.onnx", "n.jpg"], "unrecognized arguments: m.onnx n.jpg" + ONE_MODEL),
        (["--onnx", "m.onnx", "n.onnx"], "unrecognized arguments: n.onnx" + ONE_MODEL),
        (["--inspect", "e", "n.onnx"], "unrecognized arguments: n.onnx"),
    ],
)
def test_a_misspelt_flag_gets_a_proposal(words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(words)
    assert caught.value.code == ExitCode.USAGE
    assert capsys.readouterr().err.splitlines()[-1].endswith(said)


def test_every_proposal_is_a_flag():
    known = build_parser()._option_string_actions
    for proposal in OTHER_NAMES.values():
        for flag in proposal.split(" or "):
            assert flag.split()[0] in known
            if " " in flag:
                parse(*flag.split())


@pytest.mark.parametrize("flag", ["--opt-shapes", "--min-shapes", "--max-shapes"])
def test_shapes_with_commas(flag):
    random = np.random.default_rng(5)
    for _ in range(200):
        pairs = [
            ("x:" * int(random.integers(2)) + chr(97 + at), random.integers(1, 500, random.integers(1, 5)))
            for at in range(random.integers(1, 4))
        ]
        separators = [random.choice(["x", ",", ", ", "X"]) for _ in pairs]
        texts = [f"{name}:{sep.join(map(str, dims))}" for (name, dims), sep in zip(pairs, separators)]
        expected = tuple((name, tuple(map(int, dims))) for name, dims in pairs)
        assert types.shapes(",".join(texts)) == expected
        assert types.shapes(f"[{', '.join(map(str, pairs[0][1]))}]") == (("", expected[0][1]),)


@pytest.mark.parametrize("text, size", [("640", (640, 640)), ("480x640", (480, 640)), ("480,640", (480, 640)), ("[480, 640]", (480, 640))])
def test_an_image_size(text, size):
    assert parse("--imgsz", text).imgsz == size


@pytest.mark.parametrize("text", ["0", "640x0", "x", "1x2x3", "-1", "6.4", ""])
def test_what_is_no_image_size(text, capsys):
    assert "--imgsz" in fails(capsys, f"--imgsz={text}")


def test_one_flag_for_a_file_and_a_folder(tmp_path, capsys):
    (tmp_path / "d").mkdir()
    both = parse("--validate", "i.png", "--validate", str(tmp_path / "d"))
    assert both.test_image == "i.png" and both.validation_dir == str(tmp_path / "d")
    assert typed_flags(both) == ["--onnx", "--validate"]
    plan = make_plan(both, LIBRARIES["rtx"])
    assert plan.validation.flags == ("--validate", "--validate")
    assert make_plan(parse("--test-image", "i"), LIBRARIES["rtx"]).validation.flags == ("--test-image", "--validation-dir")
    assert "names i.png already" in fails(capsys, "--validate", "i.png", "--validate", "j.png")
    assert "--test-image names i.png already" in fails(capsys, "--test-image", "i.png", "--validate", "j.png")


def test_help_is_short_and_help_all_is_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(parser_module._Formatter, "columns", 0)
    texts = {}
    for flag in ("--help", "--help-all", "--version"):
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args([flag])
        assert not caught.value.code
        texts[flag] = capsys.readouterr().out
    assert len(texts["--help"].splitlines()) <= 50 and max(map(len, texts["--help"].splitlines()[:3])) <= 90
    assert all(flag in texts["--help"] for flag in (*EVERY_DAY, "--help-all"))
    assert all(option in texts["--help-all"] for action in flag_actions() for option in action.option_strings)
    assert texts["--version"] == f"onnx2trt {onnx2trt.__version__}\n"
