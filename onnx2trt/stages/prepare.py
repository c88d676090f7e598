"""Stage 'prepare': the model as the parser shall read it, in the asked precision, and what TensorRT shall keep."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode
from onnx2trt.base.model_info import ModelInfo
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.datasets import range_feeds
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import absolute_maxima
from onnx2trt.plan.plan import Plan, Route
from onnx2trt.rewrite import prepare
from onnx2trt.rewrite.activations import name_activations
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.qdq import scales_by_range
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.rewrite.strong_typing import strongly_typed
from onnx2trt.stages import fp16_guard as halving
from onnx2trt.stages.int8 import calibrate as calibrating
from onnx2trt.stages.int8 import quantize as quantizing
from onnx2trt.stages.int8 import reuse as reusing
from onnx2trt.stages.int8.guard import Choice
from onnx2trt.stages.int8.quantize import Fitted


def prepare_model(job: Job, run: Run) -> Prepared:
    """FP32: the model as it is; FP16 and INT8: by constraints (weak typing) or in the graph (strong typing).

    Raises:
        ConversionError: MODEL, CALIBRATION or USAGE.
    """
    _say_what_it_carries(job.plan, job.info, run)
    _check_io_types(job.plan, job.info)
    prepared = _prepare_weak(job, run) if job.plan.route is Route.WEAK else _prepare_strong(job, run)
    for warning in prepared.graph.repairs:
        run.console.warn(warning)
    return prepared


def _prepare_weak(job: Job, run: Run) -> Prepared:
    """The model stays FP32 (but for activations, which get their names); TensorRT's flags lower it, and our constraints bind single layers."""
    plan, model, info, profiles = job.plan, job.model, job.info, job.profiles
    graph = Graph.from_model(model, profiles)
    if plan.precision == "fp32":
        return Prepared(graph, changed=bool(graph.repairs))
    if plan.precision != "int8" or info.quantized:
        named = name_activations(graph, plan.layer_precisions)
        kept_fp32 = halving.choose_fp16(job, named, _find_kept(job, named, run, structural=False), run)
        weak = prepare.prepare_weak(named, kept_fp32, plan.layer_precisions)
        return replace(weak, changed=weak.changed or named is not graph)
    if plan.build.plugins and plan.calibrator:  # nothing can be measured without TensorRT
        cache = calibrating.read_cache(job, run)
        weak = prepare.prepare_weak(graph, _find_kept(job, graph, run, structural=False), plan.layer_precisions)
        return replace(weak, scales=cache.scales if cache else None)
    graph, _ = prepare.working_graph(model, profiles, quantize=True, half=False, overrides=plan.layer_precisions)

    def make(fitted: Fitted, kept_fp32: dict[str, str], left: dict[str, str]) -> Prepared:
        if plan.calibrator:
            others = None if fitted.native else fitted.others
            return prepare.prepare_calibrated(fitted.graph, profiles, kept_fp32, fitted.fit, fitted.layers, left, others, plan.keep_layers)
        return prepare.prepare_weak_int8(fitted.graph, profiles, kept_fp32, fitted.fit, fitted.layers, left)

    return _quantize(job, graph, run, False, make)


def _prepare_strong(job: Job, run: Run) -> Prepared:
    """The precision is written into the graph."""
    plan, model, info, profiles = job.plan, job.model, job.info, job.profiles
    fp16_io = frozenset(name for name, precision in plan.io_types if precision == "fp16")
    if plan.precision == "fp32":
        graph = Graph.from_model(model, profiles)
        if not fp16_io:
            return Prepared(graph, changed=bool(graph.repairs))
        everything = {node.name: "--precision fp32" for node in graph.nodes}
        return Prepared(convert(graph, everything, fp16_io))
    quantize = plan.precision == "int8"
    graph, half = prepare.working_graph(model, profiles, quantize or info.quantized, plan.half_scales, plan.layer_precisions)
    if plan.half_scales and not half and (quantize or info.quantized):
        run.console.warn("opset could not be raised to 19: Q/DQ scales stay FP32, and so do the layers between them")

    def make(fitted: Fitted, kept_fp32: dict[str, str], left: dict[str, str]) -> Prepared:
        return prepare.prepare_int8(fitted.graph, profiles, kept_fp32, fitted.fit, fitted.layers, left, half, fp16_io)

    if quantize and not info.quantized:
        return _quantize(job, graph, run, half, make)
    kept_fp32 = _find_kept(job, graph, run, structural=True)
    if info.quantized:
        return prepare.prepare_quantized(graph, profiles, kept_fp32, half, fp16_io)
    return prepare.prepare_half(graph, halving.choose_fp16(job, graph, kept_fp32, run), fp16_io)


def prepare_again(job: Job, prepared: Prepared, error: AccuracyError, run: Run) -> Prepared:
    """Fewer INT8 layers, for what missed the limit of the accuracy drop although it had passed before it was built.

    They are chosen for a drop that is smaller by the factor by which it was too large.

    Raises:
        AccuracyError: `error`, where no other choice would be better.
    """
    if prepared.again is None or error.drop_percent is None:
        raise error
    factor = job.plan.validation.max_drop_percent / error.drop_percent
    run.console.warn(f"{error.message}: built once more, with fewer INT8 layers, for a drop of {factor:.0%} of this one")
    again = prepared.again(factor)
    if again.fallback == prepared.fallback:
        raise error
    return again


