"""--profile: several optimization profiles in one engine, as users ask for them; the real TensorRT-RTX, and on a GPU the engine runs."""

import json

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random

GIVEN = ("--profile", "small=x:1x3x16x16:2x3x16x16:4x3x16x16", "large=x:1x3x32x48")


@pytest.fixture
def folder(tmp_path):
    nodes = [node("Conv", "x w", "c", "conv", pads=[1, 1, 1, 1]), node("Relu", "c", "y", "relu")]
    onnx.save(model(nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", 8, "h", "w"]}, {"w": random(8, 3, 3, 3)}), tmp_path / "net.onnx")
    return tmp_path


@pytest.mark.real
def test_each_profile_is_in_the_engine(folder):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    np.save(folder / "x.npy", random(1, 3, 32, 48).astype(np.float32))
    words = ("net.onnx", "--backend", "tensorrt-rtx", *GIVEN, "--validate", "x.npy", "--json", "r.json")
    done = onnx2trt(folder, *words)
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    rows = result["optimization_profiles"]
    assert [row["name"] for row in rows] == ["small", "large"]
    assert rows[0]["inputs"] == [{"name": "x", "min": [1, 3, 16, 16], "opt": [2, 3, 16, 16], "max": [4, 3, 16, 16]}]
    assert rows[1]["inputs"] == [{"name": "x", "min": [1, 3, 32, 48], "opt": [1, 3, 32, 48], "max": [1, 3, 32, 48]}]
    assert result["plan"]["profiles"] == [{"name": "x", "min": [1, 3, 16, 16], "opt": [2, 3, 16, 16], "max": [4, 3, 32, 48]}]
    assert result["accuracy"][0]["inputs"] == "x.npy" and "small  x min 1x3x16x16" in done.stdout and "large  x 1x3x32x48" in done.stdout
    assert "'small', the first, is the usual one" in done.stderr


@pytest.mark.parametrize(
    "flags, said",
    [
        ((*GIVEN, "--opt-shapes", "x:1x3x8x8"), "--profile gives all shapes, so --opt-shapes cannot go with it"),
        (("--profile", "a=x:1x3x8x8", "a=x:1x3x9x9"), "names a profile twice"),
        (("--profile", "a=x:1x3x8x8:1x3x4x4:1x3x9x9"), "ascending"),
        (("--profile", "x:1x3x8x8"), "is not NAME=INPUT:MIN:OPT:MAX"),
        (("--profile", "a=x:1x4x8x8"), "--profile a: --min-shapes x:1x4x8x8 does not fit"),
        (("--profile", "a=z:1x3x8x8"), "--profile a: --min-shapes names input 'z'"),
    ],
)
def test_what_is_wrong_is_named(folder, flags, said):
    done = onnx2trt(folder, "net.onnx", *flags)
    assert done.code == 2 and said in done.stderr, done.stderr


def test_data_between_the_profiles_are_refused(folder):
    np.save(folder / "x.npy", random(4, 3, 32, 48).astype(np.float32)[:, :, :20])
    done = onnx2trt(folder, "net.onnx", *GIVEN, "--validate", "x.npy", "--dry-run")
    assert done.code == 7 and "fits none of the 2 profiles" in done.error


@pytest.mark.gpu
def test_each_profile_is_run_and_timed(folder):
    samples = {"a": random(2, 3, 16, 16), "b": random(1, 3, 32, 48)}
    (folder / "data").mkdir()
    for name, values in samples.items():
        np.save(folder / "data" / f"{name}.npy", values.astype(np.float32))
    flags = ("--precision", "fp32", "--builder-optimization-level", "1")  # of so small a network TensorRT computes nothing in FP16
    done = onnx2trt(folder, "net.onnx", *flags, *GIVEN, "--validate", "data", "--json", "r.json", timeout=500)
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    assert result["status"] == "validated" and result["engine"]["profiles"] == 2
    assert all(row["p50_ms"] > 0 for row in result["optimization_profiles"])
    done = onnx2trt(folder, "net.onnx", "--validate-only", "net.engine", "--validate", "data", "--json", "v.json")
    assert done.code == 0, done.stderr
    assert json.loads((folder / "v.json").read_text())["status"] == "validated"


@pytest.mark.real
def test_int8_names_the_profile_that_it_is_calibrated_at(folder):
    """Samples of any promised shape count."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    (folder / "data").mkdir()
    for seed, shape in enumerate([(1, 3, 16, 16)] * 4 + [(1, 3, 32, 48)]):
        np.savez(folder / "data" / f"{seed}.npz", x=random(*shape, seed=seed).astype(np.float32))
    flags = ("--backend", "tensorrt-rtx", "--precision", "int8", "--calibration-dir", "data", "--quantization-effort", "fast")
    done = onnx2trt(folder, "net.onnx", *flags, "--max-accuracy-drop", "50", *GIVEN, "--json", "r.json")
    assert done.code == 0, done.stderr
    calibration = done.json("r.json")["calibration"]
    assert calibration["profile"] == "small" and calibration["samples_used"] == 5 and "usual shapes of profile small" in done.stdout
