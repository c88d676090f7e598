"""INT8, or FP8, from the data to the layers: one object that keeps what was measured and decides which layers become that."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode, having_found
from onnx2trt.conversion.int8 import Known, WrittenCache
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.bodies import is_plain
from onnx2trt.model.graph import Graph
from onnx2trt.model.operators import RECURRENT
from onnx2trt.pipeline.int8_fit import make_ready, refuse_too_little
from onnx2trt.pipeline.prepare import Choice, warn_of_fp32_scales
from onnx2trt.pipeline.refused import find_refused, more_refused, say
from onnx2trt.plan import structures
from onnx2trt.plan.structures import Structure
from onnx2trt.quant.fp16_segments import unconvertible
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite import prepare
from onnx2trt.rewrite.attention import attention_layers
from onnx2trt.rewrite.body_layers import body_layers
from onnx2trt.rewrite.einsum import einsums_as_products
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.number_formats import FP8
from onnx2trt.rewrite.placement import readings, tensors
from onnx2trt.rewrite.prepare import Int8Plan, Prepared
from onnx2trt.rewrite.qdq import QUANTIZE_OPSET, Layer, scales_by_range
from onnx2trt.rewrite.refused import NOT_BUILT, Refused
from onnx2trt.rewrite.shares import by_layer, is_transformer, macs_of, operator_share
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.rewrite.strong_typing import strongly_typed
from onnx2trt.stages.blank_input import kept_for_blank
from onnx2trt.stages.fp16_guard import choose_fp16
from onnx2trt.stages.int8 import cache as caches
from onnx2trt.stages.int8 import reuse
from onnx2trt.stages.int8.guard import OF_FP16, Fp16Inaccurate, Guard
from onnx2trt.stages.int8.trials import Trials
from onnx2trt.stages.masks import with_clipped_masks
from onnx2trt.stages.ranges import equalized_ranges, kept_fp32, measure_ranges
from onnx2trt.trt.parser_errors import Refusal
from onnx2trt.trt.plan_text import Kernel


def choose(job: Job, run: Run) -> Choice | Int8Choice:
    """Scales, weights and layers for INT8; by what an earlier run has found, where that is known.

    Raises:
        ConversionError: MODEL, CALIBRATION or USAGE, or VALIDATION where no choice of layers meets the limit of the accuracy drop.
    """
    if job.plan.build.plugins and job.plan.calibrator:
        return _choose_with_plugins(job, run)
    graph = graph_to_quantize(job, run)
    cache = caches.read_cache(job, run)
    with having_found({"calibration": caches.describe(job, caches.method_of(cache))} if cache else {}):
        choice = Int8Choice(job, graph, reuse.look_up(job, graph, cache, run), run)
        choice.choose()
    return choice


def graph_to_quantize(job: Job, run: Run) -> Graph:
    """The model, folded, FP32, of an opset that Q/DQ can be put into, its matrix products written as such, its masks as FP16 holds them.

    Raises:
        ConversionError: MODEL, where its opset cannot be raised.
    """
    source = einsums_as_products(job.graph())
    graph = prepare.working_graph(source, True, job.plan.fp16_scales, job.plan.layer_precisions, job.profiles)
    if job.plan.precision == FP8.name and graph.opset < QUANTIZE_OPSET:
        raise prepare.without_fp8_opset(graph.opset)
    if job.strong:
        warn_of_fp32_scales(job, graph, run)
    return with_clipped_masks(job, graph, run)


def _choose_with_plugins(job: Job, run: Run) -> Choice:
    """TensorRT's calibrator does everything: without TensorRT nothing can be measured of a model with plugins."""
    cache = caches.read_cache(job, run)
    graph = job.graph()
    find_refused(job, graph, None, run)
    weak = prepare.prepare_weak(graph, kept_fp32(job, graph, measure_ranges(job, graph, run)), job.plan.layer_precisions)
    return Choice(replace(weak, scales=cache.scales), about=caches.describe(job, caches.method_of(cache))) if cache else Choice(weak)


