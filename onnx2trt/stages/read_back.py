"""Stage 'read back': what the engine really is, from the engine where it can be loaded, else from the typed network."""

from __future__ import annotations

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.words import listed
from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BY_NAME, FP16, HALF_TYPES, HalfType
from onnx2trt.model.operators import INTEGER, NO_WORK, QUANTIZERS
from onnx2trt.model.preflight import dtype_name
from onnx2trt.plan.plan import LEAST_FP16_SHARE, Route
from onnx2trt.quant.fp16_segments import unconvertible
from onnx2trt.report.result import Precision
from onnx2trt.rewrite.near_zero import kept_near_zero
from onnx2trt.rewrite.number_formats import FORMATS
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.qdq import layers_by_format
from onnx2trt.rewrite.refused import BY_PARSER, NOT_BUILT
from onnx2trt.rewrite.shares import half_mac_share, mac_share, mac_shares
from onnx2trt.trt import inspector
from onnx2trt.trt.builder import BuiltEngine
from onnx2trt.trt.engine import Engine

ENOUGH = {  # asked for -> what may be delivered; INT8 where the model carries Q/DQ
    "fp32": ("fp32", "fp16", "int8", "fp8"),
    "bf16": ("bf16", "int8", "fp8"),
    "fp16": ("fp16", "int8", "fp8"),
    "int8": ("int8",),
    "fp8": ("fp8",),
}
NAMED = 5  # nodes in one warning
REASONS_SHOWN = 3  # of what is kept in a higher precision, in an error
NO_LAYER = QUANTIZERS | NO_WORK  # operators that are no layers by themselves


class LessThanAsked(ConversionError):
    """An engine in a higher precision than was asked for."""


