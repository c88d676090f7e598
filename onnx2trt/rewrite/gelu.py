"""GELU by tanh instead of erf, where 8 bits read the result.

GELU(x) = x/2 (1 + erf(x / sqrt 2)), about x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): Hendrycks and Gimpel, "Gaussian Error Linear
Units" (2016), section 2. They differ by 4.8e-4 at most; INT8 rounds values of up to 4 by 1.6e-2. GPUs have an instruction for tanh; erf
takes tens of them in the epilogue of the product before it. H200, TensorRT 10.6, the MLPs of a ViT-B/16 at batch 32 by Q/DQ: the first
product 38 us with tanh, 66 with erf, 34 with ReLU; two MLPs 169 us, 219 with erf (FP16: 274).
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, scalar_of
from onnx2trt.rewrite.contrib_nodes import Replacement

NEARLY = 1e-3  # relative: constants that were FP16 before
STEPS = 2  # products behind the sum, until one of them is with x
ERROR = 4.8e-4  # of the one in the other's place
STEPS_OF_8_BITS = 256  # over what 8 bits reach: tanh is off by half of one at most
SCALED = ("Mul", "Add", "Sub", "Div")  # by a constant: what may stand between GELU and its reader
REACH = {"float8_e4m3fn": 448.0}  # the largest value of the type, else that of INT8


@dataclass(frozen=True)
class _Gelu:
    """x (1 + erf(x / sqrt 2)), times constants and in whatever order; equalization makes vectors of these."""

    x: str
    nodes: tuple[onnx.NodeProto, ...]
    last: onnx.NodeProto  # the sum, or ONNX's own operator: what is written anew
    result: str  # a tensor
    error: float  # of the result, by tanh


def by_tanh(n: Replacement, x: str) -> None:
    """Write GELU into the output of `n`."""
    n("Mul", n("Mul", x, _one_and_tanh(n, x)), n.constant(0.5), to=n.output(0))


def _one_and_tanh(n: Replacement, x: str, to: str = "") -> str:
    cubic = n("Mul", n("Mul", n("Mul", x, x), x), n.constant(0.044715))
    return n("Add", n("Tanh", n("Mul", n("Add", x, cubic), n.constant(math.sqrt(2 / math.pi)))), n.constant(1.0), to=to)


def gelus_by_tanh(graph: Graph, held: Container[str] = ()) -> Graph:
    """Those whose result is read by QuantizeLinear alone, perhaps through factors and summands, are computed by tanh, where 8 bits do not
    tell it from erf: the steps that they have must be large enough.

    Args:
        graph: with Q/DQ, FP32 but for that; not changed.
        held: nodes that stay as they are: of --layer-precisions, or in FP32 for their range.

    Returns:
        A new graph, or `graph` itself where there is none of that; tensors that stay keep their names.
    """
    found = [gelu for gelu in _Search(graph).found() if not any(node.name in held for node in gelu.nodes)]
    if not found:
        return graph
    result, instead = graph.copy(), {}
    for gelu in found:
        n = Replacement(result, gelu.last, np.float32)
        if gelu.last.op_type == "Gelu":
            by_tanh(n, gelu.x)
        else:
            _one_and_tanh(n, gelu.x, n.output(0))
        instead[gelu.last.name] = n.made
    result.replace_nodes(new for old in result.nodes for new in instead.get(old.name, (old,)))
    result.prune()
    return result


class _Search:
    def __init__(self, graph: Graph):
        self._graph = graph
        self._producers, self._readers, self._outputs = graph.producers(), graph.consumers(), set(graph.output_names)

    def found(self) -> list[_Gelu]:
        """In the graph's order."""
        gelus = (self._gelu(node) for node in self._graph.nodes if node.domain in STANDARD_DOMAINS)
        return [gelu for gelu in gelus if gelu and self._lost_in_8_bits(gelu.result, gelu.error)]

    def _gelu(self, node: onnx.NodeProto) -> _Gelu | None:
        if node.op_type == "Gelu" and attribute(node, "approximate", b"none") == b"none":
            return _Gelu(node.input[0], (node,), node, node.output[0], ERROR)
        if node.op_type != "Erf":
            return None
        inner = self._producers.get(node.input[0])
        x, factor = self._scaled(inner)
        whole = self._only_reader(node.output[0])
        if not x or all(self._scalar(name) is None for name in inner.input) or abs(factor * math.sqrt(2) - 1) > NEARLY:
            return None
        if whole is None or whole.op_type != "Add":
            return None
        one = [self._scalar(name) for name in whole.input if name != node.output[0]]
        if not one or one[0] is None or abs(one[0] - 1) > NEARLY:
            return None
        return self._product(x, (inner, node, whole))

    def _product(self, x: str, nodes: tuple[onnx.NodeProto, ...]) -> _Gelu | None:
        """The product of the sum with x, perhaps with a constant before."""
        whole, error = nodes[-1], 2 * ERROR
        for _ in range(STEPS):
            last = self._only_reader(nodes[-1].output[0])
            other = [name for name in last.input if name != nodes[-1].output[0]] if last is not None and last.op_type == "Mul" else []
            if not other:
                return None
            nodes += (last,)
            constant, (of, factor) = self._largest(other[0]), self._scaled(self._producers.get(other[0]))
            if constant is None and x in (other[0], of):
                return _Gelu(x, nodes, whole, last.output[0], error * (1.0 if other[0] == x else abs(factor)))
            if constant is None:
                return None
            error *= constant
        return None

    def _scaled(self, node: onnx.NodeProto | None) -> tuple[str, float]:
        """(x, factor) of x times a constant, or over one, the largest factor of several; ("", 0) of anything else."""
        if node is None or node.op_type not in ("Mul", "Div") or len(node.input) != 2:
            return "", 0.0
        first, second = self._graph.weights.get(node.input[0]), self._graph.weights.get(node.input[1])
        if second is not None and first is None and second.size and np.all(second):
            return node.input[0], _one_or_largest(second if node.op_type == "Mul" else 1 / second)
        if first is not None and first.size and second is None and node.op_type == "Mul":
            return node.input[1], _one_or_largest(first)
        return "", 0.0

    def _lost_in_8_bits(self, tensor: str, error: float) -> bool:
        readers = self._readers.get(tensor, [])
        return bool(readers) and tensor not in self._outputs and all(self._loses(reader, tensor, error) for reader in readers)

    def _loses(self, reader: onnx.NodeProto, tensor: str, error: float) -> bool:
        """Whether a reader, or what reads it, rounds more coarsely than by this error."""
        if reader.op_type == "QuantizeLinear":
            scale = self._graph.weights.get(reader.input[1])
            zero = self._graph.weights.get(reader.input[2]) if len(reader.input) > 2 else None
            reach = REACH.get(zero.dtype.name, 127.0) if zero is not None else 127.0
            return scale is not None and error <= float(np.min(scale)) * reach / STEPS_OF_8_BITS
        if reader.op_type not in SCALED or tensor != reader.input[0] and reader.op_type == "Div":
            return False
        constant = next((self._graph.weights[name] for name in reader.input if name in self._graph.weights), None)
        if constant is None or not constant.size or reader.op_type == "Div" and not np.all(constant):
            return False
        if reader.op_type in ("Mul", "Div"):
            error *= float(np.abs(constant if reader.op_type == "Mul" else 1 / constant).max())
        return self._lost_in_8_bits(reader.output[0], error)

    def _only_reader(self, tensor: str) -> onnx.NodeProto | None:
        readers = self._readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self._outputs else None

    def _scalar(self, name: str) -> float | None:
        return scalar_of(name, self._graph.weights)

    def _largest(self, name: str) -> float | None:
        """Of the absolute values of a constant."""
        constant = self._graph.weights.get(name)
        return None if constant is None or not constant.size else float(np.abs(constant).max())


def _one_or_largest(values: np.ndarray) -> float:
    """The value of a constant of one element; of others the largest absolute value."""
    return float(values.reshape(())) if values.size == 1 else float(np.abs(values).max())
