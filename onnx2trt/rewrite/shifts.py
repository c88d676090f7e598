"""The shift behind a DequantizeLinear (rewrite/signed.py) goes into the bias of the convolution or matrix product that reads it.

A product that reads DQ(..) - c, with a constant c, is computed in floating point. W (v - c) = W v - c sum(W), so it can read DQ(..) itself,
which is an INT8 layer, and the rest is constant. A convolution's zero padding is a padding with c before the shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.rewrite.steps import Steps

PAD_OPSET = 11  # Pad with its sizes as an input


def absorb_shifts(graph: Graph) -> Graph:
    """A new graph in which convolutions and matrix products with constant weights read INT8 where signed() has put a shift between."""
    result = graph.copy()
    producers = result.producers()
    nodes: list[onnx.NodeProto] = []
    padded: dict[tuple, str] = {}
    for node in result.nodes:
        found = _shifted_input(result, node, producers)
        weights = _weights(result, node, producers) if found else None
        nodes.append(node)
        if weights is None:
            continue
        if node.op_type == "Conv":
            nodes[-1:] = _conv(result, node, found, weights, padded)
        elif node.op_type == "Gemm":
            _gemm(result, node, found, weights)
        elif node.op_type == "MatMul":
            nodes += _matmul(result, node, found, weights)
    result.replace_nodes(nodes)
    result.prune()
    return result


@dataclass(frozen=True)
class _Shifted:
    """The nodes around one shift: Add, QuantizeLinear, DequantizeLinear, and a Sub behind them."""

    add: onnx.NodeProto
    quantize: onnx.NodeProto
    dequantize: onnx.NodeProto
    shift: float
    shift_name: str  # of the constant


def _shifted_input(graph: Graph, node: onnx.NodeProto, producers) -> _Shifted | None:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    sub = producers.get(node.input[0])
    dequantize = producers.get(sub.input[0]) if sub is not None and sub.op_type == "Sub" else None
    quantize = producers.get(dequantize.input[0]) if dequantize is not None and dequantize.op_type == "DequantizeLinear" else None
    add = producers.get(quantize.input[0]) if quantize is not None and quantize.op_type == "QuantizeLinear" else None
    if add is None or add.op_type != "Add" or add.input[1] != sub.input[1]:
        return None
    shift = graph.weights.get(sub.input[1])
    return _Shifted(add, quantize, dequantize, float(shift), sub.input[1]) if shift is not None and shift.size == 1 else None


def _weights(graph: Graph, node: onnx.NodeProto, producers) -> np.ndarray | None:
    """float32; None where they are no constant, or a bias is none."""
    if any(name not in graph.weights for name in node.input[2:3] if name):
        return None
    if node.input[1] in graph.weights:
        return graph.weights[node.input[1]]
    source = producers.get(node.input[1])
    if source is None or source.op_type != "DequantizeLinear" or any(name not in graph.weights for name in source.input):
        return None
    integers, scale = (graph.weights[name] for name in source.input[:2])
    axis = attribute(source, "axis", 1)
    steps = Steps(scale.astype(np.float32), np.zeros(scale.shape, np.int64), "int8", axis + integers.ndim if axis < 0 else axis)
    return steps.values(integers)


def _with_bias(graph: Graph, node: onnx.NodeProto, bias: np.ndarray) -> None:
    name = graph.unique(f"{node.name}__bias")
    graph.weights[name] = bias.astype(np.float32)
    node.input[:] = [*node.input[:2], name]


def _bias(graph: Graph, node: onnx.NodeProto):
    return graph.weights[node.input[2]].astype(np.float64) if len(node.input) > 2 and node.input[2] else 0.0


def _conv(graph: Graph, node: onnx.NodeProto, found: _Shifted, weights: np.ndarray, padded: dict[tuple, str]) -> list[onnx.NodeProto]:
    """The nodes in the place of `node`."""
    pads = list(attribute(node, "pads", []))
    if attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or any(pads) and graph.opset < PAD_OPSET:
        return [node]
    nodes, source = [], found.dequantize.output[0]
    if any(pads) and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET":
        key = (found.add.output[0], tuple(pads))
        if key not in padded:
            padded[key] = _padded(graph, found, pads, nodes)
        source = padded[key]
        kept = [entry for entry in node.attribute if entry.name != "pads"]
        del node.attribute[:]
        node.attribute.extend(kept)
    node.input[0] = source
    _with_bias(graph, node, _bias(graph, node) - found.shift * weights.sum(tuple(range(1, weights.ndim)), dtype=np.float64))
    return [*nodes, node]


def _padded(graph: Graph, found: _Shifted, pads: list[int], nodes: list[onnx.NodeProto]) -> str:
    """Q/DQ of what the shift leads to, padded with what a zero became."""
    half, source = len(pads) // 2, found.add.output[0]
    sizes = graph.unique(f"{source}__pads")
    graph.weights[sizes] = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    names = [graph.unique(f"{source}__{part}") for part in ("padded", "padded_quantized", "padded_dequantized")]
    steps = found.quantize.input[1:]
    for operator, inputs, output in (
        ("Pad", [source, sizes, found.shift_name], names[0]),
        ("QuantizeLinear", [names[0], *steps], names[1]),
        ("DequantizeLinear", [names[1], *steps], names[2]),
    ):
        nodes.append(onnx.helper.make_node(operator, inputs, [output], name=output))
    return names[2]


def _gemm(graph: Graph, node: onnx.NodeProto, found: _Shifted, weights: np.ndarray) -> None:
    beta = attribute(node, "beta", 1.0)
    if attribute(node, "transA", 0) or not beta:
        return
    sums = weights.sum(1 if attribute(node, "transB", 0) else 0, dtype=np.float64)
    node.input[0] = found.dequantize.output[0]
    _with_bias(graph, node, _bias(graph, node) - attribute(node, "alpha", 1.0) / beta * found.shift * sums)


def _matmul(graph: Graph, node: onnx.NodeProto, found: _Shifted, weights: np.ndarray) -> list[onnx.NodeProto]:
    """What follows `node`."""
    if weights.ndim < 2:
        return []
    node.input[0] = found.dequantize.output[0]
    rest, product = graph.unique(f"{node.name}__bias"), graph.unique(f"{node.output[0]}__product")
    graph.weights[rest] = (-found.shift * weights.sum(-2, keepdims=weights.ndim > 2, dtype=np.float64)).astype(np.float32)
    add = onnx.helper.make_node("Add", [product, rest], [node.output[0]], name=graph.unique(f"{node.name}__unshifted"))
    node.output[0] = product
    return [add]
