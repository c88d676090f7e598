"""From the model to the graph that the parser reads, where INT8 is not to be put in: FP32, FP16, and models that carry Q/DQ."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from onnx2trt.base.errors import AccuracyError
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.bodies import is_plain
from onnx2trt.model.graph import Graph
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite import prepare
from onnx2trt.rewrite.activations import name_activations
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages.blank_input import kept_for_blank
from onnx2trt.stages.fp16_guard import choose_fp16
from onnx2trt.stages.ranges import kept_fp32, measure_ranges

NOT_BUILT = "control flow whose bodies TensorRT does not build in FP16"


@dataclass(frozen=True)
class Choice:
    """A model in one precision, and what was measured to get there. pipeline.int8.Int8Choice is one that can choose again."""

    model: Prepared
    tried: list[dict] | None = None  # choices of FP16 layers, for the result
    about: Calibration | None = None  # for the result, where TensorRT calibrates
    source: Graph | None = None  # the FP32 graph that FP16 was written into
    kept_fp32: dict[str, str] = field(default_factory=dict)  # nodes of it -> reason

    def prepared(self, run: Run) -> Prepared:
        return self.model

    def with_bodies_in_fp32(self, job: Job) -> Prepared | None:
        """The same with all control flow in FP32; None where no body is FP16."""
        nodes = self.source.nodes if self.source is not None else ()
        bodies = {node.name: NOT_BUILT for node in nodes if is_plain(node) and node.name not in self.kept_fp32}
        return prepare.prepare_fp16(self.source, {**self.kept_fp32, **bodies}, job.fp16_io) if bodies else None

    def lower(self, error: AccuracyError, run: Run) -> Prepared:
        """There is nothing to choose again.

        Raises:
            AccuracyError: `error`.
        """
        raise error


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
        return Choice(Prepared(graph, changed=job.rewritten or bool(graph.repairs)))
    named = name_activations(graph, job.plan.layer_precisions)
    in_fp32 = kept_for_blank(job, named, kept_fp32(job, named, measure_ranges(job, named, run)), run)
    choice = choose_fp16(job, named, in_fp32, run)
    weak = prepare.prepare_weak(named, choice.kept_fp32, job.plan.layer_precisions)
    return Choice(replace(weak, changed=job.rewritten or weak.changed or named is not graph), choice.rows())


def _choose_strong(job: Job, run: Run) -> Choice:
    """The precision is written into the graph."""
    plan = job.plan
    if plan.precision == "fp32":
        graph = Graph.from_model(job.model, job.profiles)
        if not job.fp16_io:
            return Choice(Prepared(graph, changed=job.rewritten or bool(graph.repairs)))
        return Choice(Prepared(convert(graph, {node.name: "--precision fp32" for node in graph.nodes}, job.fp16_io)))
    graph = prepare.working_graph(job.model, job.profiles, job.info.quantized, plan.fp16_scales, plan.layer_precisions)
    in_fp32 = kept_fp32(job, graph, measure_ranges(job, graph, run))
    if job.info.quantized:
        warn_of_fp32_scales(job, graph, run)
        return Choice(prepare.prepare_quantized(graph, job.profiles, in_fp32, job.fp16_scales(graph), job.fp16_io))
    choice = choose_fp16(job, graph, kept_for_blank(job, graph, in_fp32, run), run)
    prepared = prepare.prepare_fp16(graph, choice.kept_fp32, job.fp16_io)
    return Choice(prepared, choice.rows(), source=graph, kept_fp32=choice.kept_fp32)


def warn_of_fp32_scales(job: Job, graph: Graph, run: Run) -> None:
    """Where Q/DQ scales should be FP16, and the model's opset does not allow it."""
    if job.plan.fp16_scales and not job.fp16_scales(graph):
        run.console.warn("opset could not be raised to 19: Q/DQ scales stay FP32, and so do the layers between them")
