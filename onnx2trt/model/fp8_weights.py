"""Constant weights of FP8 on the CPU, where ONNX Runtime would dequantize them in every inference: 30 ms for a million of them."""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute

FP8 = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.FLOAT8E4M3FN))


def fold_fp8_weights(proto: onnx.ModelProto, graph: Graph) -> dict[str, np.ndarray]:
    """Take the DequantizeLinear of constant FP8 weights out of a model.

    Args:
        proto: with the nodes of `graph`; changed.
        graph: not changed.

    Returns:
        Tensor that such a node made -> its values, float32.
    """
    found, left = {}, []
    outputs = {value.name for value in proto.graph.output}
    for node in proto.graph.node:
        values = None if outputs.intersection(node.output) else dequantized(node, graph.weights, FP8)
        if values is None:
            left.append(node)
        else:
            found[node.output[0]] = values
    if found:
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in left]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)
    return found


def dequantized(node: onnx.NodeProto, constants: dict[str, np.ndarray], dtype: np.dtype) -> np.ndarray | None:
    """The values that a node makes of constants of a type of one byte by FP32 scales, one or one for each channel; None where it does
    anything else."""
    if node.op_type != "DequantizeLinear" or attribute(node, "block_size", 0):
        return None
    if any(name not in constants or np.any(constants[name].astype(np.float32)) for name in node.input[2:] if name):  # a zero point
        return None
    weights, scale = (constants.get(name) for name in node.input[:2])
    if weights is None or scale is None or weights.dtype != dtype or dtype.itemsize != 1 or scale.dtype != np.float32:
        return None
    if scale.ndim == 1 and scale.size > 1:
        scale = scale.reshape([-1 if axis == attribute(node, "axis", 1) % weights.ndim else 1 for axis in range(weights.ndim)])
    return weights.astype(np.float32) * scale.reshape(scale.shape if scale.ndim > 1 else ())
