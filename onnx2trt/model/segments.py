"""A graph cut into segments that run one after the other: every node runs once, and only what one segment holds is alive at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx

from onnx2trt.base.under_way import UNDER_WAY
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import reads
from onnx2trt.model.session import INFERENCE, Session

Feed = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
UNKNOWN_BYTES = 2**24  # assumed for a tensor whose shape is not known


def tensor_bytes(name: str, shapes: Shapes) -> int:
    """Of a tensor whose values take four bytes."""
    return 4 * math.prod(shapes[name]) if name in shapes else UNKNOWN_BYTES


def bounds_by_cost(graph: Graph, shapes: Shapes) -> dict[int, int]:
    """Where a graph can be cut -> bytes of the tensors that are made before and read behind it.

    A place is the index of the first node behind it, 1 to the number of nodes. ONNX Runtime wants the type of what is read, so there is
    no place where that of a tensor is not known, as of sequences.
    """
    types = graph.types()
    last = {name: index for index, node in enumerate(graph.nodes) for name in reads(node)}
    alive: dict[str, int] = {}
    found = {}
    for index, node in enumerate(graph.nodes):
        alive.update({name: tensor_bytes(name, shapes) for name in node.output if last.get(name, -1) > index})
        for name in reads(node):
            if last[name] == index:
                alive.pop(name, None)
        if all(name in types for name in alive):
            found[index + 1] = sum(alive.values())
    return found


class Segments:
    """The segments of one graph, each loaded once.

    Attributes:
        graphs: the inputs of each are what it reads of the graph's inputs and of the segments before it; its outputs are what is wanted
            of it, and what those behind it read.
    """

    def __init__(self, graph: Graph, bounds: Sequence[int], wanted: Iterable[str], in_turn: bool = True):
        """
        Args:
            graph: is not changed; its weights are not copied.
            bounds: where each segment ends (bounds_by_cost), ascending; what stands behind the last one is not computed.
            wanted: tensors to keep, inputs among them.
            in_turn: see Session.from_graph.
        """
        spans, wanted = list(zip((0, *bounds), bounds)), set(wanted)
        self._last = {name: index for index, (first, end) in enumerate(spans) for node in graph.nodes[first:end] for name in reads(node)}
        types = graph.types() if len(spans) > 1 else {}
        declared = {value.name: value for value in graph.proto.graph.output}
        self.graphs = [_between(graph, span, types) for span in spans]
        self._wanted = [[] for _ in spans]  # of each segment
        self._wanted[0] += [name for name in graph.input_names if name in wanted]
        for index, segment in enumerate(self.graphs):
            made = [name for node in segment.nodes for name in node.output if name]
            self._wanted[index] += [name for name in made if name in wanted]
            outputs = [name for name in made if name in wanted or self._last.get(name, -1) > index]
            segment.proto.graph.output.extend(declared.get(name) or _of_type(name, types.get(name)) for name in outputs)
            segment.prune()
        hold = len(self.graphs) == 1  # else, that of all segments together is as much as cutting shall save
        self.sessions = [Session.from_graph(one, in_turn=in_turn, hold=hold) if one.nodes else None for one in self.graphs]

    def step(self, index: int, alive: Feed, session: Session | None = None) -> Feed:
        """Run one segment.

        Args:
            alive: all tensors that it reads, and others.
            session: to run in its place, with the same inputs and outputs.

        Returns:
            What it makes, and what of the others the segments behind it read.
        """
        runner = session or self.sessions[index]
        made = runner.run({name: alive[name] for name in self.graphs[index].input_names}) if runner else {}
        return {name: array for name, array in alive.items() if self._last.get(name, -1) > index} | made

    def run(self, feed: Feed) -> Iterator[Feed]:
        """One inference: what is wanted of each segment, before the next one runs; wanted inputs come with the first.

        ONNX Runtime (1.32) gives None for an empty tensor that its optimizer has found out; that is left out.
        """
        alive = feed
        with UNDER_WAY.call(INFERENCE):
            for index, names in enumerate(self._wanted):
                alive = self.step(index, alive) if index else {**feed, **self.step(0, feed)}
                yield {name: alive[name] for name in names if alive[name] is not None}


def _between(graph: Graph, span: tuple[int, int], types: dict[str, int]) -> Graph:
    """Nodes of a graph with what they read as inputs; no outputs yet."""
    proto = onnx.ModelProto()
    proto.ir_version = graph.proto.ir_version
    proto.opset_import.extend(graph.proto.opset_import)
    proto.graph.name = graph.proto.graph.name
    proto.graph.node.extend(graph.nodes[slice(*span)])
    made = {name for node in proto.graph.node for name in node.output}
    read = dict.fromkeys(name for node in proto.graph.node for name in reads(node) if name not in made)
    declared = {value.name: value for value in graph.proto.graph.input}
    for name in read:
        if name in declared:
            proto.graph.input.append(declared[name])
        elif name not in graph.weights:
            proto.graph.input.append(_of_type(name, types[name]))
    return Graph(proto, {name: graph.weights[name] for name in read if name in graph.weights})


def _of_type(name: str, elem_type: int | None) -> onnx.ValueInfoProto:
    """A tensor of any shape; of no type where that is not known."""
    value = onnx.ValueInfoProto(name=name)
    if elem_type is not None:
        value.type.tensor_type.elem_type = elem_type
    return value
