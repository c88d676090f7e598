"""pipeline/engine.py: from a prepared model to an engine that passed. GPU and engine are made up; the model's outputs are real."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from helpers import planned
from models import conv_net, random, stepped
from onnx import TensorProto

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.bodies import inner_graphs
from onnx2trt.model.session import Session
from onnx2trt.pipeline import engine as pipeline
from onnx2trt.report.result import Result
from onnx2trt.report.table import render
from onnx2trt.stages.load import loaded_engine
from onnx2trt.stages.read_back import LessThanAsked

HALF = TensorProto.FLOAT16


class Engine:
    """Computes what the model computes, and breaks down when it is timed."""

    def __init__(self, error: Exception):
        self.error, self.session = error, Session.from_path("model.onnx")
        self.run = lambda arrays: self.session.run(arrays)

    def load(self, arrays):
        raise self.error

    def close(self):
        raise self.error


ERRORS = [
    ConversionError("the engine needs 9.1 GB of GPU memory, 8.0 GB are free", code=ExitCode.MACHINE),
    RuntimeError("CUDA error 700: an illegal memory access was encountered"),
    MemoryError(),
    ValueError("no shape"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "model.onnx")
    np.save("test.npy", random(1, 3, 16, 16))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_engine_that_cannot_be_timed_is_delivered_and_it_is_said(folder, error):
    job, run = planned("--test-image", "test.npy")
    result = Result()
    pipeline.check(job, None, Engine(error), result, run)
    assert result.status == "validated" and result.latency is None and result.error is None
    said = error.message if isinstance(error, ConversionError) else f"{type(error).__name__}: {error}"
    assert result.latency_not_measured_because == said
    assert f"the latency could not be measured: {said}" in run.console.warnings


def test_the_table_says_why_there_is_no_latency(folder):
    from made_results import result

    shown = render({**result(), "status": "validated", "latency_not_measured_because": "CUDA error 700"}, 100, False)
    assert "not measured: CUDA error 700" in " ".join(shown.split())


def test_an_engine_that_cannot_be_closed_after_an_error_of_cuda_is_no_failure(folder, monkeypatch):
    job, run = planned()
    error = ERRORS[1]
    monkeypatch.setattr("onnx2trt.stages.load.open_cuda", lambda: Engine(error))
    monkeypatch.setattr("onnx2trt.stages.load.Engine", lambda *args: Engine(error))
    with loaded_engine(None, job.plan, b"", run) as engine:
        assert engine is not None


def test_outputs_that_differ_still_fail_whatever_the_timing(folder):
    job, run = planned("--test-image", "test.npy")
    broken = Engine(ERRORS[0])
    broken.run = lambda arrays: {name: 0 * array for name, array in broken.session.run(arrays).items()}
    with pytest.raises(ConversionError) as caught:
        pipeline.check(job, None, broken, Result(), run)
    assert caught.value.code is ExitCode.VALIDATION


def test_control_flow_that_is_not_built_in_fp16_stays_in_fp32(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(stepped("Loop"), "model.onnx")
    job, run = planned(library="rtx")
    tried = []

    def build(job, choice, prepared, result, run, make=None):
        tried.append(any(HALF in inner.types().values() for inner in inner_graphs(prepared.graph)))
        if tried[-1]:
            raise ConversionError("TensorRT could not build the engine", code=ExitCode.BUILD)
        return prepared

    monkeypatch.setattr(pipeline, "build_and_check", build)
    prepared = pipeline.make_engine(job, Result(), run)
    assert tried == [True, False]
    assert ("loop", "fp32", "control flow whose bodies TensorRT does not build in a lower precision") in prepared.fallback
    assert any("stays in FP32. TensorRT could not build the engine" in warning for warning in run.console.warnings)


def test_what_is_not_built_without_control_flow_is_an_error(folder, monkeypatch):
    job, run = planned(library="rtx")

    def build(*_):
        raise ConversionError("TensorRT could not build the engine", code=ExitCode.BUILD)

    monkeypatch.setattr(pipeline, "build_and_check", build)
    with pytest.raises(ConversionError, match="could not build"):
        pipeline.make_engine(job, Result(), run)


@pytest.mark.parametrize("flags, bound", [((), True), (("--precision-constraints", "none"), False), (("--precision", "fp32"), False)])
def test_layers_that_tensorrt_leaves_in_fp32_are_bound_to_fp16(folder, monkeypatch, flags, bound):
    """TensorRT 10.6 computes a network of one Elu, a MaxPool or one small convolution in FP32, which it times as faster."""
    job, run = planned(*flags)
    built = []

    def build(job, choice, prepared, result, run, make=None):
        built.append(prepared)
        if not prepared.half_nodes:
            raise LessThanAsked("fp16 was asked for, but the engine is fp32", code=ExitCode.VALIDATION)
        return prepared

    monkeypatch.setattr(pipeline, "build_and_check", build)
    if not bound:
        with pytest.raises(LessThanAsked):
            pipeline.make_engine(job, Result(), run)
        return
    prepared = pipeline.make_engine(job, Result(), run)
    assert len(built) == 2 and prepared.half_nodes == {node.name for node in prepared.graph.nodes}
    assert any("bound to FP16" in warning for warning in run.console.warnings)


@pytest.mark.parametrize("more, again", [({}, False), ({"timing_cache": "t"}, True), ({"strip_weights": True}, True)])
def test_the_engine_that_was_compared_is_taken_unless_more_is_to_be_done_with_it(more, again):
    build = SimpleNamespace(**{"timing_cache": None, "strip_weights": False, **more})
    job = SimpleNamespace(plan=SimpleNamespace(build=build))
    assert (pipeline._as_compared(job, object()) is None) is again and pipeline._as_compared(job, None) is None