def _warn_of_ignored(ignored: tuple[tuple[str, str, str], ...], run: Run) -> None:
    """One warning for all nodes (name, asked, got) that were bound to one precision and have another; the result has each."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, asked, got in ignored:
        groups.setdefault((asked, got), []).append(repr(node))
    for (asked, got), nodes in groups.items():
        count = "a node" if len(nodes) == 1 else f"{len(nodes)} nodes"
        run.console.warn(f"TensorRT ignored the constraint of {count}: asked for {asked}, got {got}: {listed(nodes, NAMED)}")


def read_precision(job: Job, prepared: Prepared, built: BuiltEngine, engine: Engine | None, run: Run) -> Precision:
    """The precision that was delivered.

    Args:
        engine: None where it cannot be loaded here.
    """
    layers, source, shares = built.layers, "network", prepared.mac_shares
    lowered = job.plan.precision != "fp32"
    half_share = half_mac_share(prepared.graph, job.profiles, half_type=job.half) if lowered and job.strong else None
    ignored: tuple[tuple[str, str, str], ...] = ()
    if engine is not None:
        found = inspector.layers_of(engine.inspect(), prepared.graph.nodes)
        if found:
            layers, source = inspector.count_layers(found), "inspector"
            ignored = inspector.ignored_constraints(found, prepared.constraints, prepared.half_nodes)
            if job.plan.precision in FORMATS:
                shares = _shares_in(prepared.graph, job, found) or {job.plan.precision: 0.0}
            if lowered and not job.strong:
                half_share = _half_share(prepared.graph, job, found, job.half)
    _warn_of_ignored(ignored, run)
    layers = layers or dict.fromkeys(("int8", "fp16", "fp32"), 0)
    delivered = _delivered(layers, shares, {job.half.name: half_share}, job.plan.min_int8_share)
    return Precision(
        requested=job.plan.precision,
        delivered=delivered if any(layers.values()) or not lowered else None,
        int8_mac_share=shares.get("int8"),
        fp8_mac_share=shares.get("fp8"),
        **{f"{job.half.name}_mac_share": half_share},
        layers=layers,
        layers_source=source,
        fallback=[{"name": name, "precision": kept, "reason": reason} for name, kept, reason in prepared.fallback],
        ignored_constraints=[{"name": node, "asked": asked, "delivered": got} for node, asked, got in ignored],
    )


def judge_precision(job: Job, prepared: Prepared, precision: Precision, run: Run) -> None:
    """A model in which nothing could be of a lower precision has what was asked for, and it is said.

    Raises:
        LessThanAsked: VALIDATION, where less was delivered than was asked for.
    """
    asked, delivered = job.plan.precision, precision.delivered
    if delivered in ENOUGH[asked]:
        return
    because = _nothing_to_lower(job, prepared, precision)
    if not because:
        raise _less_than_asked(job, precision)
    run.console.warn(f"nothing here can run in {asked.upper()}: {because}")


def _nothing_to_lower(job: Job, prepared: Prepared, precision: Precision) -> str:
    """Why no layer could be of a lower precision, whatever the data; empty where one is kept for its range, accuracy, or by the user."""
    layers = precision.layers
    if not any(layers.values()):
        return "no layer computes floating-point results (they are integers, truth values, or values that are only moved)"
    if not job.strong or job.plan.precision not in BY_NAME or layers.get(job.half.name) or layers["int8"]:
        return ""
    by_nature = {**kept_near_zero(prepared.graph, prepared.graph.types(), job.half), **unconvertible(prepared.graph)}
    reasons = {name: reason for name, _, reason in prepared.fallback}
    if any(by_nature.get(name) != reason and not reason.startswith((BY_PARSER, NOT_BUILT)) for name, reason in reasons.items()):
        return ""
    which = "; ".join(dict.fromkeys(reasons.values())) or "operators that give FP32 alone"
    return f"all floating-point layers have to be FP32 ({which})"


def describe_engine(job: Job, engine: Engine, run: Run) -> Precision:
    """The precision of an engine that was built elsewhere; nothing was asked for, so nothing can be missing."""
    graph = job.graph()
    found = inspector.layers_of(engine.inspect(), graph.nodes)
    if not found:
        run.console.warn("the engine was built without detailed verbosity: its layers cannot be read")
        return Precision(None, layers_source="inspector")
    layers, shares = inspector.count_layers(found), {"int8": 0.0, **_shares_in(graph, job, found)}
    halves = {half.name: _half_share(graph, job, found, half) for half in _halves(layers)}
    delivered = _delivered(layers, shares, halves, job.plan.min_int8_share)
    return Precision(None, delivered, shares["int8"], layers, "inspector", fp8_mac_share=shares.get("fp8"), **_named(halves))


def describe_onnx(job: Job, candidate: OnnxCandidate) -> Precision:
    """The precision that a prepared ONNX carries; where it computes in INT8 without Q/DQ, the share of the work is not known."""
    graph = candidate.graph
    types = {name: dtype_name(elem_type) for name, elem_type in graph.types().items()}
    quantized = {node: name for name, nodes in layers_by_format(graph).items() for node in nodes}
    integer = {node.name for node in graph.nodes if node.op_type in INTEGER}
    layers = dict.fromkeys(("int8", "fp16", "fp32"), 0)
    for node in graph.nodes:
        first = next(filter(None, node.output), "")
        precision = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}.get(types.get(first, ""))
        if node.name in quantized or node.name in integer:
            kind = quantized.get(node.name, "int8")
            layers[kind] = layers.get(kind, 0) + 1
        elif precision and node.op_type not in NO_LAYER:
            layers[precision] = layers.get(precision, 0) + 1
    shares = mac_shares(graph, job.profiles) if quantized and not integer else {}
    halves = {half.name: None if integer else half_mac_share(graph, job.profiles, half_type=half) for half in _halves(layers)}
    delivered = "int8" if integer else _delivered(layers, shares, halves, job.plan.min_int8_share)
    return Precision(None, delivered, shares.get("int8"), layers, fp8_mac_share=shares.get("fp8"), **_named(halves))


def _shares_in(graph: Graph, job: Job, found: tuple[inspector.EngineLayer, ...]) -> dict[str, float]:
    """8-bit format -> share of the work that layers of an engine do which read it, of those that there are.

    Of a graph with Q/DQ nothing else is computed in 8 bits: a layer into which TensorRT fuses several nodes reads 8 bits for some of them.
    """
    written = layers_by_format(graph)
    nodes = {name: inspector.nodes_in(found, name) for name in FORMATS}
    if any(written.values()):
        nodes = {name: own & written[name] for name, own in nodes.items()}
    return {name: mac_share(graph, job.profiles, own) for name, own in nodes.items() if own}


def _halves(layers: dict[str, int]) -> tuple[HalfType, ...]:
    """The types of 16 bits to look for: FP16 in any case, BF16 where there is any."""
    return tuple(half for half in HALF_TYPES if half is FP16 or layers.get(half.name))


def _named(shares: dict[str, float | None]) -> dict[str, float | None]:
    """As Precision has them."""
    return {f"{name}_mac_share": share for name, share in shares.items()}


def _half_share(graph: Graph, job: Job, found: tuple[inspector.EngineLayer, ...], half: HalfType) -> float | None:
    """Share of the work of the layers of an engine that read or write such a type; None where they do not say which nodes they compute."""
    if not any(layer.nodes for layer in found):
        return None
    nodes = inspector.nodes_in(found, half.name) | inspector.nodes_in(found, half.name, written=True)
    return half_mac_share(graph, job.profiles, nodes, half)


def _delivered(layers: dict[str, int], shares: dict[str, float], halves: dict[str, float | None], least_share: float) -> str:
    """8 and 16 bits by their shares of the work; 16 bits by those of the layers where there are no convolutions and matrix products.

    Args:
        shares: int8, fp8 -> share of the work.
        halves: fp16, bf16 -> share of the work.
    """
    most = max(shares, key=shares.__getitem__, default=None)
    if most and shares[most] >= least_share:
        return most
    total = max(sum(layers.values()), 1)
    found = {name: layers.get(name, 0) / total if half is None else half for name, half in halves.items()}
    most = max(found, key=found.__getitem__)
    if found[most] + sum(shares.values()) >= LEAST_FP16_SHARE:
        return most
    return "bf16" if layers.get("bf16") and "bf16" not in halves else "fp32"


def _why(precision: Precision) -> str:
    """What is kept in a higher precision, and why, most nodes first."""
    nodes: dict[str, list[str]] = {}
    for entry in precision.fallback:
        nodes.setdefault(entry["reason"], []).append(entry["name"])
    if not nodes:
        return ""
    ranked = sorted(nodes.items(), key=lambda pair: -len(pair[1]))
    said = [f"{names[0]!r}{f' and {len(names) - 1} more' * (len(names) > 1)} ({reason})" for reason, names in ranked[:REASONS_SHOWN]]
    more = "; and others" * (len(ranked) > REASONS_SHOWN)
    return f"Kept in a higher precision: {'; '.join(said)}{more}: all stand under fallback in --json. "


def _less_than_asked(job: Job, precision: Precision) -> LessThanAsked:
    asked, layers, delivered = job.plan.precision, precision.layers, precision.delivered
    share = precision.fp8_mac_share if asked == "fp8" else precision.int8_mac_share
    half_share = getattr(precision, f"{job.half.name}_mac_share")
    counts = ", ".join(f"{count} {name.upper()}" for name, count in layers.items())
    text = ""
    if share is not None:
        text = (
            f", {asked.upper()} share of the multiply-accumulates {share:.1%}, less than --min-int8-share {100 * job.plan.min_int8_share:g}"
        )
    elif half_share is not None:
        text = f", {job.half.label} share of the multiply-accumulates {half_share:.1%}, less than {LEAST_FP16_SHARE:.0%}"
    hint = f"{_why(precision)}Ask for a higher precision, or allow more with --layer-precisions."
    if job.plan.route is Route.WEAK:
        other = f"--layer-precisions '*:{asked}'" if asked in BY_NAME else "--quantization qdq" * job.plan.calibrator
        bound = f", or bind it with {other}" if other else ""
        hint = f"TensorRT times its kernels and found others faster: use --precision {delivered}{bound}."
    return LessThanAsked(
        f"{asked} was asked for, but the engine is {delivered}: layers {counts}{text}", hint=hint, code=ExitCode.VALIDATION
    )
