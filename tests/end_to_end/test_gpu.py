"""The full TensorRT on a real GPU: every flag, both CUDA bindings, engines executed. Run with: pytest -m gpu"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from attention_forms import Form
from command import ROOT, onnx2trt, run
from html_page import Page
from models import model, multiplication_chain, node, plugin_net, random

pytestmark = pytest.mark.gpu

QUICK = ("--builder-optimization-level", "1")
MEASURED = ("--precision", "int8", "--calibration-dir", "images", "--max-accuracy-drop", "20")  # several engines
INT8 = (*MEASURED, "--no-baseline")  # one
NATIVE = (*INT8, "--calibration-method", "entropy")  # TensorRT's own calibration


OWN_TIMINGS = {"test_timings_are_kept_by_default", "test_a_timing_cache_is_written_and_used"}


@pytest.fixture(autouse=True)
def caches_of_its_own(tmp_path, tmp_path_factory, monkeypatch, request):
    """All but the kernel timings: with those of other tests, of other workers too, a build takes seconds instead of minutes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    if request.node.name not in OWN_TIMINGS:
        base = tmp_path_factory.getbasetemp()
        shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "timing"
        shared.mkdir(exist_ok=True)
        (tmp_path / "caches" / "onnx2trt").mkdir(parents=True)
        (tmp_path / "caches" / "onnx2trt" / "timing").symlink_to(shared)


@pytest.fixture
def folder(tmp_path):
    onnx.save(wide_net(), tmp_path / "net.onnx")
    write_images(tmp_path / "images", seed=0)
    pixels = np.random.default_rng(99).integers(0, 256, (40, 48, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "test.png"), pixels)
    return tmp_path


def wide_net():
    """Wide enough that FP16 and INT8 kernels are the faster ones: [N, 3, 64, 64] -> [N, 16, 32, 32]."""
    nodes = [
        node("Conv", "x w1 b1", "c1", "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", "stem_relu"),
        node("Conv", "r1 w2 b2", "c2", "wide", pads=[1, 1, 1, 1]),
        node("Relu", "c2", "r2", "wide_relu"),
        node("Conv", "r2 w3 b3", "c3", "middle", pads=[1, 1, 1, 1]),
        node("Relu", "c3", "r3", "middle_relu"),
        node("Conv", "r3 w4 b4", "y", "head"),
    ]
    sizes = {"1": (128, 3, 3, 3), "2": (256, 128, 3, 3), "3": (256, 256, 3, 3), "4": (16, 256, 1, 1)}
    weights = {f"w{n}": random(*size, seed=int(n), scale=(2 / np.prod(size[1:])) ** 0.5) for n, size in sizes.items()}
    weights |= {f"b{n}": random(size[0], seed=int(n) + 10, scale=0.05) for n, size in sizes.items()}
    return model(nodes, {"x": ["n", 3, 64, 64]}, {"y": ["n", 16, 32, 32]}, weights)


def write_images(folder, seed, contrast=1.0, count=6):
    folder.mkdir()
    pixels = np.random.default_rng(seed)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), (pixels.integers(0, 256, (40, 48, 3)) * contrast).astype(np.uint8))


def before_10() -> bool:
    import tensorrt

    return int(tensorrt.__version__.partition(".")[0]) < 10


def convert(folder, *flags, code=0):
    done = onnx2trt(folder, "--onnx", "net.onnx", *QUICK, *flags, "--json", "r.json", timeout=500)
    assert done.code == code, done.stderr
    return done, done.json("r.json")


def test_the_route_is_weak_typing_on_the_full_library(folder):
    done, result = convert(folder, "--test-image", "test.png")
    assert result["environment"]["backend"] == "tensorrt" and result["environment"]["tensorrt"].startswith(("8.6.", "10."))
    assert result["plan"]["route"] == "weak typing" and result["status"] == "validated"
    assert result["accuracy"][0]["executed_on"] == "gpu" and result["accuracy"][0]["drop_percent"] < 1
    latency = result["latency"]
    assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"] and latency["shape"] == {"x": [1, 3, 64, 64]}
    assert "device memory" in latency["covers"] and "validated on the GPU" in done.stdout


@pytest.mark.parametrize("precision, flags", [("fp32", ()), ("fp16", ()), ("int8", INT8[2:])])
def test_each_precision_is_in_the_engine(folder, precision, flags):
    _, result = convert(folder, "--precision", precision, *flags, "--test-image", "test.png")
    assert result["precision"]["delivered"] == precision and result["precision"]["layers_source"] == "inspector"
    assert result["precision"]["layers"][precision] > 0
    if precision == "fp32":
        assert result["precision"]["layers"]["fp16"] == result["precision"]["layers"]["int8"] == 0
        assert result["accuracy"][0]["sqnr_db"] > 80, "real FP32, not TF32"
    if precision == "int8":
        assert result["precision"]["int8_mac_share"] > 0.5 and result["calibration"]["samples_used"] == 6


def test_tf32_only_when_asked(folder):
    _, exact = convert(folder, "--precision", "fp32", "--test-image", "test.png")
    _, loose = convert(folder, "--precision", "fp32", "--tf32", "--test-image", "test.png")
    assert exact["accuracy"][0]["sqnr_db"] > loose["accuracy"][0]["sqnr_db"] - 1 and loose["plan"]["tf32"]


# --- layer precisions


def layers_of(result):
    return result["precision"]


@pytest.mark.parametrize("constraints", ["obey", "prefer"])
def test_a_layer_is_kept_in_fp32(folder, constraints):
    # nothing is left to chance: what TensorRT fuses into one kernel is bound alike
    bound = ("--layer-precisions", "*:fp16", "middle:fp32", "middle_relu:fp32", "--precision-constraints", constraints)
    _, result = convert(folder, *bound, "--test-image", "test.png")
    found = result["precision"]
    assert found["layers"]["fp32"] > 0 and found["layers"]["fp16"] > 0, found
    assert {entry["name"] for entry in found["fallback"]} == {"middle", "middle_relu"}
    assert found["ignored_constraints"] == []


def test_what_measured_ranges_keep_in_fp32_becomes_constraints(tmp_path):
    nodes = list(multiplication_chain().graph.node)
    weights = {init.name: onnx.numpy_helper.to_array(init) for init in multiplication_chain().graph.initializer}
    onnx.save(model(nodes, {"x": [1, 8]}, {"y": [1, 8]}, weights), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=np.linspace(0.5, 1, 8, dtype=np.float32)[None])
    bound = ("--layer-precisions", "mul0:fp16", "mul3:fp16", "--precision-constraints", "obey")
    _, result = convert(tmp_path, "--test-image", "x.npz", *bound)
    assert result["status"] == "validated" and {e["name"] for e in result["precision"]["fallback"]} == {"mul1", "mul2"}


