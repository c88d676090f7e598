"""trt/plan_text.py: kernels and bytes that the plan of a TensorRT-RTX engine tells of."""

import numpy as np
import onnx
import pytest
from attention_forms import Form
from command import onnx2trt
from models import model, node, random

from onnx2trt.trt.plan_text import Kernel, Traffic, read_kernels, traffic_of

PLAN = """
  tensor={ dims={ 2 8 } name="x" type=float }
  tensor={ dims={ 8 8 } name="w" type=half }
  tensor={ dims={ 999 } is_scratchspace=1 name="scratch" type=int8 }
  tensor={ dims={ 2 8 } name="y" type=half }
main {
 label bb1:
  function={ name=cast input_args={ "x" "x" "scratch" } output_args={ "y" } layers="[ONNX Layer: a]\x1f[ONNX Layer: b]" }
  gemm={ name="product" output={"y" } input={"y" "w" } stream=0 }
  barrier={ name=none input={"x" } }
}
shape_main {
  gemm={ name="inner" output={"y" } input={"y" "w" } }
}
"""


def engine(plan: str) -> bytes:
    return bytes(range(256)) + b"\0" + plan.encode() + b"\0\xff"


def test_each_kernel_counts_what_it_reads_and_writes_once():
    kernels = read_kernels(engine(PLAN))
    assert traffic_of(kernels) == Traffic(2, (64 + 32) + (32 + 128)), "no scratch memory, and nothing behind main"
    assert kernels == (Kernel(("a", "b"), False, "float", 96), Kernel((), True, "half", 160))


def test_kernels_that_compute_a_whole_attention_are_counted():
    fused = PLAN.replace("name=cast", "name=_gemm_mha_v2").replace('gemm={ name="product"', 'mha={ name="product"', 1)
    named = PLAN.replace("ONNX Layer: a", "ONNX Layer: my_mha")  # a layer that the user calls so
    counts = [traffic_of(read_kernels(engine(plan))).attentions for plan in (PLAN, fused, named)]
    assert counts == [0, 2, 0] and all(kernel.multiplies for kernel in read_kernels(engine(fused)))


@pytest.mark.parametrize(
    "plan",
    ["", "main {", PLAN.replace("2 8", "n 8"), PLAN.replace("type=half", "type=odd"), PLAN.replace("tensor=", "other=")],
    ids=["none", "nothing in it", "free sizes", "unknown type", "no tensors"],
)
def test_what_is_not_as_it_was_is_not_readable(plan):
    assert read_kernels(engine(plan)) == () and traffic_of(()) is None


@pytest.mark.real
def test_int8_with_one_weight_scale_writes_no_fp32_sums(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    nodes, weights = [], {}
    for index in range(3):
        nodes += [node("Conv", f"t{index} w{index} b{index}", f"c{index}", pads=[1] * 4), node("Relu", f"c{index}", f"t{index + 1}")]
        weights |= {f"w{index}": random(64, 64, 3, 3, seed=index, scale=0.06), f"b{index}": random(64, seed=9 + index)}
    onnx.save(model(nodes, {"t0": [4, 64, 56, 56]}, {"t3": [4, 64, 56, 56]}, weights), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", t0=random(4, 64, 56, 56, seed=1))
    flags = ("--calibration-dir", ".", "--quantization-effort", "fast", "--max-accuracy-drop", "50", "--json", "r.json")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--compare", "--precision", "int8", *flags)
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    moved = {row["precision"]: row["moved_bytes"] for row in result["variants"]}
    about = result["engine"]
    assert moved["int8"] == about["moved_bytes"] < 1.45 * moved["fp16"] and about["kernels"] > 3
    assert about["fp16_moved_bytes"] == moved["fp16"] and about["least_ms"].keys() == about["fp16_least_ms"].keys()
    assert "by the engines' own plans" in done.stdout and "kernels move" in " ".join(done.stdout.split())


@pytest.mark.real
@pytest.mark.parametrize("kind", ["vit", "bert", "swin", "operator"])
def test_attention_stays_one_kernel_beside_int8_layers(tmp_path, kind):
    """On TensorRT-RTX, Q/DQ of INT8 on an attention would make five kernels of each: it stays FP16 there."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    forms = {"bert": Form("behind div", "add input", batch=2, size=32, tokens=48), "swin": Form("front", "windows", size=32, tokens=49)}
    form = forms.get(kind, Form("behind mul", batch=1, heads=3, size=64, tokens=64))
    onnx.save(form.with_operator() if kind == "operator" else form.network(layers=2), tmp_path / "net.onnx")
    for index in range(3):
        feed = {"x": random(form.batch, form.tokens, form.width, seed=index)}
        feed |= {name: random(*shape, seed=index) for name, shape in form.inputs.items() if name != "x"}
        np.savez(tmp_path / f"{index}.npz", **feed)
    flags = ("--calibration-dir", ".", "--quantization-effort", "fast", "--max-accuracy-drop", "50", "--no-baseline", "--json", "r.json")
    for precision in ("fp16", "int8"):
        done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--precision", precision, *flags)
        assert done.code == 0, done.stderr
        result = done.json("r.json")
        assert result["engine"]["fused_attentions"] == 2 and "(2 of them a whole attention each)" in " ".join(done.stdout.split())
    assert 0.5 < result["precision"]["int8_mac_share"] < 1, "the layers around are INT8, the attention is not"