def _quantize(
    job: Job,
    graph: Graph,
    run: Run,
    half: bool,
    make: Callable[[Fitted, dict[str, str], dict[str, str]], Prepared],
) -> Prepared:
    """Fit, choose the INT8 layers, and make what shall be built of it; all of it by what an earlier run found, where that is known.

    Args:
        make: of (graph and INT8 layers, nodes kept in FP32 -> reason, layers that could be INT8 but are not -> reason).
    """
    strong = job.plan.route is Route.STRONG
    known = reusing.look_up(job, graph, run)
    maxima = {} if known.found else _measure_ranges(job, graph, run)
    kept_fp32 = known.found.kept_fp32 if known.found else _choose_kept(job, graph, maxima, strong)
    layers, left = prepare.choose_layers(graph, job.profiles, kept_fp32, job.plan.layer_precisions)
    fitted = quantizing.fit(job, graph, layers, run, half, known, scales_by_range(maxima))
    if fitted.graph is not graph and not known.found:  # other ranges than those that decided what stays in FP32
        maxima = _measure_ranges(job, fitted.graph, run, of=" of the equalized model")
        kept_fp32 = {**_choose_kept(job, fitted.graph, maxima, strong), **kept_fp32}
        layers = tuple(layer for layer in layers if layer.node not in kept_fp32)
        fitted = replace(fitted, layers=layers, others=scales_by_range(maxima) or fitted.others)
    equalized = bool(fitted.equalization.shifts or fitted.equalization.scales)
    run.evidence.keep_scales(fitted.fit.scales, equalized)
    choice = Choice(job, fitted, run, half, lambda g: simulation(strongly_typed(g, kept_fp32, half)) if strong else g)

    def prepared(fp16_fallback: dict[str, str]) -> Prepared:
        layers = tuple(layer for layer in fitted.layers if layer.node not in fp16_fallback)
        run.evidence.keep_scales(fitted.fit.scales, equalized, (layer.activation for layer in layers))
        made = make(replace(fitted, graph=fitted.graph_for(layers), layers=layers), kept_fp32, left | fp16_fallback)
        again = (lambda factor: remembered(choice.choose_more_fallback(factor))) if choice.can_measure else None
        return replace(made, without=lambda more: prepared({**fp16_fallback, **more}), again=again)

    def remembered(fp16_fallback: dict[str, str]) -> Prepared:
        reusing.write_found(job, graph, fitted.written, fitted.found(kept_fp32, fp16_fallback), run)
        return prepared(fp16_fallback)

    return remembered(choice.choose_fallback())


def _find_kept(job: Job, graph: Graph, run: Run, structural: bool) -> dict[str, str]:
    """The nodes that stay in FP32, by measured ranges and by the user's wishes."""
    return _choose_kept(job, graph, _measure_ranges(job, graph, run), structural)


def _choose_kept(job: Job, graph: Graph, maxima: dict[str, float], structural: bool) -> dict[str, str]:
    plan, made_up = job.plan, job.data.any().kind == "synthetic"
    return choose_kept_fp32(graph, maxima if plan.keep_layers else {}, plan.layer_precisions, plan.keep_layers, structural, made_up)


def _measure_ranges(job: Job, graph: Graph, run: Run, of: str = "") -> dict[str, float]:
    """Tensor -> max |x|; empty where nothing asks for it, or it cannot be measured.

    Args:
        of: whose ranges, where it is not the model as it came; for the user.
    """
    plan, data = job.plan, job.data
    if plan.build.plugins:
        run.console.warn("with --plugins ONNX Runtime cannot run the model: no ranges are measured, no layer is kept in FP32 for them")
        return {}
    if not (plan.keep_layers or plan.calibrator or plan.calibration.cache):
        return {}
    source = data.any()
    with run.stage("ranges", f"measuring ranges{of} on {source.origin}"):
        maxima = absolute_maxima(graph, job.profiles, range_feeds(data, run))
    if source.kind == "synthetic":
        run.console.warn("ranges were measured on synthetic data; --calibration-dir or --test-image gives real ones")
    return maxima


def _say_what_it_carries(plan: Plan, info: ModelInfo, run: Run) -> None:
    if info.half and plan.precision == "fp32":
        raise ConversionError(
            f"{info.path} carries FP16 tensors already, so an FP32 engine cannot be made of it",
            hint="Use --precision fp16, or export the model in FP32.",
            code=ExitCode.MODEL,
        )
    if info.half:
        run.console.warn("the model carries FP16 tensors already; they stay as they are")
    if info.quantized:
        data = ", calibration data only for the ranges of the other layers" if plan.calibration.directory else ""
        run.console.warn(f"the model carries Q/DQ already; its own scales are used{data}")
        return
    cache = plan.calibration.cache
    if plan.precision == "int8" and not plan.calibration.directory and not (cache and os.path.exists(cache)):
        raise ConversionError(
            "--precision int8 needs calibration data: neither --calibration-dir nor an existing --calibration-cache was given",
            hint="Give --calibration-dir a folder of typical images (some hundred), or of .npz files.",
            code=ExitCode.CALIBRATION,
        )


def _check_io_types(plan: Plan, info: ModelInfo) -> None:
    ends = {spec.name: spec.dtype for spec in (*info.inputs, *info.outputs)}
    for name, precision in plan.io_types:
        if ends.get(name) not in ("float32", "float16"):
            known = ", ".join(f"{end} ({dtype})" for end, dtype in ends.items())
            raise ConversionError(
                f"--io-types {name}:{precision}: {name!r} is no floating-point input or output; the model has {known}", code=ExitCode.USAGE
            )
        if ends[name] == "float16" and precision == "fp32":
            raise ConversionError(f"--io-types {name}:fp32: the model itself declares {name!r} as float16", code=ExitCode.USAGE)
