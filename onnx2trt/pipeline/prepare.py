"""From the model to the graph that the parser reads, where INT8 is not to be put in: FP32, FP16, BF16, and models that carry Q/DQ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from onnx2trt.base.errors import AccuracyError
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.bodies import is_plain
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import FP16
from onnx2trt.pipeline.refused import find_refused, more_refused, say
from onnx2trt.plan.plan import Route
from onnx2trt.quant.fp16_segments import unconvertible
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite import prepare
from onnx2trt.rewrite.activations import name_activations
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.in_place import assigned_by_slices
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.refused import NOT_BUILT, Refused
from onnx2trt.stages.blank_input import kept_for_blank
from onnx2trt.stages.fp16_guard import choose_fp16
from onnx2trt.stages.masks import with_clipped_masks
from onnx2trt.stages.ranges import kept_fp32, measure_ranges, offer_bf16
from onnx2trt.trt.parser_errors import Refusal


def bound_to_half(job: Job, prepared: Prepared) -> Prepared | None:
    """The same network with all layers that are free bound to FP16, for where TensorRT found FP32 faster for them.

    Returns:
        None where no layer is free, or --precision-constraints is none.
    """
    plan = job.plan
    free = frozenset(node.name for node in prepared.graph.nodes) - prepared.half_nodes - prepared.constraints.keys()
    if plan.route is not Route.WEAK or plan.precision != FP16.name or plan.build.precision_constraints == "none" or not free:
        return None
    return replace(prepared, half_nodes=prepared.half_nodes | free)


@dataclass(frozen=True)
class Choice:
    """A model in one precision, and what was measured to get there. pipeline.int8.Int8Choice is one that can choose again."""

    model: Prepared
    tried: list[dict] | None = None  # choices of FP16 layers, for the result
    about: Calibration | None = None  # for the result, where TensorRT calibrates
    more_exact = None  # HalfChoice may know a form that is

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
        return self.more_exact(run)

    def without_refused(self, error: Refusal, prepared: Prepared, run: Run) -> Prepared:
        """There is no other form of it.

        Raises:
            Refusal: `error`.
        """
        raise error


@dataclass
class HalfChoice:
    """FP16 or BF16 written into the graph, but for what stays in FP32, of which the parser may make more."""

    job: Job
    graph: Graph  # FP32
    kept_fp32: dict[str, str]  # node -> reason
    refused: Refused
    tried: list[dict] | None = None
    exact_scales: bool = False  # of the model's own Q/DQ: in FP32
    about = None

    lower = Choice.lower

    @property
    def more_exact(self) -> Callable[[Run], Prepared] | None:
        """Makes the model anew with its own scales in FP32, where FP16 has rounded them."""
        rounded = self.job.info.quantized and self.job.fp16_scales(self.graph) and not self.exact_scales
        return self._with_exact_scales if rounded else None

    def _with_exact_scales(self, run: Run) -> Prepared:
        self.exact_scales = True
        return self.prepared(run)

    def prepared(self, run: Run) -> Prepared:
        return in_half(self.job, self.graph, {**self.kept_fp32, **self.refused.in_fp32}, self.exact_scales)

    def with_bodies_in_fp32(self) -> Prepared | None:
        """With all control flow in FP32 from now on; None where no body is FP16."""
        bodies = {node.name: NOT_BUILT for node in self.graph.nodes if is_plain(node) and node.name not in self.kept_fp32}
        self.kept_fp32 = {**bodies, **self.kept_fp32}
        return in_half(self.job, self.graph, {**self.kept_fp32, **self.refused.in_fp32}, self.exact_scales) if bodies else None

    def without_refused(self, error: Refusal, prepared: Prepared, run: Run) -> Prepared:
        """With the nodes in FP32 that the parser refuses.

        Raises:
            Refusal: `error`, where nothing is left to give up.
        """
        known, self.refused = self.refused, more_refused(self.job, self.refused, error, (self.graph, prepared.graph))
        say(self.refused, known, run)
        return self.prepared(run)


def in_half(job: Job, graph: Graph, kept_fp32: dict[str, str], exact_scales: bool = False) -> Prepared:
    """FP16 or BF16 for all of an FP32 graph that is not kept in FP32; INT8 where the model carries Q/DQ itself.

    Args:
        exact_scales: Q/DQ scales stay FP32, as do the layers between them.
    """
    if job.info.quantized:
        fp16_scales = job.fp16_scales(graph) and not exact_scales
        return prepare.prepare_quantized(graph, job.profiles, kept_fp32, fp16_scales, job.fp16_io, job.half)
    return prepare.prepare_half(graph, kept_fp32, job.fp16_io, job.half)


def choose(job: Job, run: Run) -> Choice | HalfChoice:
    """FP32: the model as it is; FP16 and BF16: by constraints (weak typing) or in the graph (strong typing).

    Raises:
        ConversionError: MODEL, USAGE, or VALIDATION where FP16 or BF16 cannot meet the limit of the accuracy drop.
    """
    return _choose_strong(job, run) if job.strong else _choose_weak(job, run)


def _choose_weak(job: Job, run: Run) -> Choice:
    """The model stays FP32 (what _named makes of it); TensorRT's flags lower it, and constraints bind single layers."""
    if job.plan.precision == "fp32":
        return Choice(_in_fp32(job))
    graph = job.graph()
    named = _named(job, graph, run)
    find_refused(job, named, None, run)
    in_fp32 = kept_fp32(job, named, measure_ranges(job, named, run))
    offer_bf16(job, named, in_fp32, run)
    choice = choose_fp16(job, named, kept_for_blank(job, named, in_fp32, run), run)
    return Choice(_weakly_typed(job, named, choice.kept_fp32, named is not graph), choice.rows())


