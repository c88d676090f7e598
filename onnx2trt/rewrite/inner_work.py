"""The work in bodies of If, Loop and Scan, in multiply-accumulates."""

from __future__ import annotations

import onnx

from onnx2trt.model.bodies import body_graph, is_plain
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, subgraphs
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.work import count_macs

MOST_STEPS = 2**31  # a Loop that ends by its condition alone often has the largest int64 for its steps

Shapes = dict[str, tuple[int, ...]]


def macs_in_bodies(graph: Graph, shapes: Shapes) -> dict[str, int]:
    """Multiply-accumulates of the nodes in bodies, those in bodies inside them, too; see count_macs.

    What a Loop or Scan does counts for each of its steps, as far as a constant or the shape of a result tells how many there are, else
    once. Both branches of an If count: either may run.

    Args:
        shapes: tensor of `graph` -> shape; the states of a loop are taken to keep theirs.

    Returns:
        Node name -> count.
    """
    nodes = [node for node in graph.nodes if is_plain(node)]
    known = {**{name: array.shape for name, array in graph.weights.items()}, **shapes} if nodes else {}
    types = graph.types() if nodes else {}
    found: dict[str, int] = {}
    for node in nodes:
        steps = _steps(node, graph, known)
        for body in subgraphs(node):
            inner = body_graph(body, graph, types)
            _declare(inner, {**known, **_handed_in(node, body, known)})
            own = static_shapes(inner, ())
            counts = {**count_macs(inner, own), **macs_in_bodies(inner, own)}
            found.update((name, steps * count) for name, count in counts.items())
    return found


def _declare(inner: Graph, shapes: Shapes) -> None:
    """Write the shapes of the inputs down, in place: what is captured has none, and bodies may declare none."""
    for value in inner.proto.graph.input:
        if value.name in shapes:
            del value.type.tensor_type.shape.dim[:]
            value.type.tensor_type.shape.SetInParent()
            for size in shapes[value.name]:
                value.type.tensor_type.shape.dim.add().dim_value = size


def _handed_in(node: onnx.NodeProto, body: onnx.GraphProto, known: Shapes) -> Shapes:
    """Shapes of the inputs of a body, as far as they are known."""
    names = [value.name for value in body.input]
    if node.op_type == "Loop":
        outside = node.input[2:]
        shapes = {name: known[source] for name, source in zip(names[2:], outside) if source in known}
        return {**dict.fromkeys(names[:2], ()), **shapes}
    found = {name: known[source] for name, source in zip(names, node.input) if source in known}
    for name, axis in _scanned(node, body):
        if name in found:
            shape = found[name]
            found[name] = tuple(size for place, size in enumerate(shape) if place != axis % len(shape))
    return found


def _scanned(node: onnx.NodeProto, body: onnx.GraphProto) -> list[tuple[str, int]]:
    """(input of the body, axis along which a Scan goes through what it is handed)"""
    if node.op_type != "Scan":
        return []
    count = attribute(node, "num_scan_inputs", 0)
    names = [value.name for value in body.input][len(body.input) - count :]
    return list(zip(names, attribute(node, "scan_input_axes") or [0] * count))


def _steps(node: onnx.NodeProto, graph: Graph, known: Shapes) -> int:
    if node.op_type == "Scan":
        body = subgraphs(node)[0]
        places = {value.name: source for value, source in zip(body.input, node.input)}
        sizes = [known[places[name]][axis] for name, axis in _scanned(node, body) if places.get(name) in known]
        return sizes[0] if sizes else 1
    if node.op_type == "Loop":
        states = len(node.input) - 2
        stacked = [known[name][0] for name in node.output[states:] if known.get(name)]  # a row for each step that was made
        most = graph.weights.get(node.input[0])
        if most is not None and most.size == 1 and 0 < most.item() < MOST_STEPS:
            stacked.append(int(most.item()))
        return min(stacked, default=1)
    return 1
