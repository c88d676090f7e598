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
from onnx2trt.rewrite.number_formats import FORMATS, INT8

NEARLY = 1e-3  # relative: constants that were FP16 before
STEPS = 2  # products behind the sum, until one of them is with x
ERROR = 4.8e-4  # of the one in the other's place
STEPS_OF_8_BITS = 256  # over what 8 bits reach: tanh is off by half of one at most
CURVES = ("Erf", "Tanh")  # of which GELU is made
SHIFTED = ("Add", "Sub")  # by a constant, or scaled: what may stand between GELU and its reader
LARGEST = {one.dtype: one.largest for one in FORMATS.values()}


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


def behind_gelus(graph: Graph) -> set[str]:
    """What GELUs that are written out with Erf or Tanh give, and what constants of one value make of that.

    TensorRT 10 computes GELU in the epilogue of the INT8 product before it as long as nothing else stands between it and QuantizeLinear:
    with factors of channels that product took 62 us instead of 36, as in FP16 (a ViT-B/16 at batch 32 on an H200; benchmarks/gelu.py).
    """
    curves, results = set(), set()
    for node in graph.nodes:
        if node.domain not in STANDARD_DOMAINS:
            continue
        variables = [name for name in node.input if name not in graph.weights]
        constants = [graph.weights[name] for name in node.input if name in graph.weights]
        if node.op_type in CURVES:
            curves.add(node.output[0])
        elif node.op_type == "Mul" and len(variables) == 2 and curves.intersection(variables):
            results.add(node.output[0])
        elif node.op_type in (*SHIFTED, "Mul", "Div") and [values.size for values in constants] == [1]:
            for kind in (curves, results):
                if variables[0] in kind:
                    kind.add(node.output[0])
    return results


class _Search:
    def __init__(self, graph: Graph):
        self._graph = graph
        self._producers, self._readers, self._outputs = graph.producers(), graph.consumers(), set(graph.output_names)
        self._only_reader = graph.only_readers().get

    def found(self) -> list[_Gelu]:
        """In the graph's order."""
        gelus = (self._gelu(node) for node in self._graph.nodes if node.domain in STANDARD_DOMAINS)
        return [gelu for gelu in gelus if gelu and self._lost_in_8_bits(gelu.result, gelu.error)]

    def _gelu(self, node: onnx.NodeProto) -> _Gelu | None:
        if node.op_type == "Gelu" and attribute(node, "approximate", b"none") == b"none":
            return _Gelu(node.input[0], (node,), node, node.output[0], ERROR)
        if node.op_type != "Erf":
            return None
        x, factors = self._scaled(self._producers.get(node.input[0]))
        whole = self._only_reader(node.output[0])
        if factors.size != 1 or factors.ndim > 1 or abs(factors.item() * math.sqrt(2) - 1) > NEARLY:
            return None
        if whole is None or whole.op_type != "Add":
            return None
        one = [self._scalar(name) for name in whole.input if name != node.output[0]]
        if not one or one[0] is None or abs(one[0] - 1) > NEARLY:
            return None
        return self._product(x, (self._producers[node.input[0]], node, whole))

    def _product(self, x: str, nodes: tuple[onnx.NodeProto, ...]) -> _Gelu | None:
        """The product of the sum with x, perhaps with a constant before."""
        whole, error = nodes[-1], 2 * ERROR
        for _ in range(STEPS):
            before, last = nodes[-1].output[0], self._only_reader(nodes[-1].output[0])
            if last is None or last.op_type != "Mul" or last.input[0] == last.input[1]:
                return None
            nodes += (last,)
            (other,) = (name for name in last.input if name != before)
            of, factors = self._scaled(self._producers.get(other))
            if x in (other, of):
                return _Gelu(x, nodes, whole, last.output[0], error * (1.0 if other == x else _largest(factors)))
            of, factors = self._scaled(last)
            if not of:
                return None
            error *= _largest(factors)
        return None

    def _scaled(self, node: onnx.NodeProto | None) -> tuple[str, np.ndarray]:
        """(x, factors) of x times a constant, or over one; ("", empty) of anything else."""
        if node is None or node.op_type not in ("Mul", "Div") or len(node.input) != 2:
            return "", np.zeros(0)
        first, second = self._graph.weights.get(node.input[0]), self._graph.weights.get(node.input[1])
        if second is not None and first is None and second.size and np.all(second):
            return node.input[0], second if node.op_type == "Mul" else 1 / second
        if first is not None and first.size and second is None and node.op_type == "Mul":
            return node.input[1], first
        return "", np.zeros(0)

    def _lost_in_8_bits(self, tensor: str, error: float) -> bool:
        readers = self._readers.get(tensor, [])
        return bool(readers) and tensor not in self._outputs and all(self._loses(reader, error) for reader in readers)

    def _loses(self, reader: onnx.NodeProto, error: float) -> bool:
        """Whether a reader, or what reads it, rounds more coarsely than by this error."""
        if reader.op_type == "QuantizeLinear":
            scale = self._graph.weights.get(reader.input[1])
            zero = self._graph.weights.get(reader.input[2]) if len(reader.input) > 2 else None
            largest = INT8.largest if zero is None else LARGEST.get(zero.dtype, INT8.largest)
            return scale is not None and error <= float(np.min(scale)) * largest / STEPS_OF_8_BITS
        scaled, factors = self._scaled(reader)
        if scaled:
            return self._lost_in_8_bits(reader.output[0], error * _largest(factors))
        shifted = reader.op_type in SHIFTED and any(name in self._graph.weights for name in reader.input)
        return shifted and self._lost_in_8_bits(reader.output[0], error)

    def _scalar(self, name: str) -> float | None:
        return scalar_of(name, self._graph.weights)


def _largest(values: np.ndarray) -> float:
    """Of the absolute values."""
    return float(np.abs(values).max())
