"""INT8 convolutions whose weights have one scale, with a factor for each channel behind them: the form that TensorRT-RTX moves least for.

A convolution of TensorRT-RTX 1.7 with a scale for each output channel writes its sums in FP32, and a pointwise kernel reads them back; with
one scale it writes them in FP16, and the factor costs nothing, since it goes into the pointwise kernel that is there anyway for bias and
activation. The accuracy stays that of a scale for each channel: the integers are the same. Bytes moved, by the engine's own plan, of FP16:
ResNet-50 at batch 8 1.15 (1.83 with a scale for each channel), a UNet at batch 4 0.82 (1.19). On TensorRT 10 a factor behind a convolution
would cost the fusion, so it is for TensorRT-RTX alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.rewrite.near_zero import FP16_MAX
from onnx2trt.rewrite.qdq import INT8_MAX

MOST = FP16_MAX / 2  # that the sums may reach
SMALLEST_NORMAL = 2.0**-14


def with_one_scale(graph: Graph) -> Graph:
    """The graph with one scale for the weights of each INT8 convolution, where FP16 holds the sums and the factors behind them.

    Sums cannot exceed INT8_MAX * (activation scale) * (weight scale) * sum |integers of a channel|; the one scale is a power of two for
    which that stays below MOST, so that the factors, which are FP16 values divided by it, are exact.

    Args:
        graph: FP32 with Q/DQ, its scales such as FP16 holds; not changed.
    """
    result = graph.copy()
    producers, readers = result.producers(), result.consumers()
    nodes: list[onnx.NodeProto] = []
    for node in result.nodes:
        nodes.append(node)
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.output) != 1:
            continue
        scale = _scale_for(result, node, producers, readers)
        if scale is not None:
            nodes += _move_behind(result, node, producers[node.input[1]], scale)
    result.replace_nodes(nodes)
    result.prune()
    return result


def _scale_for(graph: Graph, node: onnx.NodeProto, producers: dict, readers: dict) -> float | None:
    """The one scale of a convolution's weights; None where it shall stay as it is."""
    activation, weight = (producers.get(name) for name in node.input[:2])
    if not (_is_dequantize(activation) and _is_dequantize(weight)) or len(readers[node.input[1]]) > 1:
        return None
    integers, scales, step = (graph.weights.get(name) for name in (weight.input[0], weight.input[1], activation.input[1]))
    if integers is None or scales is None or step is None or scales.size < 2 or step.size != 1 or integers.dtype != np.int8:
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    if attribute(weight, "axis", 1) != _output_axis(node) or bias and bias not in graph.weights:
        return None
    others = tuple(axis for axis in range(integers.ndim) if axis != _output_axis(node))
    largest = INT8_MAX * float(step.reshape(-1)[0]) * float(np.abs(integers.astype(np.int64)).sum(axis=others).max())
    highest = min(math.sqrt(float(scales.min()) * float(scales.max())), MOST / max(largest, 1e-30))
    scale = 2.0 ** math.floor(math.log2(highest)) if highest > 0 else 0.0
    factors = scales.astype(np.float64) / scale if scale else scales
    fits = scale >= SMALLEST_NORMAL and factors.min() >= SMALLEST_NORMAL and factors.max() <= MOST
    return scale if fits else None


def _is_dequantize(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _output_axis(node: onnx.NodeProto) -> int | None:
    """Of the weights; None where no axis alone names an output channel."""
    if node.op_type == "Conv":
        return 0
    return 1 if attribute(node, "group", 1) == 1 else None


def _move_behind(graph: Graph, node: onnx.NodeProto, weight: onnx.NodeProto, scale: float) -> Iterable[onnx.NodeProto]:
    """Give the weights one scale; the nodes that multiply by the factors and add the bias, and give the result its name."""
    output, dims = node.output[0], graph.weights[weight.input[0]].ndim
    behind = (-1, *(1,) * (dims - 2))  # [channels, 1, 1]
    factors = (graph.weights[weight.input[1]].astype(np.float64) / scale).astype(np.float32)
    one, zero, factor = (graph.unique(f"{node.name}__{part}") for part in ("weight_scale", "weight_zero", "channel_factors"))
    graph.weights[one], graph.weights[zero] = np.array(scale, np.float32), np.array(0, np.int8)
    graph.weights[factor] = factors.reshape(behind)
    weight.input[1], weight.input[2] = one, zero
    weight.attribute.remove(next(entry for entry in weight.attribute if entry.name == "axis"))
    bias = graph.weights[node.input[2]] if len(node.input) > 2 and node.input[2] else None
    del node.input[2:]
    sums = node.output[0] = graph.unique(f"{output}__sums")
    if bias is None:
        return [onnx.helper.make_node("Mul", [sums, factor], [output], name=graph.unique(f"{node.name}__rescale"))]
    scaled, summand = graph.unique(f"{output}__rescaled"), graph.unique(f"{node.name}__summand")
    graph.weights[summand] = bias.reshape(behind)
    return [
        onnx.helper.make_node("Mul", [sums, factor], [scaled], name=graph.unique(f"{node.name}__rescale")),
        onnx.helper.make_node("Add", [scaled, summand], [output], name=graph.unique(f"{node.name}__add")),
    ]
