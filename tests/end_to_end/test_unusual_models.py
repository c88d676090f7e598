"""Models that TensorRT takes and that are no usual networks: without floating-point layers, or such as ONNX Runtime cannot run."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random
from onnx import TensorProto

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
NOTHING = "nothing here can run in FP16: "
RECURRENT = {"w": np.ones((1, 12, 2), np.float32), "r": np.ones((1, 12, 3), np.float32)}


def and_net() -> onnx.ModelProto:
    flags = (TensorProto.BOOL, [2, 3])
    return model([node("And", "a b", "y")], {"a": flags, "b": flags}, {"y": flags})


def moved() -> onnx.ModelProto:
    return model([node("Flatten", "x", "y")], {"x": [2, 3, 4]}, {"y": [2, 12]})


def lstm_with_lengths() -> onnx.ModelProto:
    inputs = {"x": [4, 1, 2], "lengths": (TensorProto.INT32, [1])}
    lstm = onnx.helper.make_node("LSTM", ["x", "w", "r", "", "lengths"], ["y"], name="lstm", hidden_size=3)
    return model([lstm], inputs, {"y": [4, 1, 1, 3]}, RECURRENT)


def norm() -> onnx.ModelProto:
    return model([node("LpNormalization", "x", "y")], {"x": [2, 3, 4]}, {"y": [2, 3, 4]})


def random_numbers() -> onnx.ModelProto:
    """ONNX Runtime has RandomUniformLike of opset 22 no more."""
    nodes = [node("RandomUniformLike", "x", "r", dtype=TensorProto.FLOAT), node("Add", "x r", "s"), node("Exp", "s", "y")]
    return model(nodes, {"x": [2, 8]}, {"y": [2, 8]}, opset=22)


@pytest.mark.parametrize(
    ("net", "because", "delivered"),
    [
        (and_net(), "no layer computes floating-point results", None),
        (moved(), "no layer computes floating-point results", None),
        (lstm_with_lengths(), "have to be FP32 (a recurrent layer with sequence_lens", "fp32"),
        (norm(), "have to be FP32 (squares or exponentials inside", "fp32"),
    ],
    ids=["booleans", "moved", "lstm", "norm"],
)
def test_where_nothing_can_be_fp16_the_engine_is_made_and_it_is_said(tmp_path, net, because, delivered):
    onnx.save(net, tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--json", "r.json")
    result = done.json("r.json")
    assert done.code == 0, done.error
    assert any(text.startswith(NOTHING) and because in text for text in result["warnings"])
    assert result["precision"]["delivered"] == delivered and (tmp_path / "net.engine").exists()
    assert ("no floating-point layers (fp16 asked for)" in done.stdout) == (delivered is None)


def test_what_could_be_fp16_and_is_kept_by_the_user_is_still_less_than_asked(tmp_path):
    onnx.save(model([node("Exp", "x", "y", "exp")], {"x": [2, 3]}, {"y": [2, 3]}), tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--layer-precisions", "exp:fp32")
    assert done.code == 7 and "fp16 was asked for, but the engine is fp32" in done.error


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_model_that_onnx_runtime_cannot_load_is_converted_and_not_called_validated(tmp_path, precision):
    onnx.save(random_numbers(), tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--precision", precision, "--json", "r.json")
    result = done.json("r.json")
    assert done.code == 0 and result["status"] == "not_validated" and result["accuracy"] == [], done.error
    if precision == "fp16":
        assert "ONNX Runtime cannot load the model, so there is nothing to compare with" in result["not_validated_because"]
        assert any("no ranges are measured" in text for text in result["warnings"])
        assert result["precision"]["layers"]["fp16"] > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_without_inputs_is_an_engine_of_constants(tmp_path, precision):
    net = model([node("Exp", "w", "y")], {}, {"y": [2, 3]}, {"w": np.ones((2, 3), np.float32)})
    onnx.save(net, tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--precision", precision, "--json", "r.json")
    assert done.code == 0 and "the graph has no inputs: its outputs are constants" in done.json("r.json")["warnings"], done.error
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--opt-shapes", "x:1x3")
    assert done.code == 2 and "the model's inputs are none" in done.error


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lists_of_tensors_are_written_as_what_they_hold(tmp_path, precision):
    """As PyTorch writes unbind, chunk and split; TensorRT has no such operator."""
    nodes = [
        node("Conv", "x w", "c", "conv"),
        node("SplitToSequence", "c size", "parts", "split", axis=1),
        node("SequenceAt", "parts last", "b", "second"),
        node("SequenceErase", "parts last", "others", "rest"),
        node("SequenceInsert", "others b first", "turned", "turn"),
        node("ConcatFromSequence", "turned", "j", "join", axis=1),
        node("Conv", "j w", "y", "head"),
    ]
    weights = {"w": random(8, 8, 1, 1), "size": np.int64(4), "last": np.int64(-1), "first": np.int64(0)}
    onnx.save(model(nodes, {"x": ["n", 8, 16, 16]}, {"y": ["n", 8, 16, 16]}, weights), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(4):
        np.save(tmp_path / "data" / f"{index}.npy", random(1, 8, 16, 16, seed=index))
    flags = ("--precision", precision, *(("--calibration-dir", "data") if precision == "int8" else ()), "--max-batch-size", "4")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", *flags, "--validate", "data", "--json", "r.json")
    assert done.code == 0 and "5 nodes on lists of tensors" in done.stderr, done.stderr
    assert done.json("r.json")["precision"]["delivered"] == precision


def test_what_depends_on_values_in_size_has_no_rows(tmp_path):
    """NonZero of a fixed batch: its two trials have different sizes. TensorRT-RTX has no NonZero, which is what has to be said."""
    net = model([node("NonZero", "x", "y")], {"x": [4, 5]}, {"y": (TensorProto.INT64, [2, "n"])})
    onnx.save(net, tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "0.npy", np.ones((4, 5), np.float32))
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--precision", "fp32", "--validation-dir", "data")
    assert done.code in (0, 3) and ("NonZero" in done.error or done.code == 0), done.error


def test_scalars_are_no_batch(tmp_path):
    net = model([node("Clip", "x low high", "y")], {"x": [3, 4], "low": [], "high": []}, {"y": [3, 4]})
    onnx.save(net, tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "0.npz", x=np.arange(12, dtype=np.float32).reshape(3, 4), low=np.float32(2), high=np.float32(9))
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--validation-dir", "data", "--json", "r.json")
    assert done.code == 0 and done.json("r.json")["accuracy"][0]["samples"] == 1, done.error
