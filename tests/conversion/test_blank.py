"""conversion/blank.py: what counts as lost where nothing is; the rest is in stages/test_blank_input.py."""

import numpy as np
import onnx
import pytest
from helpers import planned
from models import model, node, random

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.blank import blank_inputs, lost


def test_only_what_the_model_can_say_is_lost():
    expected = {"a": np.float32([1, np.inf, np.nan, 0]), "n": np.array([1]), "s": np.float32([1, 2])}
    found = {"a": np.float32([np.nan, 1, np.nan, np.inf]), "n": np.array([2]), "s": np.float32([np.nan])}
    assert lost(expected, found) == {"a": 2}
    assert lost(expected, expected) == {}


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(model([node("MatMul", "x w", "y")], {"x": [2, 4]}, {"y": [2, 4]}, {"w": random(4, 4)}), "model.onnx")
    return planned("--precision", "fp16")[0]


def test_the_sample_is_zero_and_has_the_shape_of_the_data(job):
    ((batch, outputs),) = blank_inputs(job, lambda arrays: {"y": arrays["x"] + 1})
    assert batch.arrays["x"].shape == (2, 4) and not batch.arrays["x"].any() and outputs["y"].all() and batch.rows == 2


def test_a_model_that_does_not_take_zeros_or_has_no_finite_value_there_is_not_asked(job):
    def refuse(_):
        raise ConversionError("no", code=ExitCode.VALIDATION)

    assert list(blank_inputs(job, refuse)) == []
    assert list(blank_inputs(job, lambda arrays: {"y": arrays["x"] * np.nan})) == []
