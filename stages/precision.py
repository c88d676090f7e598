"""Stage 'prepare': the model as the parser shall read it, in the asked precision (strong typing)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import onnx

import calibration
from core import calibration_cache
from core.calibration_cache import Identity
from core.errors import ConversionError, ExitCode
from core.model_info import ModelInfo, Profile
from core.plan import Plan
from graph import fp16, prepare
from graph.graph import Graph
from graph.guard import choose_scales
from graph.observe import absolute_maxima, observe
from graph.prepare import Prepared
from stages.data import Data, Feeds, range_feeds
from stages.run import Run

METHOD_SAMPLES = 8  # on which calibration methods are compared


@dataclass(frozen=True)
class Scales:
    """Activation scales and where they come from, as in the result."""

    by_tensor: dict[str, float]
    method: str
    samples_used: int | None  # None: from a cache
    samples_skipped: int
    cache: str | None
    seconds: float
    peak_memory_mb: float | None


def prepare_model(plan: Plan, model: onnx.ModelProto, info: ModelInfo, profiles: tuple[Profile, ...], data: Data, run: Run) -> Prepared:
    """FP32: the model as it is; FP16 and INT8: converted, with what must stay higher found by measurement.

    Raises:
        ConversionError: MODEL, CALIBRATION or USAGE.
    """
    _say_what_it_carries(plan, info, run)
    if plan.precision == "fp32":
        graph = Graph.from_model(model, profiles)
        _say(graph.repairs, run)
        return Prepared(graph, changed=bool(graph.repairs))
    quantize = plan.precision == "int8"
    graph, half = prepare.working_graph(model, profiles, quantize or info.quantized)
    _say(graph.repairs, run)
    holds = _find_holds(plan, graph, profiles, data, run)
    if info.quantized:
        return prepare.prepare_quantized(graph, profiles, holds)
    if not quantize:
        return prepare.prepare_half(graph, holds)
    layers, left = prepare.choose_layers(graph, profiles, holds, plan.layer_precisions)
    scales = find_scales(plan, graph, info, profiles, layers, data, run, half)
    run.result["calibration"] = {
        "method": scales.method,
        "samples_used": scales.samples_used,
        "samples_skipped": scales.samples_skipped,
        "cache": scales.cache,
        "seconds": round(scales.seconds, 3),
        "peak_memory_mb": scales.peak_memory_mb,
    }
    prepared = prepare.prepare_int8(graph, profiles, holds, scales.by_tensor, layers, left, half)
    _say(prepared.warnings, run)
    return prepared


def _say(warnings: tuple[str, ...], run: Run) -> None:
    for warning in warnings:
        run.console.warn(warning)


def _find_holds(plan: Plan, graph: Graph, profiles: tuple[Profile, ...], data: Data, run: Run) -> dict[str, str]:
    """The nodes that stay in FP32, by measured ranges and by the user's wishes."""
    maxima: dict[str, float] = {}
    if plan.hold_layers:
        source = data.any()
        with run.stage("ranges", f"measuring ranges on {source.origin}"):
            maxima = absolute_maxima(graph, profiles, range_feeds(data, run))
        if source.kind == "synthetic":
            run.console.warn("ranges were measured on synthetic data; --calibration-dir or --test-image gives real ones")
    return fp16.choose_holds(graph, maxima, plan.layer_precisions, plan.hold_layers)


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
        run.console.warn(
            "the model carries Q/DQ already; its own scales are used"
            + (", calibration data only for the ranges of the other layers" if plan.calibration.directory else "")
        )
    elif (
        plan.precision == "int8"
        and not plan.calibration.directory
        and not (plan.calibration.cache and os.path.exists(plan.calibration.cache))
    ):
        raise ConversionError(
            "--precision int8 needs calibration data: neither --calibration-dir nor an existing --calibration-cache was given",
            hint="Give --calibration-dir a folder of typical pictures (some hundred), or of .npz files.",
            code=ExitCode.CALIBRATION,
        )


def find_scales(
    plan: Plan, graph: Graph, info: ModelInfo, profiles: tuple[Profile, ...], layers, data: Data, run: Run, half: bool
) -> Scales:
    """From the cache where it exists, else by calibration, which writes the cache where one was asked for.

    Raises:
        ConversionError: CALIBRATION.
    """
    names = list(dict.fromkeys(layer.activation for layer in layers))
    now = _identity(plan, info, data)
    path = plan.calibration.cache
    if path and os.path.exists(path):
        cache = calibration_cache.read(path)
        warning = calibration_cache.check_identity(cache, now, plan.calibration.accept_stale)
        if warning:
            run.console.warn(warning)
        missing = [name for name in names if name not in cache.scales]
        if missing:
            raise ConversionError(
                f"calibration cache {path} has no scale for {len(missing)} of {len(names)} tensors of this model, first {missing[0]!r}",
                hint="It belongs to another model: calibrate with --calibration-dir and another --calibration-cache.",
                code=ExitCode.CALIBRATION,
            )
        method = (cache.identity and cache.identity.chosen) or cache.algorithm
        return Scales(cache.scales, method, None, 0, path, 0.0, None)
    return _calibrate(plan, graph, profiles, layers, names, data, run, half, now)


def _calibrate(
    plan: Plan, graph: Graph, profiles, layers, names: list[str], data: Data, run: Run, half: bool, identity: Identity
) -> Scales:
    feeds = Feeds(data.reader, data.calibration, run, "calibrating")
    collector = calibration.Collector()
    with run.stage("calibrate", f"calibrating on {len(data.calibration.paths)} samples of {data.calibration.origin}"):
        observe(graph, profiles, names, feeds, collector.visit)
        used, skipped = feeds.used, len(feeds.skipped)
        method = plan.calibration.method
        candidates = {name: collector.scales(name) for name in (calibration.METHODS if method == "auto" else (method,))}
        if method == "auto":
            few = Feeds(data.reader, data.calibration.at_most(METHOD_SAMPLES), run, "comparing methods")
            method, noise = choose_scales(graph, layers, candidates, few, half)
            run.console.debug("noise share by method: " + ", ".join(f"{name} {share:.4f}" for name, share in noise.items()))
    scales = candidates[method]
    path = plan.calibration.cache
    if path:
        text = calibration_cache.to_text(scales, method)
        run.write_now(path, text.encode("utf-8", "surrogateescape"))
        identity = replace(identity, chosen=method)
        run.write_now(calibration_cache.side_file(path), calibration_cache.side_text(text, identity).encode())
    return Scales(scales, method, used, skipped, path, run.console.timings["calibrate"], peak_memory_mb())


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, in MB of 10**6 bytes."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def _identity(plan: Plan, info: ModelInfo, data: Data) -> Identity:
    chosen = data.calibration
    return Identity(
        model_sha256=info.sha256,
        data_sha256=calibration_cache.hash_files(chosen.paths, chosen.origin) if chosen else None,
        samples=len(chosen.paths) if chosen else None,
        preprocessing=data.reader.preprocessing.describe() if data.reader.preprocessing else None,
        method=plan.calibration.method,
    )
