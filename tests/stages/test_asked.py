"""stages/asked.py: what was asked for, held against the model, before any work on it."""

import itertools

import numpy as np
import onnx
import pytest
from helpers import planned, refused
from models import conv_net, random

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.stages.asked import say_what_it_carries, without_half

INT8 = ("--precision", "int8", "--plugins", "libplugin.so")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(size=8), "model.onnx")
    (tmp_path / "data").mkdir()
    for index in range(3):
        np.save(tmp_path / "data" / f"{index}.npy", random(1, 3, 8, 8, seed=index))
    return tmp_path


@pytest.mark.parametrize("method", ["mse", "percentile"])
def test_a_method_that_takes_the_cpu_is_refused_where_only_tensorrt_can_run_the_model(folder, method):
    job, run = planned(*INT8, "--calibration-dir", "data", "--calibration-method", method)
    with refused(ExitCode.MACHINE, f"--calibration-method {method}", "--plugins", hint="entropy or minmax"):
        say_what_it_carries(job, run)


@pytest.mark.parametrize("library, flags", [("strong", ()), ("weak", ("--quantization", "qdq")), ("weak", ("--strongly-typed",))], ids=str)
def test_qdq_cannot_be_calibrated_where_only_tensorrt_can_run_the_model(folder, library, flags):
    job, run = planned(*INT8, "--calibration-dir", "data", *flags, library=library)
    with refused(ExitCode.MACHINE, "Q/DQ is calibrated on the CPU", "--plugins", hint="--calibration-cache"):
        say_what_it_carries(job, run)


METHODS, EFFORTS = ("auto", "entropy", "minmax", "percentile", "mse"), ("fast", "best")
ROUTES = [("weak", "auto"), ("weak", "qdq"), ("weak", "calibrator"), ("strong", "auto"), ("strong", "qdq")]


@pytest.mark.parametrize("route, method, effort", itertools.product(ROUTES, METHODS, EFFORTS), ids=str)
@pytest.mark.parametrize("cached", [False, True])
def test_with_plugins_every_way_to_int8_is_refused_or_needs_no_cpu(folder, route, method, effort, cached):
    """What is let through is calibrated by TensorRT, or has its scales in a cache."""
    library, quantization = route
    flags = ("--quantization", quantization, "--calibration-method", method, "--quantization-effort", effort, "--calibration-cache", "c")
    if cached:
        (folder / "c").write_text("TRT-100600-EntropyCalibration2\nx: 3c010a14\n")
    else:
        flags += ("--calibration-dir", "data")
    job, run = planned(*INT8, *flags, library=library)
    try:
        say_what_it_carries(job, run)
    except ConversionError as error:
        assert error.code is ExitCode.MACHINE and not cached
        return
    assert cached or job.plan.calibrator and job.plan.native_method in ("entropy", "minmax")


# ---- a model that carries FP16


@pytest.fixture
def half(folder):
    graph = convert(Graph.from_model(conv_net(size=8)), {}, frozenset(("x", "y")))
    onnx.save(graph.to_model(), "model.onnx")
    np.save("data/0.npy", random(1, 3, 8, 8).astype(np.float16))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fp16_becomes_fp32_where_something_else_is_asked_for(half, precision):
    job, run = planned("--precision", precision, *(("--calibration-dir", "data") if precision == "int8" else ()))
    say_what_it_carries(job, run)
    found = without_half(job)
    graph = found.as_given()
    types = {name: elem_type for name, elem_type in graph.types().items() if elem_type == onnx.TensorProto.FLOAT16}
    assert set(types) == {"x", "y"} and not found.info.half and found.info.adopted
    x = random(1, 3, 8, 8).astype(np.float16)
    one, other = (session.run({"x": x})["y"] for session in (Session.from_path("model.onnx"), Session.from_graph(graph)))
    np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=5e-3)
    assert any("FP16" in warning and precision in warning for warning in run.console.warnings)


def test_fp16_stays_as_it_is_for_fp16(half):
    job, run = planned("--precision", "fp16")
    say_what_it_carries(job, run)
    assert without_half(job) is job and any("they stay as they are" in warning for warning in run.console.warnings)
