"""pipeline/by_plan.py: INT8 layers that no GPU in question can compute faster go back to FP16, by the engines' own plans."""

import re

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with a layer between depthwise ones, which moves more than it computes, and a wide one, which computes."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    path = tmp_path_factory.mktemp("plan")
    depth = {"group": 64, "pads": [1] * 4}
    nodes = [node("Conv", "x depth0", "a", "depth0", **depth), node("HardSwish", "a", "b"), node("Conv", "b point", "c", "point")]
    nodes += [node("HardSwish", "c", "d"), node("Conv", "d depth1", "e", "depth1", **depth), node("HardSwish", "e", "f")]
    nodes += [node("Conv", "f down", "g", "down", strides=[8, 8]), node("Relu", "g", "h")]
    nodes += [node("Conv", "h wide", "i", "wide", pads=[1] * 4), node("Relu", "i", "y")]
    weights = {f"depth{index}": random(64, 1, 3, 3, seed=index) for index in range(2)}
    weights |= {"point": random(64, 64, 1, 1, seed=2, scale=0.2), "down": random(256, 64, 4, 4, seed=3, scale=0.02)}
    weights["wide"] = random(256, 256, 3, 3, seed=4, scale=0.02)
    onnx.save(model(nodes, {"x": [2, 64, 112, 112]}, {"y": [2, 256, 14, 14]}, weights, opset=17), path / "net.onnx")
    np.savez(path / "data.npz", x=random(4, 64, 112, 112, seed=9))
    return path


def convert(folder, *flags):
    data = ("--calibration-dir", ".", "--max-accuracy-drop", "100", "--json", "r.json", "--no-validate")
    done = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "int8", *data, *flags)
    assert done.code == 0, done.stderr
    return done, done.json("r.json")


def test_layers_that_cannot_gain_are_fp16_and_the_rest_stays_int8(folder):
    _, every = convert(folder, "--no-baseline", "--gpu-arch", "89")
    done, result = convert(folder, "--gpu-arch", "89")
    about, kept = result["engine"], {entry["name"]: entry["reason"] for entry in result["precision"]["fallback"]}
    assert "fp16_moved_bytes" not in every["engine"] and every["precision"]["int8_mac_share"] > result["precision"]["int8_mac_share"] > 0.5
    assert about["moved_bytes"] < every["engine"]["moved_bytes"] and "nothing was timed" in kept["point"] and "wide" not in kept
    assert set(about["least_ms"]) == {"GeForce RTX 4060", "GeForce RTX 4090"}
    assert all(about["least_ms"][gpu] < every["engine"]["least_ms"][gpu] for gpu in about["least_ms"])
    built = re.findall(r"building (an? .*?)(?=:| \.\.\.)", done.stderr)
    assert built[0] == "an FP16 engine to compare with" and "an INT8 engine to compare" in built
    assert any(re.fullmatch(r"an INT8 engine with (1 layer|\d+ layers) more in FP16, to compare again", what) for what in built)
    assert "building the engine" not in done.stderr and "of those compared is the one" in done.stderr, "it is there already"


def test_one_build_is_one_build(folder):
    done, result = convert(folder, "--quantization-effort", "fast", "--gpu-arch", "89")
    assert "nothing was timed" not in str(result["precision"]["fallback"]) and result["engine"]["fp16_moved_bytes"] > 0
    assert "in FP16" in " ".join(done.stdout.split())
