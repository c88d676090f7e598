"""From the model to the graph that the parser reads, where INT8 is not to be put in: FP32, FP16, and models that carry Q/DQ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from onnx2trt.base.errors import AccuracyError
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite import prepare
from onnx2trt.rewrite.activations import name_activations
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages.blank_input import kept_for_blank
from onnx2trt.stages.fp16_guard import choose_fp16
from onnx2trt.stages.ranges import kept_fp32, measure_ranges


@dataclass(frozen=True)
class Choice:
    """A model in one precision, and what was measured to get there. pipeline.int8.Int8Choice is one that can choose again."""

    model: Prepared
    tried: list[dict] | None = None  # choices of FP16 layers, for the result
    about: Calibration | None = None  # for the result, where TensorRT calibrates
    more_exact: Callable[[], Prepared] | None = None  # makes the model anew, should `model` not be accurate enough

    def prepared(self, run: Run) -> Prepared:
        return self.model

    def lower(self, error: AccuracyError, run: Run) -> Prepared:
        """What is more exact; there is nothing else to choose again.

        Raises:
            AccuracyError: `error`, where there is nothing.
        """
        if self.more_exact is None:
            raise error
        run.console.warn(f"{error.message}: built once more with the scales of the file, which FP16 had rounded; layers between are FP32")
        return self.more_exact()


def choose(job: Job, run: Run) -> Choice:
    """FP32: the model as it is; FP16: by constraints (weak typing) or in the graph (strong typing).

    Raises:
        ConversionError: MODEL, USAGE, or VALIDATION where FP16 cannot meet the limit of the accuracy drop.
    """
    return _choose_strong(job, run) if job.strong else _choose_weak(job, run)


def _choose_weak(job: Job, run: Run) -> Choice:
    """The model stays FP32 (but for activations, which get their names); TensorRT's flags lower it, and constraints bind single layers."""
    graph = Graph.from_model(job.model, job.profiles)
    if job.plan.precision == "fp32":
        return Choice(Prepared(graph, changed=job.info.adopted or bool(graph.repairs)))
    named = name_activations(graph, job.plan.layer_precisions)
    in_fp32 = kept_for_blank(job, named, kept_fp32(job, named, measure_ranges(job, named, run)), run)
    choice = choose_fp16(job, named, in_fp32, run)
    weak = prepare.prepare_weak(named, choice.kept_fp32, job.plan.layer_precisions)
    return Choice(replace(weak, changed=weak.changed or job.info.adopted or named is not graph), choice.rows())


def _choose_strong(job: Job, run: Run) -> Choice:
    """The precision is written into the graph."""
    plan = job.plan
    if plan.precision == "fp32":
        graph = Graph.from_model(job.model, job.profiles)
        if not job.fp16_io:
            return Choice(Prepared(graph, changed=job.info.adopted or bool(graph.repairs)))
        return Choice(Prepared(convert(graph, {node.name: "--precision fp32" for node in graph.nodes}, job.fp16_io)))
    graph = prepare.working_graph(job.model, job.profiles, job.info.quantized, plan.fp16_scales, plan.layer_precisions)
    in_fp32 = kept_fp32(job, graph, measure_ranges(job, graph, run))
    if job.info.quantized:
        warn_of_fp32_scales(job, graph, run)
        half = job.fp16_scales(graph)
        prepared = partial(prepare.prepare_quantized, graph, job.profiles, in_fp32, fp16_io=job.fp16_io)
        return Choice(prepared(fp16_scales=half), more_exact=partial(prepared, fp16_scales=False) if half else None)
    choice = choose_fp16(job, graph, kept_for_blank(job, graph, in_fp32, run), run)
    return Choice(prepare.prepare_fp16(graph, choice.kept_fp32, job.fp16_io), choice.rows())


def warn_of_fp32_scales(job: Job, graph: Graph, run: Run) -> None:
    """Where Q/DQ scales should be FP16, and the model's opset does not allow it."""
    if job.plan.fp16_scales and not job.fp16_scales(graph):
        run.console.warn("opset could not be raised to 19: Q/DQ scales stay FP32, and so do the layers between them")