def test_no_constraints_leave_the_choice_to_tensorrt(folder):
    _, result = convert(folder, "--disable-strict-types", "--test-image", "test.png")
    assert result["precision"]["fallback"] == [] and result["plan"]["keep_layers"] is False


# --- TensorRT's calibrator


def test_the_calibrator_ran_and_wrote_its_cache(folder):
    _, result = convert(folder, *NATIVE, "--calibration-cache", "c.cache", "--test-image", "test.png", "--save-onnx", "qdq.onnx")
    text = (folder / "c.cache").read_text()
    assert re.match(r"TRT-10\d{4}-EntropyCalibration2\n", text) and "\nx: " in "\n" + text
    assert result["calibration"]["samples_used"] == 6 and result["calibration"]["method"] == "entropy"
    saved = onnx.load(folder / "qdq.onnx")
    assert sum(n.op_type == "QuantizeLinear" for n in saved.graph.node) == 4


@pytest.mark.parametrize("flags", [INT8, NATIVE])
def test_a_second_build_with_the_cache_reads_no_image(folder, flags):
    once = ("--calibration-cache", "c.cache", "--test-image", "test.png")
    _, first = convert(folder, *flags, *once)
    for path in (folder / "images").iterdir():
        path.unlink()
    (folder / "images").rmdir()
    _, second = convert(folder, "--precision", "int8", "--max-accuracy-drop", "20", "--no-baseline", *once)
    assert second["calibration"]["samples_used"] is None and second["precision"]["delivered"] == "int8"
    assert second["precision"]["fallback"] == first["precision"]["fallback"]
    assert second["accuracy"][0]["sqnr_db"] > first["accuracy"][0]["sqnr_db"] - 1, "as accurate as the first"


def test_scales_depend_on_the_images(folder):
    write_images(folder / "dark", seed=5, contrast=0.2)
    convert(folder, *NATIVE, "--calibration-cache", "bright.cache")
    dark = ("--calibration-dir", "dark", "--calibration-cache", "dark.cache", "--max-accuracy-drop", "100")
    convert(folder, "--precision", "int8", "--calibration-method", "entropy", *dark)
    scale = {}
    for name in ("bright", "dark"):
        line = next(line for line in (folder / f"{name}.cache").read_text().splitlines() if line.startswith("x: "))
        scale[name] = np.frombuffer(bytes.fromhex(line[3:]), ">f4")[0]
    assert scale["bright"] > 3 * scale["dark"]


def test_minmax_is_another_calibrator(folder):
    _, result = convert(folder, *INT8, "--calibration-method", "minmax", "--calibration-cache", "c.cache")
    assert "MinMaxCalibration" in (folder / "c.cache").read_text() and result["calibration"]["method"] == "minmax"


@pytest.mark.parametrize("method", ["auto", "percentile", "mse"])
def test_our_own_scales_are_handed_over(folder, method):
    _, result = convert(folder, *INT8, "--calibration-method", method, "--test-image", "test.png", "--save-onnx", "qdq.onnx")
    calibrated = result["calibration"]
    assert calibrated["method"] == method or method == "auto" and calibrated["method"] in ("entropy", "minmax", "percentile", "mse")
    assert result["precision"]["delivered"] == "int8" and calibrated["samples_used"] == 6
    assert sum(n.op_type == "QuantizeLinear" for n in onnx.load(folder / "qdq.onnx").graph.node) == 4


def test_a_cache_made_on_a_cpu_feeds_the_calibrator(folder):
    scales = {"x": 1 / 127, **dict.fromkeys(("c1", "r1", "c2", "r2", "c3", "r3", "y"), 0.03)}
    from onnx2trt.quant.calibration_cache import to_text

    (folder / "c.cache").write_text(to_text(scales, "entropy", "8601"))
    _, result = convert(
        folder, "--precision", "int8", "--calibration-cache", "c.cache", "--max-accuracy-drop", "50", "--test-image", "test.png"
    )
    assert result["precision"]["delivered"] == "int8"
    assert (folder / "c.cache").read_text() == to_text(scales, "entropy", "8601"), "the file stays as it is"


def test_an_error_in_get_batch_stops_the_build_and_writes_no_cache(tmp_path):
    source = model([node("Conv", "x w", "y")], {"x": ["n", 3, "h", "w"]}, {"y": ["n", 64, "h", "w"]}, {"w": random(64, 3, 1, 1)})
    onnx.save(source, tmp_path / "net.onnx")
    (tmp_path / "arrays").mkdir()
    for index, size in enumerate((32, 32, 24, 32)):
        np.save(tmp_path / "arrays" / f"{index}.npy", random(1, 3, size, size))
    shapes = ("--opt-shapes", "x:1x3x32x32", "--min-shapes", "x:1x3x8x8")
    native = ("--precision", "int8", "--calibration-method", "entropy", "--max-accuracy-drop", "100")
    flags = (*native, "--calibration-dir", "arrays", "--calibration-cache", "c.cache", *shapes)
    (tmp_path / "net.engine").write_bytes(b"old")
    done, result = convert(tmp_path, *flags, code=5)
    assert "[1, 3, 24, 24]" in done.error and "[1, 3, 32, 32] only" in done.error and result["exit_code"] == 5
    assert not (tmp_path / "c.cache").exists() and (tmp_path / "net.engine").read_bytes() == b"old"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_build_ends_it_at_once(folder, number, code):
    command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", "net.onnx", *INT8, "--builder-optimization-level", "5"]
    (folder / "net.engine").write_bytes(b"old")
    child = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    time.sleep(6)
    assert child.poll() is None, child.stderr.read()
    started = time.monotonic()
    child.send_signal(number)
    assert child.wait(10) == code and time.monotonic() - started < 0.6
    assert not list(folder.glob(".*.tmp")) and (folder / "net.engine").read_bytes() == b"old"


@pytest.mark.parametrize("flags, used", [(INT8, 6), (NATIVE, 4)])
def test_dynamic_batch_is_calibrated_at_the_opt_shape(folder, flags, used):
    """TensorRT's own calibrator takes full batches alone."""
    _, result = convert(folder, *flags, "--max-batch-size", "4", "--test-image", "test.png")
    assert result["plan"]["profiles"][0]["opt"] == [4, 3, 64, 64] and result["calibration"]["samples_used"] == used
    assert result["latency"]["shape"] == {"x": [4, 3, 64, 64]}


