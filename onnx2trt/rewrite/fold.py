"""Rewrites that change nothing about the result: constants computed once, factors and shifts put into convolutions."""

from __future__ import annotations

from collections.abc import Container
from fnmatch import fnmatchcase

import numpy as np
import onnx

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, reads, rename_reads, standard_schema, subgraphs
from onnx2trt.model.operators import EXPANDING, QUANTIZERS, RANDOM
from onnx2trt.model.session import Session
from onnx2trt.rewrite.activations import name_activations
from onnx2trt.rewrite.qdq import along

LARGEST_FOLDED = 2**27  # elements of one folded constant; a hostile or careless shape must not fill the memory
LARGE = 2**16  # bytes of a weight that is not stored twice
LARGEST_FACTOR = 2**10  # that a convolution takes, and its inverse the smallest: FP16 would not hold weights that are far from 1


def fold(graph: Graph, overrides: tuple[tuple[str, str], ...] = (), stored_once: bool = False) -> Graph:
    """Constants computed, activations named, and batch normalisations, constant factors and summands gone where a convolution takes them.

    Args:
        overrides: (pattern, precision) of --layer-precisions.
        stored_once: a large weight that is read both as it is and transposed (tied embeddings) does not become two.
    """
    # a summand that a hard sigmoid begins with must not go into a convolution before
    return fold_affine(name_activations(fold_constants(graph, stored_once), overrides), overrides)


def fold_constants(graph: Graph, stored_once: bool = False) -> Graph:
    """Replace nodes that depend on constants alone by their values, computed by ONNX Runtime.

    Args:
        stored_once: see fold.

    Returns:
        A new graph; tensors keep their names.
    """
    folded = _folded(graph, stored_once)
    # how large a constant becomes, only a size that is a constant itself tells
    while any(node.op_type in EXPANDING and _is_foldable(node, folded.weights, folded.weights, folded.opset) for node in folded.nodes):
        before, folded = folded, _folded(folded, stored_once)
        if len(before.nodes) == len(folded.nodes):
            break
    return folded


def _folded(graph: Graph, stored_once: bool) -> Graph:
    graph = share_constants(graph)
    known, foldable = set(graph.weights), []
    twice = _read_otherwise(graph) if stored_once else set()
    for node in graph.nodes:
        if node.name not in twice and _is_foldable(node, known, graph.weights, graph.opset):
            foldable.append(node)
            known.update(node.output)
    if not foldable:
        return graph.copy()
    folded = graph.copy()
    made = {name for node in foldable for name in node.output if name}
    folded_names = {node.name for node in foldable}
    used = {name for node in graph.nodes if node.name not in folded_names for name in reads(node)} | set(graph.output_names)
    wanted = tuple(name for name in made if name in used)
    if wanted:
        part = Graph(onnx.ModelProto(), {name: graph.weights[name] for node in foldable for name in reads(node) if name in graph.weights})
        part.proto.ir_version = graph.proto.ir_version
        part.proto.opset_import.extend(graph.proto.opset_import)
        part.proto.graph.name = "constants"
        part.nodes.extend(foldable)
        try:
            folded.weights.update(Session.from_graph(part, wanted, optimize=False).run({}, wanted))
        except ConversionError:
            return folded  # an operator that ONNX Runtime lacks: TensorRT's parser folds what it knows
    identities = []
    for name in dict.fromkeys(name for name in graph.output_names if name in wanted):  # an output needs a node that makes it
        constant = folded.unique(f"{name}_constant")
        folded.weights[constant] = folded.weights.pop(name)
        identities.append(onnx.helper.make_node("Identity", [constant], [name], name=folded.unique(f"{name}_identity")))
    folded.replace_nodes([*identities, *(node for node in folded.nodes if node.name not in folded_names)])
    folded.prune()
    return folded


