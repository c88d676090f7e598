"""Which tensors have a value that hangs on constants and on fixed sizes alone, and what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS, Profile
from onnx2trt.model.fixed_shapes import fixed_shapes, hang_on_values
from onnx2trt.model.graph import Graph
from onnx2trt.model.infer import infer_shapes
from onnx2trt.model.nodes import attribute, reads
from onnx2trt.rewrite.fold import fold_constants

Sizes = tuple[int | None, ...]  # None: not fixed, or not known
Partly = np.ndarray  # of objects: integers, and None for those that are not known


def known_values(graph: Graph, names: Iterable[str], profiles: tuple[Profile, ...]) -> dict[str, np.ndarray]:
    """The values of those of the tensors that are the same whatever the inputs hold, at all shapes that the profiles allow.

    Args:
        graph: is not changed.
        profiles: sizes whose smallest and largest are the same are fixed.
    """
    found = {name: graph.weights[name] for name in names if name in graph.weights}
    wanted = [name for name in names if name not in found]
    if not wanted:
        return found
    nodes = _above(graph, wanted)
    sizes = sizes_of(graph, profiles)
    asked = (node.input[0] for node in nodes if node.op_type in ("Shape", "Size") and None in sizes.get(node.input[0], (None,)))
    values = _from_sizes(nodes, graph.weights, {**sizes, **fixed_shapes(graph, profiles, tuple(dict.fromkeys(asked)))})
    part = Graph(onnx.ModelProto(), {**graph.weights, **values})
    part.proto.ir_version = graph.proto.ir_version
    part.proto.opset_import.extend(graph.proto.opset_import)
    part.proto.graph.name = "known"
    part.nodes.extend(node for node in nodes if not all(name in values for name in node.output))
    part.proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    folded = fold_constants(part)
    makers = folded.producers()
    for name in wanted:
        source = makers[name].input[0] if name in makers and makers[name].op_type == "Identity" else name
        if source in folded.weights:
            found[name] = folded.weights[source]
    return found


def fixed_sizes(graph: Graph, profiles: tuple[Profile, ...]) -> dict[str, np.ndarray]:
    """What a graph computes of sizes that are the same at all shapes which the profiles allow: sizes, and lists of them.

    Exports ask for the sizes of tensors even where all are fixed: of 3608 nodes of a Swin-T, some 2900 are there for that.

    Args:
        graph: is not changed; the shapes that were observed of it count where every input has one shape only.

    Returns:
        Tensor -> int64 value.
    """
    if not any(node.op_type in ("Shape", "Size") for node in graph.nodes):
        return {}
    return _from_sizes(graph.nodes, graph.weights, all_sizes(graph, profiles))


def with_sizes(graph: Graph, values: dict[str, np.ndarray]) -> Graph:
    """A graph with such values in the place of the nodes that make them; outputs stay computed.

    Args:
        graph: is not changed.
        values: as by fixed_sizes.
    """
    computed = set(graph.output_names)
    made = {node.output[0] for node in graph.nodes if len(node.output) == 1 and node.output[0] in values} - computed
    if not made:
        return graph
    result = graph.copy()
    result.weights.update((name, values[name]) for name in made)
    result.replace_nodes(node for node in result.nodes if made.isdisjoint(node.output))
    result.prune()
    return result


def all_sizes(graph: Graph, profiles: tuple[Profile, ...]) -> dict[str, Sizes]:
    """As sizes_of, and where every input has one shape only, what was observed besides."""
    sizes = sizes_of(graph, profiles)
    if graph.observed and all(profile.min == profile.max and profile.values is None for profile in profiles):
        hanging = hang_on_values(graph)
        sizes |= {name: shape for name, shape in graph.observed.items() if name not in hanging}
    return sizes


def sizes_of(graph: Graph, profiles: tuple[Profile, ...]) -> dict[str, Sizes]:
    """Tensor -> its sizes, as far as onnx can infer them and the profiles fix them."""
    proto, triples = graph.skeleton(), {profile.name: list(zip(profile.min, profile.max)) for profile in profiles}
    for value in proto.graph.input:
        for dim, (least, most) in zip(value.type.tensor_type.shape.dim, triples.get(value.name, ())):
            if least == most:
                dim.dim_value = least
    inferred = infer_shapes(proto, values=True)
    sizes = {name: tuple(array.shape) for name, array in graph.weights.items()}
    for value in (*inferred.graph.output, *inferred.graph.value_info, *inferred.graph.input):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            sizes[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return sizes


def _above(graph: Graph, names: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that these tensors hang on, in order."""
    needed, found = set(names), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            needed.update(reads(node))
            found.append(node)
    return found[::-1]


