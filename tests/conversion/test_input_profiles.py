"""conversion/input_profiles.py: shapes and values of the inputs, from the flags and from the data."""

import numpy as np
import onnx
import pytest
from helpers import LIBRARIES, parse, quiet_run, refused, save
from models import model, node, random
from onnx import TensorProto

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import Profile
from onnx2trt.conversion.input_profiles import input_profiles
from onnx2trt.model.preflight import preflight
from onnx2trt.plan.plan import make_plan


def resize() -> onnx.ModelProto:
    """[1, 3, 16, 16] to the size that the second input says."""
    nodes = [node("Concat", "nc size", "s", axis=0), node("Resize", "x s", "y", mode="nearest")]
    del nodes[1].input[:]
    nodes[1].input.extend(["x", "", "", "s"])
    inputs = {"x": [1, 3, 16, 16], "size": (TensorProto.INT64, [2])}
    return model(nodes, inputs, {"y": [1, 3, "h", "w"]}, {"nc": np.array([1, 3])})


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(resize(), tmp_path / "net.onnx")

    def of(*flags):
        plan = make_plan(parse(*flags), LIBRARIES["rtx"])
        return input_profiles(plan, *preflight("net.onnx"), quiet_run())

    return of


X = Profile("x", *((1, 3, 16, 16),) * 3)


def test_values_that_are_typed(profiles):
    assert profiles("--shape-values", "size:8x9:16x16:40x41") == (X, Profile("size", (2,), (2,), (2,), ((8, 9), (16, 16), (40, 41))))
    assert profiles("--shape-values", "size:8x9")[1].values == ((8, 9),) * 3
    assert profiles("--shape-values", "size:8")[1].values == ((8, 8),) * 3, "one for all"


def test_values_in_the_data(profiles, tmp_path):
    (tmp_path / "d").mkdir()
    for index, size in enumerate([(8, 40), (20, 10), (30, 12)]):
        np.savez(tmp_path / f"d/{index}.npz", x=random(1, 3, 16, 16), size=np.array(size))
    assert profiles("--calibration-dir", "d")[1].values == ((8, 10), (20, 12), (30, 40))
    np.savez(tmp_path / "t.npz", x=random(1, 3, 16, 16), size=np.array((5, 5)))
    assert profiles("--calibration-dir", "d", "--test-image", "t.npz")[1].values[0] == (5, 5)
    assert profiles("--test-image", "t.npz")[1].values == ((5, 5),) * 3


def test_values_that_nobody_gave(profiles):
    with refused(ExitCode.USAGE, "values of input 'size' decide about shapes", hint="--shape-values size:16x16"):
        profiles()
    with refused(ExitCode.USAGE, "'size'", hint="The model runs with these sizes"):
        profiles()


@pytest.mark.parametrize(
    "flag, fragment", [("nope:1", "'x', 'size'"), ("size:1x2x3", "has 3 values; the input 'size' has 2"), ("x:1", "float32 1x3x16x16")]
)
def test_values_that_do_not_fit(profiles, flag, fragment):
    with refused(ExitCode.USAGE, f"--shape-values {'names input' if 'nope' in flag else flag[0]}", fragment):
        profiles("--shape-values", flag)


def test_damaged_data_tell_nothing_here(profiles, tmp_path):
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 not a zip")
    with refused(ExitCode.USAGE, "'size'"):
        profiles("--test-image", "t.npz")