def share_constants(graph: Graph) -> Graph:
    """What is computed several times from the same constants is computed once, and a constant that is handed on is read where it stands.

    torch.onnx.export stores a weight of several layers once, with an Identity for each of the others. Folded one by one, these became
    weights of their own: 642 MB of 85 in an encoder that uses its layers eight times, each of them with INT8 weights of its own.

    Returns:
        A new graph; `graph` itself where there is none of that.
    """
    known, first, instead = set(graph.weights), {}, {}
    outputs = set(graph.output_names)
    for node in graph.nodes:
        if not _is_foldable(node, known, graph.weights, graph.opset):
            continue
        known.update(node.output)
        inputs = [instead.get(name, name) for name in node.input]
        if node.op_type == "Identity":
            found = inputs
        else:
            attributes = sorted(entry.SerializeToString(deterministic=True) for entry in node.attribute)
            key = (node.op_type, node.domain, len(node.output), *inputs, *attributes)
            found = first.setdefault(key, list(node.output))
        instead.update((old, new) for old, new in zip(node.output, found) if old and new and old != new and old not in outputs)
    if not instead:
        return graph
    shared = graph.copy()
    for node in shared.nodes:
        for name in instead.keys() & set(reads(node)):
            rename_reads(node, name, instead[name])
    shared.prune()
    return shared


def _read_otherwise(graph: Graph) -> set[str]:
    """The Transposes of large weights that something else reads, too."""
    consumers = graph.consumers()
    large = {name for name, array in graph.weights.items() if array.nbytes >= LARGE}
    return {n.name for n in graph.nodes if n.op_type == "Transpose" and n.input[0] in large and len(consumers[n.input[0]]) > 1}


def _makes_lists(node: onnx.NodeProto, opset: int) -> bool:
    """Whether an operator gives sequences of tensors or optional values only, which no initializer can hold."""
    schema = standard_schema(node, opset)
    types = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints} if schema else {}
    kinds = [kind for output in (schema.outputs if schema else ()) for kind in types.get(output.type_str, (output.type_str,))]
    return bool(kinds) and all(kind.startswith(("seq(", "optional(")) for kind in kinds)


def _is_foldable(node: onnx.NodeProto, known: Container[str], weights: dict[str, np.ndarray], opset: int) -> bool:
    if node.domain not in STANDARD_DOMAINS or node.op_type in RANDOM or subgraphs(node):
        return False
    if node.op_type in QUANTIZERS:
        return False  # on weights, these carry the precision
    if _makes_lists(node, opset):
        return False
    if not all(name in known for name in node.input if name):
        return False
    if node.op_type in EXPANDING:
        sizes = weights.get(node.input[-1])
        return sizes is not None and float(np.prod(sizes.astype(np.float64))) <= LARGEST_FOLDED
    return True


def fold_affine(graph: Graph, overrides: tuple[tuple[str, str], ...] = ()) -> Graph:
    """Put what alone follows a convolution and only scales and shifts its channels into its weights.

    y = factor * x + shift, so W' = factor * W and b' = factor * b + shift. That is a constant factor, divisor or summand, and batch
    normalisation: factor = scale / sqrt(var + epsilon), shift = B - factor * mean (ONNX BatchNormalization, inference).

    TensorRT does the same, but not in its INT8 mode: constant factors stay in the epilogue of the convolution there.

    Args:
        overrides: (pattern, precision) of --layer-precisions; a node that a pattern names without its convolution stays a node.
    """
    folded = graph.copy()
    producers, consumers = folded.producers(), folded.consumers()
    outputs, gone = frozenset(folded.output_names), set()
    for node in folded.nodes:
        x = next((name for name in node.input if name not in folded.weights), "")
        conv = producers.get(x)
        if (
            conv is None
            or conv.output[0] in outputs
            or not _takes_affine(conv, node, folded, consumers)
            or not _named_alike(node, conv, overrides)
        ):
            continue
        weight, axis = folded.weights[conv.input[1]], 0 if conv.op_type == "Conv" else 1
        affine = _affine(node, x, folded, weight.ndim, weight.shape[axis])
        if affine is None or not _put_into(conv, axis, *affine, folded):
            continue
        conv.output[0] = node.output[0]
        gone.add(node.name)
        producers[node.output[0]] = conv
    folded.replace_nodes(node for node in folded.nodes if node.name not in gone)
    folded.prune()
    return folded


