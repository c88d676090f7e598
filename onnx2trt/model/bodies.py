"""Bodies of If, Loop and Scan as graphs by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph, array_of, constant_value
from onnx2trt.model.nodes import captured, subgraphs

CONTROL_FLOW = frozenset(("If", "Loop", "Scan"))


def is_plain(node: onnx.NodeProto) -> bool:
    """Whether a node is control flow of ONNX whose bodies can be looked at and written back one by one."""
    if node.op_type not in CONTROL_FLOW or node.domain not in STANDARD_DOMAINS:
        return False
    return all(_is_plain_body(body) for body in subgraphs(node))


def _is_plain_body(body: onnx.GraphProto) -> bool:
    """Every result is made in it, once: ONNX Runtime takes no other, and a result of another type would need a node of its own."""
    made = [name for node in body.node for name in node.output]
    results = [value.name for value in body.output]
    return not body.sparse_initializer and len(set(results)) == len(results) and set(results) <= set(made)


def body_graph(body: onnx.GraphProto, outside: Graph, types: dict[str, int]) -> Graph:
    """A body with all that it needs from outside: weights as weights, other tensors as inputs behind its own.

    Args:
        outside: the graph around it.
        types: tensor of `outside` -> TensorProto.DataType.
    """
    proto = onnx.ModelProto()
    proto.ir_version = outside.proto.ir_version
    proto.opset_import.extend(outside.proto.opset_import)
    proto.graph.name = body.name or "body"
    proto.graph.input.extend(body.input)
    proto.graph.output.extend(body.output)
    weights = {tensor.name: array_of(tensor) for tensor in body.initializer}
    for name in captured(body):
        if name in outside.weights:
            weights[name] = outside.weights[name]
        elif name in types:
            value = proto.graph.input.add(name=name)
            value.type.tensor_type.elem_type = types[name]
    for node in body.node:
        constant = constant_value(node)
        if constant is None:
            proto.graph.node.append(node)
        else:
            weights[node.output[0]] = constant
    return Graph(proto, weights)


def write_back(graph: Graph, body: onnx.GraphProto, outside: frozenset[str]) -> None:
    """Put the nodes of a body that was changed as a graph into its place.

    Args:
        outside: weights that are captured.
    """
    del body.node[:], body.initializer[:]
    body.node.extend(graph.nodes)
    needed = {name for node in graph.nodes for name in (*node.input, *(inner for part in subgraphs(node) for inner in captured(part)))}
    own = ((name, array) for name, array in graph.weights.items() if name in needed and name not in outside)
    body.initializer.extend(numpy_helper.from_array(array, name) for name, array in own)


def inner_graphs(graph: Graph) -> Iterator[Graph]:
    """The bodies of all control flow that is_plain, those inside them, too; copies, to look at."""
    nodes = [node for node in graph.nodes if is_plain(node)]
    types = graph.types() if nodes else {}
    for node in nodes:
        for body in subgraphs(node):
            inner = body_graph(body, graph, types)
            yield inner
            yield from inner_graphs(inner)
