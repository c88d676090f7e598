"""What a GPU would make of a prepared graph, computed on a CPU.

ONNX Runtime's CPU computes FP16 operators in FP32 and keeps FP32 in between, so an overflow cannot be seen there. The
simulation rounds the output of every FP16 operator to FP16, by a pair of Casts that ONNX Runtime does not remove.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.nodes import attribute, reads, rename_reads, subgraphs
from onnx2trt.model.operators import EXACT
from onnx2trt.rewrite.element_types import rounded_to_bfloat16

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def simulation(graph: Graph) -> Graph:
    """An FP32 graph that computes what `graph` computes, rounded to FP16 or BF16 wherever `graph` is that.

    Args:
        graph: FP32, FP16, BF16 and INT8 (Q/DQ) mixed; not changed.

    Returns:
        A new graph with the same inputs and outputs; `graph` itself where it holds neither.
    """
    return simulated(graph)[0]


def simulated(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """(simulation of the graph, FP16 tensor of `graph` -> tensor of the simulation that has its values)."""
    graph = rounded_to_bfloat16(graph)
    types = graph.types()
    half = {name for name, elem_type in types.items() if elem_type == HALF}
    if not half:
        return graph, {}
    result = graph.copy()
    result.weights = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in graph.weights.items()}
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for name in graph.input_names:
        if name in half:  # the model's own FP16 input
            renamed[name] = _cast(nodes, result, name, f"{name}__value", FLOAT)
    for node in result.nodes:
        _simulate_node(node, half, renamed, nodes, result)
    for name in graph.output_names:
        if name in half:
            _cast(nodes, result, renamed[name], name, HALF)
    result.replace_nodes(nodes)
    result.prune()
    return result, renamed


def _simulate_node(node: onnx.NodeProto, half: set[str], renamed: dict[str, str], nodes: list[onnx.NodeProto], result: Graph) -> None:
    makes_half = any(name in half for name in node.output)
    if subgraphs(node):
        _feed_subgraphs(node, half, renamed, nodes, result)
        return
    for index, name in enumerate(node.input):
        node.input[index] = renamed.get(name, name)
    outputs = set(result.output_names)
    if node.op_type == "Cast" and makes_half:
        renamed[node.output[0]] = _rounded(nodes, result, node.input[0], node.output[0])
        return
    _write_float(node)
    nodes.append(node)
    for index, name in enumerate(node.output):
        if name not in half:
            continue
        value = result.unique(f"{name}__exact") if node.op_type not in EXACT or name in outputs else name
        node.output[index] = value
        renamed[name] = value if node.op_type in EXACT else _rounded(nodes, result, value, name)


def _feed_subgraphs(node, half: set[str], renamed: dict[str, str], nodes: list[onnx.NodeProto], result: Graph) -> None:
    """Control flow is never converted by us; what a model carries in FP16 there is run as it is."""
    for name in dict.fromkeys(reads(node)):
        if name in half and renamed.get(name, name) != name:
            rename_reads(node, name, _cast(nodes, result, renamed[name], f"{name}__half", HALF))
    nodes.append(node)
    for index, name in enumerate(node.output):
        if name in half:
            node.output[index] = result.unique(f"{name}__half")
            renamed[name] = _cast(nodes, result, node.output[index], f"{name}__value", FLOAT)


def _rounded(nodes: list[onnx.NodeProto], result: Graph, source: str, name: str) -> str:
    """Name of `source` rounded to FP16, as FP32."""
    as_half = _cast(nodes, result, source, f"{name}__half", HALF)
    return _cast(nodes, result, as_half, f"{name}__rounded", FLOAT)


def _cast(nodes: list[onnx.NodeProto], result: Graph, source: str, target: str, elem_type: int) -> str:
    target = target if target in result.output_names else result.unique(target)
    nodes.append(onnx.helper.make_node("Cast", [source], [target], name=result.unique(f"{target}__cast"), to=elem_type))
    return target


def _write_float(node: onnx.NodeProto) -> None:
    """FP16 named by an attribute becomes FP32."""
    for entry in node.attribute:
        if entry.name in ("to", "dtype", "output_dtype", "output_datatype") and entry.i == HALF and entry.type == onnx.AttributeProto.INT:
            entry.i = FLOAT
    if node.op_type == "ConstantOfShape":
        value = attribute(node, "value")
        if value is not None and value.data_type == HALF:
            array = array_of(value).astype(np.float32)
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(array)))
