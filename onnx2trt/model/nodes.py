"""Single nodes: what they read, what they hold, in the main graph and in graphs inside them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS, NodeInfo
from onnx2trt.model.operators import BOUNDED, EXACT, NO_LARGER


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield from with_inner_nodes(node)


def with_inner_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A node, and every node of the graphs inside it."""
    yield node
    for subgraph in subgraphs(node):
        yield from all_nodes(subgraph)


def list_nodes(model: onnx.ModelProto) -> Iterator[NodeInfo]:
    """Every node of a model, functions included; those of the graph itself first and in its order."""
    functions = [node for function in model.functions for node in function.node]
    inner = [inside for node in (*model.graph.node, *functions) for graph in subgraphs(node) for inside in all_nodes(graph)]
    for nodes, outermost in ((model.graph.node, True), (functions, False), (inner, False)):
        yield from (NodeInfo(n.name, n.op_type, n.domain, tuple(filter(None, n.input)), outermost) for n in nodes)


def standard_schema(node: onnx.NodeProto, opset: int):
    """What ONNX says of an operator; None for those that it does not know at this opset."""
    if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, ""):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Bodies of If, Loop and Scan."""
    found = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.append(attribute.g)
        found.extend(attribute.graphs)
    return found


def all_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node, and those inside their nodes."""
    for graph in subgraphs(node):
        yield graph
        for inner in graph.node:
            yield from all_subgraphs(inner)


def equal_names(graph: onnx.GraphProto) -> list[str]:
    """Names that several nodes of one graph have, which ONNX Runtime does not load."""
    return [name for name, count in Counter(node.name for node in graph.node).items() if name and count > 1]


def reads(node: onnx.NodeProto) -> list[str]:
    """Tensors that a node reads: its inputs, and what its subgraphs take from outside."""
    names = [name for name in node.input if name]
    for subgraph in subgraphs(node):
        names.extend(captured(subgraph))
    return names


def captured(graph: onnx.GraphProto) -> list[str]:
    """What a body reads that is made outside of it, each once."""
    own = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    own.update(name for node in graph.node for name in node.output)
    outside = [name for node in graph.node for name in reads(node) if name not in own]
    outside.extend(value.name for value in graph.output if value.name not in own)
    return list(dict.fromkeys(outside))


def rename_reads(node: onnx.NodeProto, old: str, new: str) -> None:
    """Make a node, its subgraphs included, read `new` instead of `old`."""
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new
    for subgraph in subgraphs(node):
        if old in captured(subgraph):
            for inner in subgraph.node:
                rename_reads(inner, old, new)
            for value in subgraph.output:
                if value.name == old:
                    value.name = new


def with_other_names(node: onnx.NodeProto, renamed: dict[str, str], unique: Callable[[str], str]) -> None:
    """Give other names to what a node reads and makes, in place, in the graphs inside it, too.

    Args:
        unique: a name that is not taken, made of one.
    """
    for index, name in enumerate(node.output):
        node.output[index] = renamed.get(name, name)
    if not subgraphs(node):
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        return
    changed = {old: new for old, new in renamed.items() if old != new}
    steps = {old: unique(f"{old}__moved") for old in changed}  # one of the new names may be another's old one
    for old, step in steps.items():
        rename_reads(node, old, step)
    for old, step in steps.items():
        rename_reads(node, step, changed[old])


def attribute(node: onnx.NodeProto, name: str, default=None):
    """Value of an attribute, or `default` where the node has none."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def index_inputs(nodes: Iterable[onnx.NodeProto]) -> frozenset[str]:
    """Tensors that nothing makes here and that, cast or reshaped at most, say which rows of a table are taken: zero is one of them."""
    nodes = list(nodes)
    found = {node.input[1] for node in nodes if node.op_type == "Gather"}
    for node in reversed(nodes):
        if node.op_type in EXACT | {"Cast"} and found.intersection(node.output):
            found.add(node.input[0])
    return frozenset(found).difference(name for node in nodes for name in node.output)


def is_no_larger(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> bool:
    """Whether max |output| <= max |inputs| with the attributes and constant operands that this node has."""
    if node.op_type not in NO_LARGER or node.domain not in STANDARD_DOMAINS:
        return False
    if node.op_type == "LeakyRelu":
        return abs(attribute(node, "alpha", 0.01)) <= 1
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:  # in training, what is left is enlarged
        training = weights.get(node.input[2])
        return training is not None and not training.any()
    return True


def is_bounded(node: onnx.NodeProto, weights: dict[str, np.ndarray], limit: float) -> bool:
    """Whether |output| <= limit whatever the node reads; limit at least 1."""
    if node.op_type not in BOUNDED or node.domain not in STANDARD_DOMAINS:
        return False
    if node.op_type == "Clip":
        return all(bound is not None and abs(bound) <= limit for bound in clip_bounds(node, weights))
    return True


def scalar_of(name: str, weights: dict[str, np.ndarray]) -> float | None:
    """A FP32 constant of one element, which lends no axes to what it is computed with; None: it is something else."""
    constant = weights.get(name)
    if constant is None or constant.dtype != np.float32 or constant.size != 1 or constant.ndim > 1:
        return None
    return float(constant.reshape(()))


def clip_bounds(clip: onnx.NodeProto, weights: dict[str, np.ndarray]) -> list[float | None]:
    """Lower and upper bound of a Clip, by its operands or (before opset 11) its attributes; None: there is none, NaN: it is no constant."""
    bounds = [attribute(clip, "min"), attribute(clip, "max")]
    for index, name in enumerate(clip.input[1:3]):
        if name:
            value = weights.get(name)
            bounds[index] = value.item() if value is not None and value.size == 1 else math.nan
    return bounds
