"""pipeline/prepare.py: the graph that a strongly typed network is built from, where INT8 is not to be put in."""

import numpy as np
import onnx
import pytest
from helpers import planned
from models import conv_net, model, node, offset_net, random

from onnx2trt.base.errors import AccuracyError
from onnx2trt.conversion.job import Job
from onnx2trt.model.session import Session
from onnx2trt.pipeline.prepare import choose
from onnx2trt.rewrite import prepare as rewriting
from onnx2trt.rewrite.qdq import int8_layers

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """Makes (choice, prepared model, run) of a model and flags, for TensorRT-RTX."""
    monkeypatch.chdir(tmp_path)

    def choose_for(source, *flags):
        onnx.save(source, "model.onnx")
        job, run = planned(*flags, library="rtx")
        choice = choose(job, run)
        return choice, choice.prepared(run), run

    return choose_for


def types_of(graph) -> set[str]:
    return {array.dtype.name for array in graph.weights.values() if array.dtype.kind == "f"}


def io_types(graph) -> list[int]:
    return [value.type.tensor_type.elem_type for value in (*graph.proto.graph.input, *graph.proto.graph.output)]


def test_fp32_is_the_model_as_it_is(chosen):
    choice, prepared, run = chosen(conv_net(), "--precision", "fp32")
    assert not prepared.changed and prepared.fallback == () and prepared.mac_shares == {} and types_of(prepared.graph) == {"float32"}
    assert choice.tried is None and choice.about is None and not run.console.timings, "nothing is measured for it"


def test_fp32_with_fp16_inputs_is_another_graph(chosen):
    _, prepared, _ = chosen(conv_net(), "--precision", "fp32", "--io-types", "x:fp16")
    assert prepared.changed and io_types(prepared.graph) == [FLOAT16, FLOAT] and types_of(prepared.graph) == {"float32"}


def test_fp16_is_written_into_the_graph(chosen):
    choice, prepared, _ = chosen(conv_net(), "--precision", "fp16")
    assert prepared.changed and types_of(prepared.graph) == {"float16"} and prepared.fallback == () and choice.tried is None


def test_fp16_layers_that_lose_too_much_are_named_with_what_was_tried(chosen):
    choice, prepared, _ = chosen(offset_net(), "--precision", "fp16")
    assert [(name, precision) for name, precision, _ in prepared.fallback] == [("away", "fp32"), ("back", "fp32")]
    assert not choice.tried[0]["passed"] and choice.tried[-1].keys() == {"fp16_share", "drop_percent", "standard_error", "passed"}


def quantized_net(opset: int) -> onnx.ModelProto:
    """A convolution with the model's own Q/DQ, which carry per-tensor scales."""
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "wq s z", "wd"),
        node("Conv", "xd wd", "y", "conv"),
    ]
    weights = {"s": np.float32(0.05), "z": np.int8(0), "wq": (random(4, 3, 1, 1) * 20).astype(np.int8)}
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, weights, opset)


def test_a_model_with_its_own_qdq_keeps_them(chosen):
    choice, prepared, run = chosen(quantized_net(17), "--precision", "int8")
    assert int8_layers(prepared.graph) == {"conv"} and prepared.mac_shares["int8"] == 1 and choice.about is None
    assert prepared.graph.opset >= 19 and types_of(prepared.graph) == {"float16"} and not any("opset" in w for w in run.console.warnings)


def test_scales_that_stay_fp32_for_the_opset_are_said(chosen, monkeypatch):
    raise_opset = rewriting.raise_opset
    monkeypatch.setattr(rewriting, "raise_opset", lambda graph, version: raise_opset(graph, version) if version < 19 else None)
    _, prepared, run = chosen(quantized_net(17), "--precision", "int8")
    assert "opset could not be raised to 19: Q/DQ scales stay FP32, and so do the layers between them" in run.console.warnings
    assert prepared.graph.opset == 17 and "float32" in types_of(prepared.graph) and int8_layers(prepared.graph) == {"conv"}


def test_scales_that_fp16_has_rounded_too_much_are_taken_as_they_are(chosen):
    """0.05 is no FP16 value, and the file's own scales are exact in FP32."""
    choice, first, run = chosen(quantized_net(17), "--precision", "int8")
    again = choice.lower(AccuracyError("too much", hint="", drop_percent=2.0), run)
    x = random(1, 3, 8, 8)
    expected = Session.from_path("model.onnx").run({"x": x})["y"]
    errors = [np.abs(Session.from_graph(made.graph).run({"x": x})["y"] - expected).max() for made in (first, again)]
    assert int8_layers(again.graph) == {"conv"} and errors[1] < errors[0] / 10 and errors[0] > 0
    assert run.console.warnings[-1].startswith("too much: built once more")


@pytest.mark.parametrize("opset", [17, None])
def test_there_is_nothing_to_choose_again(chosen, monkeypatch, opset):
    """Not without Q/DQ, and not where the scales are FP32 already."""
    monkeypatch.setattr(Job, "fp16_scales", lambda job, graph: False)
    choice, _, run = chosen(quantized_net(opset) if opset else conv_net(), "--precision", "fp16")
    error = AccuracyError("too much", hint="", drop_percent=2.0)
    with pytest.raises(AccuracyError) as caught:
        choice.lower(error, run)
    assert caught.value is error