# --- Q/DQ


@pytest.mark.parametrize("flags", [(), ("--strongly-typed",)])
def test_qdq_builds_on_tensorrt_10(folder, flags):
    _, result = convert(folder, *INT8, "--quantization", "qdq", *flags, "--test-image", "test.png")
    assert result["precision"]["delivered"] == "int8" and result["status"] == "validated"
    assert result["plan"]["route"] == ("strong typing" if flags else "weak typing")


@pytest.mark.parametrize("attention", [False, True], ids=["products", "beside attention"])
def test_fp8_is_in_the_engine_and_computes_what_was_simulated(tmp_path, attention):
    """Attention stays FP16 on the full library."""
    form = Form("behind mul", batch=8, heads=4, size=64, tokens=64)
    if attention:
        source, shape = form.network(layers=2), (form.batch, form.tokens, form.width)
    else:
        nodes = [node("MatMul", "x w1", "m", "first"), node("Relu", "m", "r"), node("MatMul", "r w2", "y", "second")]
        weights = {"w1": random(256, 512, seed=1, scale=1 / 16), "w2": random(512, 256, seed=2, scale=1 / 23)}
        source, shape = model(nodes, {"x": [64, 256]}, {"y": [64, 256]}, weights), (64, 256)
    onnx.save(source, tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(6):
        np.savez(tmp_path / "data" / f"{index}.npz", x=random(*shape, seed=index))
    data = ("--calibration-dir", "data", "--max-accuracy-drop", "20", "--no-baseline")
    _, result = convert(tmp_path, "--precision", "fp8", *data, "--save-onnx", "q.onnx")
    precision = result["precision"]
    assert (result["status"], result["plan"]["route"]) == ("validated", "strong typing")
    assert precision["delivered"] == "fp8" and precision["layers_source"] == "inspector" and precision["layers"]["fp8"] > 0
    assert precision["fp8_mac_share"] == (pytest.approx(8 * 256 / (8 * 256 + 2 * 2 * 64)) if attention else 1)
    judged = ("--validation-dir", "data", "--max-accuracy-drop", "20", "--json", "s.json")
    simulated = run("validate.py", tmp_path, "q.onnx", "--onnx", "net.onnx", *judged)
    assert simulated.code == 0, simulated.stderr
    assert abs(result["accuracy"][0]["sqnr_db"] - simulated.json("s.json")["accuracy"][0]["sqnr_db"]) < 1


def test_bf16_is_in_the_engine_and_computes_what_was_simulated(folder):
    _, result = convert(folder, "--precision", "bf16", "--validate", "images", "--save-onnx", "b.onnx")
    precision = result["precision"]
    assert precision["delivered"] == "bf16" and precision["layers_source"] == "inspector" and precision["layers"]["bf16"] > 0
    assert precision["bf16_mac_share"] > 0.5 and result["plan"]["route"] == "strong typing"
    simulated = run("validate.py", folder, "b.onnx", "--onnx", "net.onnx", "--validate", "images", "--json", "s.json")
    assert simulated.code == 0, simulated.stderr
    assert abs(result["accuracy"][0]["sqnr_db"] - simulated.json("s.json")["accuracy"][0]["sqnr_db"]) < 3


QDQ = ("--quantization", "qdq")
OBEY = ("--precision-constraints", "obey")


@pytest.mark.parametrize(
    "flags", [QDQ, ("--strongly-typed",), (), OBEY, QDQ + OBEY], ids=["qdq", "strong", "calibrator", "obey", "qdq_obey"]
)
def test_depthwise_and_hard_swish_keep_their_accuracy(tmp_path, flags):
    """The kind of network that FP16 scales break on TensorRT 10: no kernel, or wrong values; and whose FP16 layers among INT8 ones make
    TensorRT's calibrator give up INT8 altogether, or quantise what was not simulated that way."""
    onnx.save(mobile_net(), tmp_path / "net.onnx")
    write_images(tmp_path / "images", seed=0)
    _, result = convert(
        tmp_path, *MEASURED[:4], *flags, "--no-baseline", "--save-onnx", "qdq.onnx", "--metric", "noise", "--test-image", "images/0.png"
    )
    precision, sqnr_db = result["precision"], result["accuracy"][0]["sqnr_db"]
    assert precision["delivered"] == "int8" and precision["int8_mac_share"] > 0.8 and precision["ignored_constraints"] == []
    assert sqnr_db > 20
    if flags != ("--strongly-typed",):
        assert abs(sqnr_db - simulated_db(tmp_path, "qdq.onnx", "images/0.png")) < 1.5, "the engine computes what was simulated"


def simulated_db(folder, name, image):
    from onnx2trt.model.graph import Graph
    from onnx2trt.model.session import Session

    pixels = cv2.resize(cv2.imread(str(folder / image)), (64, 64), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
    feed = {"x": np.ascontiguousarray((pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None])}
    expected, found = (Session.from_graph(Graph.from_model(onnx.load(folder / path))).run(feed)["y"] for path in ("net.onnx", name))
    return 10 * np.log10(np.sum(expected**2) / np.sum((found - expected) ** 2))


def mobile_net(wide=128, groups=128):
    """Inverted residuals, their convolutions in groups: [N, 3, 64, 64] -> [N, 48, 16, 16]."""
    weights, nodes = {}, []

    def conv(x, y, inputs, outputs, kernel, stride=1, group=1):
        scale = (2 / (inputs // group * kernel**2)) ** 0.5
        weights[f"w_{y}"] = random(outputs, inputs // group, kernel, kernel, seed=len(weights), scale=scale)
        weights[f"bias_{y}"] = random(outputs, seed=len(weights), scale=0.05)
        pads, strides = [kernel // 2] * 4, [stride] * 2
        nodes.append(node("Conv", f"{x} w_{y} bias_{y}", f"{y}_c", f"conv_{y}", pads=pads, strides=strides, group=group))
        nodes.append(node("HardSigmoid", f"{y}_c", f"{y}_h", f"gate_{y}", alpha=1 / 6, beta=0.5))
        nodes.append(node("Mul", f"{y}_c {y}_h", y, f"swish_{y}"))

    conv("x", "a", 3, 32, 3, stride=2)
    conv("a", "b", 32, wide, 1)
    conv("b", "c", wide, wide, 3, group=groups)
    conv("c", "d", wide, 32, 1)
    nodes.append(node("Add", "d a", "e", "shortcut"))
    conv("e", "f", 32, wide, 1)
    conv("f", "g", wide, wide, 5, stride=2, group=groups)
    conv("g", "y", wide, 48, 1)
    return model(nodes, {"x": ["n", 3, 64, 64]}, {"y": ["n", 48, 16, 16]}, weights)


def test_strong_typing_gives_real_fp16(folder):
    _, result = convert(folder, "--strongly-typed", "--test-image", "test.png")
    assert result["precision"]["delivered"] == "fp16" and result["accuracy"][0]["drop_percent"] < 1


# --- engines side by side


def test_int8_is_held_against_fp16(folder):
    _, result = convert(folder, *MEASURED, "--test-image", "test.png")
    rows = {row["precision"]: row for row in result["variants"]}
    assert set(rows) == {"int8", "fp16"} and all(row["status"] == "validated" and row["p50_ms"] > 0 for row in rows.values())
    assert result["latency"]["p50_ms"] == rows["int8"]["p50_ms"] and result["latency"]["fp16_p50_ms"] == rows["fp16"]["p50_ms"]
    said = any("INT8 is not faster" in warning for warning in result["warnings"])
    assert said == (rows["int8"]["p50_ms"] >= rows["fp16"]["p50_ms"])
    done, again = convert(folder, *MEASURED, "--test-image", "test.png", "--calibration-method", "minmax")
    assert "not built again" in done.stderr and again["latency"]["fp16_p50_ms"] == rows["fp16"]["p50_ms"]
    (kept,) = (row for row in again["variants"] if row["precision"] == "fp16")
    assert kept.pop("measured_on") and kept.pop("other_data") is False and kept == rows["fp16"]
    _, alone = convert(folder, *INT8, "--test-image", "test.png")
    assert alone["variants"] == alone["structures"] == [] and alone["latency"]["fp16_p50_ms"] is None


def test_attention_in_int8_is_one_of_the_structures(tmp_path):
    """Both products read INT8, in one kernel with what stands between, and compute what their simulation does."""
    if before_10():
        pytest.skip("TensorRT 8.6 computes a network with attention and Q/DQ in FP32, and the run refuses that with exit code 7")
    form = Form("behind mul", batch=8, heads=6, size=64, tokens=197, mlp=True)
    onnx.save(form.network(2), tmp_path / "net.onnx")
    (tmp_path / "images").mkdir()
    for index in range(3):
        np.savez(tmp_path / "images" / f"{index}.npz", x=random(form.batch, form.tokens, form.width, seed=index))
    _, result = convert(tmp_path, *MEASURED, "--quantization", "qdq", "--metric", "noise", "--quantization-effort", "default")
    rows = {row["structure"]: row for row in result["structures"]}
    plain, attention = rows["Q/DQ"], rows["Q/DQ with attention"]
    print({name: (row["p50_ms"], row["int8_mac_share"], row["error"], row.get("falls_short")) for name, row in rows.items()})
    assert not attention["error"] and not attention.get("falls_short"), "within 3 dB of the simulation"
    assert attention["int8_mac_share"] > 0.99 > plain["int8_mac_share"], "by the inspector: attention in FP16 is not counted"


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_weights_of_any_rank_have_a_scale_for_each_channel(tmp_path, rank):
    if rank > 2 and before_10():
        pytest.skip("TensorRT 8.6 computes batches of weights in FP32, whatever their scales")
    shape = (2, 8, 128, 256)[-rank:]
    onnx.save(
        model([node("MatMul", "x w", "y", "product")], {"x": [2, 8, 64, 128]}, {"y": None}, {"w": random(*shape)}), tmp_path / "net.onnx"
    )
    (tmp_path / "images").mkdir()
    np.savez(tmp_path / "images" / "0.npz", x=random(2, 8, 64, 128, seed=1))
    _, result = convert(tmp_path, *INT8, "--quantization", "qdq", "--metric", "noise")
    assert result["precision"]["delivered"] == "int8" and result["accuracy"][0]["sqnr_db"] > 30


@pytest.mark.parametrize("network", ["wide", "mobile", "grouped"])
def test_int8_is_delivered_in_the_structure_that_is_fastest(folder, network):
    """Of 144 channels in groups of 16 TensorRT 10.6 has an INT8 kernel that computes wrong numbers."""
    if network != "wide":
        onnx.save(mobile_net() if network == "mobile" else mobile_net(wide=144, groups=9), folder / "net.onnx")
    _, result = convert(folder, *MEASURED, "--metric", "noise", "--test-image", "test.png")
    rows = result["structures"]
    (free,) = (row for row in rows if row["structure"] == "calibrator")
    expected = {"calibrator", "Q/DQ"} | ({"bound calibrator"} if free["error"] or free.get("falls_short") else set())
    assert expected <= {row["structure"] for row in rows} and len(rows) <= 4, rows
    sound = [row["p50_ms"] for row in rows if not row["error"] and not row.get("falls_short")]
    (int8,) = (row for row in result["variants"] if row["precision"] == "int8")
    assert int8["p50_ms"] == min(sound) and "falls_short" not in int8 and result["latency"]["p50_ms"] == int8["p50_ms"]
    done, again = convert(folder, *MEASURED, "--metric", "noise", "--test-image", "test.png")
    assert "what was slower is not built again" in done.stderr and done.stderr.count("building the engine") < 4
    (kept,) = (row for row in again["structures"] if not row.get("measured_on"))
    assert kept["structure"] == int8["structure"] and kept["int8_mac_share"] == int8["int8_mac_share"]


def fire_net():
    """[N, 3, 64, 64] -> [N, 16, 8, 8]: pooling behind a ReLU and behind a Concat, as in SqueezeNet; ReLUs cut most of it off."""
    nodes = [
        node("Conv", "x w1 b1", "c1", "stem", pads=[1] * 4),
        node("Relu", "c1", "r1", "stem_relu"),
        node("MaxPool", "r1", "p1", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2 b2", "c2", "squeeze"),
        node("Relu", "c2", "r2", "squeeze_relu"),
        node("Conv", "r2 w3 b3", "c3", "expand1"),
        node("Relu", "c3", "r3", "expand1_relu"),
        node("Conv", "r2 w4 b3", "c4", "expand3", pads=[1] * 4),
        node("Relu", "c4", "r4", "expand3_relu"),
        node("Concat", "r3 r4", "j", "join", axis=1),
        node("MaxPool", "j", "p2", "pool_joined", kernel_shape=[4, 4], strides=[4, 4]),
        node("Conv", "p2 w5", "y", "head"),
    ]
    sizes = {"1": (128, 3, 3, 3), "2": (64, 128, 1, 1), "3": (128, 64, 1, 1), "4": (128, 64, 3, 3), "5": (16, 256, 1, 1)}
    weights = {f"w{n}": random(*size, seed=int(n), scale=(2 / np.prod(size[1:])) ** 0.5) for n, size in sizes.items()}
    for n in "123":  # some channels are far below 0 for every picture
        bias = random(sizes[n][0], seed=int(n) + 10, scale=0.05)
        bias[:8] = -60.0
        weights[f"b{n}"] = bias
    return model(nodes, {"x": ["n", 3, 64, 64]}, {"y": ["n", 16, 8, 8]}, weights)


def test_every_structure_is_as_near_where_values_are_cut_off_pooled_and_joined(folder):
    onnx.save(fire_net(), folder / "net.onnx")
    _, result = convert(folder, *MEASURED, "--metric", "noise", "--test-image", "test.png", "--quantization-effort", "best")
    near = {row["structure"]: row["sqnr_db"] for row in result["structures"] if not row["error"]}
    assert {"calibrator", "Q/DQ", "bound calibrator"} <= near.keys() and max(near.values()) - min(near.values()) < 4, near


def test_best_keeps_the_fastest(folder):
    _, result = convert(folder, "--precision", "best", *MEASURED[2:], "--test-image", "test.png")
    passed = {row["precision"]: row["p50_ms"] for row in result["variants"] if row["status"] == "validated"}
    assert result["precision"]["requested"] == "best" and result["precision"]["delivered"] == min(passed, key=passed.get)
    assert result["latency"]["p50_ms"] == min(passed.values())


def test_compare_times_all_three(folder):
    _, result = convert(folder, "--compare", *MEASURED[2:], "--test-image", "test.png")
    timed = {row["precision"]: row["p50_ms"] is not None for row in result["variants"]}
    assert {name: timed[name] for name in ("fp32", "fp16", "int8")} == dict.fromkeys(("fp32", "fp16", "int8"), True)
    assert all(row["throughput_per_s"] > 0 and row["p99_ms"] >= row["p50_ms"] for row in result["variants"] if timed[row["precision"]])


def test_times_of_layers_belong_to_nodes(folder):
    convert(folder)
    np.save(folder / "x.npy", random(1, 3, 64, 64))
    assert float(run_script(folder, LAYER_TIMES)) > 0


LAYER_TIMES = """
import sys
sys.path.insert(0, {root!r})
import numpy as np, onnx
from onnx2trt.trt import inspector
from onnx2trt.trt.constraints import labels
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.library import load_library
from onnx2trt.trt.memory import open_cuda
from onnx2trt.trt.profile import parts_of
cuda = open_cuda()
engine = Engine(load_library("tensorrt"), open("net.engine", "rb").read(), cuda, lambda *_: None)
engine.load({{"x": np.load("x.npy")}})
known = labels((node.name, tuple(node.output)) for node in onnx.load("net.onnx").graph.node)
timed = inspector.parse_layers(engine.inspect(), known), engine.layer_ms(20)
parts = parts_of(timed, timed)
assert {{"stem", "wide", "middle", "head"}} <= set().union(*(part.nodes for part in parts)), parts
assert all(part.first_ms == part.second_ms > 0 for part in parts)
covered = sum(part.first_ms for part in parts) / sum(timed[1].values())
assert covered > 0.7, (covered, timed[1])
engine.close()
cuda.close()
print(covered)
"""


# --- build options


def test_options_are_taken(folder):
    flags = (
        "--tactic-sources",
        "CUBLAS,EDGE_MASK_CONVOLUTIONS",
        "--workspace-size",
        "0.5",
        "--hardware-compatibility-level",
        "ampere_plus",
    )
    _, result = convert(folder, *flags, "--test-image", "test.png")
    assert result["plan"]["tactic_sources"] == ["CUBLAS", "EDGE_MASK_CONVOLUTIONS"] and result["status"] == "validated"
    _, result = convert(folder, "--disable-tactic-sources", "--test-image", "test.png")
    assert result["plan"]["tactic_sources"] == [] and result["status"] == "validated"


def test_io_types_change_inputs_and_outputs(folder):
    for flags in ((), ("--strongly-typed",)):
        _, result = convert(folder, "--io-types", "x:fp16", "y:fp16", *flags, "--test-image", "test.png")
        assert result["status"] == "validated"
        assert {(t["name"], t["dtype"]) for t in result["engine"]["tensors"]} == {("x", "float16"), ("y", "float16")}


def test_the_engine_says_what_it_is(folder):
    _, result = convert(folder, "--max-batch-size", "4", "--test-image", "test.png")
    tensors = {t["name"]: t for t in result["engine"]["tensors"]}
    assert tensors["x"]["shape"] == [-1, 3, 64, 64] and tensors["x"]["profile"]["max"] == [4, 3, 64, 64] and tensors["x"]["format"]
    assert result["engine"]["device_memory_bytes"] >= 0 and result["engine"]["profiles"] == 1


def test_a_timing_cache_is_written_and_used(folder):
    flags = ("--timing-cache", "t.cache", "--builder-optimization-level", "3")
    _, first = convert(folder, *flags)
    assert (folder / "t.cache").stat().st_size > 100
    _, second = convert(folder, *flags)
    assert second["timings_s"]["build"] < first["timings_s"]["build"]
    (folder / "t.cache").write_bytes(b"junk")
    _, third = convert(folder, *flags)
    assert third["status"] == "validated" and (folder / "t.cache").stat().st_size > 100


def test_timings_are_kept_by_default(folder):
    _, first = convert(folder)
    used = first["timing_cache"]
    assert used["state"] == "new" and used["written"] and used["path"].startswith(os.environ["XDG_CACHE_HOME"] + "/onnx2trt/timing/")
    _, second = convert(folder)
    assert second["timing_cache"] == {**used, "state": "read"} and second["warnings"] == first["warnings"]
    Path(used["path"]).write_bytes(b"junk")
    _, third = convert(folder)
    assert third["timing_cache"]["state"] == "replaced" and any("a new one is started" in text for text in third["warnings"])
    _, off = convert(folder, "--timing-cache", "none")
    assert off["timing_cache"] is None


def test_conversions_at_once_keep_the_timings_of_both(folder, monkeypatch):
    onnx.save(mobile_net(), folder / "mobile.onnx")

    def start(name, cache):
        flags = (*QUICK, "--precision", "fp32", "--timing-cache", cache)  # FP16 might not be the faster one beside other builds
        command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", f"{name}.onnx", *flags]
        return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    for name in ("net", "mobile"):
        assert start(name, f"{name}.cache").wait(500) == 0
    both = [start(name, "both.cache") for name in ("net", "mobile")]
    assert [process.wait(500) for process in both] == [0, 0]
    sizes = {name: (folder / f"{name}.cache").stat().st_size for name in ("net", "mobile", "both")}
    assert sizes["both"] > max(sizes["net"], sizes["mobile"]), sizes


def test_an_engine_is_not_built_again_unless_something_changed(folder):
    _, first = convert(folder, "--test-image", "test.png", "--skip-unchanged", "--timing-cache", "t.cache")
    done, second = convert(folder, "--test-image", "test.png", "--skip-unchanged", "--timing-cache", "t.cache", "--require-execution")
    assert second["skipped"] and second["status"] == "validated" and second["latency"] == first["latency"], done.stderr
    assert first["key"]["versions"]["gpu"] == first["environment"]["gpu"]


def test_a_version_compatible_engine_runs_or_is_refused_with_a_reason(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", *QUICK, "--version-compatible", "--test-image", "test.png", timeout=500)
    assert done.code == 0 or done.code in (4, 6) and "lean" in done.error.lower(), done.stderr


def test_a_dla_that_is_not_there_is_refused(folder):
    done, _ = convert(folder, "--dla-core", "0", code=4)
    assert "no DLA cores" in done.error


def test_a_plugin_library_that_is_none_is_refused(folder):
    (folder / "lib.so").write_bytes(b"no library")
    done, _ = convert(folder, "--plugins", "lib.so", code=4)
    assert "lib.so" in done.error


def test_a_plugin_library_brings_its_operators(tmp_path):
    onnx.save(plugin_net(), tmp_path / "net.onnx")
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    library = next(str(path) for folder in folders for path in Path(folder).glob("libnvinfer_plugin.so*"))
    done, result = convert(tmp_path, "--precision", "fp32", "--plugins", library)
    assert result["status"] == "not_validated" and result["latency"]["p50_ms"] > 0
    assert any("nothing to compare with" in warning for warning in result["warnings"]), done.stderr
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--validate-only", "net.engine", "--plugins", library, "--json", "v.json")
    assert done.code == 0 and done.json("v.json")["latency"]["p50_ms"] > 0, done.stderr
    done = onnx2trt(tmp_path, "--inspect", "net.engine", "--plugins", library, "--json", "i.json")
    assert done.code == 0 and done.json("i.json")["engine"]["loaded"], done.stderr


# --- networks of every kind


def cases():
    yield "two_inputs", model([node("MatMul", "a b", "y")], {"a": ["n", 8, 16], "b": ["n", 16, 8]}, {"y": ["n", 8, 8]}), {}
    yield (
        "nhwc",
        model(
            [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "y")],
            {"x": ["n", 16, 16, 3]},
            {"y": ["n", 8, 16, 16]},
            {"w": random(8, 3, 1, 1)},
        ),
        {},
    )
    yield (
        "uint8",
        model(
            [node("Cast", "x", "f", to=1), node("Mul", "f k", "s"), node("Conv", "s w", "y")],
            {"x": (onnx.TensorProto.UINT8, ["n", 3, 16, 16])},
            {"y": ["n", 8, 16, 16]},
            {"k": np.float32(1 / 255), "w": random(8, 3, 1, 1)},
        ),
        {},
    )
    yield "one_layer", model([node("Elu", "x", "y")], {"x": ["n", 3, 4]}, {"y": ["n", 3, 4]}), {}
    yield "scalar", model([node("Mul", "x s", "m"), node("Relu", "m", "y")], {"x": ["n", 32], "s": []}, {"y": ["n", 32]}), {}
    yield "two_outputs", model([node("Relu", "x", "a"), node("Neg", "x", "b")], {"x": ["n", 32]}, {"a": ["n", 32], "b": ["n", 32]}), {}
    yield (
        "data_dependent",
        model([node("Relu", "x", "r"), node("NonZero", "r", "y")], {"x": [4, 8]}, {"y": (onnx.TensorProto.INT64, [2, "count"])}),
        {},
    )
    yield "attention", attention(), {}
    yield (
        "dynamic_size",
        model(
            [node("Conv", "x w", "y", pads=[1, 1, 1, 1])], {"x": ["n", 3, "h", "w"]}, {"y": ["n", 8, "h", "w"]}, {"w": random(8, 3, 3, 3)}
        ),
        {
            "--opt-shapes": "x:1x3x24x32",
            "--max-shapes": "x:2x3x48x64",
            "--min-shapes": "x:1x3x8x8",
        },
    )


def attention():
    nodes = [
        node("MatMul", "x wq", "q"),
        node("MatMul", "x wk", "k"),
        node("MatMul", "x wv", "v"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Mul", "s scale", "ss"),
        node("Softmax", "ss", "p", axis=-1),
        node("MatMul", "p v", "a"),
        node("MatMul", "a wo", "o"),
        node("Add", "o x", "y"),
    ]
    weights = {name: random(32, 32, seed=i, scale=0.2) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    return model(nodes, {"x": ["n", 16, 32]}, {"y": ["n", 16, 32]}, {**weights, "scale": np.float32(32**-0.5)})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name, source, flags", list(cases()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_kind_of_network_runs(tmp_path, name, source, flags, precision):
    onnx.save(source, tmp_path / "net.onnx")
    shape_flags = [part for pair in flags.items() for part in pair]
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", *QUICK, "--precision", precision, *shape_flags, "--json", "r.json", timeout=500)
    result = done.json("r.json")
    assert done.code == 0, done.stderr
    assert name == "data_dependent" or result["precision"]["delivered"] == precision, "bound to it where TensorRT finds FP32 faster"
    assert result["status"] == "validated" and all(row["sqnr_db"] > (60 if precision == "fp32" else 30) for row in result["accuracy"])


def test_an_operator_that_the_parser_lacks_is_a_fault_of_the_model(tmp_path):
    nodes = [node("Relu", "x", "r"), node("SoftmaxCrossEntropyLoss", "r labels", "y", "loss")]
    source = model(nodes, {"x": [2, 3], "labels": (onnx.TensorProto.INT64, [2])}, {"y": []})
    onnx.save(source, tmp_path / "net.onnx")
    done, _ = convert(tmp_path, code=3)
    assert "SoftmaxCrossEntropyLoss 'loss'" in done.error


# --- CUDA bindings


SAME_OUTPUTS = """
import sys, json
sys.path.insert(0, {root!r})
import numpy as np
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.library import load_library
from onnx2trt.trt.memory import open_cuda
library = load_library("tensorrt")
feed = {{"x": np.load("x.npy")}}
outputs, free = {{}}, []
for name in ("pycuda", "cuda-python", "pycuda", "cuda-python"):
    cuda = open_cuda(name)
    free.append(cuda.memory()[0])
    engine = Engine(library, open("net.engine", "rb").read(), cuda, lambda *_: None)
    outputs[name] = engine.run(feed)["y"]
    again = engine.run(feed)["y"]
    assert np.array_equal(outputs[name], again)
    engine.close()
    cuda.close()
    cuda.close()
assert np.array_equal(outputs["pycuda"], outputs["cuda-python"])
assert free[-1] > free[1] - 2**26, f"memory is left behind: {{free}}"
import pycuda.driver
assert pycuda.driver.Context.get_current() is None
print(float(np.abs(outputs["pycuda"]).sum()))
"""

BESIDE_TORCH = """
import sys
sys.path.insert(0, {root!r})
import numpy as np, torch
held = torch.arange(1000, device="cuda", dtype=torch.float32)
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.library import load_library
from onnx2trt.trt.memory import open_cuda
library = load_library("tensorrt")
feed = {{"x": np.load("x.npy")}}
for name in ("pycuda", "cuda-python", "pycuda"):
    cuda = open_cuda(name)
    engine = Engine(library, open("net.engine", "rb").read(), cuda, lambda *_: None)
    first = engine.run(feed)["y"]
    assert float((held * 2).sum()) == 999000.0
    assert np.array_equal(engine.run(feed)["y"], first)
    engine.close(); cuda.close()
    assert float((held + torch.ones(1000, device="cuda")).sum()) == 500500.0
print("ok")
"""


def run_script(folder, script):
    done = subprocess.run([sys.executable, "-c", script.format(root=str(ROOT))], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_bindings_give_the_same_outputs(folder):
    pytest.importorskip("pycuda")
    convert(folder)
    np.save(folder / "x.npy", random(1, 3, 64, 64))
    assert float(run_script(folder, SAME_OUTPUTS)) > 0


def test_the_engine_runs_beside_torch_in_one_process(folder):
    pytest.importorskip("torch")
    pytest.importorskip("pycuda")
    convert(folder)
    np.save(folder / "x.npy", random(1, 3, 64, 64))
    assert "ok" in run_script(folder, BESIDE_TORCH)


def test_cuda_python_serves_where_pycuda_is_missing(folder):
    script = (
        "import sys; sys.modules['pycuda'] = None; sys.path.insert(0, {root!r})\n"
        "from onnx2trt.trt.memory import open_cuda; print(open_cuda().name)"
    )
    assert run_script(folder, script).strip() == "cuda-python"


# --- engines from elsewhere


def test_validate_only_loads_compares_and_times(folder):
    _, built = convert(folder, "--max-batch-size", "2")
    done = onnx2trt(folder, "--onnx", "net.onnx", "--validate-only", "net.engine", "--test-image", "test.png", "--json", "v.json")
    assert done.code == 0, done.stderr
    result = done.json("v.json")
    assert result["status"] == "validated" and result["engine"]["sha256"] == built["engine"]["sha256"]
    assert result["latency"]["p50_ms"] > 0 and result["precision"]["delivered"] == "fp16" and result["precision"]["requested"] is None


def test_the_door_gives_an_engine_the_verdict_of_validate_only(folder):
    _, built = convert(folder, "--max-batch-size", "2")
    arguments = ("net.engine", "--onnx", "net.onnx", "--test-image", "test.png", "--metric", "noise")
    done = run("validate.py", folder, *arguments, "--json", "v.json")
    assert done.code == 0, done.stderr
    result = done.json("v.json")
    assert result["status"] == "validated" and result["candidate"]["kind"] == "engine" and result["latency"]["p50_ms"] > 0
    assert result["candidate"]["sha256"] == result["engine"]["sha256"] == built["engine"]["sha256"]
    assert result["accuracy"][0]["executed_on"] == "gpu" and "validated on the GPU" in done.stdout
    worse = run("validate.py", folder, *arguments, "--max-accuracy-drop", "0")
    assert worse.code == 7 and "differs from the ONNX model" in worse.error and "--layer-precisions" not in worse.error


def test_the_report_shows_what_the_engine_gave_and_how_long_it_took(folder):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    judged = ("--test-image", "test.png", "--metric", "argmax")
    convert(folder, *judged, "--report", "r.html")
    again = onnx2trt(folder, "--onnx", "net.onnx", "--validate-only", "net.engine", *judged, "--report", "again.html")
    assert again.code == 0, again.stderr
    for name in ("r.html", "again.html"):
        page = Page((folder / name).read_bytes())
        page.check_alone()
        assert "Validated on the GPU" in page.text and "inferences after a warm-up" in page.sections["latency"]
        assert "p99" in page.sections["latency"] and "Simulated" not in page.text and len(page.images) == 4


def test_validate_only_of_the_wrong_model(folder):
    convert(folder)
    onnx.save(model([node("Relu", "other", "out")], {"other": [1, 4]}, {"out": [1, 4]}), folder / "other.onnx")
    done = onnx2trt(folder, "--onnx", "other.onnx", "--validate-only", "net.engine")
    assert done.code == 7 and "is no engine of other.onnx" in done.error


def test_a_damaged_engine_does_not_load(folder):
    convert(folder)
    data = bytearray((folder / "net.engine").read_bytes())
    (folder / "cut.engine").write_bytes(data[: len(data) // 2])
    (folder / "junk.engine").write_bytes(b"junk" * 100)
    for name in ("cut.engine", "junk.engine"):
        done = onnx2trt(folder, "--onnx", "net.onnx", "--validate-only", name)
        assert done.code in (4, 6) and "error:" in done.stderr, (name, done.stderr)


def test_a_gpu_without_room_is_a_clear_failure(folder):
    kernels = [(height, width) for height in (1, 3, 5, 7, 9) for width in (1, 3, 5, 7, 9)][1:]
    kinds = (("max", "MaxPool", {}), ("avg", "AveragePool", {}), ("padded", "AveragePool", {"count_include_pad": 1}))
    pools = [
        node(op, "x", f"{kind}{h}{w}", f"p_{kind}{h}{w}", kernel_shape=[h, w], pads=[h // 2, w // 2] * 2, **attributes)
        for h, w in kernels
        for kind, op, attributes in kinds
    ]
    onnx.save(model(pools, {"x": ["n", 3, 64, 64]}, {pool.output[0]: ["n", 3, 64, 64] for pool in pools}, {}), folder / "net.onnx")
    (folder / "net.engine").write_bytes(b"old")
    # 72 outputs of 2.1 GB, 154 GB in all, which would take the CPU minutes; TensorRT's pooling fails on a tensor of more than 2**31 bytes
    done, _ = convert(folder, "--precision", "fp32", "--max-batch-size", "43500", "--test-image", "test.png", code=4)
    assert "has no room for" in done.error and "--max-batch-size" in done.error and (folder / "net.engine").read_bytes() == b"old"


def test_accuracy_that_is_not_there_fails_on_the_gpu(folder):
    done, _ = convert(folder, *INT8[:4], "--max-accuracy-drop", "0", "--test-image", "test.png", code=7)
    assert "--max-accuracy-drop 0" in done.error and not (folder / "net.engine").exists(), "nothing is built"
    convert(folder, "--test-image", "test.png")
    engine, limit = ("--validate-only", "net.engine"), ("--max-accuracy-drop", "0", "--metric", "noise")
    done = onnx2trt(folder, "--onnx", "net.onnx", *engine, *limit, "--test-image", "test.png", "--json", "v.json")
    assert done.code == 7 and "--max-accuracy-drop 0" in done.error and done.json("v.json")["accuracy"][0]["executed_on"] == "gpu"


# --- what is in an engine file, and a deployment that runs it


def test_inspect_reads_the_engine_itself(folder):
    _, built = convert(folder, "--max-batch-size", "2", "--test-image", "test.png")
    (folder / "net.engine.json").unlink()
    done = onnx2trt(folder, "--inspect", "net.engine", "--json", "i.json")
    assert done.code == 0, done.stderr
    result = done.json("i.json")
    engine = result["engine"]
    assert engine["loaded"] and engine["sources"] == ["header", "engine"], (
        "the first bytes of a real plan are as NVIDIA's trtexec reads them"
    )
    assert built["environment"]["tensorrt"].startswith(engine["made_with"]["tensorrt"].rsplit(".", 1)[0])
    assert engine["tensors"] == built["engine"]["tensors"] and engine["profile_shapes"] == [built["plan"]["profiles"]]
    assert result["precision"]["layers"] == built["precision"]["layers"] and "it loads here" in done.stdout


def test_inspect_says_why_an_engine_does_not_load(folder):
    convert(folder, "--no-validate")
    data = (folder / "net.engine").read_bytes()
    (folder / "cut.engine").write_bytes(data[: len(data) // 2])
    (folder / "old.engine").write_bytes(data[:24] + bytes([8, 6, 1, 6]) + data[28:])
    done = onnx2trt(folder, "--inspect", "cut.engine", "--json", "i.json")
    assert done.code == 0 and not done.json("i.json")["engine"]["loaded"] and "not loaded: " in done.stdout, done.stderr
    done = onnx2trt(folder, "--inspect", "old.engine", "--json", "i.json")
    assert done.code == 0 and "8.6.1.6" in done.stdout, "what the header says, though TensorRT 10.6 itself does not look at it"


def test_inspect_runs_no_code_of_an_engine(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", *QUICK, "--version-compatible", "--no-validate", timeout=500)
    if done.code:
        pytest.skip("this installation builds no version-compatible engines")
    done = onnx2trt(folder, "--inspect", "net.engine", "--json", "i.json")
    assert done.code == 0 and "brings code of its own" in done.json("i.json")["engine"]["not_loaded_because"], done.stdout


def test_the_example_of_a_deployment_gives_what_was_validated(folder):
    convert(folder, "--test-image", "test.png", "--mean", "0.5", "--std", "0.25")
    script = str(ROOT / "examples" / "run_engine.py")
    command = [sys.executable, script, "net.engine", "test.png", "--save", "out.npz"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r"y: float32 \[1, 16, 32, 32\], from ", done.stdout)
    import onnxruntime

    pixels = cv2.resize(cv2.imread(str(folder / "test.png")), (64, 64), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
    feed = ((pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).transpose(2, 0, 1)[None]
    expected = onnxruntime.InferenceSession(str(folder / "net.onnx")).run(None, {"x": np.ascontiguousarray(feed)})[0]
    found = np.load(folder / "out.npz")["y"]
    assert np.sum((found - expected) ** 2) < 1e-4 * np.sum(expected**2)
    for flags in ((), ("--cuda-graph",)):
        command = [sys.executable, script, "net.engine", "test.png", "--save", "again.npz", "--benchmark", "50", *flags]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert re.search(r"50 inferences: p50 \d+\.\d+ ms", done.stdout)
        assert np.array_equal(np.load(folder / "again.npz")["y"], found)


def test_a_triton_repository(folder):
    """What the configuration says is what the engine tells; an unchanged engine is written there again."""
    from triton_proto import parsed, type_name

    flags = ("--max-batch-size", "4", "--test-image", "test.png", "--triton-repository", "served")
    _, result = convert(folder, *flags)
    model_folder = folder / "served" / "net"
    config = parsed((model_folder / "config.pbtxt").read_text())
    assert (config.name, config.platform, config.max_batch_size) == ("net", "tensorrt_plan", 4)
    told = {tensor["name"]: tensor["shape"] for tensor in result["engine"]["tensors"]}
    assert {tensor.name: [-1, *tensor.dims] for tensor in (*config.input, *config.output)} == told
    assert {type_name(tensor.data_type) for tensor in (*config.input, *config.output)} == {"TYPE_FP32"}
    assert (model_folder / "1" / "model.plan").read_bytes() == (folder / "net.engine").read_bytes()
    assert list(config.model_warmup[0].inputs["x"].dims) == [3, 64, 64]
    assert (model_folder / "warmup" / "input0").stat().st_size == 3 * 64 * 64 * 4
    assert set(result["triton"]["files"]) == {"1/model.plan", "warmup/input0", "config.pbtxt"}
    (model_folder / "1" / "model.plan").unlink()
    _, again = convert(folder, *flags, "--skip-unchanged")
    assert again["skipped"] and again["triton"] == result["triton"]
    assert (model_folder / "1" / "model.plan").read_bytes() == (folder / "net.engine").read_bytes()
