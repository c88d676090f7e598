"""The graph that a strongly typed network is built from: precision decided layer by layer, with the reason for each exception."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import Profile
from onnx2trt.base.words import listed
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BF16, FP16, HalfType
from onnx2trt.model.nodes import all_nodes, attribute, subgraphs
from onnx2trt.model.operators import WEIGHTED
from onnx2trt.rewrite import placement, qdq
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.fold import fold
from onnx2trt.rewrite.gelu import gelus_by_tanh
from onnx2trt.rewrite.in_place import assigned_by_slices
from onnx2trt.rewrite.layer_norms import name_layer_norms
from onnx2trt.rewrite.number_formats import INT8, NumberFormat
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.shares import by_layer, mac_shares, macs_of
from onnx2trt.rewrite.strong_typing import strongly_typed

OVERRIDE = "--layer-precisions"  # how the reason of what the user has asked for begins
LEAST_OTHER_WORK = 0.5  # share of the work outside depthwise convolutions from which on these are left out
SHAPES_OPSET = 17  # the newest that TensorRT 8.6 reads; before 15, onnx does not infer the shapes behind a Softmax that was raised
REASONS = 3  # in a message
MOST_OF_ALL = 0.5  # share of the work from which on it is said who does it
RECURRENT_LAYERS = "recurrent layers (LSTM, GRU, RNN)"
BF16_OPSET = 13  # Cast knows BF16 from there on
SMALLEST_INT8_SHARE = 1e-4  # of all multiply-accumulates; for less, converting to INT8 and back costs more than it saves


@dataclass(frozen=True)
class Prepared:
    """A graph ready for the parser, and what was decided about its layers."""

    graph: Graph
    fallback: tuple[tuple[str, str, str], ...] = ()  # layers in a higher precision than asked for: (node, precision, reason)
    mac_shares: dict[str, float] = field(default_factory=dict)  # 8-bit format -> share of all multiply-accumulates (model.work.count_macs)
    changed: bool = True  # False: the model as it was given
    constraints: dict[str, str] = field(default_factory=dict)  # node -> fp32 | fp16 | bf16 | int8, to set on a weakly typed network
    half_outputs: frozenset[str] = frozenset()  # nodes whose results a weakly typed network shall keep in FP16
    half_nodes: frozenset[str] = frozenset()  # nodes that it shall not compute in INT8, but in FP16
    scales: dict[str, float] | None = None  # for TensorRT's calibrator; None: none, or it shall find its own
    equivalent: Graph | None = None  # Q/DQ model of what TensorRT's calibrator makes of `graph`
    held_out: dict[str, float] = field(default_factory=dict)  # output -> drop in % on samples that INT8 was made without, where measured

    @property
    def int8_mac_share(self) -> float | None:
        """None where there is no INT8, and none was asked for."""
        return self.mac_shares.get(INT8.name)


@dataclass(frozen=True)
class Int8Plan:
    """What was decided about the layers of one FP32 graph, before it is written down for a route."""

    graph: Graph
    profiles: tuple[Profile, ...]
    layers: tuple[qdq.Layer, ...]  # to become INT8
    fit: Fit
    kept_fp32: dict[str, str]  # node -> reason
    kept_fp16: dict[str, str]  # layers that could be INT8, but are not -> reason

    @property
    def usable(self) -> tuple[qdq.Layer, ...]:
        """Those of the layers that have a scale."""
        return tuple(layer for layer in self.layers if self.fit.has_scales(layer))

    @property
    def in_fp16(self) -> dict[str, str]:
        """Layers that could be INT8 and end in FP16 -> reason."""
        silent = {layer.node: without_scale(layer) for layer in self.layers if not self.fit.has_scales(layer)}
        return {name: reason for name, reason in {**self.kept_fp16, **silent}.items() if name not in self.kept_fp32}

    @property
    def fallback(self) -> tuple[tuple[str, str, str], ...]:
        """As in Prepared."""
        return _kept(self.graph, self.in_fp16, "fp16") + _kept(self.graph, self.kept_fp32, "fp32")

    def quantized(self) -> Graph:
        """The graph with Q/DQ."""
        return self.fit.apply(self.graph, self.usable)


def without_scale(layer: qdq.Layer) -> str:
    """Why a layer that could be INT8 has no scale, in words."""
    if layer.outer:
        return "always zero in calibration, or in a branch that never ran there"
    return "attention without scales for all that it reads" if layer.attention else "always zero in calibration"


def working_graph(
    graph: Graph,
    quantize: bool,
    fp16_scales: bool,
    overrides: tuple[tuple[str, str], ...] = (),
    profiles: tuple[Profile, ...] = (),
) -> Graph:
    """The folded FP32 graph that precision is written into; the model itself is not changed.

    Args:
        quantize: Q/DQ will be put in, or are there.
        fp16_scales: their scales shall be FP16, which takes opset 19; where the model cannot be raised to that, it has an older one.
        overrides: (pattern, precision) of --layer-precisions; nodes that they name stay.
        profiles: which may fix sizes that the model leaves open.
    """
    once = not quantize
    graph = name_layer_norms(fold(assigned_by_slices(graph, profiles, overrides, once), overrides, once), overrides)
    if not quantize:
        return graph
    raised = raise_opset(graph, qdq.QUANTIZE_OPSET) if fp16_scales else None
    raised = raised or raise_opset(graph, SHAPES_OPSET) or raise_opset(graph, 13)  # per-channel scales take 13
    if raised is None:
        raise ConversionError(
            f"opset {graph.opset} of the model cannot be raised to 13, which per-channel INT8 needs",
            hint="Export the model with opset 17 or newer.",
            code=ExitCode.MODEL,
        )
    return raised


def raised_for(graph: Graph, half: HalfType) -> Graph:
    """The same graph in an opset that has the type.

    Raises:
        ConversionError: MODEL, where it cannot be raised to that.
    """
    raised = raise_opset(graph, BF16_OPSET) if half is BF16 else graph
    if raised is None:
        raise ConversionError(
            f"opset {graph.opset} of the model cannot be raised to {BF16_OPSET}, which BF16 needs",
            hint="Export the model with opset 17 or newer, or use --precision fp16.",
            code=ExitCode.MODEL,
        )
    return raised


def choose_layers(
    graph: Graph,
    kept_fp32: dict[str, str],
    overrides: tuple[tuple[str, str], ...],
    others: tuple[qdq.Layer, ...] = (),
    number_format: NumberFormat = INT8,
) -> tuple[tuple[qdq.Layer, ...], dict[str, str]]:
    """The layers that may be quantised, and the reason for each that could be, but is not.

    Args:
        kept_fp32: nodes that stay in FP32 -> reason.
        overrides: (pattern, precision) of --layer-precisions; what it names is not INT8.
        others: that may be INT8 besides the convolutions and matrix products of the graph itself with constant weights: attentions, bodies.

    Raises:
        ConversionError: MODEL, where the model has no convolution or matrix product with constant weights, in bodies either.
    """
    layers = qdq.quantizable_layers(graph, number_format)
    if not layers and not any(layer.outer for layer in others):
        raise _nothing_to_quantize(graph, number_format)
    places = {node.name: index for index, node in enumerate(graph.nodes)}
    chosen, left = [], {}
    for layer in sorted((*layers, *others), key=lambda layer: places[layer.outer or layer.node]):
        asked = {node: f"{OVERRIDE} {p}:{to}" for p, to in overrides for node in layer.nodes if fnmatchcase(node, p)}
        against = asked or {node: kept_fp32[node] for node in layer.nodes if node in kept_fp32}
        left.update(against)
        if not against:
            chosen.append(layer)
    return tuple(chosen), left


def seldom_faster(graph: Graph, profiles: tuple[Profile, ...], layers: tuple[qdq.Layer, ...]) -> dict[str, str]:
    """Those of the layers that INT8 speeds up in few networks; a rule, for where nothing can be timed.

    Args:
        layers: that may be INT8.

    Returns:
        Node -> reason.
    """
    macs = by_layer(macs_of(graph, profiles), layers)
    total = sum(macs.values())
    depthwise = _depthwise(graph, qdq.quantizable_layers(graph), macs)
    nodes = {node.name: node for node in graph.nodes}
    found = {}
    for layer in layers:
        node, number_format = layer.node, layer.number_format
        if total and macs.get(node, total) / total < SMALLEST_INT8_SHARE:
            found[node] = f"below {SMALLEST_INT8_SHARE:.2%} of the work: {number_format.label} would cost more than it saves"
        elif layer.plain and min(graph.weights[nodes[node].input[1]].shape[-2:]) < number_format.fewest:
            found[node] = f"fewer than {number_format.fewest} inputs or outputs: too few for a matrix product in {number_format.label}"
        elif node in depthwise:
            found[node] = "depthwise: waits for memory, not for arithmetic, so INT8 has nothing to speed up"
    return found


def nothing_left(left: dict[str, str], number_format: NumberFormat = INT8, recurrent: float = 0.0) -> ConversionError:
    """What to say where none of the layers would be INT8 (or FP8).

    Args:
        left: layer -> reason.
        recurrent: share of the work that recurrent layers do.
    """
    named = "; ".join(f"{node!r} {reason}" for node, reason in list(left.items())[:REASONS])
    more = f"; and {len(left) - REASONS} more" if len(left) > REASONS else ""
    message = f"--precision {number_format.name}, but no layer would be {number_format.label}: {named}{more}"
    if recurrent >= MOST_OF_ALL:
        message += f". {recurrent:.0%} of the work is in {RECURRENT_LAYERS}, which TensorRT has not in {number_format.label}"
    return ConversionError(message, hint="Use --precision fp16.", code=ExitCode.MODEL)


def without_fp8_opset(opset: int) -> ConversionError:
    """What to say of a model that cannot be raised to the opset that has FP8."""
    return ConversionError(
        f"opset {opset} of the model cannot be raised to {qdq.QUANTIZE_OPSET}, which has FP8",
        hint=f"Export the model with opset {qdq.QUANTIZE_OPSET} or newer, or use --precision int8.",
        code=ExitCode.MODEL,
    )


def too_little(share: float, least: float, number_format: NumberFormat) -> ConversionError:
    """What to say where even with all layers in the format less than --min-int8-share of the work would be."""
    return ConversionError(
        f"--precision {number_format.name}, but at most {share:.1%} of the multiply-accumulates could be {number_format.label}, which "
        f"takes {' and '.join(sorted(number_format.operators))} with constant weights alone: less than --min-int8-share {100 * least:g}",
        hint="Use --precision int8, which takes convolutions, too, or --precision fp16.",
        code=ExitCode.MODEL,
    )


def _nothing_to_quantize(graph: Graph, number_format: NumberFormat) -> ConversionError:
    inner = [node for node in graph.nodes if any(one.op_type in WEIGHTED for body in subgraphs(node) for one in all_nodes(body))]
    kinds = "convolution or matrix product" if "Conv" in number_format.operators else "matrix product"
    what, hint = f"has no {kinds} with constant FP32 weights", "Use --precision fp16."
    if any(node.op_type in WEIGHTED for node in graph.nodes):
        hint = "Use --precision int8, which takes convolutions, too, or --precision fp16." if number_format is not INT8 else hint
    if inner:
        names = listed([f"{node.name!r} ({node.op_type})" for node in inner], REASONS)
        what = f"has its convolutions and matrix products inside {names}, where none becomes {number_format.label}"
        hint = "Where an input decides which branch runs, make it a constant with --bind-input. Else use --precision fp16."
    return ConversionError(f"--precision {number_format.name}, but the model {what}", hint=hint, code=ExitCode.MODEL)


def _depthwise(graph: Graph, layers: tuple[qdq.Layer, ...], macs: dict[str, int]) -> set[str]:
    """The convolutions with one input channel for each output value; none where they are most of the work."""
    nodes = {node.name: node for node in graph.nodes}
    convolutions = [nodes[layer.node] for layer in layers if nodes[layer.node].op_type == "Conv"]
    found = {node.name for node in convolutions if attribute(node, "group", 1) > 1 and graph.weights[node.input[1]].shape[1] == 1}
    total = sum(macs.values())
    others = total - sum(macs.get(node, 0) for node in found)
    return found if others >= LEAST_OTHER_WORK * total else set()


def prepare_half(graph: Graph, kept_fp32: dict[str, str], fp16_io: frozenset[str], half: HalfType = FP16) -> Prepared:
    """`half`, but for the nodes kept in FP32."""
    return Prepared(strongly_typed(graph, kept_fp32, True, fp16_io, half=half), _kept(graph, kept_fp32, "fp32"))


def prepare_weak(graph: Graph, kept_fp32: dict[str, str], overrides: tuple[tuple[str, str], ...]) -> Prepared:
    """The FP32 graph as it is; precisions become constraints on TensorRT's layers."""
    constraints = {}
    for node in graph.nodes:
        override = next((precision for pattern, precision in reversed(overrides) if fnmatchcase(node.name, pattern)), None)
        if override or node.name in kept_fp32:
            constraints[node.name] = override or "fp32"
    return Prepared(graph, _kept(graph, kept_fp32, "fp32"), changed=bool(graph.repairs), constraints=constraints)


