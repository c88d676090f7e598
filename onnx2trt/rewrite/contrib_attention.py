"""Attention of com.microsoft as matrix products and a Softmax (rewrite/contrib.py)."""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.rewrite.contrib_nodes import Other, Replacement

MASKED = -10000.0  # what is added to scores that shall not count, where an attention names nothing else


def attention(n: Replacement) -> None:
    """Of one projection to queries, keys and values; without a past, and with a mask for each token, if any."""
    n.without_outputs(1)
    n.without_inputs(4, 6)
    if attribute(n.node, "unidirectional", 0) or attribute(n.node, "qkv_hidden_sizes") or attribute(n.node, "do_rotary", 0):
        raise Other
    projected = n("MatMul", n.input(0), n.input(1))
    parts = n.split(n("Add", projected, n.input(2)) if n.input(2) else projected, 3)
    _attend(n, parts, _mask(n, 3), n.input(5))


def multi_head(n: Replacement) -> None:
    n.without_outputs(1)
    n.without_inputs(6, 7, 8, 9)
    if not (n.input(1) and n.input(2)) or attribute(n.node, "unidirectional", 0):
        raise Other
    parts = [n.input(index) for index in range(3)]
    if n.input(3):
        biases = np.split(n.weight(3), 3)
        parts = [n("Add", part, n.constant(bias)) for part, bias in zip(parts, biases)]
    _attend(n, parts, _mask(n, 4), n.input(5))


def _mask(n: Replacement, index: int) -> str:
    """What is added to the scores for a mask [batch, tokens] of 0 and 1; "" where there is none."""
    name = n.input(index)
    if not name:
        return ""
    if _rank(n.graph, name) != 2:
        raise Other
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(n.dtype))
    own = n.graph.unique(f"{n.node.name}/mask")
    n.made.append(onnx.helper.make_node("Cast", [n.unsqueezed(name, [1, 2])], [own], name=own, to=kind))
    return n("Mul", n("Sub", n.constant(1.0), own), n.constant(attribute(n.node, "mask_filter_value", MASKED)))


def _rank(graph: Graph, name: str) -> int | None:
    for value in graph.proto.graph.input:
        if value.name == name and value.type.tensor_type.HasField("shape"):
            return len(value.type.tensor_type.shape.dim)
    return graph.weights[name].ndim if name in graph.weights else None


def _attend(n: Replacement, parts: list[str], mask: str, bias: str) -> None:
    """
    Args:
        parts: queries, keys and values [batch, tokens, hidden].
        mask, bias: added to the scores; "": nothing.
    """
    heads = attribute(n.node, "num_heads")
    shape = n.constant([0, 0, heads, -1], np.int64)
    queries, keys, values = (n("Reshape", part, shape) for part in parts)
    queries, values = (n("Transpose", part, perm=[0, 2, 1, 3]) for part in (queries, values))
    scale = attribute(n.node, "scale", 0.0) or 1 / math.sqrt(_head_size(n, heads))
    scores = n("Mul", n("MatMul", queries, n("Transpose", keys, perm=[0, 2, 3, 1])), n.constant(scale))
    for added in filter(None, (mask, bias)):
        scores = n("Add", scores, added)
    mixed = n("MatMul", n("Softmax", scores, axis=-1 if n.opset >= 13 else 3), values)
    n("Reshape", n("Transpose", mixed, perm=[0, 2, 1, 3]), n.constant([0, 0, -1], np.int64), to=n.output(0))


def _head_size(n: Replacement, heads: int) -> int:
    """By the weights that make the queries."""
    if n.node.op_type == "Attention":
        return n.weight(1).shape[-1] // 3 // heads
    if n.input(3):
        return n.weight(3).size // 3 // heads
    makers = n.graph.producers()
    maker = makers.get(n.input(0))
    while maker is not None and maker.op_type == "Add":
        maker = next((makers[name] for name in maker.input if name in makers), None)
    if maker is None or maker.op_type not in ("MatMul", "Gemm") or maker.input[1] not in n.graph.weights:
        raise Other
    turned = maker.op_type == "Gemm" and attribute(maker, "transB", 0)
    return n.graph.weights[maker.input[1]].shape[0 if turned else -1] // heads
