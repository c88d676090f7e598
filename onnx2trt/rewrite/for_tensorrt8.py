"""Q/DQ in the form that TensorRT 8.6 takes; TensorRT 10 takes this and shorter ones.

Measured on 8.6.1 (H200): weights that are INT8 in the file fail in the compiler that builds attention ("convertMyelinWeightsToFp32:
weights.type() != DataType::kINT8"), and a convolution whose weights come out of DequantizeLinear is refused by the parser unless it says
the size of its kernel ("misaligns with the input kernel shape").
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.fp8_weights import dequantized
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import CONVOLUTIONS, QUANTIZERS
from onnx2trt.rewrite.number_formats import INT8


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
    shapes: dict[str, tuple[int, ...]] = {}  # of what comes out of quantizers of constants
    quantized: dict[tuple, str] = {}
    for node in result.nodes:
        if node.op_type in QUANTIZERS:
            source = result.weights.get(node.input[0])
            shape = shapes.get(node.input[0]) if source is None else source.shape
            if shape is not None:
                shapes[node.output[0]] = shape
            values = dequantized(node, result.weights, INT8.dtype)
            if values is not None:
                node.input[0] = _behind_quantize(result, nodes, node, values, quantized)
        elif node.op_type in CONVOLUTIONS and node.input[1] in shapes and attribute(node, "kernel_shape") is None:
            node.attribute.append(onnx.helper.make_attribute("kernel_shape", shapes[node.input[1]][2:]))
        nodes.append(node)
    result.replace_nodes(nodes)
    result.prune()
    return result


def _behind_quantize(graph: Graph, nodes: list, node: onnx.NodeProto, values: np.ndarray, quantized: dict[tuple, str]) -> str:
    """The name of the INT8 values that a DequantizeLinear reads as the output of a QuantizeLinear, which is appended to `nodes` once for
    readers that share it.

    Args:
        values: what it makes of them, float32.
    """
    name, scale = node.input[:2]
    if (name, scale) not in quantized:
        real, zero, made = (graph.unique(f"{name}__{part}") for part in ("fp32", "zero", "again"))
        graph.weights[real] = values
        graph.weights[zero] = np.zeros(graph.weights[scale].shape, np.int8)  # without one, QuantizeLinear gives UINT8
        along = {"axis": attribute(node, "axis", 1)} if graph.weights[scale].ndim else {}  # which opsets before 13 have not
        nodes.append(onnx.helper.make_node("QuantizeLinear", [real, scale, zero], [made], name=made, **along))
        quantized[name, scale] = made
    return quantized[name, scale]
