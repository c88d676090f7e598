"""--precision fp8 as a user runs it: real TensorRT-RTX engines on a machine without a GPU, and what is refused."""

import re

import numpy as np
import onnx
import pytest
from attention_forms import Form
from command import onnx2trt
from models import conv_net, model, node, random

from onnx2trt.trt.plan_text import _plan_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

FP8 = ("--precision", "fp8", "--calibration-dir", "data", "--max-accuracy-drop", "20", "--gpu-arch", "89", "--json", "r.json")
FAST = ("--quantization-effort", "fast")
E4M3 = onnx.TensorProto.FLOAT8E4M3FN


def dense_net() -> onnx.ModelProto:
    """x [n, 48] -> y [n, 32]: three matrix products, two of them with a Relu in front."""
    nodes, weights, name = [], {}, "x"
    for index, (inputs, outputs) in enumerate([(48, 64), (64, 64), (64, 32)]):
        weights |= {f"w{index}": random(inputs, outputs, seed=index, scale=inputs**-0.5), f"b{index}": random(outputs, seed=9 + index)}
        nodes += [node("MatMul", f"{name} w{index}", f"m{index}", f"dense{index}"), node("Add", f"m{index} b{index}", f"a{index}")]
        nodes += [node("Relu", f"a{index}", f"r{index}")] if index < 2 else [node("Identity", f"a{index}", "y")]
        name = f"r{index}"
    return model(nodes, {"x": ["n", 48]}, {"y": ["n", 32]}, weights)


