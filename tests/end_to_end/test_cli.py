"""The command end to end: real TensorRT-RTX engines on a machine without a GPU."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from command import ROOT, check_schema, onnx2trt
from helpers import wait_until
from html_page import Page
from models import conv_net, layer_norm, model, multiplication_chain, node, random

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture
def folder(tmp_path):
    """A model, images to calibrate with, one to test with."""
    onnx.save(conv_net(), tmp_path / "net.onnx")
    (tmp_path / "images").mkdir()
    random_pixels = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), random_pixels.integers(0, 256, (20, 24, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "test.png"), random_pixels.integers(0, 256, (20, 24, 3), np.uint8))
    return tmp_path


INT8 = ("--precision", "int8", "--calibration-dir", "images", "--max-accuracy-drop", "20")


def test_fp16_is_the_default_and_every_file_is_there(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--test-image", "test.png")
    assert done.code == 0, done.stderr
    result = done.json("net.engine.json")
    data = (folder / "net.engine").read_bytes()
    known = {"path": "net.engine", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "gpu_archs": []}
    kernels, moved = (result["engine"].pop(name) for name in ("kernels", "moved_bytes"))
    assert kernels > 0 and moved > 1352, "by the engine's own plan"
    assert all(ms >= 0 for ms in result["engine"].pop("least_ms").values())
    assert result["engine"] == {**known, "weights_bytes": 1352}, "676 values in FP16"
    assert data[:4] != b"" and result["status"] == "simulated" and result["exit_code"] == 0
    assert result["precision"]["delivered"] == "fp16" and result["precision"]["layers"]["fp16"] > 0
    assert result["precision"]["layers"]["fp32"] == 0 and result["precision"]["layers_source"] == "network"
    assert result["accuracy"][0]["metric"] == "values" and result["accuracy"][0]["executed_on"] == "simulated"
    assert "not executed here" in done.stdout and "net.engine" in done.stdout


@pytest.mark.parametrize("precision, flags", [("fp32", ()), ("fp16", ()), ("int8", INT8[2:])])
def test_each_precision_is_delivered(folder, precision, flags):
    done = onnx2trt(
        folder,
        "--onnx",
        "net.onnx",
        "--precision",
        precision,
        *flags,
        "--test-image",
        "test.png",
        "--json",
        "-",
        "--save-onnx",
        "prepared.onnx",
    )
    assert done.code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["precision"]["delivered"] == precision
    prepared = onnx.load(folder / "prepared.onnx")
    kinds = {onnx.TensorProto.DataType.Name(t.data_type) for t in prepared.graph.initializer if t.name.startswith(("w", "b"))}
    assert {"fp32": "FLOAT", "fp16": "FLOAT16", "int8": "INT8"}[precision] in kinds
    assert [v.name for v in (*prepared.graph.input, *prepared.graph.output)] == ["x", "y"]
    assert {v.type.tensor_type.elem_type for v in (*prepared.graph.input, *prepared.graph.output)} == {onnx.TensorProto.FLOAT}


def test_stdout_carries_nothing_but_the_json(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--json", "-", "-vv")
    check_schema(json.loads(done.stdout))
    assert json.loads(done.stdout)["status"] == "simulated"
    assert "[TensorRT" in done.stderr and "verdict" in done.stderr


def test_the_side_file_and_json_are_the_same_object(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--json", "result.json", "-o", "sub.plan")
    assert done.code == 0 and done.json("result.json") == done.json("sub.plan.json")


def test_two_runs_at_the_same_output_replace_each_other_whole(folder):
    first = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "fp32")
    size = (folder / "net.engine").stat().st_size
    second = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "fp16")
    assert first.code == second.code == 0
    assert (folder / "net.engine").stat().st_size != size
    data = (folder / "net.engine").read_bytes()
    assert second.json("net.engine.json")["engine"]["sha256"] == hashlib.sha256(data).hexdigest()


# FP16 always differs a little, and no layer may be kept in FP32 for it
FAILING = ("--test-image", "test.png", "--metric", "noise", "--max-accuracy-drop", "0", "--layer-precisions", "*:fp16")


def test_a_failed_validation_exits_7_and_leaves_the_old_engine(folder):
    (folder / "net.engine").write_bytes(b"the old one")
    done = onnx2trt(folder, "--onnx", "net.onnx", *FAILING, "--json", "r.json")
    assert done.code == 7 and "--max-accuracy-drop 0" in done.error and "hint:" in done.error
    assert (folder / "net.engine").read_bytes() == b"the old one" and not (folder / "net.engine.json").exists()
    result = done.json("r.json")
    assert result["status"] == "failed" and result["exit_code"] == 7 and result["accuracy"][0]["drop_percent"] > 0
    assert not (folder / "net.engine.rejected").exists()


def test_keep_failed_keeps_the_engine_under_another_name(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", *FAILING, "--keep-failed")
    assert done.code == 7 and (folder / "net.engine.rejected").stat().st_size > 1000 and not (folder / "net.engine").exists()


def test_overflow_is_kept_in_fp32_and_named_and_the_engine_is_right(tmp_path):
    onnx.save(multiplication_chain(), tmp_path / "chain.onnx")
    np.savez(tmp_path / "x.npz", x=np.linspace(0.5, 1, 8, dtype=np.float32)[None])
    done = onnx2trt(tmp_path, "--onnx", "chain.onnx", "--test-image", "x.npz")
    assert done.code == 0, done.stderr
    kept = done.json("chain.engine.json")["precision"]["fallback"]
    assert [entry["name"] for entry in kept] == ["mul1", "mul2"] and all("1.2e+05" in entry["reason"] for entry in kept)
    assert "mul1" in done.stdout


def test_without_layers_kept_in_fp32_the_overflow_is_caught_by_validation(tmp_path):
    onnx.save(multiplication_chain(), tmp_path / "chain.onnx")
    np.savez(tmp_path / "x.npz", x=np.linspace(0.5, 1, 8, dtype=np.float32)[None])
    done = onnx2trt(tmp_path, "--onnx", "chain.onnx", "--test-image", "x.npz", "--disable-strict-types")
    assert done.code == 7 and "NaN or infinite" in done.error and "'y'" in done.error


def test_fp16_that_is_all_kept_in_fp32_is_not_called_fp16(tmp_path):
    onnx.save(multiplication_chain((300.0, 400.0)), tmp_path / "chain.onnx")
    done = onnx2trt(tmp_path, "--onnx", "chain.onnx", "--layer-precisions", "*:fp32")
    assert done.code == 7 and "fp16 was asked for, but the engine is fp32" in done.error


def test_any_number_rank_and_type_of_inputs(tmp_path):
    nodes = [
        node("Gather", "table ids", "e", "embed"),
        node("MatMul", "e w", "m", "project"),
        node("Where", "mask m zero", "z", "select"),
        node("Add", "z bias", "y", "join"),
        node("ReduceSum", "y", "total", "sum", keepdims=0),
    ]
    types = {"ids": (onnx.TensorProto.INT64, ["n", 5]), "mask": (onnx.TensorProto.BOOL, ["n", 5, 1]), "bias": [8]}
    weights = {"table": random(10, 8), "w": random(8, 8), "zero": np.float32(0)}
    onnx.save(model(nodes, types, {"y": ["n", 5, 8], "total": []}, weights), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", ids=np.array([[1, 2, 3, 4, 5]]), mask=np.ones((1, 5, 1), bool), bias=random(8))
    for flags in ((), ("--test-image", "d.npz"), ("--max-batch-size", "3")):
        done = onnx2trt(tmp_path, "--onnx", "m.onnx", *flags)
        assert done.code == 0, done.stderr
        assert {row["output"] for row in done.json("m.engine.json")["accuracy"]} == {"y", "total"}


def test_images_for_a_model_that_takes_none(tmp_path):
    onnx.save(layer_norm(), tmp_path / "m.onnx")
    cv2.imwrite(str(tmp_path / "p.png"), np.zeros((4, 4, 3), np.uint8))
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--test-image", "p.png")
    assert done.code == 2 and "neither NCHW nor NHWC" in done.error and ".npz" in done.error


def test_int8_from_arrays_for_a_model_without_images(tmp_path):
    nodes = [node("MatMul", "x w1", "a", "one"), node("Relu", "a", "b"), node("MatMul", "b w2", "y", "two")]
    onnx.save(model(nodes, {"x": ["n", 32]}, {"y": ["n", 64]}, {"w1": random(32, 64), "w2": random(64, 64)}), tmp_path / "m.onnx")
    np.save(tmp_path / "test.npy", random(1, 32, seed=99))
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "all.npy", random(40, 32))
    done = onnx2trt(
        tmp_path,
        "--onnx",
        "m.onnx",
        "--precision",
        "int8",
        "--calibration-dir",
        "data",
        "--test-image",
        "test.npy",
        "--max-accuracy-drop",
        "100",
    )
    assert done.code == 0, done.stderr
    result = done.json("m.engine.json")
    assert result["precision"]["int8_mac_share"] == 1.0 and result["calibration"]["samples_used"] == 40
    assert result["accuracy"][0]["sqnr_db"] > 20


def test_int8_without_data_is_refused(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "int8")
    assert done.code == 5 and "--calibration-dir" in done.error


def test_int8_for_a_model_without_weights_is_refused(tmp_path):
    onnx.save(model([node("Relu", "x", "y")], {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]}), tmp_path / "m.onnx")
    (tmp_path / "d").mkdir()
    np.save(tmp_path / "d" / "a.npy", random(1, 3, 8, 8))
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--precision", "int8", "--calibration-dir", "d")
    assert done.code == 3 and "no convolution or matrix product" in done.error and "--precision fp16" in done.error


def test_a_cache_replaces_the_images(folder):
    """But for what is fitted to images: channels and weights."""
    fast = ("--quantization-effort", "fast")
    first = onnx2trt(folder, "--onnx", "net.onnx", *INT8, *fast, "--calibration-cache", "c.cache", "--save-onnx", "a.onnx")
    assert first.code == 0, first.stderr
    assert (folder / "c.cache").read_text().startswith("TRT-") and first.json("c.cache.json")["samples"] == 6
    second = onnx2trt(
        folder,
        "--onnx",
        "net.onnx",
        "--precision",
        "int8",
        "--max-accuracy-drop",
        "20",
        "--calibration-cache",
        "c.cache",
        "--save-onnx",
        "b.onnx",
    )
    assert second.code == 0, second.stderr
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()
    assert second.json("net.engine.json")["calibration"]["samples_used"] is None


def test_a_stale_cache_is_refused_unless_accepted(folder):
    onnx2trt(folder, "--onnx", "net.onnx", *INT8, "--calibration-cache", "c.cache")
    cv2.imwrite(str(folder / "images" / "new.png"), np.full((9, 9, 3), 7, np.uint8))
    stale = onnx2trt(folder, "--onnx", "net.onnx", *INT8, "--calibration-cache", "c.cache")
    assert stale.code == 5 and "other calibration files" in stale.error and "--accept-stale-cache" in stale.error
    accepted = onnx2trt(folder, "--onnx", "net.onnx", *INT8, "--calibration-cache", "c.cache", "--accept-stale-cache")
    assert accepted.code == 0 and "stale" in accepted.stderr


def test_a_cache_of_another_model_is_refused(folder):
    (folder / "c.cache").write_text("TRT-100600-EntropyCalibration2\nother: 3c010a14\n")
    done = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "int8", "--calibration-cache", "c.cache")
    assert done.code == 5 and "no scale for 2 of 2 tensors" in done.error and "another model" in done.error


def test_too_many_bad_images_stop_and_a_few_are_skipped(folder):
    (folder / "images" / "bad.jpg").write_bytes(b"not an image")
    done = onnx2trt(folder, "--onnx", "net.onnx", *INT8)
    assert done.code == 0 and "1 of 7 samples of images were skipped" in done.stderr and "bad.jpg" in done.stderr
    assert done.json("net.engine.json")["calibration"]["samples_skipped"] == 1
    for index in range(6):
        (folder / "images" / f"{index}.png").write_bytes(b"broken")
    done = onnx2trt(folder, "--onnx", "net.onnx", *INT8)
    assert done.code == 5 and "only 0 of 7 samples of images can be used" in done.error


def test_images_of_one_colour_are_refused(folder):
    for index in range(6):
        cv2.imwrite(str(folder / "images" / f"{index}.png"), np.full((8, 8, 3), 40 * index, np.uint8))
    done = onnx2trt(folder, "--onnx", "net.onnx", *INT8)
    assert done.code == 5 and "constant" in done.error


def quantized_model(folder):
    from onnx2trt.model.graph import Graph
    from onnx2trt.rewrite import qdq
    from onnx2trt.rewrite.opset import raise_opset

    graph = raise_opset(Graph.from_model(conv_net()), 19)
    result = qdq.insert(graph, {"x": 0.01, "r1": 0.02, "r2": 0.02}, qdq.quantizable_layers(graph), False)
    onnx.save(result.to_model(), folder / "qdq.onnx")


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_model_that_carries_qdq_is_recognised(folder, precision):
    quantized_model(folder)
    done = onnx2trt(folder, "--onnx", "qdq.onnx", "--precision", precision, "--test-image", "test.png")
    assert done.code == 0, done.stderr
    result = done.json("qdq.engine.json")
    assert "carries Q/DQ already" in done.stderr and result["model"]["quantized"]
    assert result["precision"]["layers"]["int8"] == 3 and result["precision"]["delivered"] == "int8"


def test_an_fp16_model_is_recognised(folder):
    from onnx2trt.model.graph import Graph
    from onnx2trt.rewrite.fp16 import convert

    onnx.save(convert(Graph.from_model(conv_net()), {}).to_model(), folder / "half.onnx")
    done = onnx2trt(folder, "--onnx", "half.onnx", "--test-image", "test.png")
    assert done.code == 0 and "carries FP16 tensors already" in done.stderr
    done = onnx2trt(folder, "--onnx", "half.onnx", "--precision", "fp32", "--json", "r.json")
    assert done.code == 0 and "carries FP16 tensors: for fp32 they become FP32" in done.stderr
    assert done.json("r.json")["precision"]["delivered"] == "fp32"


def test_dynamic_shapes_need_a_profile_and_get_one(tmp_path):
    onnx.save(
        model([node("Conv", "x w", "y", "c")], {"x": ["n", 3, "h", "w"]}, {"y": ["n", 4, "h", "w"]}, {"w": random(4, 3, 1, 1)}),
        tmp_path / "m.onnx",
    )
    done = onnx2trt(tmp_path, "--onnx", "m.onnx")
    assert done.code == 2 and "--opt-shapes x:1x3x224x224" in done.error
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--opt-shapes", "x:1x3x32x48", "--max-shapes", "x:2x3x64x64", "--min-shapes", "1x3x8x8")
    assert done.code == 0, done.stderr
    profile = done.json("m.engine.json")["plan"]["profiles"][0]
    assert profile == {"name": "x", "min": [1, 3, 8, 8], "opt": [1, 3, 32, 48], "max": [2, 3, 64, 64]}


def test_test_data_outside_the_profile_is_refused_before_the_build(tmp_path):
    onnx.save(model([node("Relu", "x", "y")], {"x": ["n", "l"]}, {"y": ["n", "l"]}), tmp_path / "m.onnx")
    np.save(tmp_path / "d.npy", np.zeros((1, 9), np.float32))
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--opt-shapes", "x:1x4", "--test-image", "d.npy")
    assert done.code == 7 and "[1, 9]" in done.error and "building" not in done.stderr


def test_the_report_is_one_page_that_needs_nothing_else(folder):
    name = "<b>net & $1.onnx"
    (folder / "net.onnx").rename(folder / name)
    files = ("--report", "r.html", "-o", "net.engine", "--json", "r.json")
    done = onnx2trt(folder, "--onnx", name, *INT8, "--test-image", "test.png", "--metric", "argmax", *files)
    assert done.code == 0 and done.json("r.json") == done.json("net.engine.json")
    page = Page((folder / "r.html").read_bytes())
    page.check_alone()
    assert set(page.sections) == {"outputs", "accuracy", "latency", "layers", "calibration", "timings", "facts", "command"}
    assert len(page.images) == 4 and name in page.text and "test.png" in page.text  # input, model's, engine's, difference
    assert f"python onnx2trt.py --onnx '{name}' --precision int8 --calibration-dir images" in page.sections["command"]


def test_a_failed_run_has_its_report_and_no_engine(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", *FAILING, "--report", "r.html", "--keep-failed")
    assert done.code == 7 and not (folder / "net.engine").exists() and (folder / "net.engine.rejected").exists()
    page = Page((folder / "r.html").read_bytes())
    assert "Failed, exit code 7" in page.text and "--max-accuracy-drop 0" in page.text
    (folder / "net.onnx").write_bytes(b"damaged")
    done = onnx2trt(folder, "--onnx", "net.onnx", "--report", "r.html")
    assert done.code == 3 and "Failed, exit code 3" in Page((folder / "r.html").read_bytes()).text
    done = onnx2trt(folder, "--onnx", "net.onnx", "--validate-only", "net.engine.rejected", "--report", "again.html")
    assert done.code != 0 and f"Failed, exit code {done.code}" in Page((folder / "again.html").read_bytes()).text


def test_a_report_that_cannot_be_written_is_seen_before_the_work(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--report", "nowhere/r.html")
    assert done.code == 8 and "nowhere/r.html" in done.error and "building" not in done.stderr


def test_the_report_of_a_dry_run_is_the_plan(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--dry-run", "--report", "r.html")
    page = Page((folder / "r.html").read_bytes())
    assert done.code == 0 and "Nothing was built" in page.text and "latency" not in page.sections
    assert "strong typing" in page.sections["facts"]


def test_a_dry_run_builds_nothing(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", *INT8, "--dry-run", "--json", "plan.json")
    assert done.code == 0 and not (folder / "net.engine").exists()
    result = done.json("plan.json")
    assert result["status"] == "planned" and result["plan"]["precision"] == "int8" and result["engine"] is None
    assert "nothing was built" in done.stdout


def test_no_validate_says_so(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--no-validate")
    assert done.code == 0 and done.json("net.engine.json")["status"] == "not_validated" and "not validated" in done.stdout


def test_require_execution_fails_early_without_a_gpu(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--require-execution")
    assert done.code == 4 and "--require-execution" in done.error and "checking" not in done.stderr


def test_synthetic_inputs_are_said(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx")
    row = done.json("net.engine.json")["accuracy"][0]
    assert row["inputs"] == "synthetic" and row["metric"] == "noise" and "on made-up inputs" in done.stdout


def test_a_constant_output_is_a_warning(tmp_path):
    nodes = [node("Mul", "x zero", "m"), node("Add", "m one", "y")]
    onnx.save(model(nodes, {"x": [1, 4]}, {"y": [1, 4]}, {"zero": np.float32(0), "one": np.float32(1)}), tmp_path / "m.onnx")
    done = onnx2trt(tmp_path, "--onnx", "m.onnx")
    assert done.code == 0 and "no evidence" in done.stderr and done.json("m.engine.json")["accuracy"][0]["constant"]


@pytest.mark.parametrize("metric", ["argmax", "mask:.50", "cosine", "noise"])
def test_the_metric_is_the_users_choice(folder, metric):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--test-image", "test.png", "--metric", metric)
    assert done.code == 0, done.stderr
    result, expected = done.json("net.engine.json"), metric.replace(".50", "0.5")
    assert result["accuracy"][0]["metric"] == result["plan"]["metric"] == expected and f"({expected})" in done.stdout


def test_a_metric_holds_for_synthetic_inputs_too(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--metric", "argmax")
    assert done.code == 0 and done.json("net.engine.json")["accuracy"][0]["metric"] == "argmax"


def test_of_several_outputs_a_metric_takes_those_that_it_fits_and_the_worst_decides(tmp_path):
    nodes = [node("MatMul", "x w", "classes", "head"), node("ReduceSum", "classes", "total", "sum", keepdims=0)]
    onnx.save(model(nodes, {"x": ["n", 8]}, {"classes": ["n", 4], "total": []}, {"w": random(8, 4)}), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", random(1, 8, seed=5))
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--test-image", "x.npy", "--metric", "top1")
    assert done.code == 0, done.stderr
    assert {row["output"]: row["metric"] for row in done.json("m.engine.json")["accuracy"]} == {"classes": "top1", "total": "values"}
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--test-image", "x.npy", "--metric", "top1", "--max-accuracy-drop", "0")
    assert done.code == 7 and "'total'" in done.error and "(values)" in done.error


def test_a_metric_that_fits_no_output_is_refused_before_the_build(tmp_path):
    onnx.save(model([node("Relu", "x", "y")], {"x": [4]}, {"y": [4]}), tmp_path / "m.onnx")
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--metric", "top1")
    assert done.code == 2 and "--metric top1 fits no output of the model: 'y' is 4" in done.error and "building" not in done.stderr
    onnx.save(model([node("Relu", "x", "y")], {"x": None}, {"y": None}), tmp_path / "m.onnx")
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--metric", "top1", "--opt-shapes", "x:4")
    assert done.code == 2 and "'y' is 4" in done.error, "seen when it ran: nothing was declared"


@pytest.mark.parametrize("share, code", [("60", 0), ("75", 7)])
def test_int8_counts_from_the_share_that_was_asked_for(folder, share, code):
    """Stem, depthwise layer and head do 432, 144 and 64 multiply-accumulates for each pixel."""
    fallback = ("--layer-precisions", "head:fp16", "--keep-failed")
    done = onnx2trt(folder, "--onnx", "net.onnx", *INT8, *fallback, "--min-int8-share", share, "--json", "r.json")
    result = done.json("r.json")
    assert done.code == code, done.stderr
    assert result["plan"]["min_int8_share"] == float(share) / 100
    assert result["precision"]["int8_mac_share"] == pytest.approx(432 / 640), "the depthwise layer is FP16 anyway"
    assert result["precision"]["delivered"] == ("fp16" if code else "int8")
    if code:
        assert f"--min-int8-share {share}" in done.error and not (folder / "net.engine").exists()


def test_figures_of_samples_that_were_calibrated_on_are_marked(folder):
    """By path or by content, in table, JSON and report; those of other samples are not."""
    shutil.copy(folder / "images" / "3.png", folder / "copy.png")
    words = "measured on samples that the scales were chosen on"
    for data, seen in (("images/3.png", True), ("copy.png", True), ("test.png", False)):
        flags = ("--test-image", data, "--quantization-effort", "fast", "--json", "r.json", "--report", "r.html")
        done = onnx2trt(folder, "--onnx", "net.onnx", *INT8, *flags, environment={"COLUMNS": "300"})
        assert done.code == 0, done.stderr
        (row,) = done.json("r.json")["accuracy"]
        assert row["seen_in_calibration"] is seen and row.get("seen_samples") == (1 if seen else None)
        assert ("held_out_percent" in row) is seen
        page = Page((folder / "r.html").read_bytes())
        assert (words in " ".join(done.stdout.split())) is (words in page.sections["accuracy"]) is (words in done.stderr) is seen
    rungs = done.json("r.json")["calibration"]["tried"]
    assert [rung["seen_in_calibration"] for rung in rungs[:2]] == [False, True], "held out, then what is built"
    none = onnx2trt(folder, "--onnx", "net.onnx", *INT8, "--quantization-effort", "fast", "--json", "r.json")
    (row,) = none.json("r.json")["accuracy"]
    assert row["seen_in_calibration"] and row["seen_samples"] == row["samples"] == 6, "there are no others"
    tried = [rung for rung in none.json("r.json")["calibration"]["tried"] if rung["passed"] and not rung["seen_in_calibration"]]
    assert row["held_out_percent"] == tried[-1]["drop_percent"] > 0
    assert f"{row['held_out_percent']:.2f} % where it was made without them" in " ".join(none.stdout.split())


def test_without_int8_or_without_its_samples_nothing_is_said_of_them(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--calibration-dir", "images", "--test-image", "images/3.png", "--json", "r.json")
    assert "seen_in_calibration" not in done.json("r.json")["accuracy"][0] and "chosen on" not in done.stdout
    flags = ("--precision", "int8", "--calibration-cache", "c.cache", "--quantization-effort", "fast", "--max-accuracy-drop", "20")
    assert onnx2trt(folder, "--onnx", "net.onnx", *flags, "--calibration-dir", "images").code == 0
    done = onnx2trt(folder, "--onnx", "net.onnx", *flags, "--test-image", "test.png", "--json", "r.json")
    assert "seen_in_calibration" not in done.json("r.json")["accuracy"][0], "a cache does not tell its samples"


def test_some_of_the_samples_were_calibrated_on(folder):
    (folder / "mixed").mkdir()
    shutil.copy(folder / "images" / "1.png", folder / "mixed" / "b.png")
    shutil.copy(folder / "test.png", folder / "mixed" / "a.png")
    flags = ("--validation-dir", "mixed", "--quantization-effort", "fast", "--json", "r.json")
    done = onnx2trt(folder, "--onnx", "net.onnx", *INT8, *flags, environment={"COLUMNS": "300"})
    (row,) = done.json("r.json")["accuracy"]
    assert row["seen_in_calibration"] and row["seen_samples"] == 1 and row["samples"] == 2
    assert "1 of the samples are those that the scales were chosen on" in " ".join(done.stdout.split())
    assert all(rung["seen_in_calibration"] for rung in done.json("r.json")["calibration"]["tried"])


def test_fp32_without_a_gpu_is_not_called_evidence(folder):
    """The model compared with itself agrees whatever it is."""
    done = onnx2trt(
        folder, "--onnx", "net.onnx", "--precision", "fp32", "--test-image", "test.png", "--report", "r.html", "--json", "r.json"
    )
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    assert result["status"] == "not_validated" and result["accuracy"] == [] and result["precision"]["delivered"] == "fp32"
    assert "would be compared with itself" in result["not_validated_because"] and "would be compared with itself" in done.stderr
    shown = " ".join(done.stdout.split())
    assert "not validated: the engine was not executed here" in shown and "simulated" not in shown and "200" not in shown
    page = Page((folder / "r.html").read_bytes())
    assert "Not validated" in page.text and "would be compared with itself" in page.text and "Simulated" not in page.text


def test_fp32_that_was_rewritten_is_evidence_of_the_rewriting_alone(folder):
    flags = ("--io-types", "x:fp16", "--test-image", "test.png", "--report", "r.html", "--json", "r.json")
    done = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "fp32", *flags)
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    assert result["status"] == "not_validated" and 20 < result["accuracy"][0]["sqnr_db"] < 120
    assert "only that the rewritten graph computes what the model computes" in result["not_validated_because"]
    assert "of the rewritten graph alone" in Page((folder / "r.html").read_bytes()).text
    worse = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "fp32", *flags, "--max-accuracy-drop", "0", "--metric", "noise")
    assert worse.code == 7, "a rewriting that changes the outputs is a failure all the same"


def test_the_reason_stands_beside_every_not_validated(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--no-validate", "--json", "r.json")
    assert done.code == 0 and done.json("r.json")["not_validated_because"] == "validation was switched off (--no-validate)"
    assert "not validated: validation was switched off" in " ".join(done.stdout.split())
    done = onnx2trt(folder, "--onnx", "net.onnx", "--test-image", "test.png", "--json", "r.json")
    assert done.code == 0 and done.json("r.json")["not_validated_because"] is None


def test_gpu_archs_are_built_for_and_named(folder):
    one = onnx2trt(folder, "--onnx", "net.onnx", "--gpu-arch", "sm_89")
    assert one.code == 0 and one.json("net.engine.json")["engine"]["gpu_archs"] == ["8.9"] and "8.9" in one.stdout
    two = onnx2trt(folder, "--onnx", "net.onnx", "--gpu-arch", "8.9,120")
    assert two.json("net.engine.json")["engine"]["gpu_archs"] == ["8.9", "12.0"]


def test_an_unsupported_operator_names_node_and_operator(tmp_path):
    nodes = [node("Relu", "x", "a"), node("Mystery", "a", "y", "the_odd_one")]
    nodes[1].domain = "acme"
    source = model(nodes, {"x": [1, 4]}, {"y": [1, 4]})
    source.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    onnx.save(source, tmp_path / "m.onnx")
    done = onnx2trt(tmp_path, "--onnx", "m.onnx", "--precision", "fp32")
    assert done.code == 3 and "Mystery" in done.error and "the_odd_one" in done.error


def test_unwritable_output_is_seen_before_the_work(folder):
    (folder / "file").write_text("")
    done = onnx2trt(folder, "--onnx", "net.onnx", "-o", "file/x.engine")
    assert done.code == 8 and "file/x.engine" in done.error and "building" not in done.stderr


def test_names_that_are_not_ascii(folder):
    name = "модель-ü-模型.onnx"
    (folder / "net.onnx").rename(folder / name)
    done = onnx2trt(folder, "--onnx", name, "--test-image", "test.png")
    assert done.code == 0 and (folder / (name[:-5] + ".engine")).exists()


# ---- what is left behind


@pytest.fixture
def bare(folder, tmp_path_factory, monkeypatch):
    """A home and a folder for temporary files with nothing in them."""
    made = {name: tmp_path_factory.mktemp(name.lower()) for name in ("HOME", "TMPDIR")}
    for name, path in made.items():
        monkeypatch.setenv(name, str(path))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    return made


def test_nothing_is_left_in_the_home_and_among_the_temporary_files(folder, bare):
    """ONNX Runtime 1.32 keeps a device ID and a database in the home, for what it reports to its makers."""
    done = onnx2trt(folder, "--onnx", "net.onnx", "--test-image", "test.png")
    assert done.code == 0, done.stderr
    assert {name: list(path.rglob("*")) for name, path in bare.items()} == {"HOME": [], "TMPDIR": []}


def test_a_report_leaves_nothing_where_there_is_no_home(folder, bare, monkeypatch):
    """There, matplotlib makes a folder among the temporary files."""
    monkeypatch.setenv("HOME", "/proc/nowhere")
    done = onnx2trt(folder, "--onnx", "net.onnx", *INT8, "--quantization-effort", "fast", "--report", "r.html")
    assert done.code == 0 and '<svg class="plot"' in (folder / "r.html").read_text(), done.stderr
    assert list(bare["TMPDIR"].iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_during_the_build_leaves_no_temporary_file_for_long(folder, bare, number):
    command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", "net.onnx", "--verbose"]

    def heed() -> None:  # a shell in the background has its children ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with open(folder / "stderr", "wb") as stderr:
        child = subprocess.Popen(command, cwd=folder, stderr=stderr, stdout=subprocess.DEVNULL, preexec_fn=heed)
        assert wait_until(lambda: "parsing" in (folder / "stderr").read_text(), 30)
        child.send_signal(number)
        assert child.wait(10) in (130, -signal.SIGKILL)
    assert bool(list(bare["TMPDIR"].iterdir())) is (number == signal.SIGKILL)
    assert onnx2trt(folder, "--onnx", "net.onnx", "--dry-run").code == 0
    assert list(bare["TMPDIR"].iterdir()) == [], "the next run clears up after a killed one"


# ---- what is recorded and said of the data


def test_the_preprocessing_is_recorded_without_data_too(folder):
    flags = ("--mean", "0.5", "--std", "0.25", "--color", "bgr", "--dry-run", "--json", "-")
    done = onnx2trt(folder, "net.onnx", *flags)
    recorded, warned = json.loads(done.stdout)["preprocessing"], done.stderr
    assert recorded["mean"] == [0.5] * 3 and recorded["std"] == [0.25] * 3 and recorded["color"] == "bgr" and "without effect" not in warned
    with_data = json.loads(onnx2trt(folder, "net.onnx", *flags, "--validate", "test.png").stdout)
    assert with_data["preprocessing"] == recorded
    np.save(folder / "x.npy", np.zeros((1, 3, 20, 24), np.float32))
    done = onnx2trt(folder, "net.onnx", *flags, "--validate", "x.npy")
    assert json.loads(done.stdout)["preprocessing"] is None or done.code, "arrays come as they are"


def test_fewer_samples_than_were_asked_for_are_said(folder):
    asked = onnx2trt(folder, "net.onnx", *INT8, "--calibration-samples", "60", "--dry-run", "--json", "-")
    assert any("--calibration-samples 60: images has only 6" in said for said in json.loads(asked.stdout)["warnings"])
    for flags in ((), ("--calibration-samples", "6")):
        assert "has only" not in onnx2trt(folder, "net.onnx", *INT8, *flags, "--dry-run").stderr


def test_a_detector_on_stretched_images_is_warned_of(folder):
    detector = conv_net()
    detector.metadata_props.add(key="task", value="detect")
    onnx.save(detector, folder / "net.onnx")
    assert "--resize letterbox" in onnx2trt(folder, "net.onnx", "--validate", "test.png", "--dry-run").stderr
    assert "--resize letterbox" not in onnx2trt(folder, "net.onnx", "--validate", "test.png", "--resize", "letterbox", "--dry-run").stderr


def test_what_is_validated_on_is_named_as_it_was_typed(folder):
    done = onnx2trt(folder, "net.onnx", "--validate", "none.png")
    assert done.code == 7 and "--validate none.png does not exist" in done.error


@pytest.mark.parametrize(
    "words",
    [
        ("--onnx", "net.onnx", "--json", "net.onnx"),
        ("--onnx", "net.onnx", "--precison", "fp16", "--json", "net.onnx"),
        ("--onnx", "net.onnx", *INT8, "--json", "images/0.png"),
        ("--onnx", "none.onnx", "--json", "test.png"),
        ("--inspect", "none.engine", "--json", "net.onnx"),
    ],
)
def test_what_tells_of_a_failure_replaces_no_file_that_is_no_result(folder, words):
    """The refusal itself was written over the model that it spoke of."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = onnx2trt(folder, *words)
    assert done.code in (2, 3, 7) and "is not overwritten" in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_tells_of_a_failure_replaces_an_empty_file_and_an_earlier_result(folder):
    (folder / "r.json").touch()
    for wrong in ("none.onnx", "neither.onnx"):
        assert onnx2trt(folder, "--onnx", wrong, "--json", "r.json").code == 3
        assert wrong in json.loads((folder / "r.json").read_text())["error"]["message"]
