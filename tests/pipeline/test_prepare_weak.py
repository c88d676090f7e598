"""pipeline/prepare.py and pipeline/int8.py: what TensorRT 8.6 to 10 get to build: prepared on any machine, up to the network."""

import os

import numpy as np
import onnx
import pytest
from helpers import image, planned
from models import conv_net, model, node, offset_net, random, weight_and_axis

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.opencv import opencv
from onnx2trt.model.session import Session
from onnx2trt.pipeline import int8
from onnx2trt.pipeline.prepare import choose
from onnx2trt.rewrite.qdq import int8_layers, quantize_weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "model.onnx")
    os.mkdir("images")
    for seed in range(8):
        smooth = opencv().resize(image(6, 6, seed=seed), (24, 24), interpolation=opencv().INTER_CUBIC)  # fitted weights have a use for it
        opencv().imwrite(f"images/{seed}.png", smooth)
    return tmp_path


def prepare(*flags):
    """(prepared model, the choice that it comes from, job, run) of TensorRT 10 on a GPU."""
    job, run = planned("--precision", "int8", "--calibration-dir", "images", "--max-accuracy-drop", "50", *flags)
    choice = int8.choose(job, run) if job.quantizes else choose(job, run)
    return choice.prepared(run), choice, job, run


def outputs(graph, job):
    return [Session.from_graph(graph).run(batch.arrays) for batch in job.data.reader.batches(job.data.calibration)]


def test_the_calibrator_gets_our_scales_and_weights_that_are_int8_already(folder):
    prepared, _, job, _ = prepare()
    assert prepared.constraints == {"stem": "int8", "head": "int8"} and prepared.half_nodes == {"depthwise"}, "what it reads has a scale"
    assert set(prepared.scales) == {"x", "c1", "r1", "r2"}, "what is fused with an INT8 layer and ends in FP16 needs a scale, too"
    assert prepared.half_outputs == {"stem", "stem_relu"}, "what an FP16 layer reads is not quantised on the way"
    assert int8_layers(prepared.equivalent) == {"stem", "head"} and not int8_layers(prepared.graph)
    for name in ("stem", "head"):
        weight, _ = weight_and_axis(prepared.graph, name)
        integers, scales = quantize_weights(weight, 0, half=False)
        np.testing.assert_allclose(integers * scales.reshape(-1, 1, 1, 1), weight, rtol=1e-6, atol=0)
    original = [Session.from_path("model.onnx").run(batch.arrays) for batch in job.data.reader.batches(job.data.calibration)]
    for graph in (prepared.graph, prepared.equivalent):
        error = sum(((a["y"] - b["y"]) ** 2).sum() for a, b in zip(outputs(graph, job), original))
        assert error < 0.01 * sum((a["y"] ** 2).sum() for a in original)


def test_an_accuracy_that_was_measured_on_what_was_fitted_to_is_said(folder):
    _, _, _, run = prepare()
    assert not any("one sample only" in text for text in run.console.warnings)
    for seed in range(1, 8):
        os.unlink(f"images/{seed}.png")
    _, _, _, run = prepare()
    assert sum("images holds one sample only" in text for text in run.console.warnings) == 1


@pytest.mark.parametrize("method", ["entropy", "minmax"])
def test_tensorrt_calibrates_by_itself_where_its_method_was_asked_for(folder, method):
    prepared, choice, job, _ = prepare("--calibration-method", method, "--calibration-cache", "c.cache")
    assert prepared.scales is None and prepared.equivalent is None and job.plan.native_method == method
    assert choice.about.method == method and not os.path.exists("c.cache"), "the cache will be TensorRT's"
    for a, b in zip(
        outputs(prepared.graph, job), (Session.from_path("model.onnx").run(b.arrays) for b in job.data.reader.batches(job.data.calibration))
    ):
        np.testing.assert_allclose(a["y"], b["y"], rtol=1e-4, atol=1e-5)


def test_qdq_keeps_fp32_scales_and_lets_the_flags_do_the_rest(folder):
    prepared, *_ = prepare("--quantization", "qdq")
    assert prepared.scales is None and int8_layers(prepared.graph) == {"stem", "head"}
    assert all(array.dtype != np.float16 for array in prepared.graph.weights.values())
    assert not prepared.constraints and not prepared.half_nodes and not prepared.half_outputs
    overridden, *_ = prepare("--quantization", "qdq", "--layer-precisions", "head:fp16")
    assert overridden.constraints == {"head": "fp16"}


def test_nothing_is_bound_where_types_are_not_strict(folder):
    prepared, *_ = prepare("--disable-strict-types")
    assert set(prepared.constraints.values()) <= {"fp16"} and not prepared.half_outputs
    assert set(prepared.scales) == {"x", "c1", "r1", "r2", "y"}, "TensorRT chooses, so it may take INT8 anywhere behind an INT8 layer"


def test_plugins_leave_everything_to_tensorrt(folder):
    prepared, _, job, _ = prepare("--plugins", "libplugin.so")
    assert prepared.scales is None and not prepared.constraints and job.plan.native_method == "entropy"


@pytest.mark.parametrize("flags, kept", [((), {"away", "back"}), (("--layer-precisions", "*:fp16"), set())])
def test_fp16_layers_that_lose_too_much_are_bound_to_fp32(folder, flags, kept):
    onnx.save(offset_net(24), "model.onnx")
    prepared, choice, *_ = prepare("--precision", "fp16", "--max-accuracy-drop", "1", *flags)
    assert {name for name, precision in prepared.constraints.items() if precision == "fp32"} == kept
    assert {name for name, _, reason in prepared.fallback if "FP16 here alone" in reason} == kept
    assert (choice.tried is not None) is bool(kept) and not prepared.changed


def test_what_only_passes_the_values_on_is_kept_in_fp32_between_the_layers_that_need_it(folder):
    nodes = [
        node("Conv", "x w", "c", "stem"),
        node("Add", "c offset", "far", "away"),
        node("Transpose", "far", "turned", "turn", perm=[0, 1, 3, 2]),
        node("Sub", "turned offset", "near", "back"),
        node("Conv", "near v", "y", "head"),
    ]
    weights = {"w": random(8, 3, 1, 1), "v": random(4, 8, 1, 1, seed=1), "offset": np.float32(2000)}
    onnx.save(model(nodes, {"x": [1, 3, 24, 24]}, {"y": [1, 4, 24, 24]}, weights), "model.onnx")
    prepared, *_ = prepare("--precision", "fp16", "--max-accuracy-drop", "1")
    assert prepared.constraints == dict.fromkeys(("away", "turn", "back"), "fp32")


def test_obeying_no_constraints_leaves_fp16_to_tensorrt(folder):
    onnx.save(offset_net(24), "model.onnx")
    prepared, *_ = prepare("--precision", "fp16", "--precision-constraints", "none")
    assert prepared.constraints == {} and prepared.fallback == ()


def test_where_fp16_cannot_be_simulated_that_is_said_and_nothing_is_kept_in_fp32(folder, monkeypatch):
    def fails(graph):
        raise ConversionError("ONNX Runtime cannot load the prepared model: why", code=ExitCode.MODEL)

    monkeypatch.setattr("onnx2trt.stages.fp16_guard.simulation", fails)
    prepared, _, _, run = prepare("--precision", "fp16")
    assert prepared.constraints == {} and any("FP16 cannot be simulated here" in warning for warning in run.console.warnings)
