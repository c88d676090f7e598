"""Hard sigmoids and hard swishes that a model spells out, as the operator that they are."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import clip_bounds, scalar_of

EXACTLY = 1e-6  # relative; 1/6 is written down as FP32 or by its decimals


@dataclass(frozen=True)
class _Gate:
    """clip(x + offset, 0, top), and the node that reads it."""

    nodes: tuple[onnx.NodeProto, ...]  # summand, clip
    x: str
    offset: float
    top: float
    reader: onnx.NodeProto

    @property
    def output(self) -> str:
        return self.nodes[-1].output[0]


def name_activations(graph: Graph, overrides: tuple[tuple[str, str], ...] = ()) -> Graph:
    """Write clip(x + b, 0, c) / c as HardSigmoid(x; alpha = 1/c, beta = b/c), and x * clip(x + b, 0, c) / c as x times that.

    That is what it means (ONNX HardSigmoid: max(0, min(1, alpha * x + beta))), in fewer steps, which are rounded less often and in FP16
    do not pass through c times the result. TensorRT computes each step of what it fuses behind a convolution: PP-OCRv4 det, with 24
    hard swishes in four operators each, takes 0.925 of the time like this (FP16, 10.6, H100; benchmarks/README.md).

    Args:
        overrides: (pattern, precision) of --layer-precisions; where a pattern names some of the nodes and not the others, they stay.

    Returns:
        A new graph, or `graph` itself where there is none of that; tensors and nodes that stay keep their names.
    """
    named = graph.copy()
    producers, only_reader = named.producers(), named.only_readers().get
    gone, instead = set(), {}
    for clip in named.nodes:
        gate = _gate(clip, named, producers, only_reader)
        written = gate and _written(gate, named, only_reader)
        if not written or not all_or_none((*gate.nodes, *written[1]), overrides):
            continue
        last, rest = written
        gone.update(node.name for node in (*gate.nodes, *rest))
        instead[rest[-1].name] = last
    if not gone:
        return graph
    named.replace_nodes(node for old in named.nodes for node in instead.get(old.name, () if old.name in gone else (old,)))
    named.prune()
    return named


def _gate(clip: onnx.NodeProto, graph: Graph, producers, only_reader) -> _Gate | None:
    if clip.op_type != "Clip" or clip.domain not in STANDARD_DOMAINS or not clip.input or not clip.output:
        return None
    summand = producers.get(clip.input[0])
    if summand is None or summand.op_type != "Add" or summand.domain not in STANDARD_DOMAINS or only_reader(summand.output[0]) is None:
        return None
    x, offset = operand(summand, graph)
    reader = only_reader(clip.output[0])
    low, top = clip_bounds(clip, graph.weights)
    if x is None or reader is None or low != 0 or top is None or not top > 0 or not np.isfinite(offset):
        return None
    return _Gate((summand, clip), x, offset, top, reader)


def _written(gate: _Gate, graph: Graph, only_reader) -> tuple[tuple[onnx.NodeProto, ...], tuple[onnx.NodeProto, ...]] | None:
    """(nodes that do the same, the nodes behind the clip that they stand for); None where it is no hard sigmoid or hard swish."""
    reader = gate.reader
    if _divides_by(gate.top, reader, gate.output, graph):
        return (_hard_sigmoid(gate, reader.output[0]),), (reader,)
    if reader.op_type != "Mul" or sorted(reader.input) != sorted((gate.x, gate.output)):
        return None
    division = only_reader(reader.output[0])
    if division is None or not _divides_by(gate.top, division, reader.output[0], graph):
        return None
    sigmoid = _hard_sigmoid(gate, graph.unique(f"{gate.output}_hard_sigmoid"))
    product = onnx.helper.make_node("Mul", [gate.x, sigmoid.output[0]], list(division.output), name=reader.name)
    return (sigmoid, product), (reader, division)


def _hard_sigmoid(gate: _Gate, output: str) -> onnx.NodeProto:
    alpha, beta = 1 / gate.top, gate.offset / gate.top
    return onnx.helper.make_node("HardSigmoid", [gate.x], [output], name=gate.nodes[-1].name, alpha=alpha, beta=beta)


def operand(node: onnx.NodeProto, graph: Graph) -> tuple[str | None, float]:
    """(the tensor, the constant number) that a node computes with; (None, 0) where these are not its operands."""
    for tensor, constant in (tuple(node.input), tuple(reversed(node.input))) if len(node.input) == 2 else ():
        value = scalar_of(constant, graph.weights)
        if value is not None and tensor not in graph.weights:
            return tensor, value
    return None, 0.0


def _divides_by(value: float, node: onnx.NodeProto, tensor: str, graph: Graph) -> bool:
    x, constant = operand(node, graph)
    if x != tensor or node.op_type == "Div" and node.input[0] != tensor:
        return False
    product = value * constant if node.op_type == "Mul" else constant / value if node.op_type == "Div" else 0.0
    return bool(abs(product - 1) <= EXACTLY)


def all_or_none(nodes: tuple[onnx.NodeProto, ...], overrides: tuple[tuple[str, str], ...]) -> bool:
    """Whether each pattern of --layer-precisions names all of the nodes, or none of them."""
    return all(len({fnmatchcase(node.name, pattern) for node in nodes}) == 1 for pattern, _ in overrides)