def prepare_weak_int8(plan: Int8Plan) -> Prepared:
    """Q/DQ with FP32 scales in an FP32 graph; TensorRT's INT8 and FP16 flags do the rest."""
    quantized = gelus_by_tanh(plan.quantized(), plan.kept_fp32)
    constraints = {**dict.fromkeys(_overridden(plan.in_fp16), "fp16"), **dict.fromkeys(plan.kept_fp32, "fp32")}
    return Prepared(quantized, plan.fallback, mac_shares(quantized, plan.profiles), constraints=constraints)


def _overridden(in_fp16: dict[str, str]) -> set[str]:
    """Of the layers in FP16, those that the user has asked for."""
    return {name for name, reason in in_fp16.items() if reason.startswith(OVERRIDE)}


def prepare_calibrated(plan: Int8Plan, others: dict[str, float] | None, strict: bool) -> Prepared:
    """An FP32 graph for TensorRT's calibrator: its weights are INT8 values already, and layers that stay FP16 are constrained.

    Args:
        others: scales of the tensors that nothing reads as INT8. None: TensorRT finds its own.
        strict: the layers are bound to INT8 (where FP16 layers are among them, TensorRT else takes FP16 for all of them, since
            converting between the two costs time: no INT8 layer at all in a network of depthwise convolutions on 10.6), and what ends
            in FP16 to FP16, so that the engine computes what was simulated. Of the other layers, those that read what has a scale are
            bound to FP16; the rest cannot become INT8, and TensorRT may compute it in FP32 where that is faster.
    """
    graph, fit, usable, quantized = plan.graph, plan.fit, plan.usable, plan.quantized()
    int8 = dict.fromkeys((layer.node for layer in usable), "int8") if strict else {}
    overridden = _overridden(plan.in_fp16)
    prepared = Prepared(
        qdq.bake(graph, usable, fit.rounded),
        plan.fallback,
        mac_shares(quantized, plan.profiles),
        constraints={**int8, **dict.fromkeys(overridden, "fp16"), **dict.fromkeys(plan.kept_fp32, "fp32")},
        half_nodes=frozenset(plan.in_fp16).difference(overridden),
    )
    if others is None:
        return prepared
    _, more = fit.placed(graph, usable)
    made = placement.results(graph, usable, more)
    scales = {name: others[name] for name in (made.scaled if strict else made.tensors) if name in others}
    read = {layer.activation: fit.scales[layer.activation] for layer in usable}
    read |= {reading.tensor: fit.scales[reading.like] for reading in more}
    read |= placement.moved(graph, read)
    scales |= read if strict else placement.between(graph, read, scales, others) | read
    if strict:
        reads = {layer.node: layer.activation for layer in qdq.quantizable_layers(graph)}
        half_nodes = frozenset(name for name in prepared.half_nodes if reads.get(name) in scales)
        prepared = replace(prepared, half_nodes=half_nodes, half_outputs=made.float_nodes)
    return replace(prepared, scales=scales, equivalent=quantized)


