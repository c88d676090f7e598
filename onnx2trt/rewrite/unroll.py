"""Loops that make or take lists of tensors, whose number of steps is known: the steps stand in their place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS, Profile
from onnx2trt.model.graph import Graph, array_of, constant_value
from onnx2trt.model.nodes import all_nodes, attribute, with_other_names
from onnx2trt.rewrite.contrib_nodes import Replacement
from onnx2trt.rewrite.known_sizes import known_values

MOST_NODES = 2**16  # of a graph, all steps included


def unroll(graph: Graph, wanted: Callable[[onnx.NodeProto], bool], profiles: tuple[Profile, ...]) -> bool:
    """Put its steps in the place of each loop of the graph itself that has a wanted node inside, in place; whether there was any.

    Args:
        profiles: a number of steps that hangs on sizes is known where these do not vary within them.
    """
    loops = {node.name: node for node in graph.nodes if _is_loop(node) and any(map(wanted, all_nodes(attribute(node, "body"))))}
    asked = [name for node in loops.values() for name in (*node.input[:2], *_outside(attribute(node, "body"))) if name]
    values = known_values(graph, dict.fromkeys(asked), profiles)
    steps: dict[str, int] = {}
    room = MOST_NODES - len(graph.nodes)
    for name, node in loops.items():
        found = _steps(node, values)
        made = (found or 0) * sum(1 for _ in all_nodes(attribute(node, "body")))
        if found is not None and made <= room:
            steps[name], room = found, room - made
    if not steps:
        return False
    nodes = [other for node in graph.nodes for other in (_unrolled(graph, node, steps[node.name]) if node.name in steps else [node])]
    graph.replace_nodes(nodes)
    return True


def _is_loop(node: onnx.NodeProto) -> bool:
    return node.op_type == "Loop" and node.domain in STANDARD_DOMAINS and not attribute(node, "body").sparse_initializer


def _outside(body: onnx.GraphProto) -> list[str]:
    """What its condition for one more step may be, of what is not made inside."""
    source = _condition(body)
    return [source] if source and all(source != value.name for value in body.input) else []


def _condition(body: onnx.GraphProto) -> str:
    """What is handed on as the condition for one more step."""
    makers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return name


def _steps(node: onnx.NodeProto, values: dict[str, np.ndarray]) -> int | None:
    """How many there always are; None where that hangs on the inputs."""
    body, count = attribute(node, "body"), values.get(node.input[0])
    if count is None or count.size != 1 or not _always(node, body, values):
        return None
    steps, scanned = int(count.reshape(())), len(body.output) - (len(body.input) - 1)
    return steps if steps > 0 or steps == 0 and not scanned else None


def _always(node: onnx.NodeProto, body: onnx.GraphProto, values: dict[str, np.ndarray]) -> bool:
    """Whether nothing but the number of steps ends the loop."""

    def true(name: str) -> bool:
        return name in values and bool(values[name].all())

    inside = {tensor.name: array_of(tensor) for tensor in body.initializer}
    inside |= {entry.output[0]: value for entry in body.node if (value := constant_value(entry)) is not None}
    source = _condition(body)
    on = source == body.input[1].name or true(source) or source in inside and bool(inside[source].all())
    return on and (len(node.input) < 2 or not node.input[1] or true(node.input[1]))


def _unrolled(graph: Graph, node: onnx.NodeProto, steps: int) -> list[onnx.NodeProto]:
    """The nodes of all steps, with names of their own; what a step makes for the next one is read there."""
    body, made = attribute(node, "body"), Replacement(graph, node, np.float32)
    arrays = {tensor.name: array_of(tensor) for tensor in body.initializer}
    constants = {name: made.constant(array, array.dtype) for name, array in arrays.items()}
    carried, count = list(node.input[2:]), len(body.input) - 2
    scanned: list[list[str]] = [[] for _ in body.output[1 + count :]]
    true = made.constant(True, bool)
    for step in range(steps):
        given = dict(zip((value.name for value in body.input), (made.constant(_number(step, body), np.int64), true, *carried)))
        inner = {name: graph.unique(name) for entry in body.node for name in entry.output if name}
        names = {**constants, **given, **inner}
        made.made += [_copy(graph, entry, names) for entry in body.node]
        outputs = [names.get(value.name, value.name) for value in body.output[1:]]
        carried = outputs[:count]
        for found, name in zip(scanned, outputs[count:]):
            found.append(made.unsqueezed(name, [0]))
    for name, target in zip(carried, node.output):
        if target:
            made("Identity", name, to=target)
    for found, target in zip(scanned, node.output[count:]):
        if target:
            made("Concat", *found, to=target, axis=0)
    return made.made


def _number(step: int, body: onnx.GraphProto) -> int | list[int]:
    """The number of a step, of the rank that the body declares.

    Where it declares none, ONNX Runtime refuses the loop, and PyTorch, which writes such loops for tensor_split, needs a rank of 1 inside.
    """
    declared = body.input[0].type.tensor_type
    return step if declared.HasField("shape") and not declared.shape.dim else [step]


def _copy(graph: Graph, entry: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(entry)
    with_other_names(copy, names, graph.unique)
    copy.name = graph.unique(entry.name or entry.op_type)
    return copy
