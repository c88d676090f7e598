"""Inputs and outputs of FP8, which no data file holds, become FP32: the same values, quantized and dequantized inside with a scale of 1."""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import rename_reads
from onnx2trt.model.operators import QUANTIZERS

FLOAT, FP8 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT8E4M3FN  # the FP8 that TensorRT has
ZERO_POINT = 2  # the place of the zero point among the inputs of a quantizer


def fp8_io(model: onnx.ModelProto) -> list[str]:
    """The names of the inputs and outputs that are FP8."""
    weights = {tensor.name for tensor in model.graph.initializer}
    values = (*(value for value in model.graph.input if value.name not in weights), *model.graph.output)
    return list(dict.fromkeys(value.name for value in values if value.type.tensor_type.elem_type == FP8))


def with_fp32_io(graph: Graph) -> Graph:
    """A new graph whose inputs and outputs of FP8 are FP32.

    An input that is a zero point becomes 0, the only one that FP8 has in TensorRT; it stays an input, which nothing reads.
    """
    result = graph.copy()
    own, nodes = result.proto.graph, list(result.nodes)
    inputs, outputs = ([value for value in io if value.type.tensor_type.elem_type == FP8] for io in (own.input, own.output))
    one, zero = _constant(result, np.float32(1), "fp8_scale"), _constant(result, _zeros(()), "fp8_zero")
    before, after = [], []
    for value in inputs:
        inside = result.unique(f"{value.name}__fp8")
        shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for node in nodes:
            if node.op_type in QUANTIZERS and list(node.input[ZERO_POINT:]) == [value.name]:
                node.input[ZERO_POINT] = _constant(result, _zeros(shape), f"{value.name}__zero")
            rename_reads(node, value.name, inside)
        if any(inside in node.input for node in nodes):
            before.append(_node(result, "QuantizeLinear", [value.name, one, zero], inside))
    for value in outputs:
        inside = result.unique(f"{value.name}__fp8")
        for node in nodes:
            rename_reads(node, value.name, inside)
            node.output[:] = [inside if name == value.name else name for name in node.output]
        after.append(_node(result, "DequantizeLinear", [inside, one, zero], value.name))
    for value in (*inputs, *outputs):
        value.type.tensor_type.elem_type = FLOAT
    result.replace_nodes([*before, *nodes, *after])
    return result


def _node(graph: Graph, operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return onnx.helper.make_node(operator, inputs, [output], name=graph.unique(f"{output}__{operator}"))


def _constant(graph: Graph, value: np.ndarray, name: str) -> str:
    name = graph.unique(name)
    graph.weights[name] = value
    return name


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(FP8))
