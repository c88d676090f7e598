"""Attention, softmax(factor * queries @ keys + mask) @ values, found in a graph by what it computes, whatever tool has written it.

What is found is what TensorRT has fused kernels for: nothing but the second product reads what the first one makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, is_no_larger

Shapes = dict[str, tuple[int, ...]]
PASSING = frozenset({"Cast", "Identity", "Dropout"})  # hand on what they read, value by value
LIMITING = frozenset({"Clip", "Max", "Min"})  # exporters keep masked scores finite with them
SCALING = frozenset({"Mul", "Div"})
LAST_AXIS_OPSET = 13  # from which on the axis of a Softmax is -1 where it is not said; before, 1


@dataclass(frozen=True)
class Attention:
    """One attention; nodes and tensors by name, as the graph has them."""

    scores: str  # the product of queries and keys
    between: tuple[str, ...]  # what stands between the two products, in their order: factor, mask, softmax and the like
    softmax: str  # one of `between`
    context: str  # the product of probabilities and values
    factor: str | None  # one of `between`: Mul or Div by one constant number above 0, right behind the first product; None: none is there
    queries: str  # tensor [..., queries, head size], input 0 of `scores`
    keys: str  # tensor [..., head size, keys], input 1 of `scores`
    probabilities: str  # tensor [..., queries, keys], input 0 of `context`
    values: str  # tensor [..., keys, head size], input 1 of `context`

    @property
    def nodes(self) -> tuple[str, ...]:
        """All that belongs to it, from product to product."""
        return (self.scores, *self.between, self.context)

    @property
    def operands(self) -> tuple[tuple[str, int, str], ...]:
        """(node, index of the input, tensor) of what the two products read."""
        pairs = ((self.scores, self.queries, self.keys), (self.context, self.probabilities, self.values))
        return tuple((node, index, tensor) for node, *tensors in pairs for index, tensor in enumerate(tensors))


def find_attentions(graph: Graph, shapes: Shapes) -> tuple[Attention, ...]:
    """All attentions that are written out in single operators, in execution order; not those inside control flow.

    Args:
        graph: of any precision, without Q/DQ.
        shapes: tensor -> shape at the opt shapes; where those of a Softmax or of a Reshape of scores are missing, nothing is found there.
    """
    return _Search(graph, shapes).found()


def factor_of(graph: Graph, attention: Attention) -> float:
    """The number that scores are multiplied by behind the first product; 1 without one."""
    node = next((node for node in graph.nodes if node.name == attention.factor), None)
    if node is None:
        return 1.0
    value = next(float(graph.weights[name].reshape(-1)[0]) for name in node.input if name in graph.weights)
    return 1 / value if node.op_type == "Div" else value


class _Search:
    """From each Softmax back to the first product, and forth to the second."""

    def __init__(self, graph: Graph, shapes: Shapes):
        self._graph, self._shapes = graph, shapes
        self._producers, self._consumers = graph.producers(), graph.consumers()
        self._outputs = frozenset(graph.output_names)

    def found(self) -> tuple[Attention, ...]:
        candidates = (self._around(node) for node in self._graph.nodes if self._is(node, "Softmax"))
        return tuple(attention for attention in candidates if attention is not None)

    def _around(self, softmax: onnx.NodeProto) -> Attention | None:
        if not self._over_last_axis(softmax):
            return None
        behind = self._forth(softmax)
        before = list(self._back((softmax.input[0],), ()))
        if behind is None or len(before) != 1:  # two products added up are no single attention
            return None
        (scores, *chain), (*after, context) = before[0], behind
        factor = chain[0].name if chain and self._is_factor(chain[0], scores.output[0]) else None
        between = tuple(node.name for node in (*chain, softmax, *after))
        return Attention(scores.name, between, softmax.name, context.name, factor, *scores.input, *context.input)

    def _over_last_axis(self, softmax: onnx.NodeProto) -> bool:
        axis = attribute(softmax, "axis", -1 if self._graph.opset >= LAST_AXIS_OPSET else 1)
        shape = self._shapes.get(softmax.input[0])
        return axis == -1 or shape is not None and axis == len(shape) - 1

    def _back(self, names: tuple[str, ...], chain: tuple) -> Iterator[tuple[onnx.NodeProto, ...]]:
        """(product, what follows it down to `chain`) of each product whose scores may be one of these tensors."""
        for name in names:
            producer = self._producers.get(name)
            if producer is None or producer.domain not in STANDARD_DOMAINS or not self._read_once(name):
                continue
            if producer.op_type == "MatMul" and not any(operand in self._graph.weights for operand in producer.input):
                yield (producer, *chain)
            else:
                yield from self._back(self._scores_of(producer), (producer, *chain))

    def _scores_of(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """Those of the inputs that may be the scores, where the node is what may stand between product and Softmax."""
        operator, inputs = node.op_type, node.input
        if operator in PASSING and hands_on(node, self._graph):
            return (inputs[0],)
        if operator == "Reshape":
            return (inputs[0],) if self._keeps_last(node) else ()
        if operator == "Add":
            return tuple(inputs)
        if operator == "Sub":
            return (inputs[0],)
        if operator == "Where":
            return tuple(inputs[1:])
        if operator in LIMITING:
            return self._besides_constants(node)
        if operator in SCALING:
            return tuple(name for name, other in self._factors(node) if self._is_number(other))
        return ()

    def _factors(self, node: onnx.NodeProto) -> tuple[tuple[str, str], ...]:
        """(operand, the other one) for each operand that a factor may stand beside."""
        first, second = node.input
        return ((first, second),) if node.op_type == "Div" else ((first, second), (second, first))

    def _besides_constants(self, node: onnx.NodeProto) -> tuple[str, ...]:
        others = [name for name in node.input if name and name not in self._graph.weights]
        return tuple(others) if len(others) == 1 else ()

    def _is_number(self, name: str) -> bool:
        """One number, or constants (one for each head, say)."""
        return name in self._graph.weights or name in self._shapes and math.prod(self._shapes[name]) == 1

    def _is_factor(self, node: onnx.NodeProto, scores: str) -> bool:
        """Whether a node multiplies scores by one constant number above 0."""
        if node.op_type not in SCALING:
            return False
        array = next((self._graph.weights.get(other) for name, other in self._factors(node) if name == scores), None)
        return array is not None and array.size == 1 and array.dtype.kind == "f" and 0 < float(array.reshape(-1)[0]) < np.inf

    def _keeps_last(self, node: onnx.NodeProto) -> bool:
        """Whether a Reshape leaves the rows as they are, as where Swin tells the windows apart for their masks."""
        before, after = self._shapes.get(node.input[0]), self._shapes.get(node.output[0])
        return bool(before and after) and before[-2:] == after[-2:]

    def _forth(self, softmax: onnx.NodeProto) -> tuple[onnx.NodeProto, ...] | None:
        """What follows a Softmax up to the second product, which is the last one; None: it does not lead to one."""
        name, found = softmax.output[0], []
        while True:
            reader = self._only_reader(name)
            if reader is None or reader.domain not in STANDARD_DOMAINS or reader.input[0] != name and reader.op_type != "Where":
                return None
            found.append(reader)
            if reader.op_type == "MatMul":
                return tuple(found) if reader.input[1] != name and reader.input[1] not in self._graph.weights else None
            passes = reader.op_type in PASSING and hands_on(reader, self._graph)
            if not (passes or reader.op_type == "Where" or reader.op_type == "Reshape" and self._keeps_last(reader)):
                return None
            name = reader.output[0]

    def _only_reader(self, name: str) -> onnx.NodeProto | None:
        """What reads probabilities; torch asks them besides whether they are NaN, where everything is masked, to put 0 there."""
        readers = [node for node in self._consumers.get(name, ()) if name not in self._outputs]
        asking = [node for node in readers if self._is(node, "IsNaN")]
        others = [node for node in readers if node not in asking]
        if len(others) != 1:
            return None
        (reader,) = others
        if reader.op_type == "Where":
            made = {made for node in asking for made in node.output}
            guarded = len(asking) == 1 and reader.input[0] in made and name in reader.input[1:] and self._read_once(reader.input[0])
            return reader if guarded else None
        return None if asking else reader

    def _read_once(self, name: str) -> bool:
        return len(self._consumers.get(name, ())) == 1 and name not in self._outputs

    def _is(self, node: onnx.NodeProto, operator: str) -> bool:
        return node.op_type == operator and node.domain in STANDARD_DOMAINS


def hands_on(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether what hands on values does so: a Dropout in training does not, nor a Cast to integers."""
    if node.op_type == "Cast":
        return attribute(node, "to") in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return is_no_larger(node, graph.weights)
