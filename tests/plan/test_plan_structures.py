"""plan/structures.py, and which of them a plan asks for."""

from dataclasses import replace

import pytest
from helpers import LIBRARIES, parse

from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.structures import ATTENTION, BOUND, FREE, QDQ, unmeasured


def structures(*flags, library="weak", **changes):
    args = ("--precision", "int8", "--calibration-dir", "d", *flags)
    return make_plan(parse(*args), replace(LIBRARIES[library], **changes)).structures


def test_all_structures_that_the_library_has_are_measured():
    assert structures() == (FREE, QDQ, ATTENTION, BOUND)
    assert structures("--quantization", "calibrator") == (FREE, BOUND)
    assert structures("--quantization", "qdq") == (QDQ, ATTENTION)
    assert structures("--precision", "best") == (FREE, QDQ, ATTENTION, BOUND)


@pytest.mark.parametrize("flags", [("--disable-strict-types",), ("--precision-constraints", "none")], ids=" ".join)
def test_nothing_is_bound_where_the_user_wants_nothing_bound(flags):
    assert structures(*flags) == (FREE, QDQ, ATTENTION)


@pytest.mark.parametrize(
    "flags",
    [
        ("--quantization-effort", "fast"),
        ("--no-baseline",),
        ("--no-validate",),
        ("--calibration-method", "entropy"),
        ("--plugins", "libplugin.so"),
        ("--strongly-typed",),
    ],
    ids=" ".join,
)
def test_one_is_built_where_one_has_to_do(flags):
    assert structures(*flags) == ()


def test_without_a_gpu_nothing_can_be_measured():
    assert structures(library="strong") == ()


def test_the_rule_for_where_nothing_is_measured_leaves_seldom_faster_layers_in_fp16():
    assert unmeasured(True, True).bound and not unmeasured(True, False).bound and not unmeasured(False, True).calibrator
    found = [unmeasured(calibrator, bound) for calibrator in (True, False) for bound in (True, False)]
    assert all(one.by_rule and not one.attention for one in found)


def test_attention_is_tried_where_one_of_the_structures_has_it():
    def plan(*flags):
        return make_plan(parse("--precision", "int8", "--calibration-dir", "d", *flags), LIBRARIES["weak"])

    assert plan().attention and plan("--quantization", "qdq").attention
    assert not plan("--quantization", "calibrator").attention and not plan("--no-baseline").attention