def _put_into(conv: onnx.NodeProto, axis: int, factor: np.ndarray, shift: np.ndarray, graph: Graph) -> bool:
    """Give a convolution of `graph` other weights and another bias; False where those would not be finite, or the bias is malformed."""
    weight = graph.weights[conv.input[1]]
    bias = graph.weights[conv.input[2]].astype(np.float64) if len(conv.input) > 2 and conv.input[2] else np.zeros_like(factor)
    if bias.shape != factor.shape:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        changed = (weight * along(factor, axis, weight.ndim)).astype(np.float32)
        shifted = (bias * factor + shift).astype(np.float32)
    if not (np.isfinite(changed).all() and np.isfinite(shifted).all()):
        return False
    names = [graph.unique(f"{conv.name}_{part}_folded") for part in ("weight", "bias")]
    graph.weights.update(zip(names, (changed, shifted)))
    del conv.input[1:]
    conv.input.extend(names)
    return True


def _takes_affine(conv: onnx.NodeProto, node: onnx.NodeProto, graph: Graph, consumers) -> bool:
    if conv.op_type not in ("Conv", "ConvTranspose") or not {conv.domain, node.domain} <= {*STANDARD_DOMAINS}:
        return False
    if conv.op_type == "ConvTranspose" and attribute(conv, "group", 1) != 1:
        return False
    if len(consumers[conv.output[0]]) != 1:
        return False
    constants = [*(name for name in conv.input[1:] if name), *(name for name in node.input if name in graph.weights)]
    constant = all(name in graph.weights and graph.weights[name].dtype == np.float32 for name in constants)
    return constant and len(conv.input) > 1 and graph.weights[conv.input[1]].ndim > 2


def _named_alike(node: onnx.NodeProto, conv: onnx.NodeProto, overrides: tuple[tuple[str, str], ...]) -> bool:
    return all(fnmatchcase(conv.name, pattern) for pattern, _ in overrides if fnmatchcase(node.name, pattern))


def _affine(node: onnx.NodeProto, x: str, graph: Graph, dims: int, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(factor, shift) of a node for each channel of its input `x`, float64 [channels]; None where it is something else."""
    if node.op_type == "BatchNormalization":
        return _affine_batchnorm(node, graph, channels)
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.input) != 2:
        return None
    first = node.input[0] == x
    constant = _per_channel(graph.weights.get(node.input[1 if first else 0]), dims, channels)
    if constant is None or node.op_type == "Div" and not first:
        return None
    one, nothing = np.ones(channels), np.zeros(channels)
    if node.op_type == "Add":
        return one, constant
    if node.op_type == "Sub":
        return (one, -constant) if first else (-one, constant)
    with np.errstate(divide="ignore"):
        factor = constant if node.op_type == "Mul" else 1 / constant
    small, large = np.abs(factor[factor != 0]).min(initial=1.0), np.abs(factor).max(initial=1.0)
    return (factor, nothing) if small >= 1 / LARGEST_FACTOR and large <= LARGEST_FACTOR else None


def _affine_batchnorm(node: onnx.NodeProto, graph: Graph, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    constants = [graph.weights.get(name) for name in node.input[1:5]]
    if len(node.input) != 5 or attribute(node, "training_mode", 0) or sum(1 for name in node.output if name) != 1:
        return None
    if any(array is None or array.shape != (channels,) for array in constants):
        return None
    scale, offset, mean, var = (array.astype(np.float64) for array in constants)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = scale / np.sqrt(var + attribute(node, "epsilon", 1e-5))
        return factor, offset - factor * mean


def _per_channel(constant: np.ndarray | None, dims: int, channels: int) -> np.ndarray | None:
    """A constant operand as float64 [channels]; None where it is not one value for each channel (axis 1), or one for all."""
    if constant is None or constant.ndim > dims:
        return None
    shape = (1,) * (dims - constant.ndim) + constant.shape
    if shape[1] not in (1, channels) or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    return np.broadcast_to(constant.reshape(-1), (channels,)).astype(np.float64)
