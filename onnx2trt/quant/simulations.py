"""A graph in INT8 by one set of scales after the other, computed by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant.sensitivity import Feed
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer, Rounded, quantize_weights, scale_axis


class Simulations:
    """Loading a graph takes as long as several inferences, so scales are inputs of it: sets that differ in nothing else share one session.

    No two sessions are there at once, each of which holds the weights once more. Weights that are not fitted are rounded once.
    """

    def __init__(self, graph: Graph, layers: tuple[Layer, ...]):
        """
        Args:
            graph: FP32.
            layers: to be in INT8, as far as a set has scales for them.
        """
        self.graph, self._layers = graph, layers
        self._opened: Graph | None = None
        self._session: Session | None = None
        self._rounded: dict[bool, dict[str, Rounded]] = {}  # whether scales are FP16 -> node -> the nearest weights

    def exact(self, feeds: Iterable[Feed]) -> list[Feed]:
        """The outputs in FP32."""
        self._opened = self._session = None
        return list(Session.from_graph(self.graph, in_turn=False).run_each(feeds))

    def run_each(self, fit: Fit, feeds: Sequence[Feed]) -> Iterator[Feed]:
        """The outputs in INT8 for each feed, in order."""
        fit = replace(fit, rounded={**self._nearest(fit.fp16_scales), **fit.rounded})
        opened, scales = _with_open_scales(fit.apply(self.graph, self._layers))
        if self._opened is None or not equal_graphs(opened, self._opened):
            self._opened = self._session = None
            self._opened, self._session = opened, Session.from_graph(opened, in_turn=False)
        return self._session.with_constants(scales).run_each(feeds)

    def _nearest(self, half: bool) -> dict[str, Rounded]:
        """Layers that share a weight share what is made of it."""
        if half not in self._rounded:
            nodes, made, found = {node.name: node for node in self.graph.nodes}, {}, {}
            for layer in (layer for layer in self._layers if layer.plain):
                name, number_format = nodes[layer.node].input[1], layer.number_format
                weight = self.graph.weights[name]
                key = name, scale_axis(nodes[layer.node], weight.ndim, number_format), number_format.name
                if key not in made:
                    made[key] = Rounded(*quantize_weights(weight, key[1], half, number_format), bias=None)
                found[layer.node] = made[key]
            self._rounded[half] = found
        return self._rounded[half]


def _with_open_scales(graph: Graph) -> tuple[Graph, dict[str, np.ndarray]]:
    """(the graph, in which the scales of activations are inputs; these scales)."""
    opened = graph.copy()
    names = [node.input[1] for node in graph.nodes if node.op_type == "QuantizeLinear" and node.input[0] not in graph.weights]
    scales = {name: opened.weights.pop(name) for name in dict.fromkeys(names) if name in opened.weights}
    for name, array in scales.items():
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        opened.proto.graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, array.shape))
    return opened, scales


def equal_graphs(one: Graph, other: Graph) -> bool:
    """In nodes, names and weights, bit by bit."""
    if one.proto != other.proto or one.weights.keys() != other.weights.keys():
        return False
    return all(_equal_arrays(array, other.weights[name]) for name, array in one.weights.items())


def _equal_arrays(one: np.ndarray, other: np.ndarray) -> bool:
    """Bit by bit."""
    if one is other:
        return True
    same = one.dtype == other.dtype and one.shape == other.shape
    return same and np.array_equal(*(np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other)))
