"""Engines of one model that nobody has built: for what is done with several of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

from helpers import planned, quiet_run, write_conv_net

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.pipeline.attempt import Attempt
from onnx2trt.pipeline.engine import Made
from onnx2trt.pipeline.int8 import Int8Choice
from onnx2trt.plan.precision_arguments import EIGHT_BIT
from onnx2trt.plan.structures import QDQ
from onnx2trt.report.result import Latency, Precision, Result

ENGINE = SimpleNamespace(data=b"engine", runnable=b"engine", nbytes=6)


class Chosen(Int8Choice):
    """A choice of INT8 layers that needed no model."""

    has_attention = is_transformer = False
    graph = None  # that engines are built from
    _without_attention = property(lambda self: self)

    def __init__(self, job, structure=QDQ):
        self._fallback, self.job, self.structure = {}, job, structure

    def prepared(self, run, more=None):
        return SimpleNamespace(graph=self.graph, without=more, structure=self.structure)


def int8_job(tmp_path, monkeypatch, *flags: str):
    """INT8 on a GPU, with an FP16 engine beside it."""
    monkeypatch.chdir(tmp_path)
    write_conv_net(tmp_path, 1)
    job, _ = planned("--precision", "int8", "--calibration-dir", "data", *flags)
    assert job.plan.executes_here and set(job.plan.variants) == {"fp16", "int8"}
    return job


def latency(p50_ms: float) -> Latency:
    return Latency(p50_ms, p50_ms, p50_ms, p50_ms, 100, {"x": [4, 3]}, "the engine")


def made_of(job, precision: str) -> Made:
    job = replace(job, plan=replace(job.plan, precision=precision))
    return Made(job, Chosen(job) if precision in EIGHT_BIT else None, SimpleNamespace(graph=None), ENGINE, {})


def attempt(job, precision: str, structure: str | None = None) -> Attempt:
    result = Result(status="validated", precision=Precision(precision, precision), plan={"max_accuracy_drop": 1.0})
    return Attempt(precision, result, quiet_run(), made_of(job, precision), structure=structure)


def loads(*_args):
    return nullcontext()


def does_not_fit(*_args):
    raise ConversionError("the engine needs 9.1 GB of GPU memory, 8.0 GB are free", code=ExitCode.MACHINE)


def does_not_fit_beside_another():
    """What loads the first engine, and no second one."""
    count = iter(range(100))
    return lambda *_: does_not_fit() if next(count) else nullcontext()


def timed_as(milliseconds: dict[str, float]):
    return lambda job, loaded, warn=None: {name: (latency(milliseconds[name]), [milliseconds[name]] * 3) for name in loaded}
