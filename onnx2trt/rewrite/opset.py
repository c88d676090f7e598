"""The same graph in a newer opset, where onnx knows a right way."""

from __future__ import annotations

import itertools

import onnx

from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.nodes import all_nodes, attribute, rename_reads, standard_schema, subgraphs

HARDMAX_OPSET = 13  # from which on it takes the largest along one axis, not along all from that axis on; the converter overlooks it
RESIZE_OPSET = 11  # from which on Resize names the place of each value


def _attributes_known(raised: onnx.ModelProto, version: int) -> bool:
    """Whether the operators of the newer opset know all attributes that the converter has left; those that mean nothing are taken away.

    It leaves the `value` of a Pad of opset 10 or older where that pads by reflection or by the edge, and no value is used.
    """
    for node in all_nodes(raised.graph):
        schema = standard_schema(node, version)
        stray = [entry for entry in node.attribute if schema is not None and entry.name not in schema.attributes]
        for entry in stray:
            if node.op_type != "Pad" or entry.name != "value" or attribute(node, "mode", b"constant") == b"constant":
                return False
            node.attribute.remove(entry)
    return True


def _part_names(graph: onnx.GraphProto, around: frozenset[str] = frozenset()) -> None:
    """The converter calls the constants that it puts into a graph and into bodies inside it alike; there, names must differ.

    Args:
        around: names of the values in the graphs around it.
    """
    own = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name in around:
                new = next(f"{name}__{number}" for number in itertools.count(1) if f"{name}__{number}" not in around | own)
                node.output[place] = new
                for other in graph.node:
                    rename_reads(other, name, new)
            own.add(node.output[place])
    for node in graph.node:
        for inner in subgraphs(node):
            _part_names(inner, around | own)


def _keep_coordinates(raised: onnx.ModelProto) -> None:
    """Resize as it was in opset 10 and Upsample before: from opset 11 on, the default is another place for each value, which the converter
    overlooks."""
    tensors = {tensor.name: tensor for tensor in raised.graph.initializer}
    nodes = list(all_nodes(raised.graph))
    tensors |= {node.output[0]: node.attribute[0].t for node in nodes if node.op_type == "Constant" and node.attribute[0].HasField("t")}
    for node in nodes:
        if node.op_type == "Resize" and attribute(node, "coordinate_transformation_mode") is None:
            scales = tensors.get(node.input[2]) if len(node.input) > 2 else None
            shrinks = scales is not None and bool((array_of(scales) < 1).any())
            own = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "ceil" if shrinks else "floor"}
            node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in own.items())


def raise_opset(graph: Graph, version: int) -> Graph | None:
    """The same graph in opset `version` or newer; None where onnx knows no way, or a wrong one."""
    if graph.opset >= version:
        return graph
    if graph.opset < HARDMAX_OPSET <= version and any(node.op_type == "Hardmax" for node in all_nodes(graph.proto.graph)):
        return None
    skeleton = graph.skeleton()
    try:
        raised = onnx.version_converter.convert_version(skeleton, version)
    except Exception:  # the converter raises RuntimeError for what it does not know, and other classes for what it did not expect
        return None
    if not _attributes_known(raised, version):
        return None
    _part_names(raised.graph)
    if graph.opset < RESIZE_OPSET <= version:
        _keep_coordinates(raised)
    small = {tensor.name for tensor in skeleton.graph.initializer}
    large = {name: array for name, array in graph.weights.items() if name not in small}
    inputs = [value for value in raised.graph.input if value.name not in graph.weights]
    del raised.graph.input[:]
    raised.graph.input.extend(inputs)
    if [value.name for value in raised.graph.input] != graph.input_names or [v.name for v in raised.graph.output] != graph.output_names:
        return None
    result = Graph.from_model(raised)
    result.weights.update(large)
    result.repairs, result.observed = graph.repairs, graph.observed
    result.prune()
    return result
