"""FP32 graph + scales -> graph with QuantizeLinear / DequantizeLinear where TensorRT turns them into INT8 (or FP8) layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx2trt.model.attention import Attention
from onnx2trt.model.bodies import inner_graphs
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import WEIGHTED
from onnx2trt.rewrite.number_formats import FORMATS, FP8, INT8, NumberFormat
from onnx2trt.rewrite.score_factor import factors_in_front

INT8_MAX = 127
QUANTIZE_OPSET = 19  # QuantizeLinear and DequantizeLinear with FP16 scales, and with FP8


@dataclass(frozen=True)
class Reading:
    """An input of an operator without weights that gets a Q/DQ pair."""

    node: str
    index: int
    tensor: str
    like: str  # tensor whose scale it is quantised with
    number_format: NumberFormat = INT8


@dataclass(frozen=True)
class Layer:
    """A node that INT8 (or FP8) can compute, activation times constant weights; or an attention, whose two products are both so or neither;
    the former may stand in a body of an If, Loop or Scan (rewrite.body_layers).

    The weights are whatever the node reads in the graph at hand: rewrites give readers of one constant weights of their own.
    """

    node: str  # of an attention, its first product
    activation: str  # tensor of the activation input; of an attention, the queries; in a body, the key of its scale
    attention: Attention | None = None
    number_format: NumberFormat = INT8
    outer: str = ""  # in a body, the node of the main graph that has it

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that compute in 8 bits, and that which has them in a body."""
        return (self.node, self.attention.context) if self.attention else tuple(filter(None, (self.node, self.outer)))

    @property
    def plain(self) -> bool:
        """Whether it is one node of the main graph."""
        return not (self.attention or self.outer)

    @property
    def tensors(self) -> tuple[str, ...]:
        """What has to have a scale."""
        return tuple(dict.fromkeys(tensor for _, _, tensor in self.attention.operands)) if self.attention else (self.activation,)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Its inputs that are activations."""
        operands = self.attention.operands if self.attention else ((self.node, 0, self.activation),) * self.plain
        return tuple(Reading(node, index, tensor, tensor, self.number_format) for node, index, tensor in operands)


@dataclass(frozen=True)
class Rounded:
    """Weights of one layer in 8 bits that were fitted to data, in place of the nearest integers (values of the format).

    Layers that share weights share the arrays, which are then stored once; the biases are each layer's own.
    """

    weights: np.ndarray  # int8 or FP8, of the weight's shape; the largest of each channel is 127 (448), as quantize_weights makes it
    scales: np.ndarray  # float32 [channels], or scalar: as of quantize_weights; of values that FP16 holds
    bias: np.ndarray | None  # float32 [output channels], to add to the layer's bias; None: nothing


def quantizable_layers(graph: Graph, number_format: NumberFormat = INT8) -> tuple[Layer, ...]:
    """The convolutions and matrix products (in FP8: matrix products) with constant FP32 weights, in execution order."""
    layers = []
    for node in graph.nodes:
        if node.op_type not in number_format.operators or len(node.input) < 2:
            continue
        weight = graph.weights.get(node.input[1])
        if weight is None or weight.dtype != np.float32 or weight.ndim < 2 or node.input[0] in graph.weights:
            continue
        layers.append(Layer(node.name, node.input[0], number_format=number_format))
    return tuple(layers)


def weight_axis(node: onnx.NodeProto, dims: int) -> int | None:
    """The axis of the output channels in the weights of a convolution or matrix product; None: they take one scale for all.

    Args:
        dims: of the weights.
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":  # [C, M / group, ...]: with groups, axis 1 alone does not name an output channel
        return 1 if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return dims - 1 if dims > 1 else None  # a batch of matrices has one for the same place in all of them


def weight_layout(node: onnx.NodeProto) -> tuple:
    """Equal for convolutions and matrix products that read one constant, and lay it out in the same way."""
    return node.input[1], node.op_type, attribute(node, "group", 1), attribute(node, "transB", 0)


def scale_axis(node: onnx.NodeProto, dims: int, number_format: NumberFormat) -> int | None:
    """The axis along which the weights have scales of their own; None: they take one for all."""
    return weight_axis(node, dims) if number_format.per_channel else None


