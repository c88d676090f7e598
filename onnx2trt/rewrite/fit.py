"""How the layers of a graph become INT8: scales and fitted weights."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.body_layers import with_quantized_bodies
from onnx2trt.rewrite.placement import readings
from onnx2trt.rewrite.qdq import Layer, Reading, Rounded, insert


@dataclass(frozen=True)
class Fit:
    """How the layers of a graph become INT8."""

    scales: dict[str, float]  # activation tensor -> scale
    rounded: dict[str, Rounded] = field(default_factory=dict)  # node -> weights fitted to data
    fp16_scales: bool = False  # Q/DQ scales are stored in FP16
    without_int8: frozenset[str] = frozenset()  # nodes that read nothing as INT8, whatever stands around them

    def apply(self, graph: Graph, layers: Iterable[Layer]) -> Graph:
        """The graph with these layers in INT8, as far as they have a scale, and with what lies between them."""
        usable, more = self.placed(graph, layers)
        quantized = insert(graph, self.scales, usable, self.fp16_scales, self.rounded, more)
        return with_quantized_bodies(quantized, [layer for layer in usable if layer.outer], self.scales, self.fp16_scales)

    def placed(self, graph: Graph, layers: Iterable[Layer]) -> tuple[tuple[Layer, ...], tuple[Reading, ...]]:
        """(those of the layers that have a scale, what else reads INT8 where they do)"""
        usable = tuple(layer for layer in layers if self.has_scales(layer) and self.without_int8.isdisjoint(layer.nodes))
        return usable, readings(graph, usable, self.scales, self.without_int8)

    def with_own_weights(self, nodes: Container[str]) -> Fit:
        """The same, but that nothing is fitted in these nodes."""
        return replace(self, rounded={node: rounded for node, rounded in self.rounded.items() if node not in nodes})

    def has_scales(self, layer: Layer) -> bool:
        """For all that a layer reads."""
        return all(name in self.scales for name in layer.tensors)
