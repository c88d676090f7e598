"""plan/key.py: what a result depends on; every flag and every field of the plan is classified here."""

import contextlib
import dataclasses
import shutil
from pathlib import Path

import pytest
from helpers import BESIDE, LIBRARIES, ROOT, flag_actions, parse, typing

from onnx2trt.base.errors import ConversionError
from onnx2trt.plan import key as key_module
from onnx2trt.plan.key import ELSEWHERE, differences, flag_of, options, own_sha256, sealed, versions
from onnx2trt.plan.plan import make_plan

# A new flag must be written down here: does another value of it make another engine, or another verdict on it?
OPTION, CONTENT, NOTHING = "stands among the options", "what it names is hashed", "changes neither engine nor verdict"
KINDS = {
    "output": NOTHING,
    "refit": NOTHING,  # its result has a key of its own
    "backend": "stands among the versions",
    "gpu_arch": OPTION,
    "workspace_size": OPTION,
    "imgsz": OPTION,
    "max_batch_size": OPTION,
    "min_shapes": OPTION,
    "opt_shapes": OPTION,
    "max_shapes": OPTION,
    "precision": OPTION,
    "compare": OPTION,
    "no_baseline": OPTION,
    "layer_precisions": OPTION,
    "precision_constraints": OPTION,
    "disable_strict_types": OPTION,
    "strongly_typed": OPTION,
    "io_types": OPTION,
    "tf32": OPTION,
    "builder_optimization_level": OPTION,
    "timing_cache": CONTENT,
    "tactic_sources": OPTION,
    "disable_tactic_sources": OPTION,
    "dla_core": OPTION,
    "plugins": CONTENT,
    "version_compatible": OPTION,
    "hardware_compatibility_level": OPTION,
    "refittable": OPTION,
    "strip_weights": OPTION,
    "calibration_dir": CONTENT,
    "calibration_samples": OPTION,
    "calibration_cache": CONTENT,
    "accept_stale_cache": OPTION,
    "quantization": OPTION,
    "calibration_method": OPTION,
    "quantization_effort": OPTION,
    "profile": OPTION,
    "shape_values": OPTION,
    "bind_input": OPTION,
    "input_range": OPTION,
    "mean": OPTION,
    "std": OPTION,
    "color": OPTION,
    "resize": OPTION,
    "validate": CONTENT,
    "test_image": CONTENT,
    "validation_dir": CONTENT,
    "max_accuracy_drop": OPTION,
    "metric": OPTION,
    "min_int8_share": OPTION,
    "validate_only": NOTHING,
    "no_validate": OPTION,
    "require_execution": NOTHING,  # the former status is looked at
    "keep_failed": NOTHING,
    "save_onnx": NOTHING,  # the file is looked at
    "triton_repository": NOTHING,
    "json": NOTHING,
    "report": NOTHING,
    "detector": NOTHING,
    "skip_unchanged": NOTHING,
    "dry_run": NOTHING,
    "verbose": NOTHING,
    "quiet": NOTHING,
}
NAMED_OTHERWISE = {"--disable-tactic-sources": "--tactic-sources"}  # two flags for one thing


def test_every_flag_is_classified():
    assert {action.dest for action in flag_actions()} == KINDS.keys()


@pytest.mark.parametrize("action", flag_actions(), ids=lambda action: action.dest)
def test_a_flag_changes_the_options_of_the_key_where_it_matters(action):
    changed = set()
    for library in LIBRARIES.values():
        with contextlib.suppress(ConversionError):  # refused with this one
            beside = BESIDE.get(action.dest, ())
            before, after = (options(make_plan(parse(*flags), library)) for flags in (beside, (*beside, *typing(action))))
            changed |= {flag for flag in before if before[flag] != after[flag]}
            assert before.keys() == after.keys()
    flag = max(action.option_strings, key=len)
    if KINDS[action.dest] == OPTION:
        assert NAMED_OTHERWISE.get(flag, flag) in changed
    else:
        assert changed == set()


def test_every_field_of_the_plan_is_named_by_a_flag_or_excused():
    flags = {max(action.option_strings, key=len) for action in flag_actions()}
    places = [place for place, _ in key_module._leaves(make_plan(parse(), LIBRARIES["weak"]))]
    assert {flag_of(place) for place in places if place not in ELSEWHERE} <= flags
    assert ELSEWHERE.keys() <= set(places), "an excuse for a field that is no more"
    assert key_module.FLAGS.keys() <= set(places) and key_module.TYPED.keys() <= set(places)


def test_two_spellings_of_one_value_are_equal():
    def of(*flags):
        return options(make_plan(parse(*flags), LIBRARIES["rtx"]))

    assert of("--gpu-arch", "sm_89,120") == of("--gpu-arch", "8.9", "12.0")
    assert of("--mean", "0.5") == of("--mean", ".50") and of("--metric", "mask:.5") == of("--metric", "mask:0.50")
    assert of("--tactic-sources", "CUBLAS") == of(), "no effect here"


