"""Inputs whose values decide about shapes, empty caches and scalars: engines of TensorRT-RTX, as a user gets them."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random
from onnx import TensorProto

pytestmark = pytest.mark.real
pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
INT = TensorProto.INT64


def cut_cache():
    """What of a cache is kept, with a new entry, times a matrix and a scalar."""
    nodes = [
        node("Slice", "past zero keep two", "kept", "slice"),
        node("Concat", "kept new", "all", "concat", axis=2),
        node("MatMul", "all w", "m", "matmul"),
        node("Mul", "m scale", "y", "mul"),
    ]
    inputs = {"past": [1, 2, "length", 16], "new": [1, 2, 1, 16], "keep": (INT, [1]), "scale": []}
    return model(nodes, inputs, {"y": [1, 2, "n", 8]}, {"zero": np.array([0]), "two": np.array([2]), "w": random(16, 8)})


def sample(length: int, keep: int, seed: int = 0) -> dict:
    arrays = {"past": random(1, 2, length, 16, seed=seed), "new": random(1, 2, 1, 16, seed=seed + 1)}
    return {**arrays, "keep": np.array([keep]), "scale": np.array(0.5, np.float32)}


@pytest.fixture
def folder(tmp_path):
    onnx.save(cut_cache(), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index, keep in enumerate([2, 5, 9]):
        np.savez(tmp_path / f"data/{index}.npz", **sample(12, keep, index))
    return tmp_path


def test_values_from_the_data_and_an_empty_cache(folder):
    shapes = ("--min-shapes", "past:1x2x0x16", "--opt-shapes", "past:1x2x12x16", "--max-shapes", "past:1x2x32x16")
    done = onnx2trt(folder, "--onnx", "net.onnx", *shapes, "--calibration-dir", "data", "--json", "r.json")
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    keep = next(profile for profile in result["plan"]["profiles"] if profile["name"] == "keep")
    assert keep["values"] == {"min": [2], "opt": [5], "max": [9]} and keep["min"] == [1]
    assert result["precision"]["delivered"] == "fp16" and result["accuracy"][0]["sqnr_db"] > 50
    np.savez(folder / "empty.npz", **sample(0, 2))
    done = onnx2trt(folder, "--onnx", "net.onnx", *shapes, "--shape-values", "keep:0:5:32", "--test-image", "empty.npz")
    assert done.code == 0, done.stderr


def test_everything_that_is_missing_is_asked_for_and_the_answer_works(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx")
    assert done.code == 2 and "'past' has free dimensions" in done.error and "'keep' decide about shapes" in done.error
    words = done.error.split("hint: ")[1].split()
    given = [words[words.index(flag) + 1].rstrip(",") for flag in ("--opt-shapes", "--shape-values")]
    done = onnx2trt(folder, "--onnx", "net.onnx", "--opt-shapes", given[0], "--shape-values", given[1])
    assert done.code == 0, done.stderr


def test_data_outside_of_what_was_promised(folder):
    shapes = ("--opt-shapes", "past:1x2x12x16", "--shape-values", "keep:1:2:4")
    done = onnx2trt(folder, "--onnx", "net.onnx", *shapes, "--test-image", "data/2.npz")
    assert done.code == 7 and "'keep' is [9], outside" in done.error
