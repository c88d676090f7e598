"""stages/fp16_guard.py by the command: real TensorRT-RTX engines on a machine without a GPU."""

import cv2
import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import conv_net, model, node, offset_net, random

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture
def folder(tmp_path):
    onnx.save(offset_net(), tmp_path / "net.onnx")
    pixels = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for index in range(25):
        cv2.imwrite(str(tmp_path / "images" / f"{index:02}.png"), pixels.integers(0, 256, (16, 16, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "test.png"), pixels.integers(0, 256, (16, 16, 3), np.uint8))
    return tmp_path


def kept(result) -> dict:
    return {entry["name"]: entry["reason"] for entry in result["precision"]["fallback"]}


DATA = {"test image": ("--test-image", "test.png"), "folder": ("--validation-dir", "images"), "synthetic": ()}


@pytest.mark.parametrize("data", DATA)
def test_layers_that_lose_too_much_keep_fp32(folder, data):
    done = onnx2trt(folder, "--onnx", "net.onnx", *DATA[data])
    assert done.code == 0, done.stderr
    result = done.json("net.engine.json")
    assert set(kept(result)) == {"away", "back"}
    assert all("FP16 here alone changes the outputs by" in reason for reason in kept(result).values())
    assert result["precision"]["delivered"] == "fp16" and result["precision"]["layers"]["fp16"] == 5
    tried = result["precision"]["tried"]
    assert not tried[0]["passed"] and tried[0]["fp16_share"] == 1 and tried[0]["drop_percent"] > 1
    assert any(rung["passed"] and rung["fp16_share"] == 1 for rung in tried), "additions are no work beside convolutions"
    assert result["accuracy"][0]["drop_percent"] <= 1 and "away" in done.stdout


def test_an_override_to_fp16_is_never_overruled(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--test-image", "test.png", "--layer-precisions", "*:fp16", "--json", "r.json")
    assert done.code == 7 and "more than --max-accuracy-drop 1" in done.error
    result = done.json("r.json")
    assert kept(result) == {} and "tried" not in result["precision"] and "choose" not in result["timings_s"]


def test_where_an_override_stands_in_the_way_what_was_tried_is_said(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--test-image", "test.png", "--layer-precisions", "away:fp16", "--json", "r.json")
    assert done.code == 7 and "FP16 does not reach --max-accuracy-drop 1 %" in done.error and "\n  100% FP16: drop " in done.error
    assert "--layer-precisions" in done.error and not (folder / "net.engine").exists()
    precision = done.json("r.json")["precision"]
    assert precision["delivered"] is None and len(precision["tried"]) > 1 and not any(rung["passed"] for rung in precision["tried"])


@pytest.mark.parametrize("flag", ["--disable-strict-types", "--no-validate"])
def test_nobody_asked_for_the_guard(folder, flag):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--test-image", "test.png", flag, "--json", "r.json")
    assert done.code == (0 if flag == "--no-validate" else 7), done.stderr
    assert kept(done.json("r.json")) == {}


def test_nothing_helps_where_every_layer_loses(tmp_path):
    names = [f"t{index}" for index in range(9)]
    nodes = [node("Sub" if i % 2 else "Add", f"{names[i]} offset", names[i + 1], f"n{i}") for i in range(8)]
    onnx.save(model(nodes, {"t0": [1, 64]}, {"t8": [1, 64]}, {"offset": np.float32(2000)}), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", t0=random(1, 64))
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--test-image", "x.npz", "--metric", "noise", "--json", "r.json")
    assert done.code == 7 and "FP16 does not reach --max-accuracy-drop 1 % with at least 10% of the work in FP16" in done.error
    assert "--precision bf16 or fp32" in done.error
    tried = done.json("r.json")["precision"]["tried"]
    assert min(rung["fp16_share"] for rung in tried) == 0.125, "the last layer that makes it an FP16 engine was tried"


def test_large_segments_are_narrowed_down(tmp_path):
    """200 nodes are measured in segments of three; of those only the nodes that need it keep FP32."""
    nodes = [node("Mul", "x one", "a0", "first")]
    for index in range(200):
        op = {120: "Add", 121: "Sub"}.get(index, "Mul")
        nodes.append(node(op, f"a{index} {'one' if op == 'Mul' else 'offset'}", f"a{index + 1}", f"n{index}"))
    nodes.append(node("Relu", "a200", "y", "last"))
    onnx.save(model(nodes, {"x": [1, 64]}, {"y": [1, 64]}, {"one": np.float32(1), "offset": np.float32(2000)}), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=random(1, 64))
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--test-image", "x.npz", "--metric", "noise")
    assert done.code == 0, done.stderr
    assert set(kept(done.json("net.engine.json"))) == {"n120", "n121"}


def test_a_usual_net_keeps_nothing_and_says_nothing(folder):
    onnx.save(conv_net(), folder / "usual.onnx")
    done = onnx2trt(folder, "--onnx", "usual.onnx", "--validation-dir", "images")
    assert done.code == 0, done.stderr
    result = done.json("usual.engine.json")
    assert kept(result) == {} and "tried" not in result["precision"] and result["timings_s"]["choose"] >= 0


def tipping_net(folder, samples: int, tipping: int):
    """Two classes that FP16 cannot tell apart in every twentieth sample, so many times; these decisions tip over."""
    nodes = [node("MatMul", "x w", "m", "product"), node("Add", "m b", "y", "sum")]
    weights = {"w": np.eye(2, dtype=np.float32), "b": np.float32([[0, 0]])}
    onnx.save(model(nodes, {"x": [1, 2]}, {"y": [1, 2]}, weights), folder / "net.onnx")
    (folder / "data").mkdir()
    for index in range(samples):
        tips = index % 20 == 0 and index < 20 * tipping
        np.save(folder / "data" / f"{index:03}.npy", np.float32([[2048, 2049 if tips else 2060]]))
    return onnx2trt(folder, "--onnx", "net.onnx", "--validation-dir", "data", "--metric", "top1", "--json", "r.json")


def test_decisions_that_tip_over_by_chance_keep_no_layer_in_fp32(tmp_path):
    """They are 10 % of the 20 samples looked at first; of all samples they are half a percent, and that passes."""
    done = tipping_net(tmp_path, 400, 2)
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    assert kept(result) == {} and result["accuracy"][0]["drop_percent"] == pytest.approx(0.5)
    assert "tried" not in result["precision"] and result["timings_s"]["choose"] > 0


def test_what_the_guard_lets_pass_the_final_check_does_too(tmp_path):
    """Five percent are too many, of 20 samples as of all; FP32 for either layer alone does not help."""
    done = tipping_net(tmp_path, 200, 10)
    result = done.json("r.json")
    assert done.code == 7 and "FP16 does not reach --max-accuracy-drop 1 %" in done.error
    assert len(result["precision"]["tried"]) > 1 and not any(rung["passed"] for rung in result["precision"]["tried"])
