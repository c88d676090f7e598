"""Convolutions and matrix products in bodies of If, Loop and Scan in INT8: found, observed while the model runs, written down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx2trt.model.bodies import body_graph, is_plain, write_back
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import captured, subgraphs
from onnx2trt.rewrite.number_formats import INT8, NumberFormat
from onnx2trt.rewrite.qdq import Layer, Rounded, activation_pair, quantizable_layers, quantize_weights, scale_axis, weight_dequantize

FLOAT = onnx.TensorProto.FLOAT


def body_layers(graph: Graph, number_format: NumberFormat = INT8) -> tuple[Layer, ...]:
    """What INT8 can compute in bodies, in execution order; layers of one body that read the same tensor share its scale.

    The bodies of a Scan are looked at, but not those inside them: a Scan cannot hand out what differs in size from step to step.
    """
    if number_format is not INT8:
        return ()
    types = graph.types() if any(map(is_plain, graph.nodes)) else {}
    return tuple(layer for node in graph.nodes if is_plain(node) for layer in _found_in(node, node.name, graph, types))


def _found_in(node: onnx.NodeProto, outer: str, graph: Graph, types: dict[str, int]) -> Iterable[Layer]:
    for body in subgraphs(node):
        inner = body_graph(body, graph, types)
        keys: dict[str, str] = {}
        for layer in quantizable_layers(inner):
            yield Layer(layer.node, keys.setdefault(layer.activation, f"{layer.node}/{layer.activation}"), outer=outer)
        deeper = [own for own in inner.nodes if is_plain(own)] if node.op_type != "Scan" else []
        for own in deeper:
            yield from _found_in(own, outer, inner, inner.types())


def with_quantized_bodies(graph: Graph, layers: Sequence[Layer], scales: dict[str, float], half: bool) -> Graph:
    """A graph with these layers in INT8, by Q/DQ in the bodies; `graph` itself where there are none.

    Args:
        layers: of body_layers; each must have a scale.
        half: see qdq.insert.
    """
    own = {layer.node: scales[layer.activation] for layer in layers}
    if not own:
        return graph
    outer, result, types = {layer.outer for layer in layers}, graph.copy(), graph.types()
    for node in result.nodes:
        if node.name in outer:
            _quantize(node, result, types, own, half)
    result.prune()
    return result


def _quantize(node: onnx.NodeProto, around: Graph, types: dict[str, int], scales: dict[str, float], half: bool) -> None:
    """In place.

    Args:
        scales: node of a body -> scale of what it reads.
    """
    for body in subgraphs(node):
        outside = frozenset(captured(body))
        inner = body_graph(body, around, types)
        inner.share_names(around)
        nodes: list[onnx.NodeProto] = []
        read: dict[str, str] = {}
        for own in inner.nodes:
            if own.name in scales:
                tensor = own.input[0]
                if tensor not in read:
                    read[tensor] = activation_pair(inner, nodes, tensor, scales[own.name], INT8, half)
                weight = inner.weights[own.input[1]]
                axis = scale_axis(own, weight.ndim, INT8)
                nearest = Rounded(*quantize_weights(weight, axis, half), bias=None)
                own.input[0], own.input[1] = read[tensor], weight_dequantize(inner, nodes, own.input[1], axis, nearest)
            elif is_plain(own):
                _quantize(own, inner, inner.types(), scales, half)
            nodes.append(own)
        inner.replace_nodes(nodes)
        write_back(inner, body, outside)


def exposing(graph: Graph, layers: Sequence[Layer]) -> Graph:
    """A graph that also makes what these layers read in bodies, for observation: tensors of the main graph, named by the keys.

    Each holds the values of all steps behind each other; none of a branch that was not taken.
    """
    keys = {layer.node: layer.activation for layer in layers if layer.outer}
    if not keys:
        return graph
    outer, result = {layer.outer for layer in layers}, graph.copy()
    for node in result.nodes:
        if node.name in outer and is_plain(node):
            _expose(node, result, keys)
    return result


def _expose(node: onnx.NodeProto, graph: Graph, keys: dict[str, str], outermost: bool = True) -> dict[str, str]:
    """In place; key -> output that the node now has."""
    inside, names = [], {}
    for body in subgraphs(node):
        own: dict[str, tuple[str, bool]] = {}  # key -> (tensor of the body, whether it is a vector already)
        for entry in list(body.node):
            if entry.name in keys:
                own.setdefault(keys[entry.name], (entry.input[0], False))
        for index in range(len(body.node)):
            if is_plain(body.node[index]):
                deeper, stacked = _expose(body.node[index], graph, keys, outermost=False), body.node[index].op_type == "Scan"
                own.update((key, (name, not stacked)) for key, name in deeper.items())
        inside.append((body, own))
        names.update((key, key if outermost else graph.unique(f"{key}__inner")) for key in own if key not in names)
    for body, own in inside:
        _hand_out(node, body, graph, {key: own.get(key) for key in names})
    outputs = list(names.values())
    if node.op_type == "Loop":
        states = len(node.input) - 2
        node.input.extend(_nothing_for(graph, key) for key in names)
        before = [*node.output, *[""] * (states - len(node.output))]
        _replace(node.output, [*before[:states], *outputs, *before[states:]])
    else:
        missing = len(subgraphs(node)[0].output) - len(outputs) - len(node.output)
        node.output.extend([*[""] * missing, *outputs])
        _extend_directions(node, len(outputs))
    return names


def _hand_out(node: onnx.NodeProto, body: onnx.GraphProto, graph: Graph, own: dict[str, tuple[str, bool] | None]) -> None:
    """Results of a body for these keys.

    Args:
        own: key -> (tensor of the body, whether it is a vector already); None: nothing is read there.
    """
    results = []
    states = len(node.input) - 2
    for key, found in own.items():
        result = graph.unique(f"{key}__seen")
        if found is None:
            body.node.append(helper.make_node("Constant", [], [result], value=numpy_helper.from_array(np.zeros(0, np.float32))))
        elif found[1]:
            body.node.append(helper.make_node("Identity", [found[0]], [result]))
        else:
            shape = graph.unique(f"{key}__vector")
            body.node.append(helper.make_node("Constant", [], [shape], value=numpy_helper.from_array(np.array([-1], np.int64))))
            body.node.append(helper.make_node("Reshape", [found[0], shape], [result]))
        if node.op_type == "Loop":
            before, grown = graph.unique(f"{key}__before"), graph.unique(f"{key}__grown")
            body.input.append(helper.make_tensor_value_info(before, FLOAT, [None]))
            body.node.append(helper.make_node("Concat", [before, result], [grown], axis=0))
            result = grown
        results.append(helper.make_tensor_value_info(result, FLOAT, [None]))
    if node.op_type != "Loop":
        body.output.extend(results)
        return
    outputs = list(body.output)
    del body.output[:]
    body.output.extend([*outputs[: 1 + states], *results, *outputs[1 + states :]])


def _extend_directions(node: onnx.NodeProto, count: int) -> None:
    """Of a Scan, which may say how each of its results is put together."""
    for entry in node.attribute:
        if entry.name in ("scan_output_axes", "scan_output_directions"):
            entry.ints.extend([0] * count)


def _nothing_for(graph: Graph, key: str) -> str:
    """What a Loop begins with."""
    name = graph.unique(f"{key}__none")
    graph.weights[name] = np.zeros(0, np.float32)
    return name


def _replace(field, values: list[str]) -> None:
    del field[:]
    field.extend(values)