def _from_sizes(nodes: Iterable[onnx.NodeProto], weights: dict[str, np.ndarray], sizes: dict[str, Sizes]) -> dict[str, np.ndarray]:
    """Tensor -> value, of those that are sizes, or are picked from lists of them."""
    partly: dict[str, Partly] = {}

    def value_of(name: str) -> Partly | None:
        return partly.get(name, weights.get(name))

    for node in nodes:
        rule = RULES.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        if rule is None:
            continue
        if node.op_type in ("Shape", "Size"):
            made = rule(node, sizes.get(node.input[0]))
        else:
            operands = [value_of(name) for name in node.input if name]
            if not any(name in partly for name in node.input) or any(operand is None for operand in operands):
                continue
            made = rule(node, operands)
        if made is not None:
            partly[node.output[0]] = made
    return {name: array.astype(np.int64) for name, array in partly.items() if not any(value is None for value in array.flat)}


def _shape(node: onnx.NodeProto, sizes: Sizes | None) -> Partly | None:
    if sizes is None:
        return None
    return np.array(sizes, object)[attribute(node, "start", 0) : attribute(node, "end", len(sizes))]


def _size(node: onnx.NodeProto, sizes: Sizes | None) -> Partly | None:
    return np.array(int(np.prod(sizes, dtype=np.int64)), object) if sizes is not None and None not in sizes else None


def _gather(node: onnx.NodeProto, operands: list[Partly]) -> Partly | None:
    data, indices = operands
    if data.ndim != 1 or not _whole(indices) or not all(-len(data) <= index < len(data) for index in indices.flat):
        return None
    return np.array(data[indices.astype(np.int64)], object)


def _slice(node: onnx.NodeProto, operands: list[Partly]) -> Partly | None:
    data, *bounds = operands
    if not bounds:  # before opset 10
        bounds = [np.array(attribute(node, name)) for name in ("starts", "ends")]
    if data.ndim != 1 or len(bounds) != len(node.input[1:]) and len(node.input) > 1 or not all(map(_whole, bounds)):
        return None
    start, end, step = (bounds[index].item() if len(bounds) > index and bounds[index].size == 1 else None for index in (0, 1, 3))
    return None if start is None or end is None else data[start : end : step or 1] if (step or 1) > 0 else None


def _concat(node: onnx.NodeProto, operands: list[Partly]) -> Partly | None:
    return np.concatenate([operand.astype(object) for operand in operands]) if all(operand.ndim == 1 for operand in operands) else None


def _unsqueeze(node: onnx.NodeProto, operands: list[Partly]) -> Partly | None:
    return operands[0].reshape(1) if operands[0].ndim == 0 else None


def _squeeze(node: onnx.NodeProto, operands: list[Partly]) -> Partly | None:
    return operands[0].reshape(()) if operands[0].shape == (1,) else None


def _cast(node: onnx.NodeProto, operands: list[Partly]) -> Partly | None:
    whole = attribute(node, "to") in (onnx.TensorProto.INT64,)  # others, fold_constants makes of what is known whole
    return operands[0] if whole else None


def _same(node: onnx.NodeProto, operands: list[Partly]) -> Partly:
    return operands[0]


def _whole(array: Partly) -> bool:
    return all(value is not None for value in array.flat)


RULES: dict[str, Callable] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": _cast,
    "Identity": _same,
}