class Int8Choice:
    """The decisions for INT8 of one model, and what they were made by; the pipeline asks it for a model, again with fewer INT8 layers."""

    tried = None  # of FP16 layers

    def __init__(self, job: Job, graph: Graph, known: Known, run: Run):
        """Find, or take over, what INT8 layers are made with.

        Args:
            graph: FP32, folded.
            known: what need not be found again.

        Raises:
            ConversionError: MODEL, where no layer is left for INT8; CALIBRATION.
        """
        self.job, self._graph, self._known, self._run = job, graph, known, run
        self.structure = structures.unmeasured(job.plan.calibrator, job.plan.keep_layers)
        self._all_layers = bool(job.plan.structures) and not known.by_rule
        self._by_rule: dict[str, str] = {}  # layers that stay FP16 in some structures
        self.by_plan: dict[str, str] = {}  # layers that stay FP16 for what engines move (pipeline.by_plan)
        self.fp16_kernels: tuple[Kernel, ...] = ()  # of the model in FP16, where that is known
        attentions = attention_layers(graph, job.profiles, job.number_format) if job.plan.attention and known.attention else ()
        self._others = (*attentions, *(body_layers(graph, job.number_format) if job.strong else ()))
        self._refused = find_refused(job, graph, None if job.plan.calibrator else self._form, run)
        maxima = {} if known.found else measure_ranges(job, graph, run)
        self._kept_fp32 = known.found.kept_fp32 if known.found else kept_for_blank(job, graph, kept_fp32(job, graph, maxima), run)
        self._kept_fp32 = {**self._kept_fp32, **self._refused.in_fp32}
        layers, self._kept_fp16 = self._layers(self._kept_fp32, self._refused)
        if self._all_layers:
            self._by_rule = prepare.seldom_faster(graph, job.profiles, layers)
        if not layers:
            raise prepare.nothing_left(self._kept_fp16, job.number_format, operator_share(graph, job.profiles, RECURRENT))
        refuse_too_little(job, graph, layers)
        fitted = make_ready(job, graph, known, layers, scales_by_range(maxima, job.number_format), run)
        self._fitted, silent = fitted.without_int8(self._refused.without_int8).without_silent()
        self._kept_fp16 = {**self._kept_fp16, **silent}
        if self._fitted.graph is not graph and not known.found:  # other ranges than those that decided what stays in FP32
            self._look_at_ranges_again(maxima)
        self._fallback: dict[str, str] = {}
        run.evidence.keep_scales(self._fitted.fit.scales, self._fitted.equalized)

    @property
    def about(self) -> Calibration:
        """For the result."""
        tried = self._guard.tried if "_guard" in self.__dict__ else []
        keys = ("drop_percent", "standard_error", "passed", "seen_in_calibration", "best_scores_points")
        share = f"{self.job.number_format.name}_mac_share"
        rows = [{share: rung.mac_share, **{key: getattr(rung, key) for key in keys if getattr(rung, key) is not None}} for rung in tried]
        return replace(self._fitted.about, tried=rows or None)

    @property
    def _label(self) -> str:
        return self.job.number_format.label

    @property
    def written(self) -> WrittenCache | None:
        """The calibration cache, where this run has written one."""
        return self._fitted.written

    @property
    def can_measure(self) -> bool:
        plan = self.job.plan
        return self._fitted.split is not None and plan.validation.enabled and not plan.build.plugins

    def choose(self) -> None:
        """Which layers go back to FP16 for --max-accuracy-drop.

        Raises:
            ConversionError: VALIDATION, where the limit cannot be met; the message holds what was tried.
        """
        if self._fitted.fp16_fallback is not None:
            self._fallback = self._fitted.fp16_fallback
        elif self._fitted.split is None:
            self._run.console.warn(
                f"without --calibration-dir or --validate no data tells what {self._label} costs: all layers that can be are {self._label}"
            )
        elif self.can_measure:
            self._fallback = self._choose(self.job.plan.validation.max_drop_percent)
        self._remember()

    def lower(self, error: AccuracyError, run: Run) -> Prepared:
        """Fewer INT8 layers, for what missed the limit of the accuracy drop although it had passed before it was built.

        They are chosen for a drop that is smaller by the factor by which it was too large.

        Raises:
            AccuracyError: `error`, where no other choice would be better.
        """
        if not self.can_measure or error.drop_percent is None:
            raise error
        limit = self.job.plan.validation.max_drop_percent
        factor = limit / error.drop_percent
        run.console.warn(f"{error.message}: built once more, with fewer {self._label} layers, for a drop of {factor:.0%} of this one")
        before = self.prepared(run).fallback
        self._fallback = self._choose(self._guard.reached(self._fallback, limit) * factor, or_best=True)
        self._remember()
        again = self.prepared(run)
        if again.fallback == before:
            error.found["calibration"] = self.about
            raise error
        return again

    @property
    def has_attention(self) -> bool:
        """Whether attention is among the INT8 layers."""
        return any(layer.attention and layer.node not in self._fallback for layer in self._fitted.layers)

    @property
    def is_transformer(self) -> bool:
        """Whether its work is attention, and what stands around it."""
        return is_transformer(self._graph, self.job.profiles)

    @cached_property
    def _without_attention(self) -> Int8Choice:
        """The same with all attention in FP16; what had to go back to FP16 beside it may be INT8 then."""
        attention = {layer.node for layer in self._fitted.layers if layer.attention}
        if not attention:
            return self
        other = copy.copy(self)
        other._fitted = replace(self._fitted, layers=tuple(layer for layer in self._fitted.layers if not layer.attention))
        other._fallback = {node: reason for node, reason in self._fallback.items() if node not in attention}
        other.__dict__.pop("_guard", None)
        if self.has_attention and other._fallback and self._fitted.fp16_fallback is None and self.can_measure:
            other._fallback = other._choose(self.job.plan.validation.max_drop_percent)
        return other

    def in_structure(self, structure: Structure) -> Int8Choice:
        """The same choice of the same layers, scales and weights, to be written down in another way."""
        other = copy.copy(self if structure.attention else self._without_attention)
        other.structure = structure
        other.job = replace(self.job, plan=replace(self.job.plan, calibrator=structure.calibrator))
        return other

    def prepared(self, run: Run, more: dict[str, str] | None = None) -> Prepared:
        """The model with the chosen layers in INT8, as the route of the job and the structure have it.

        Args:
            more: nodes that shall be FP16 besides -> reason.
        """
        job, fitted, fit = self.job, self._fitted, self._fitted.fit.with_own_weights(self.structure.own_weights)
        fallback = {**(self._by_rule if self.structure.by_rule else {}), **self.by_plan, **self._fallback, **(more or {})}
        layers = tuple(layer for layer in fitted.layers if fallback.keys().isdisjoint(layer.nodes))
        run.evidence.keep_scales(fitted.fit.scales, fitted.equalized, (name for layer in layers for name in layer.tensors))
        plan = Int8Plan(fitted.graph_for(layers), job.profiles, layers, fit, self._kept_fp32, self._kept_fp16 | fallback)
        others = None if fitted.by_tensorrt else fitted.others
        made = prepare.prepare_calibrated(plan, others, self.structure.bound) if job.plan.calibrator else self._with_qdq(plan)
        return replace(made, held_out=fitted.held_out)

    def in_fp16(self) -> Prepared:
        """The model without INT8, to hold what is INT8 against."""
        fit = Fit({}, fp16_scales=self.job.fp16_scales(self._graph))
        return self._with_qdq(Int8Plan(self._graph, self.job.profiles, (), fit, self._kept_fp32, {}))

    def without_refused(self, error: Refusal, prepared: Prepared, run: Run) -> Prepared:
        """Without INT8 where the parser refuses it, and with the nodes in FP32 that it refuses in FP16.

        Raises:
            Refusal: `error`, where nothing is left to give up.
        """
        known, self._refused = self._refused, more_refused(self.job, self._refused, error, (self._graph, prepared.graph))
        say(self._refused, known, run)
        self._kept_fp32 = {**self._kept_fp32, **self._refused.in_fp32}
        self._kept_fp16 = {**self._kept_fp16, **self._refused.without_int8}
        self._fitted = self._fitted.without_int8({**self._refused.without_int8, **self._refused.in_fp32})
        return self.prepared(run)

    def with_bodies_in_fp32(self) -> Prepared | None:
        """With all control flow in FP32 from now on; None where no body was lower, or nothing else is INT8."""
        bodies = {node.name: NOT_BUILT for node in self._graph.nodes if is_plain(node) and node.name not in self._kept_fp32}
        if not bodies or bodies.keys() >= {layer.outer for layer in self._fitted.layers}:
            return None
        self._kept_fp32 = {**self._kept_fp32, **bodies}
        self._fitted = self._fitted.without_int8(bodies)
        return self.prepared(self._run)

    def _layers(self, kept_fp32: dict[str, str], refused: Refused) -> tuple[tuple[Layer, ...], dict[str, str]]:
        """(layers that may become INT8, the others -> reason)"""
        job, kept = self.job, {**kept_fp32, **refused.without_int8}
        layers, left = prepare.choose_layers(self._graph, kept, job.plan.layer_precisions, self._others, job.number_format)
        if not self._all_layers:
            by_rule = prepare.seldom_faster(self._graph, job.profiles, layers)
            layers, left = tuple(layer for layer in layers if layer.node not in by_rule), {**left, **by_rule}
        return layers, {**left, **refused.without_int8}

    def _form(self, refused: Refused) -> Graph:
        """What will be built, with made-up scales: what the parser says of it hangs on no value."""
        job, graph = self.job, self._graph
        kept_fp32 = {**(unconvertible(graph) if job.strong else {}), **refused.in_fp32}
        layers, left = self._layers(kept_fp32, refused)
        scales = dict.fromkeys(tensors(layers, readings(graph, layers)), 1.0)
        fit = Fit(scales, fp16_scales=job.fp16_scales(graph), without_int8=frozenset(refused.without_int8))
        return self._with_qdq(Int8Plan(graph, job.profiles, layers, fit, kept_fp32, left)).graph

    def _with_qdq(self, plan: Int8Plan) -> Prepared:
        job = self.job
        return prepare.prepare_int8(plan, job.fp16_io, job.one_weight_scale) if job.strong else prepare.prepare_weak_int8(plan)

    def _choose(self, limit: float, or_best: bool = False) -> dict[str, str]:
        try:
            try:
                fallback = self._guard.choose(limit, or_best)
            except Fp16Inaccurate:
                self._keep_for_accuracy(OF_FP16 * limit)
                fallback = self._guard.choose(limit, or_best)
        except ConversionError as error:
            error.found = {"calibration": self.about, **error.found}
            raise
        self._fitted = replace(self._fitted, held_out=self._guard.held_out)
        return fallback

    def _keep_for_accuracy(self, limit: float) -> None:
        """More nodes in FP32, so that what is FP16 keeps to this part of the limit, in %, where that can be."""
        job, run = self.job, self._run
        run.console.info("FP16 alone uses up more than half of --max-accuracy-drop: layers that lose most in it stay in FP32")
        plan = replace(job.plan, precision="fp16", validation=replace(job.plan.validation, max_drop_percent=limit))
        try:
            found = choose_fp16(replace(job, plan=plan), self._graph, self._kept_fp32, run).kept_fp32
        except ConversionError as error:
            if error.code is not ExitCode.VALIDATION:
                raise
            return run.console.debug(f"FP16 cannot be made accurate enough: {error.message}")
        if found.keys() != self._kept_fp32.keys():
            self._kept_fp32 = found
            layers = tuple(layer for layer in self._fitted.layers if found.keys().isdisjoint(layer.nodes))
            self._fitted = replace(self._fitted, layers=layers)
            del self._guard  # what it has measured was of other layers in FP32
            self._guard.fp16_is_known = True

    def _remember(self) -> None:
        """Keep what was found and chosen for other runs, beside the cache that this run has written."""
        kept_fp32 = {node: reason for node, reason in self._kept_fp32.items() if node not in self._refused.in_fp32}  # of this library
        reuse.write_found(self.job, self._graph, self._fitted.written, self._fitted.found(kept_fp32, self._fallback), self._run)

    @cached_property
    def _guard(self) -> Guard:
        job, fitted = self.job, self._fitted
        macs = by_layer(macs_of(fitted.graph, job.profiles), fitted.layers)
        return Guard(job, fitted, macs, Trials(job, fitted, macs, self._simulated, self._run), self._run)

    def _simulated(self, graph: Graph) -> Graph:
        """What a CPU can run of the graph that will be built of one with INT8 layers."""
        if not self.job.strong:
            return graph
        typed = strongly_typed(graph, self._kept_fp32, self._fitted.fit.fp16_scales, one_scale=self.job.one_weight_scale)
        return simulation(typed)

    def _look_at_ranges_again(self, before: dict[str, float]) -> None:
        """What stays in FP32 by the ranges of the equalized model, too."""
        job, fitted = self.job, self._fitted
        maxima = equalized_ranges(job, fitted.equalization, fitted.graph, before, self._run)
        self._kept_fp32 = {**kept_fp32(job, fitted.graph, maxima), **self._kept_fp32}
        layers = tuple(layer for layer in fitted.layers if self._kept_fp32.keys().isdisjoint(layer.nodes))
        self._fitted = replace(fitted, layers=layers, others=scales_by_range(maxima, job.number_format) or fitted.others)
