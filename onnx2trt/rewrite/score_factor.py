"""The factor of attention scores (1 / sqrt(head size), as a rule) in front of the product of queries and keys, on the queries.

TensorRT fuses an attention in INT8 where the product reads what DequantizeLinear gives, and nothing but a mask stands between it and the
Softmax. In real arithmetic it is the same; a power of two, as of heads of 16 or 64 values, is exact in floating point, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx2trt.model.attention import Attention, factor_of
from onnx2trt.model.graph import Graph


@dataclass(frozen=True)
class Scaled:
    """Queries that carry the factor of their scores."""

    queries: str  # tensor
    factor: float


def factors_in_front(graph: Graph, attentions: Iterable[Attention]) -> dict[str, Scaled]:
    """Move the factors of these attentions, in place.

    The node that multiplies keeps its name, and the scores have the name that its result had.

    Returns:
        Product of queries and keys -> its queries now, for the attentions that had a factor behind it.
    """
    moving = {attention.factor: attention for attention in attentions if attention.factor}
    if not moving:
        return {}
    nodes, found = {node.name: node for node in graph.nodes}, {}
    for attention in moving.values():
        product, factor, number = nodes[attention.scores], nodes[attention.factor], factor_of(graph, attention)
        place = list(factor.input).index(product.output[0])
        product.output[0], factor.output[0] = factor.output[0], graph.unique(f"{attention.queries}__scaled")
        product.input[0], factor.input[place] = factor.output[0], attention.queries
        found[product.name] = Scaled(factor.output[0], number)
    ordered = []
    for node in graph.nodes:
        if node.name in found:
            ordered.append(next(nodes[name] for name, attention in moving.items() if attention.scores == node.name))
        if node.name not in moving:
            ordered.append(node)
    graph.replace_nodes(ordered)
    return found