def test_options_read_as_they_are_typed():
    found = options(make_plan(parse("--disable-strict-types", "--quantization-effort", "best", "--no-validate"), LIBRARIES["weak"]))
    assert found["--disable-strict-types"] is True and found["--no-validate"] is True
    assert found["--quantization-effort"] == "best" and found["--quantization"] == "calibrator"


KEY = {
    "model": "a",
    "options": {"--precision": "fp16", "--mean": []},
    "data": {"--test-image": "1"},
    "versions": {"numpy": "2.0", "onnx2trt": "1"},
}


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("model", "b", "the model"),
        ("options", {"--precision": "int8", "--mean": []}, "--precision (fp16 -> int8)"),
        ("options", {"--precision": "fp16", "--mean": [0.5]}, "--mean ([] -> [0.5])"),
        ("options", {"--precision": "fp16", "--mean": [], "--new": 1}, "--new (null -> 1)"),
        ("data", {"--test-image": "2"}, "data of --test-image"),
        ("data", {}, "data of --test-image"),
        ("data", {"--test-image": "1", "--calibration-dir": "3"}, "data of --calibration-dir"),
        ("versions", {"numpy": "2.1", "onnx2trt": "1"}, "version of numpy (2.0 -> 2.1)"),
        ("versions", {"numpy": "2.0", "onnx2trt": "2"}, "this tool"),
        ("versions", {"numpy": "2.0", "onnx2trt": "1", "gpu": "T4"}, "version of gpu (null -> T4)"),
    ],
)
def test_what_has_changed_is_named(part, change, words):
    assert differences(sealed(KEY), sealed({**KEY, part: change})) == [words]


def test_equal_keys_do_not_differ_in_any_order_of_their_parts():
    assert differences(sealed(KEY), sealed({part: KEY[part] for part in reversed(KEY)})) == []


@pytest.mark.parametrize("then", [{}, {"sha256": "x", **KEY}, {"sha256": None, "options": None}])
def test_a_damaged_key_is_never_equal(then):
    assert differences(then, sealed(KEY))


def test_long_values_are_cut():
    assert len(differences(sealed(KEY), sealed({**KEY, "options": {"--precision": "x" * 500, "--mean": []}}))[0]) < 150


def test_versions_are_those_of_the_loaded_libraries():
    import cv2
    import numpy
    import onnx
    import onnxruntime

    found = versions()
    assert found["numpy"] == numpy.__version__ and found["onnx"] == onnx.__version__ and found["onnxruntime"] == onnxruntime.__version__
    assert found["opencv"].startswith(cv2.__version__)


PACKAGE = Path(ROOT) / "onnx2trt"
FOLDERS = sorted(path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py"))


@pytest.fixture
def copied(tmp_path):
    """Our package, without what only Python makes there."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__")))


def test_our_own_source_is_part_of_the_key(copied):
    first = own_sha256(str(copied))
    assert first == own_sha256() == own_sha256(str(copied)), "whatever Python has compiled"
    (copied / "rewrite" / "fp16.py").write_text("# nothing")
    second = own_sha256(str(copied))
    (copied / "rewrite" / "fp16.py").rename(copied / "trt" / "fp16.py")
    assert len({first, second, own_sha256(str(copied))}) == 3


@pytest.mark.parametrize("folder", FOLDERS)
def test_all_of_our_folders_are_hashed(copied, folder):
    (copied / folder / "__init__.py").write_text("# another")
    assert own_sha256(str(copied)) != own_sha256()


def test_a_plan_for_another_library_has_the_same_options_but_for_what_it_decides():
    weak = make_plan(parse(), LIBRARIES["weak"])
    assert options(weak) == options(dataclasses.replace(weak, backend="tensorrt-rtx", executes_here=False))


def test_a_flag_that_nobody_typed_is_not_what_has_changed():
    def key(*flags):
        made = options(make_plan(parse(*flags), LIBRARIES["weak"]))
        return sealed({"model": "m", "options": made, "data": {}, "versions": {}})

    then, now = key("--precision", "fp32"), key("--precision", "int8", "--calibration-dir", "d")
    assert [said.split()[0] for said in differences(then, now)] == ["--precision"]
    quantized = key("--precision", "fp32", "--quantization", "qdq")
    assert [said.split()[0] for said in differences(then, quantized)] == ["--quantization"], "nothing else has changed"
    both = key("--precision", "fp16", "--quantization", "qdq")
    assert [said.split()[0] for said in differences(then, both, ("--quantization",))] == ["--precision", "--quantization"]