def prepare_int8(plan: Int8Plan, fp16_io: frozenset[str], one_scale: bool = False) -> Prepared:
    """INT8 (or FP8) by Q/DQ for the layers, FP16 for the rest, FP32 for the nodes kept in it; see strongly_typed for `one_scale`."""
    quantized = gelus_by_tanh(plan.quantized(), plan.kept_fp32)
    typed = strongly_typed(quantized, plan.kept_fp32, plan.fit.fp16_scales, fp16_io, one_scale)
    return Prepared(typed, plan.fallback, mac_shares(quantized, plan.profiles))


def _kept(graph: Graph, reasons: dict[str, str], precision: str) -> tuple[tuple[str, str, str], ...]:
    """In the graph's order."""
    return tuple((node.name, precision, reasons[node.name]) for node in all_nodes(graph.proto.graph) if node.name in reasons)


def prepare_quantized(
    graph: Graph,
    profiles: tuple[Profile, ...],
    kept_fp32: dict[str, str],
    fp16_scales: bool,
    fp16_io: frozenset[str],
    half: HalfType = FP16,
) -> Prepared:
    """A model that carries Q/DQ itself: `half` around them."""
    typed = strongly_typed(graph, kept_fp32, fp16_scales, fp16_io, half=half)
    return Prepared(typed, _kept(graph, kept_fp32, "fp32"), mac_shares(graph, profiles))
