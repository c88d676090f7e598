"""stages/read_back.py: the precision that was delivered, by the work done in it."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from command import onnx2trt
from helpers import planned, quiet_run
from models import conv_net, model, node, profiles, random

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.report.result import Precision
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.refused import NOT_BUILT
from onnx2trt.rewrite.shares import half_mac_share, macs_of
from onnx2trt.stages.read_back import _warn_of_ignored, describe_engine, judge_precision


def one_heavy_layer(pointwise: int) -> onnx.ModelProto:
    """A convolution, which is all of the work, and many layers beside it."""
    names = [f"t{index}" for index in range(pointwise + 1)]
    nodes = [node("Conv", "x w", "t0", "heavy", pads=[1, 1, 1, 1])]
    nodes += [node(("Relu", "Neg", "Abs")[i % 3], names[i], names[i + 1], f"light{i}") for i in range(pointwise)]
    nodes.append(node("Add", f"{names[-1]} one", "y", "last"))
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 8, 8, 8]}, {"w": random(8, 3, 3, 3), "one": np.float32(1)})


@pytest.mark.parametrize("kept", [(), ("stem",), ("depthwise", "head"), ("stem", "depthwise", "head"), ("stem_relu",)])
def test_the_share_is_that_of_the_multiply_accumulates(kept):
    graph, shapes = Graph.from_model(conv_net(1)), profiles(x=(1, 3, 16, 16))
    macs = macs_of(graph, shapes)
    left = sum(count for name, count in macs.items() if name not in kept) / sum(macs.values())
    assert half_mac_share(convert(graph, dict.fromkeys(kept, "")), shapes) == pytest.approx(left)


def test_without_convolutions_and_matrix_products_there_is_none():
    graph = Graph.from_model(model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]}))
    assert half_mac_share(convert(graph, {}), profiles(x=(2,))) is None


def test_a_recurrent_layer_that_only_makes_its_last_state_counts():
    weights = {"w": random(1, 9, 2), "r": random(1, 9, 3)}
    gru = onnx.helper.make_node("GRU", ["x", "w", "r"], ["", "y"], name="gru", hidden_size=3)
    graph = Graph.from_model(model([gru], {"x": [4, 1, 2]}, {"y": [1, 1, 3]}, weights))
    assert half_mac_share(convert(graph, {}), profiles(x=(4, 1, 2))) == 1.0


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "model.onnx")
    return planned("--precision", "fp16", library="rtx")[0]


def test_an_engine_whose_work_is_in_fp32_is_no_fp16_engine(job):
    precision = Precision("fp16", "fp32", layers={"int8": 0, "fp16": 20, "fp32": 1}, fp16_mac_share=0.02)
    prepared = Prepared(convert(job.graph(), {}))
    with pytest.raises(ConversionError, match="FP16 share of the multiply-accumulates 2.0%, less than 10%") as caught:
        judge_precision(job, prepared, precision, quiet_run())
    assert caught.value.code is ExitCode.VALIDATION
    judge_precision(job, prepared, replace(precision, delivered="fp16", fp16_mac_share=0.1), quiet_run())


class Fused:
    """An engine that computes both products in one layer, which reads INT8."""

    def inspect(self):
        tensor = {"Name": "x", "Format/Datatype": "Int8"}
        layer = {
            "Name": "both",
            "LayerType": "kgen",
            "Inputs": [tensor],
            "Outputs": [],
            "Metadata": "[ONNX Layer: first]\u001e[ONNX Layer: second]",
        }
        return json.dumps({"Layers": [layer]})


@pytest.mark.parametrize("written", [True, False], ids=["Q/DQ", "calibrator"])
def test_of_a_graph_with_qdq_nothing_else_counts(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    first = "xd wd" if written else "x w"
    nodes = [node("MatMul", first, "m", "first"), node("MatMul", "m w", "y", "second")]
    if written:
        both = [(node("QuantizeLinear", f"{name} s z", f"{name}q"), node("DequantizeLinear", f"{name}q s z", f"{name}d")) for name in "xw"]
        nodes = [*sum(both, ()), *nodes]
    weights = {"w": random(8, 8), "s": np.float32(0.02), "z": np.int8(0)}
    onnx.save(model(nodes, {"x": [4, 8]}, {"y": [4, 8]}, weights), "model.onnx")
    job = planned("--precision", "fp16", library="rtx")[0]
    precision = describe_engine(job, Fused(), quiet_run())
    assert precision.int8_mac_share == (0.5 if written else 1)


@pytest.mark.parametrize("reason, taken", [(NOT_BUILT, True), ("y reaches 1e+05, above 32752 (half of FP16's largest)", False)])
def test_what_the_library_builds_in_fp32_alone_is_what_was_asked_for(job, reason, taken):
    precision = Precision("fp16", "fp32", layers={"int8": 0, "fp16": 0, "fp32": 5})
    prepared, run = Prepared(job.graph(), (("scan", "fp32", reason),)), quiet_run()
    if not taken:
        with pytest.raises(ConversionError, match="fp16 was asked for, but the engine is fp32"):
            judge_precision(job, prepared, precision, run)
        return
    judge_precision(job, prepared, precision, run)
    assert f"all floating-point layers have to be FP32 ({NOT_BUILT})" in run.console.warnings[0]


def test_by_the_command(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(one_heavy_layer(30), tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", environment={"COLUMNS": "200"})
    precision = done.json("net.engine.json")["precision"]
    assert done.code == 0 and precision["fp16_mac_share"] == 1 and "FP16 share of the multiply-accumulates 100.0%" in done.stdout
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--layer-precisions", "heavy:fp32", "--json", "r.json")
    assert done.code == 7 and "fp16 was asked for, but the engine is fp32: layers" in done.error and "0.0%, less than 10%" in done.error
    assert done.json("r.json")["precision"]["fp16_mac_share"] == 0
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--layer-precisions", "light*:fp32")
    assert done.code == 0 and done.json("net.engine.json")["precision"]["layers"]["fp32"] >= 20, "most layers, but none of the work"


def test_all_nodes_whose_constraint_was_ignored_are_one_warning():
    run = quiet_run()
    _warn_of_ignored((*((f"/norm{n}", "fp32", "int8") for n in range(12)), ("/last", "fp32", "fp16")), run)
    assert run.console.warnings == [
        "TensorRT ignored the constraint of 12 nodes: asked for fp32, got int8: '/norm0', '/norm1', '/norm2', '/norm3', '/norm4' "
        "and 7 more",
        "TensorRT ignored the constraint of a node: asked for fp32, got fp16: '/last'",
    ]