def quantize_weights(weight: np.ndarray, axis: int | None, half: bool, number_format: NumberFormat = INT8) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric INT8: q = round(w / scale) in -127..127, scale = max |w| / 127 for each channel of `axis`; FP8 the same with 448.

    Args:
        weight: float32, any shape.
        half: round scales up to FP16, the form in which they will be stored; up, so that no weight is clipped.

    Returns:
        (q of weight's shape, in the type of the format; scales float32 [channels], or scalar where axis is None)"""
    scales = weight_scales(weight, axis, half, number_format)
    return number_format.stored(number_format.nearest(weight / along(scales, axis, weight.ndim))), scales


def weight_scales(weight: np.ndarray, axis: int | None, half: bool, number_format: NumberFormat = INT8) -> np.ndarray:
    """The scales of quantize_weights alone."""
    others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.maximum(weight.max(axis=others), -weight.min(axis=others))
    scales = np.where(largest > 0, largest / number_format.largest, 1.0).astype(np.float32)
    return half_scales(scales) if half else scales


def scales_by_range(maxima: dict[str, float], number_format: NumberFormat = INT8) -> dict[str, float]:
    """Scale = max |x| / 127 (448) of each tensor; those that are always zero, or not finite, have none."""
    smallest, largest, steps = np.finfo(np.float32).tiny, np.finfo(np.float32).max, number_format.largest
    return {name: value / steps for name, value in maxima.items() if smallest * steps <= value <= largest}


def half_scales(scales: np.ndarray) -> np.ndarray:
    """The smallest FP16 values not below `scales`, as float32; beyond the largest they stay what they are."""
    with np.errstate(over="ignore"):
        rounded = scales.astype(np.float16)
    rounded = np.where(rounded.astype(np.float32) < scales, np.nextafter(rounded, np.float16(np.inf)), rounded).astype(np.float32)
    return np.where(np.isinf(rounded), scales, rounded)


def insert(
    graph: Graph,
    scales: dict[str, float],
    layers: tuple[Layer, ...],
    half: bool,
    rounded: dict[str, Rounded] | None = None,
    more: Iterable[Reading] = (),
) -> Graph:
    """Put Q/DQ before the activation input of each layer and DQ behind its weights, now stored in its format.

    Args:
        graph: FP32, not changed. With `half` its opset must be at least QUANTIZE_OPSET.
        scales: activation tensor -> scale above 0.
        layers: the layers to quantise; each of their tensors must have a scale. The factor of an attention goes in front of its product.
        half: the scales will be stored in FP16, so weights are quantised with what FP16 can hold.
        rounded: node -> fitted weights; layers that are not in it get the nearest integers.
        more: inputs of other nodes that get Q/DQ, too (placement.readings).

    Returns:
        A new graph, still FP32 outside these layers. Tensors keep their names; new ones are `<tensor>__quantized`,
        `<tensor>__dequantized`.
    """
    result, fitted = graph.copy(), rounded or {}
    chosen = {layer.node: layer for layer in layers if layer.plain}
    scales, attended = _attended(result, scales, [layer for layer in layers if layer.attention])
    others: dict[str, list[Reading]] = {}
    for reading in (*more, *attended):
        others.setdefault(reading.node, []).append(reading)
    activations: dict[tuple, str] = {}
    weights: dict[tuple, str] = {}
    nodes: list[onnx.NodeProto] = []

    def quantized(tensor: str, like: str, number_format: NumberFormat) -> str:
        key = (tensor, number_format.name)
        if key not in activations:
            activations[key] = activation_pair(result, nodes, tensor, scales[like], number_format, half)
        return activations[key]

    for node in result.nodes:
        for reading in others.get(node.name, ()):
            node.input[reading.index] = quantized(reading.tensor, reading.like, reading.number_format)
        layer = chosen.get(node.name)
        if layer is not None:
            number_format = layer.number_format
            activation = quantized(layer.activation, layer.activation, number_format)
            own = fitted.get(layer.node)
            axis = scale_axis(node, result.weights[node.input[1]].ndim, number_format)
            key = (node.input[1], axis, own and id(own.weights), number_format.name)
            if key not in weights:
                own_or_nearest = own or Rounded(*quantize_weights(result.weights[node.input[1]], axis, half, number_format), bias=None)
                weights[key] = weight_dequantize(result, nodes, node.input[1], axis, own_or_nearest)
            node.input[0], node.input[1] = activation, weights[key]
            if own is not None and own.bias is not None:
                add_bias(result, node, own.bias)
        nodes.append(node)
    result.replace_nodes(nodes)
    result.prune()
    return result


def _attended(result: Graph, scales: dict[str, float], layers: list[Layer]) -> tuple[dict[str, float], list[Reading]]:
    """(scales, inputs of the products of these attentions), where queries that carry a factor have a scale of their own, and in
    FP8 probabilities that of what cannot exceed 1."""
    scaled = factors_in_front(result, [layer.attention for layer in layers])
    own = {made.queries: scales[layer.activation] * made.factor for layer in layers if (made := scaled.get(layer.node))}
    readings = [reading for layer in layers for reading in layer.readings]
    for number, reading in enumerate(readings):
        if reading.node in scaled and reading.index == 0:
            queries = scaled[reading.node].queries
            readings[number] = replace(reading, tensor=queries, like=queries)
    bounded = {layer.attention.probabilities: 1 / layer.number_format.largest for layer in layers if layer.number_format.floating}
    return {**scales, **own, **bounded}, readings


def _as_stored(scale: float, half: bool, number_format: NumberFormat) -> float:
    """The scale of an activation as TensorRT will read it."""
    if not half:
        return scale
    smallest = number_format.smallest_fp16_scale or float(np.nextafter(np.float16(0), np.float16(1)))
    return max(float(np.float16(scale)), smallest)


def activation_pair(result: Graph, nodes: list, tensor: str, scale: float, number_format: NumberFormat, half: bool) -> str:
    """Q and DQ of a tensor, appended to `nodes`; the name of what they make. See insert."""
    scale = _as_stored(scale, half, number_format)
    scale_name, zero_name = result.unique(f"{tensor}__scale"), result.unique(f"{tensor}__zero_point")
    result.weights[scale_name], result.weights[zero_name] = np.array(scale, np.float32), np.zeros((), number_format.dtype)
    quantized, dequantized = result.unique(f"{tensor}__quantized"), result.unique(f"{tensor}__dequantized")
    nodes.append(onnx.helper.make_node("QuantizeLinear", [tensor, scale_name, zero_name], [quantized], name=quantized))
    nodes.append(onnx.helper.make_node("DequantizeLinear", [quantized, scale_name, zero_name], [dequantized], name=dequantized))
    return dequantized


def bake(graph: Graph, layers: tuple[Layer, ...], rounded: dict[str, Rounded]) -> Graph:
    """The FP32 graph with fitted weights as they will be after TensorRT has quantised them, which it does like quantize_weights."""
    result = graph.copy()
    chosen = {layer.node for layer in layers if layer.node in rounded}
    baked: dict[tuple, str] = {}
    for node in result.nodes:
        if node.name not in chosen:
            continue
        own = rounded[node.name]
        axis, dims = weight_axis(node, own.weights.ndim), own.weights.ndim
        key = (node.input[1], axis, id(own.weights))
        if key not in baked:
            baked[key] = result.unique(f"{node.input[1]}__fitted")
            result.weights[baked[key]] = own.weights * along(own.scales, axis, dims)
        node.input[1] = baked[key]
        if own.bias is not None:
            add_bias(result, node, own.bias)
    result.prune()
    return result


def along(scales: np.ndarray, axis: int | None, dims: int) -> np.ndarray:
    """Scales [channels] (or one) shaped to broadcast along `axis` of weights with `dims` dimensions."""
    return scales.reshape([-1 if i == axis else 1 for i in range(dims)])


def takes_bias(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether add_bias can add to the outputs of this node of `graph`."""
    plain = node.op_type in ("Conv", "ConvTranspose") or (
        node.op_type == "Gemm" and attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
    )
    name = node.input[2] if len(node.input) > 2 else ""
    return plain and (not name or name in graph.weights)


def add_bias(graph: Graph, node: onnx.NodeProto, bias: np.ndarray) -> None:
    """Add to the constant bias of a node of `graph`, or give it one; left out where the operator has no place for it."""
    if not takes_bias(graph, node):
        return
    name = node.input[2] if len(node.input) > 2 else ""
    own = graph.unique(f"{node.name}__bias")
    graph.weights[own] = (graph.weights[name] + bias if name else bias).astype(np.float32)
    del node.input[2:]
    node.input.append(own)


def weight_dequantize(result: Graph, nodes: list, weight: str, axis: int | None, rounded: Rounded) -> str:
    """DQ behind weights in 8 bits, appended to `nodes`; the name of what it makes."""
    names = [result.unique(f"{weight}__{part}") for part in ("quantized", "scale", "zero_point", "dequantized")]
    result.weights[names[0]], result.weights[names[1]] = rounded.weights, rounded.scales
    result.weights[names[2]] = np.zeros(rounded.scales.shape, rounded.weights.dtype)
    attributes = {} if axis is None else {"axis": axis}
    nodes.append(onnx.helper.make_node("DequantizeLinear", names[:3], [names[3]], name=names[3], **attributes))
    return names[3]


def int8_layers(graph: Graph) -> set[str]:
    """Names of the convolutions and matrix products all of whose operands come out of INT8 (DequantizeLinear)."""
    return layers_by_format(graph)[INT8.name]


def quantized_layers(graph: Graph) -> set[str]:
    """The same for whichever 8-bit format."""
    return set().union(*layers_by_format(graph).values())


def layers_by_format(graph: Graph) -> dict[str, set[str]]:
    """Name of each 8-bit format -> the convolutions and matrix products all of whose operands come out of it (DequantizeLinear), in bodies
    of control flow, too; what no zero point or constant says is INT8."""
    found: dict[str, set[str]] = {name: set() for name in FORMATS}
    for one in (graph, *inner_graphs(graph)):
        for name, nodes in _layers_by_format(one).items():
            found[name] |= nodes
    return found


def _layers_by_format(graph: Graph) -> dict[str, set[str]]:
    """Of the graph itself."""
    producers = graph.producers()
    types = graph.types() if any(array.dtype == FP8.dtype for array in graph.weights.values()) else {}

    def formats(name: str) -> str:
        node = producers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return ""
        return FP8.name if types.get(node.input[0]) == FP8.elem_type else INT8.name

    found: dict[str, set[str]] = {name: set() for name in FORMATS}
    for node in graph.nodes:
        read = {formats(name) for name in node.input[:2]} if node.op_type in WEIGHTED else set()
        if len(read) == 1 and "" not in read:
            found[read.pop()].add(node.name)
    return found
