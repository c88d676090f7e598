"""Nodes that TensorRT's parser refuses in the form that a precision gives them, and which nodes of the FP32 graph are to blame."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes, subgraphs

BY_PARSER = "TensorRT's parser refuses it in"  # begins such a reason
NOT_BUILT = "control flow whose bodies TensorRT does not build in a lower precision"
ALONE = 5  # rounds in which single nodes are given up; then all of their operator, since the parser may name one node at a time


@dataclass(frozen=True)
class Refused:
    """What has to be done without; node of the FP32 graph -> reason."""

    in_fp32: dict[str, str] = field(default_factory=dict)  # nodes that stay in FP32
    without_int8: dict[str, str] = field(default_factory=dict)  # nodes that read nothing as INT8
    rounds: int = 0

    def more(self, graph: Graph, made: Graph, named: dict[str, str], may_lose_int8: bool, half: str) -> Refused | None:
        """With what one more refusal is about; None where that is nothing that could still be changed.

        A node that reads INT8 loses that first, and its 16 bits where it is refused again.

        Args:
            graph: FP32.
            made: what was made of it, and refused.
            named: node of `made` -> what the parser says of it.
            may_lose_int8: Q/DQ were put in by us.
            half: what `made` is where it is neither INT8 nor kept in FP32: FP16 or BF16; empty where TensorRT chooses that.
        """
        reads_int8 = _reads_int8(made) if may_lose_int8 else set()
        operators = {node.name: node.op_type for node in all_nodes(graph.proto.graph)}
        in_fp32, without_int8 = dict(self.in_fp32), dict(self.without_int8)
        for node, text in _blamed(graph, made, named).items():
            alike = {name for name, operator in operators.items() if operator == operators[node]} if self.rounds >= ALONE else set()
            if node in reads_int8 and node not in without_int8:
                reason, lost, losing = f"{BY_PARSER} INT8: {text}", without_int8, alike & reads_int8
            elif half and node not in in_fp32:
                reason, lost, losing = f"{BY_PARSER} {half}: {text}", in_fp32, alike - reads_int8
            else:
                continue
            for name in (name for name in operators if name == node or name in losing):
                lost.setdefault(name, reason)
        if (in_fp32.keys(), without_int8.keys()) == (self.in_fp32.keys(), self.without_int8.keys()):
            return None
        return Refused(in_fp32, without_int8, self.rounds + 1)


def _reads_int8(made: Graph) -> set[str]:
    """Nodes of the graph itself; where bodies read INT8, the node that has them."""
    dequantized = {name for node in made.nodes if node.op_type == "DequantizeLinear" for name in node.output}
    bodies = [(node.name, one.op_type) for node in made.nodes for body in subgraphs(node) for one in all_nodes(body)]
    inside = {name for name, operator in bodies if operator == "DequantizeLinear"}
    return inside | {node.name for node in made.nodes if not dequantized.isdisjoint(node.input) and node.op_type != "QuantizeLinear"}


def _blamed(graph: Graph, made: Graph, named: dict[str, str]) -> dict[str, str]:
    """Nodes of `graph` -> what is said; for what was put between them (Q, DQ, Casts), the nodes that it serves, else the one it follows;
    in a body of control flow, the node that has the body.
    """
    own = {node.name for node in all_nodes(graph.proto.graph)}
    around = {inner.name: node.name for node in made.nodes for body in subgraphs(node) for inner in all_nodes(body)}
    nodes, consumers, producers = {node.name: node for node in made.nodes}, made.consumers(), made.producers()
    found: dict[str, str] = {}

    def served(name: str) -> list[str]:
        if name in own:
            return [name]
        readers = [reader.name for output in nodes[name].output for reader in consumers.get(output, [])]
        return [reached for reader in readers for reached in served(reader)]

    def followed(name: str) -> list[str]:
        if name in own:
            return [name]
        return [reached for read in nodes[name].input if read in producers for reached in followed(producers[read].name)]

    for name, text in named.items():
        if name in own or name in nodes:
            found.update(dict.fromkeys(served(name) or followed(name), text))
        elif name in around:  # a Cast in a body
            found[around[name]] = text
    return found
