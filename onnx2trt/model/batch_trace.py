"""Which node a batch comes to grief in: found by running the graph for two samples alone and together, node by node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.model_info import dims
from onnx2trt.model.batch_relation import carries
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import reads
from onnx2trt.model.session import Session

Arrays = dict[str, np.ndarray]
RESHAPES = frozenset(("Reshape", "Flatten"))  # never let a sequence influence itself: where they mix samples, a size is written into them
MOST_BYTES = 2**30  # of all tensors together, which are looked at at once


@dataclass(frozen=True)
class Culprit:
    """The first node that does not keep the samples of a batch side by side."""

    node: str
    operator: str
    detail: str = ""  # what is written into it, in words

    @property
    def reshapes(self) -> bool:
        return self.operator in RESHAPES

    def __str__(self) -> str:
        return f"node {self.node!r} ({self.operator}{f', {self.detail}' if self.detail else ''})"


def find_culprit(graph: Graph, alone: tuple[Arrays, Arrays], together: Arrays, failing: str | None = None) -> Culprit | None:
    """The node; None where it cannot be told.

    Args:
        graph: every node named, in order.
        alone: inputs for one sample, and for another.
        together: for both in one batch.
        failing: name of the node that ONNX Runtime cannot run for `together`.
    """
    found = _first_that_mixes(graph, _before(graph, failing), alone, together)
    return named(graph, found.name if found is not None else failing)


def named(graph: Graph, name: str | None) -> Culprit | None:
    """A node with what is written into it; None where there is none of this name."""
    found = next((node for node in graph.nodes if node.name == name), None)
    return None if found is None else Culprit(found.name, found.op_type, _written_into(graph, found))


def _before(graph: Graph, failing: str | None) -> list[onnx.NodeProto]:
    """The nodes that can be run: those that do not wait for the failing one."""
    waiting, runnable = set(), []
    for node in graph.nodes:
        if node.name == failing or waiting.intersection(reads(node)):
            waiting.update(node.output)
        else:
            runnable.append(node)
    return runnable


def _first_that_mixes(graph: Graph, nodes: list[onnx.NodeProto], alone: tuple[Arrays, Arrays], together: Arrays) -> onnx.NodeProto | None:
    names = tuple(name for node in nodes for name in node.output if name)
    try:
        session = Session.from_graph(_cut(graph, nodes), names, optimize=False)
        first = session.run(alone[0], names)
        if 4 * sum(array.nbytes for array in first.values() if isinstance(array, np.ndarray)) > MOST_BYTES:
            return None
        second, whole = session.run(alone[1], names), session.run(together, names)
    except ConversionError:
        return None
    seen: list[Mapping] = [{**given, **found} for given, found in zip((*alone, together), (first, second, whole))]
    good = {name for name in graph.input_names if _kept(name, seen)}
    for node in nodes:
        outputs = [name for name in node.output if name]
        given = [name for name in reads(node) if name in seen[0]]
        bad = [name for name in outputs if not _kept(name, seen)]
        if bad and all(name in good for name in given):
            return node
        good.update(name for name in outputs if name not in bad)
    return None


def _cut(graph: Graph, nodes: list[onnx.NodeProto]) -> Graph:
    """The graph of some of its nodes alone, without outputs."""
    cut = graph.copy()
    cut.replace_nodes(nodes)
    del cut.proto.graph.output[:]
    return cut


def _kept(name: str, seen: list[Mapping]) -> bool:
    """A tensor that holds both samples side by side, or has nothing to do with them."""
    first, second, whole = (values[name] for values in seen)
    if not all(isinstance(value, np.ndarray) for value in (first, second, whole)):
        return True  # a sequence or an optional
    if whole.dtype.kind in "iub" and first.ndim <= 1 and not carries(first, second, whole):
        return True  # shapes and sizes, which follow the batch in their own way
    if whole.shape == first.shape and np.array_equal(first, second, equal_nan=whole.dtype.kind == "f"):
        return bool(np.array_equal(whole, first, equal_nan=whole.dtype.kind == "f"))
    return carries(first, second, whole)


def _written_into(graph: Graph, node: onnx.NodeProto) -> str:
    """The constant or the input of fixed size that fixes the batch, in words."""
    if node.op_type in ("Reshape", "Expand", "Tile") and len(node.input) > 1 and node.input[1] in graph.weights:
        return f"to {dims(graph.weights[node.input[1]].reshape(-1).tolist())}"
    fixed = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in graph.proto.graph.input}
    if node.op_type in ("LSTM", "GRU", "RNN"):
        for name in node.input[5:7]:
            shape = graph.weights[name].shape if name in graph.weights else fixed.get(name, ())
            if shape and math.prod(shape):
                return f"whose initial state {name!r} is {dims(shape)}"
    return ""
