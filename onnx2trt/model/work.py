"""How much a graph computes, in multiply-accumulates."""

from __future__ import annotations

import math

import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import RECURRENT, WEIGHTED


def count_macs(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Multiply-accumulates of each convolution, matrix product, recurrent layer and Attention.

    Conv: output elements x input channels per group x kernel; ConvTranspose: input elements x output channels per group x
    kernel; matrix products: output elements x inner dimension; RNN, GRU and LSTM: steps x batch x elements of W and R, which are
    [directions, gates x hidden, input] and [directions, gates x hidden, hidden] (steps that sequence_lens leaves out count, too);
    Attention: elements of the queries x keys for the scores, elements of the output x keys for what is made of the values.

    Args:
        shapes: tensor -> shape, for the activations; nodes without one are left out.

    Returns:
        Node name -> count, for nodes of the main graph.
    """
    known = {**shapes, **{name: array.shape for name, array in graph.weights.items()}}
    dequantized = {node.output[0]: node.input[0] for node in graph.nodes if node.op_type == "DequantizeLinear"}

    def shape_of(name: str) -> tuple[int, ...] | None:
        return known.get(name, known.get(dequantized.get(name, "")))

    counts = {}
    for node in graph.nodes:
        if node.op_type in RECURRENT:
            read = [shape_of(name) for name in node.input[:3]]
            if None not in read:
                steps, *weights = read
                counts[node.name] = math.prod(steps[:2]) * sum(map(math.prod, weights))
        elif node.op_type == "Attention" and node.domain in STANDARD_DOMAINS:
            queries, keys, output = shape_of(node.input[0]), shape_of(node.input[1]), shape_of(node.output[0])
            past = shape_of(node.input[4]) if len(node.input) > 4 and node.input[4] else (0, 0)
            if None not in (queries, keys, output, past):
                counts[node.name] = (math.prod(queries) + math.prod(output)) * (keys[-2] + past[-2])
        elif node.op_type in WEIGHTED:
            first, second, output = shape_of(node.input[0]), shape_of(node.input[1]), shape_of(node.output[0])
            if None not in (first, second, output):
                counts[node.name] = _macs_of_layer(node, first, second, output)
    return counts


def _macs_of_layer(node: onnx.NodeProto, first: tuple[int, ...], second: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Of a convolution or matrix product, by the shapes of its two operands and its output."""
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "Gemm":
        return math.prod(output) * first[0 if attribute(node, "transA", 0) else 1]
    return math.prod(output) * first[-1]
