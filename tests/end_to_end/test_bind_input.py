"""--bind-input and If nodes as a user meets them: engines of TensorRT-RTX, the Python interface, data that still holds the input."""

import numpy as np
import onnx
import pytest
from command import onnx2trt as command
from command import run
from models import model, node, random
from onnx import TensorProto, helper

import onnx2trt

pytestmark = pytest.mark.real
pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def branch(name, weight):
    nodes = [node("Conv", f"x {weight}", f"{name}c", f"{name}/conv", pads=[1] * 4), node("Relu", f"{name}c", f"{name}r", f"{name}/relu")]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}r", 1, ["n", 8, 16, 16])])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model with a network for each of two sampling rates, and data of both."""
    nodes = [node("Equal", "sr k", "c", "equal"), node("If", "c", "y", "if", then_branch=branch("t", "a"), else_branch=branch("e", "b"))]
    weights = {"a": random(8, 3, 3, 3), "b": random(8, 3, 3, 3, seed=1), "k": np.array(16000)}
    inputs = {"x": ["n", 3, 16, 16], "sr": (TensorProto.INT64, [])}
    onnx.save(model(nodes, inputs, {"y": ["n", 8, 16, 16]}, weights), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(6):
        np.savez(tmp_path / f"data/{index}.npz", x=random(1, 3, 16, 16, seed=index), sr=np.array(16000 if index < 4 else 8000))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_the_model_to_the_verdict_on_what_was_made(folder):
    flags = ("--onnx", "net.onnx", "--bind-input", "sr=16000")
    done = command(folder, *flags, "--calibration-dir", "data", "--precision", "int8", "--save-onnx", "made.onnx", "--json", "r.json")
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    assert [entry["name"] for entry in result["model"]["inputs"]] == ["x"]
    assert result["model"]["bound"] == [{"name": "sr", "dtype": "int64", "shape": [], "value": "16000"}]
    assert result["calibration"]["samples_used"] == 4 and result["calibration"]["samples_skipped"] == 2, "those of 8000 Hz are others"
    assert result["precision"]["int8_mac_share"] > 0.9 and result["status"] == "simulated"
    checked = run("validate.py", folder, "made.onnx", *flags, "--test-image", "data/0.npz", "--json", "v.json")
    assert checked.code == 0, checked.stderr
    other = run("validate.py", folder, "made.onnx", "--onnx", "net.onnx", "--bind-input", "sr=8000", "--test-image", "data/5.npz")
    assert other.code == 7 and "output 'y'" in other.error, "it is the network of the other rate"
    seen = command(folder, "--inspect", "net.engine", "--json", "i.json")
    assert "sr = 16000" in seen.stdout and seen.json("i.json")["model"]["bound"] == result["model"]["bound"]


def test_unchanged_only_with_the_same_value(folder):
    np.save("sr.npy", np.array(16000))
    first = onnx2trt.convert("net.onnx", bind_input={"sr": "sr.npy"}, precision="fp16", skip_unchanged=True, quiet=True)
    assert first.precision.delivered == "fp16" and not first.skipped
    assert onnx2trt.convert("net.onnx", bind_input={"sr": "sr.npy"}, precision="fp16", skip_unchanged=True, quiet=True).skipped
    np.save("sr.npy", np.array(8000))
    assert not onnx2trt.convert("net.onnx", bind_input={"sr": "sr.npy"}, precision="fp16", skip_unchanged=True, quiet=True).skipped


@pytest.mark.parametrize(
    "value, fragment", [("sr=1.5", "float64, which int64"), ("rate=1", "'x', 'sr'"), ("sr=[1,2]", "shape"), ("sr", "NAME=VALUE")]
)
def test_what_does_not_fit(folder, value, fragment):
    done = command(folder, "--onnx", "net.onnx", "--bind-input", value)
    assert done.code == 2 and fragment in done.error


def test_data_of_another_value(folder):
    done = command(folder, "--onnx", "net.onnx", "--bind-input", "sr=16000", "--test-image", "data/5.npz")
    assert done.code == 7 and "another 'sr' than --bind-input sr=16000" in done.error