def _named(job: Job, graph: Graph, run: Run) -> Graph:
    """What a weakly typed network of 16 bits is built from."""
    overrides = job.plan.layer_precisions
    named = name_activations(prepare.raised_for(assigned_by_slices(graph, job.profiles, overrides), job.half), overrides)
    return with_clipped_masks(job, named, run)


def _in_fp32(job: Job) -> Prepared:
    graph = job.graph()
    if job.strong and job.fp16_io:
        return Prepared(convert(graph, {node.name: "--precision fp32" for node in graph.nodes}, job.fp16_io))
    return Prepared(graph, changed=job.rewritten or bool(graph.repairs))


def _weakly_typed(job: Job, named: Graph, kept_fp32: dict[str, str], renamed: bool) -> Prepared:
    weak = prepare.prepare_weak(named, kept_fp32, job.plan.layer_precisions)
    return replace(weak, changed=job.rewritten or weak.changed or renamed)


def prepare_again(job: Job, kept_fp32: dict[str, str], exact_scales: bool, run: Run) -> Prepared:
    """A model in FP32 or FP16, or one that carries Q/DQ, as an earlier run has prepared one of the same network; nothing is measured.

    Args:
        kept_fp32: node -> reason, as that run has decided.
        exact_scales: see in_half.
    """
    if job.plan.precision == "fp32":
        return _in_fp32(job)
    if job.strong:
        return in_half(job, _to_lower(job, run), kept_fp32, exact_scales)
    graph = job.graph()
    named = _named(job, graph, run)
    return _weakly_typed(job, named, kept_fp32, named is not graph)


def _to_lower(job: Job, run: Run) -> Graph:
    """The folded FP32 graph that the precision is written into."""
    graph = prepare.working_graph(job.graph(), job.info.quantized, job.plan.fp16_scales, job.plan.layer_precisions, job.profiles)
    return with_clipped_masks(job, prepare.raised_for(graph, job.half), run)


def _choose_strong(job: Job, run: Run) -> Choice | HalfChoice:
    """The precision is written into the graph."""
    if job.plan.precision == "fp32":
        return Choice(_in_fp32(job))
    graph = _to_lower(job, run)
    others = unconvertible(graph)
    refused = find_refused(job, graph, lambda known: in_half(job, graph, {**others, **known.in_fp32}).graph, run)
    in_fp32 = kept_fp32(job, graph, measure_ranges(job, graph, run))
    offer_bf16(job, graph, in_fp32, run)
    in_fp32 = {**in_fp32, **refused.in_fp32}
    if job.info.quantized:
        warn_of_fp32_scales(job, graph, run)
        return HalfChoice(job, graph, in_fp32, refused)
    choice = choose_fp16(job, graph, kept_for_blank(job, graph, in_fp32, run), run)
    return HalfChoice(job, graph, choice.kept_fp32, refused, choice.rows())


def warn_of_fp32_scales(job: Job, graph: Graph, run: Run) -> None:
    """Where Q/DQ scales should be FP16, and the model's opset does not allow it."""
    if job.plan.fp16_scales and job.half is FP16 and not job.fp16_scales(graph):
        run.console.warn("opset could not be raised to 19: Q/DQ scales stay FP32, and so do the layers between them")