@pytest.fixture
def folder(tmp_path):
    onnx.save(dense_net(), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(8):
        np.savez(tmp_path / "data" / f"{index}.npz", x=random(1, 48, seed=index))
    return tmp_path


def types_of(path) -> set[int]:
    """The types that quantizers make."""
    made = onnx.load(path)
    zeros = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    return {zeros[one.input[2]] for one in made.graph.node if one.op_type == "QuantizeLinear"}


def test_matrix_products_are_fp8_in_the_engine(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", *FP8, "--save-onnx", "q.onnx")
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    precision, plan = result["precision"], result["plan"]
    assert precision["requested"] == precision["delivered"] == "fp8" and precision["fp8_mac_share"] == 1
    assert precision["int8_mac_share"] is None and precision["layers"]["fp8"] == 3 and precision["fallback"] == []
    assert (plan["route"], plan["quantization"]) == ("strong typing", "qdq") and result["status"] == "simulated"
    assert types_of(folder / "q.onnx") == {E4M3} and result["accuracy"][0]["sqnr_db"] > 20
    assert "FP8 share of the multiply-accumulates 100.0%" in done.stdout
    assert {"calibrate", "fit", "choose"} <= result["timings_s"].keys() and "equalize" not in result["timings_s"]
    text = _plan_of(memoryview((folder / "net.engine").read_bytes()))
    assert len(re.findall(r"tensor=\{.*type=fp8_e4m3", text)) == 6, "inputs and weights of three products"


def test_sums_are_scaled_before_they_are_written_in_fp16(folder):
    """With a scale for each channel TensorRT-RTX 1.7 multiplies by 1 first, and the sums of a product overflow FP16."""
    assert onnx2trt(folder, "--onnx", "net.onnx", *FP8, *FAST, "--max-accuracy-drop", "100").code == 0, "all three products"
    text = _plan_of(memoryview((folder / "net.engine").read_bytes()))
    factors = [np.uint32(int(word, 16)).view(np.float32) for word in re.findall(r"fully_connected=\{.*? alpha=([0-9A-F]+) ", text)]
    assert len(factors) == 3 and all(0 < factor < 0.01 for factor in factors)


def test_a_second_build_takes_over_the_cache_and_one_for_int8_does_not(folder):
    cache = ("--calibration-cache", "c.cache")
    first = onnx2trt(folder, "--onnx", "net.onnx", *FP8, *FAST, *cache, "--save-onnx", "first.onnx")
    assert first.code == 0, first.stderr
    assert (folder / "c.cache").read_text().startswith("TRT-100600-FP8\n")
    second = onnx2trt(folder, "--onnx", "net.onnx", *FP8, *FAST, *cache, "--save-onnx", "second.onnx")
    assert second.code == 0 and "calibrate" not in second.json("r.json")["timings_s"]
    assert (folder / "second.onnx").read_bytes() == (folder / "first.onnx").read_bytes()
    int8 = ("--precision", "int8", *FP8[2:])
    other = onnx2trt(folder, "--onnx", "net.onnx", *int8, *FAST, *cache)
    assert other.code == 5 and "holds scales for FP8, and INT8 was asked for" in other.error
    forced = onnx2trt(folder, "--onnx", "net.onnx", *int8, *cache, "--accept-stale-cache", *FAST)
    assert forced.code == 0 and "used with the same reach" in forced.stderr
    assert forced.json("r.json")["accuracy"][0]["sqnr_db"] > 25, "not as if the scales were those of FP8"


@pytest.mark.parametrize("arch", ["75", "80", "86"])
def test_gpus_without_fp8_are_refused_before_the_model_is_read(folder, arch):
    (folder / "net.onnx").write_bytes(b"no model")
    done = onnx2trt(folder, "--onnx", "net.onnx", "--precision", "fp8", "--calibration-dir", "data", "--gpu-arch", arch)
    assert done.code == 4 and "FP8 begins with 8.9" in done.error, done.error
    assert not list(folder.glob("*.engine"))


def test_networks_without_matrix_products_have_nothing_for_fp8(folder):
    onnx.save(conv_net(size=8), folder / "conv.onnx")
    (folder / "images").mkdir()
    np.savez(folder / "images" / "0.npz", x=random(1, 3, 8, 8))
    done = onnx2trt(folder, "--onnx", "conv.onnx", *FP8, "--calibration-dir", "images")
    assert (
        done.code == 3 and "the model has no matrix product with constant FP32 weights" in done.error and "--precision int8" in done.error
    )


def test_where_matrix_products_are_hardly_any_work_it_is_said_before_anything_is_measured(folder):
    nodes = [
        node("Conv", "x k", "c", "conv", pads=[1] * 4),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f w", "y", "dense"),
    ]
    weights = {"k": random(16, 3, 3, 3), "w": random(16, 16)}
    onnx.save(model(nodes, {"x": [1, 3, 32, 32]}, {"y": [1, 16]}, weights), folder / "conv.onnx")
    (folder / "images").mkdir()
    np.savez(folder / "images" / "0.npz", x=random(1, 3, 32, 32))
    done = onnx2trt(folder, "--onnx", "conv.onnx", *FP8, "--calibration-dir", "images")
    assert done.code == 3 and "at most 0.1% of the multiply-accumulates could be FP8" in done.error
    assert "calibrate" not in done.json("r.json")["timings_s"]


@pytest.mark.real
def test_compare_shows_fp8_beside_the_others(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", *FP8, *FAST, "--max-accuracy-drop", "100", "--compare")
    assert done.code == 0, done.stderr
    rows = {row["precision"]: row for row in done.json("r.json")["variants"]}
    assert [name for name in rows if name != "bf16"] == ["fp8", "fp32", "fp16", "int8"] and all(
        row["error"] is None for row in rows.values()
    )
    assert rows["fp8"]["delivered"] == "fp8" and rows["fp8"]["fp8_mac_share"] == 1 and rows["int8"]["int8_mac_share"] == 1


@pytest.mark.real
@pytest.mark.parametrize("arch, kind", [("89", "vit"), ("120", "bert")])
def test_attention_is_fp8_in_one_kernel(tmp_path, arch, kind):
    forms = {"bert": Form("behind div", "add input", batch=2, size=32, tokens=48), "vit": Form("behind mul", heads=3, size=64, tokens=64)}
    form = forms[kind]
    onnx.save(form.network(layers=2), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(3):
        feed = {"x": random(form.batch, form.tokens, form.width, seed=index)}
        feed |= {name: random(*shape, seed=index) for name, shape in form.inputs.items() if name != "x"}
        np.savez(tmp_path / "data" / f"{index}.npz", **feed)
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", *FP8, *FAST, "--gpu-arch", arch, "--save-onnx", "q.onnx")
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    assert result["engine"]["fused_attentions"] == 2, "each attention is one kernel"
    assert result["precision"]["fp8_mac_share"] == 1 and result["precision"]["fallback"] == []
    assert result["precision"]["layers"]["fp8"] == 2 * (4 + 2), "four products with weights and both of attention, in two layers"
    assert types_of(tmp_path / "q.onnx") == {E4M3}
    text = _plan_of(memoryview((tmp_path / "net.engine").read_bytes()))
    tensors = dict(re.findall(r'tensor=\{.*?name="([^"]*)".*?type=(\w+)', text))
    for inputs in re.findall(r'name="?\w*_mha.*?input(?:_args)?=\{([^}]*)\}', text):
        types = [tensors[name] for name in re.findall(r'"([^"]*)"', inputs)]
        assert types.count("fp8_e4m3") == 3 and len(types) <= 4, "queries, keys and values; a mask is FP16"
