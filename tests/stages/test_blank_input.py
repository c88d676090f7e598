"""stages/blank_input.py: layers that stay in FP32 because an input of zeros would become NaN or infinite."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import FLOAT, model, node, random
from onnx import TensorProto

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def lost_bias(epsilon=1e-9) -> onnx.ModelProto:
    """x / (x w + bias): no constant is added that could be seen to keep anything off zero, but the bias of a product does."""
    nodes = [
        node("Conv", "x k", "c", "stem", pads=[1, 1, 1, 1]),
        node("Abs", "c", "a", "positive"),
        node("Conv", "a w b", "sum", "sum"),
        node("Div", "c sum", "q", "quotient"),
        node("Conv", "q h", "y", "head"),
    ]
    weights = {"k": random(4, 3, 3, 3, seed=1), "w": np.ones((4, 4, 1, 1), np.float32), "h": random(4, 4, 1, 1, seed=2)}
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, {**weights, "b": np.float32([epsilon] * 4)})


def overflow_at_zero() -> onnx.ModelProto:
    """exp(12 - 10 |x|) / 1e5 * x, which is 1.6e5 / 1e5 at zero alone."""
    nodes = [
        node("Abs", "x", "a", "positive"),
        node("Mul", "a ten", "t", "times"),
        node("Sub", "twelve t", "s", "minus"),
        node("Exp", "s", "e", "exponential"),
        node("Mul", "e small", "m", "scaled"),
        node("Add", "m x", "y", "sum"),
    ]
    weights = {name: np.float32(value) for name, value in {"ten": 10, "twelve": 12, "small": 1e-3}.items()}
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}, weights)


def infinite_at_zero() -> onnx.ModelProto:
    nodes = [
        node("Abs", "x", "a", "positive"),
        node("Log", "a", "l", "logarithm"),
        node("Div", "x a", "q", "sign"),
        node("Add", "l q", "y"),
    ]
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]})


@pytest.fixture
def convert(tmp_path):
    def run(source, *flags):
        onnx.save(source, tmp_path / "net.onnx")
        (tmp_path / "data").mkdir(exist_ok=True)
        for index in range(8):
            value = random(1, 3, 8, 8, seed=index)
            np.savez(tmp_path / "data" / f"{index}.npz", x=(value + np.sign(value)).astype(np.float32))
        done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--calibration-dir", "data", *flags)
        return done, {
            entry["name"]: entry["reason"] for entry in (done.json("net.engine.json")["precision"]["fallback"] if not done.code else ())
        }

    return run


@pytest.mark.parametrize("flags", [(), ("--precision", "int8", "--quantization-effort", "fast", "--max-accuracy-drop", "50")])
def test_what_is_lost_at_zero_is_kept_with_what_reads_it(convert, flags):
    done, kept = convert(lost_bias(), *flags)
    assert done.code == 0, done.stderr
    assert {"sum", "quotient"} <= set(kept) and "an input of zeros" in kept["quotient"] and "stem" not in kept


def test_what_overflows_at_zero_alone_is_kept(convert):
    done, kept = convert(overflow_at_zero())
    assert done.code == 0, done.stderr
    assert {"exponential", "scaled"} <= set(kept) and "positive" not in kept


@pytest.mark.parametrize("source", [lost_bias(1e-3), infinite_at_zero()])
def test_a_model_that_is_finite_in_fp16_or_is_not_by_itself_keeps_nothing_for_it(convert, source):
    done, kept = convert(source)
    assert done.code == 0, done.stderr
    assert not any("zeros" in reason for reason in kept.values())


@pytest.mark.parametrize("flags", [("--disable-strict-types",), ("--layer-precisions", "*:fp16")])
def test_where_nothing_may_be_kept_the_run_fails(convert, flags):
    done, _ = convert(lost_bias(), *flags)
    assert done.code == 7 and "output 'y' for an input of zeros: 256 values are NaN or infinite" in done.error


def test_whole_numbers_are_zero_only_where_they_are_indices(convert, tmp_path):
    """A table's first row is zero, and a length of zero is none."""
    table = random(10, 8)
    table[0] = 0
    nodes = [
        node("Gather", "table ids", "e", "embed"),
        node("Cast", "lengths", "n", "cast", to=FLOAT),
        node("MatMul", "e w", "m", "product"),
        node("ReduceSum", "m axis", "s", "sum"),
        node("Div", "s n", "d", "mean"),
        node("Abs", "d", "a", "positive"),
        node("MatMul", "a v", "p", "project"),
        node("Add", "p b", "z", "bias"),
        node("Div", "d z", "y", "quotient"),
    ]
    weights = {
        "table": table,
        "w": random(8, 8, seed=1),
        "axis": np.array([1]),
        "v": np.ones((8, 8), np.float32),
        "b": np.float32([1e-9] * 8),
    }
    inputs = {"ids": (TensorProto.INT64, [1, 4]), "lengths": (TensorProto.INT64, [1, 1])}
    onnx.save(model(nodes, inputs, {"y": (FLOAT, [1, 1, 8])}, weights), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", ids=np.array([[1, 2, 3, 4]]), lengths=np.array([[4]]))
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--test-image", "x.npz", "--metric", "noise")
    assert done.code == 0, done.stderr
    kept = {entry["name"] for entry in done.json("net.engine.json")["precision"]["fallback"]}
    assert {"bias", "quotient"} <= kept
