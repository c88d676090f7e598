"""Layer normalisations that a model spells out in single operators, as the operator that they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, scalar_of
from onnx2trt.rewrite.activations import all_or_none, operand
from onnx2trt.rewrite.opset import raise_opset

OPSET = 17  # the first with LayerNormalization


@dataclass(frozen=True)
class _Norm:
    """factors * (x - mean) / sqrt(variance + epsilon) + summands, over the last axis."""

    nodes: tuple[onnx.NodeProto, ...]  # all of them, the last of which makes the result
    x: str
    factors: str  # a vector of weights
    summands: str  # the same; "" without
    epsilon: float


def name_layer_norms(graph: Graph, overrides: tuple[tuple[str, str], ...] = ()) -> Graph:
    """Write what exporters make of a layer normalisation below opset 17 as ONNX's LayerNormalization.

    Mean and variance of that are FP32 inside one kernel, and what it reads and gives may be FP16 or INT8; in single operators squares, sum
    and root have to stay FP32 by themselves (rewrite.near_zero), and TensorRT makes more FP32 of what stands around: a BERT-base in INT8
    had all its residual additions in FP32, and kernels for them that took a third longer (H200, TensorRT 10.6).

    Args:
        overrides: (pattern, precision) of --layer-precisions; where a pattern names some of the nodes and not the others, they stay.

    Returns:
        A new graph, in opset 17 or newer; `graph` itself where there is none of that, or its opset cannot be raised.
    """
    raised = raise_opset(graph, OPSET) if _Search(graph, overrides).found() else None
    if raised is None:
        return graph
    named = raised.copy()
    found = _Search(named, overrides).found()
    gone = {node.name for norm in found for node in norm.nodes}
    instead = {norm.nodes[-1].name: _operator(norm) for norm in found}
    named.replace_nodes(instead.get(node.name, node) for node in named.nodes if node.name in instead or node.name not in gone)
    named.prune()
    return named


def _operator(norm: _Norm) -> onnx.NodeProto:
    inputs, last = [norm.x, norm.factors, *filter(None, [norm.summands])], norm.nodes[-1]
    return onnx.helper.make_node("LayerNormalization", inputs, list(last.output), name=last.name, axis=-1, epsilon=norm.epsilon)


class _Search:
    """From each root of a variance back to what is normalised, and forth to the factors and summands."""

    def __init__(self, graph: Graph, overrides: tuple[tuple[str, str], ...]):
        self._graph, self._overrides = graph, overrides
        self._producers, self._readers, self._outputs = graph.producers(), graph.consumers(), set(graph.output_names)
        self._only_readers = graph.only_readers()

    def found(self) -> list[_Norm]:
        norms = (self._around(node) for node in self._graph.nodes if self._power(node) in (0.5, -0.5))
        return [norm for norm in norms if norm and self._alone(norm.nodes) and all_or_none(norm.nodes, self._overrides)]

    def _around(self, root: onnx.NodeProto) -> _Norm | None:
        summed = self._made(root.input[0], "Add")
        variance, epsilon = operand(summed, self._graph) if summed else (None, 0.0)
        over = self._mean(variance or "")
        square = over and self._producers.get(over.input[0])
        if not epsilon > 0 or square is None or self._power(square) != 2:
            return None
        centre = self._made(square.input[0], "Sub")
        mean = centre and self._mean(centre.input[1])
        if not mean or mean.input[0] != centre.input[0]:
            return None
        before = (mean, centre, square, over, summed, root)
        divided = self._divided(root, centre)
        if divided:
            return self._scaled(centre.input[0], epsilon, before, divided)
        return self._as_batch_norm(centre.input[0], epsilon, before)

    def _divided(self, root: onnx.NodeProto, centre: onnx.NodeProto) -> tuple[onnx.NodeProto, ...]:
        """What divides the difference from the mean by the root, with the difference where it is computed twice; empty: nothing does."""
        inverse, nodes, reader = self._power(root) < 0, (), self._only_reader(root)
        if reader is not None and not inverse and reader.op_type == "Reciprocal":
            inverse, nodes, root, reader = True, (reader,), reader, self._only_reader(reader)
        if reader is None or reader.op_type != ("Mul" if inverse else "Div"):
            return ()
        difference = reader.input[0]
        if inverse and difference == root.output[0]:
            difference = reader.input[1]
        again = self._made(difference, "Sub")
        if difference == root.output[0] or again is None or list(again.input) != list(centre.input):
            return ()
        return (*((again,) if again is not centre else ()), *nodes, reader)

    def _scaled(self, x: str, epsilon: float, before: tuple, divided: tuple) -> _Norm | None:
        product = self._only_reader(divided[-1])
        factors = self._vector(product, divided[-1]) if product is not None and product.op_type == "Mul" else ""
        if not factors:
            return None
        nodes, size = (*before, *divided, product), self._graph.weights[factors].size
        added = self._only_reader(product)
        summands = self._vector(added, product) if added is not None and added.op_type == "Add" else ""
        if not summands or self._graph.weights[summands].size != size:
            return _Norm(nodes, x, factors, "", epsilon)
        return _Norm((*nodes, added), x, factors, summands, epsilon)

    def _as_batch_norm(self, x: str, epsilon: float, before: tuple) -> _Norm | None:
        """As TensorFlow computes it: x * inverse + (summands - mean * inverse), inverse = factors / root."""
        mean, root = before[0], before[-1]
        inverse = root if self._power(root) < 0 else self._only_reader(root)
        inverted = inverse is root or inverse is not None and inverse.op_type == "Reciprocal"
        product = self._only_reader(inverse) if inverted else None
        factors = self._vector(product, inverse) if product is not None and product.op_type == "Mul" else ""
        readers = self._readers.get(product.output[0], []) if factors else []
        scaled, shift = (next((one for one in readers if one.op_type == "Mul" and name in one.input), None) for name in (x, mean.output[0]))
        rest = self._only_reader(shift) if shift is not None else None
        summands = self._vector(rest, shift) if rest is not None and rest.op_type == "Sub" else ""
        last = self._only_reader(rest) if summands and rest.input[0] == summands else None
        if scaled is None or last is None or last.op_type != "Add" or self._only_reader(scaled) is not last:
            return None
        if self._graph.weights[summands].size != self._graph.weights[factors].size:
            return None
        inverse = (inverse,) if inverse is not root else ()
        return _Norm((*before, *inverse, product, scaled, shift, rest, last), x, factors, summands, epsilon)

    def _alone(self, nodes: tuple[onnx.NodeProto, ...]) -> bool:
        """Whether nothing else reads what is inside."""
        names = {node.name for node in nodes}
        made = [node.output[0] for node in nodes[:-1]]
        return self._outputs.isdisjoint(made) and all(reader.name in names for name in made for reader in self._readers.get(name, ()))

    def _made(self, tensor: str, operator: str) -> onnx.NodeProto | None:
        node = self._producers.get(tensor)
        return node if node is not None and node.op_type == operator and node.domain in STANDARD_DOMAINS else None

    def _only_reader(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        return self._only_readers.get(node.output[0])

    def _power(self, node: onnx.NodeProto) -> float:
        """To which power a node takes its first input; 0: it does something else."""
        if node.domain not in STANDARD_DOMAINS:
            return 0.0
        if node.op_type == "Pow":
            return scalar_of(node.input[1], self._graph.weights) or 0.0
        if node.op_type == "Mul":
            return 2.0 if node.input[0] == node.input[1] else 0.0
        return 0.5 if node.op_type == "Sqrt" else 0.0

    def _mean(self, tensor: str) -> onnx.NodeProto | None:
        """The mean over the last axis, which is kept, that makes a tensor."""
        node = self._made(tensor, "ReduceMean")
        if node is None or not attribute(node, "keepdims", 1):
            return None
        axes = self._graph.weights.get(node.input[1]) if len(node.input) > 1 else np.array(attribute(node, "axes", []))
        return node if axes is not None and axes.tolist() == [-1] else None

    def _vector(self, node: onnx.NodeProto, before: onnx.NodeProto) -> str:
        """The constant vector that a node computes with, beside what another has made; "" where it is something else."""
        others = [name for name in node.input if name != before.output[0]]
        values = self._graph.weights.get(others[0]) if len(others) == 1 else None
        return others[0] if values is not None and values.dtype == np.float32 and values.ndim == 1 and values.size > 1 else ""
