"""If nodes whose condition is known: the branch that is taken stands in their place."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.nodes import all_nodes, attribute, subgraphs, with_other_names
from onnx2trt.rewrite.known_sizes import known_values


def fold_branches(model: onnx.ModelProto, profiles: tuple[Profile, ...]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Put branches in the place of the If nodes that always take them.

    Args:
        model: with all its data in memory; left as it is.
        profiles: a condition that hangs on sizes is known where these do not vary within them.

    Returns:
        (the model, or `model` itself where there is nothing to fold; the names of the If nodes that are gone)
    """
    functions = [node for function in model.functions for node in function.node]
    if not any(node.op_type == "If" for node in (*all_nodes(model.graph), *functions)):
        return model, ()
    graph, gone = Graph.from_model(model), []
    while folded := _fold_outermost(graph, profiles):  # what was in a branch is outermost now
        gone += folded
    return (graph.to_model(), tuple(gone)) if gone else (model, ())


def _fold_outermost(graph: Graph, profiles: tuple[Profile, ...]) -> list[str]:
    """Fold, in place, the If nodes of the graph itself; their names."""
    conditions = {node.name: node.input[0] for node in graph.nodes if node.op_type == "If" and _may_be_inlined(node)}
    values = known_values(graph, dict.fromkeys(conditions.values()), profiles)
    taken = {name: bool(values[condition].item()) for name, condition in conditions.items() if _single(values.get(condition))}
    for name, value in taken.items():
        place = next(index for index, node in enumerate(graph.nodes) if node.name == name)
        nodes = list(graph.nodes)
        inlined = list(_inlined(graph, nodes[place], value))
        graph.replace_nodes([*nodes[:place], *inlined, *nodes[place + 1 :]])
    if taken:
        graph.sort()
        graph.prune()
    return list(taken)


def _single(value) -> bool:
    return value is not None and value.size == 1


def _may_be_inlined(node: onnx.NodeProto) -> bool:
    branches = subgraphs(node)
    return len(branches) == 2 and not any(branch.sparse_initializer for branch in branches)


def _inlined(graph: Graph, node: onnx.NodeProto, value: bool) -> Iterator[onnx.NodeProto]:
    """The nodes of the branch that is taken, with names that nothing else in the graph has; its weights become the graph's."""
    branch = attribute(node, "then_branch" if value else "else_branch")
    inner = [name for entry in branch.node for name in entry.output if name]
    weights = {tensor.name: array_of(tensor) for tensor in branch.initializer}
    elsewhere, names = _names_elsewhere(graph, node)
    renamed = {name: graph.unique(name) if name in elsewhere else name for name in (*inner, *weights)}
    copied = []
    for target, output in zip(node.output, branch.output):
        if output.name in inner and renamed[output.name] not in node.output:
            renamed[output.name] = target
        else:  # captured, a weight, or an output for the second time
            copied.append((renamed.get(output.name, output.name), target))
    graph.weights.update((renamed[name], array) for name, array in weights.items())
    for entry in branch.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(entry)
        with_other_names(copy, renamed, graph.unique)
        if not copy.name or copy.name in names:
            copy.name = graph.unique(copy.name or f"{node.name}/{copy.op_type}")
        names.add(copy.name)
        yield copy
    for source, target in copied:
        if target:
            yield onnx.helper.make_node("Identity", [source], [target], name=graph.unique(f"{node.name}/{target}"))


def _names_elsewhere(graph: Graph, node: onnx.NodeProto) -> tuple[set[str], set[str]]:
    """(tensors, nodes) of the graph, but for what is inside this node."""
    tensors, nodes = {*graph.weights, *graph.input_names, *graph.output_names, *node.output, *node.input}, set()
    for other in graph.nodes:
        if other.name == node.name:
            continue
        inside = (other, *(entry for body in subgraphs(other) for entry in all_nodes(body)))
        nodes.update(entry.name for entry in inside)
        for entry in inside:
            tensors.update((*entry.input, *entry.output))
    return tensors, nodes
