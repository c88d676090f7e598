"""Q/DQ in the form that TensorRT 8.6 takes; TensorRT 10 takes this and shorter ones.

Measured on 8.6.1 (H200): weights that are INT8 in the file fail in the compiler that builds attention ("convertMyelinWeightsToFp32:
weights.type() != DataType::kINT8"), and a convolution whose weights come out of DequantizeLinear is refused by the parser unless it says
the size of its kernel ("misaligns with the input kernel shape").
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.rewrite.qdq import along

CONVOLUTIONS = ("Conv", "ConvTranspose")


def for_tensorrt8(graph: Graph) -> Graph:
    """The same values: INT8 weights become FP32 behind a QuantizeLinear, and convolutions say the size of their kernel.

    Args:
        graph: not changed.

    Returns:
        A new graph; `graph` itself where nothing of it is INT8.
    """
    if not any(node.op_type == "DequantizeLinear" for node in graph.nodes):
        return graph
    result, nodes = graph.copy(), []
    weights = {}  # output of a DequantizeLinear -> what it was made of
    quantized: dict[str, str] = {}
    for node in result.nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] in result.weights:
            weights[node.output[0]] = result.weights[node.input[0]]
        elif node.op_type == "DequantizeLinear":
            kept = result.weights.get(node.input[0], weights.get(node.input[0]))
            if kept is not None:
                weights[node.output[0]] = kept
            if node.input[0] in quantized or _int8_weights(result, node):
                node.input[0] = _behind_quantize(result, nodes, node, quantized)
        elif node.op_type in CONVOLUTIONS and node.input[1] in weights and attribute(node, "kernel_shape", None) is None:
            node.attribute.append(onnx.helper.make_attribute("kernel_shape", weights[node.input[1]].shape[2:]))
        nodes.append(node)
    result.replace_nodes(nodes)
    result.prune()
    return result


def _int8_weights(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a DequantizeLinear reads constant INT8 with constant scales around 0."""
    weight = graph.weights.get(node.input[0])
    zero = graph.weights.get(node.input[2]) if len(node.input) > 2 else np.zeros(1)
    return weight is not None and weight.dtype == np.int8 and node.input[1] in graph.weights and zero is not None and not zero.any()


def _behind_quantize(graph: Graph, nodes: list, node: onnx.NodeProto, quantized: dict[str, str]) -> str:
    """The name of the same INT8 values as the output of a QuantizeLinear, which is appended to `nodes` once for readers that share it."""
    name = node.input[0]
    key = f"{name} {node.input[1]}"
    if key not in quantized:
        weight, scales = graph.weights[name], graph.weights[node.input[1]]
        axis = attribute(node, "axis", 1) % weight.ndim if scales.ndim and weight.ndim else None
        real, made = graph.unique(f"{name}__fp32"), graph.unique(f"{name}__again")
        graph.weights[real] = weight * along(scales.astype(np.float32), axis, weight.ndim)
        zero = graph.unique(f"{name}__zero")  # without one, QuantizeLinear gives UINT8
        graph.weights[zero] = np.zeros(scales.shape, np.int8)
        attributes = {} if axis is None else {"axis": axis}
        nodes.append(onnx.helper.make_node("QuantizeLinear", [real, node.input[1], zero], [made], name=made, **attributes))
        quantized[key] = made
    return quantized[key]
