"""Rewrites that change nothing about the result: constants computed once, batch normalisation put into convolutions, newer opset."""

from __future__ import annotations

import numpy as np
import onnx

from core.errors import ConversionError
from graph.graph import Graph
from graph.nodes import STANDARD_DOMAINS, attribute, reads, subgraphs
from graph.reference import Session

NOT_CONSTANT = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
LARGEST_FOLDED = 2**27  # elements of one folded constant; a hostile or careless shape must not fill the memory


def fold(graph: Graph) -> Graph:
    """Constants computed, batch normalisations gone where a convolution can take them."""
    return fold_batchnorm(fold_constants(graph))


def fold_constants(graph: Graph) -> Graph:
    """Replace nodes that depend on constants alone by their values, computed by ONNX Runtime.

    Returns:
        A new graph; tensors keep their names.
    """
    known, foldable = set(graph.weights), []
    for node in graph.nodes:
        if _is_foldable(node, known, graph.weights):
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
    outputs = set(graph.output_names)
    folded.replace_nodes(node for node in folded.nodes if node.name not in folded_names)
    for name in outputs & set(wanted):  # an output needs a node that makes it
        constant = folded.unique(f"{name}_constant")
        folded.weights[constant] = folded.weights.pop(name)
        folded.nodes.append(onnx.helper.make_node("Identity", [constant], [name], name=folded.unique(f"{name}_identity")))
    folded.prune()
    return folded


def _is_foldable(node: onnx.NodeProto, known: set[str], weights: dict[str, np.ndarray]) -> bool:
    if node.domain not in STANDARD_DOMAINS or node.op_type in NOT_CONSTANT or subgraphs(node):
        return False
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return False  # on weights, these carry the precision
    if not all(name in known for name in node.input if name):
        return False
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        sizes = weights.get(node.input[-1])
        return sizes is not None and float(np.prod(sizes.astype(np.float64))) <= LARGEST_FOLDED
    return True


def fold_batchnorm(graph: Graph) -> Graph:
    """Put each BatchNormalization that alone follows a convolution into its weights.

    y = scale * (x - mean) / sqrt(var + epsilon) + B (ONNX BatchNormalization, inference), so
    W' = W * scale / sqrt(var + epsilon) and b' = (b - mean) * scale / sqrt(var + epsilon) + B.
    """
    folded = graph.copy()
    producers, consumers = folded.producers(), folded.consumers()
    gone = set()
    for node in folded.nodes:
        conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" and len(node.input) == 5 else None
        if conv is None or not _takes_batchnorm(conv, node, folded, consumers):
            continue
        scale, shift, mean, var = (folded.weights[name].astype(np.float64) for name in node.input[1:5])
        factor = scale / np.sqrt(var + attribute(node, "epsilon", 1e-5))
        weight = folded.weights[conv.input[1]]
        axis = 0 if conv.op_type == "Conv" else 1
        bias = folded.weights[conv.input[2]].astype(np.float64) if len(conv.input) > 2 and conv.input[2] else np.zeros_like(mean)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        names = [folded.unique(f"{conv.name}_{part}_folded") for part in ("weight", "bias")]
        folded.weights[names[0]] = (weight * factor.reshape(shape)).astype(weight.dtype)
        folded.weights[names[1]] = ((bias - mean) * factor + shift).astype(weight.dtype)
        del conv.input[1:]
        conv.input.extend(names)
        conv.output[0] = node.output[0]
        gone.add(node.name)
        producers[node.output[0]] = conv
    folded.replace_nodes(node for node in folded.nodes if node.name not in gone)
    folded.prune()
    return folded


def _takes_batchnorm(conv: onnx.NodeProto, norm: onnx.NodeProto, graph: Graph, consumers) -> bool:
    if conv.op_type not in ("Conv", "ConvTranspose") or attribute(norm, "training_mode", 0):
        return False
    if conv.op_type == "ConvTranspose" and attribute(conv, "group", 1) != 1:
        return False
    if conv.output[0] in graph.output_names or len(consumers[conv.output[0]]) != 1:
        return False
    if sum(1 for name in norm.output if name) != 1:
        return False
    constants = [*norm.input[1:5], *(name for name in conv.input[1:] if name)]
    return all(name in graph.weights and graph.weights[name].dtype == np.float32 for name in constants)


def raise_opset(graph: Graph, version: int) -> Graph | None:
    """The same graph in opset `version` or newer; None where onnx knows no way."""
    if graph.opset >= version:
        return graph
    skeleton = graph.skeleton()
    try:
        raised = onnx.version_converter.convert_version(skeleton, version)
    except Exception:  # the converter raises RuntimeError for what it does not know, and other classes for what it did not expect
        return None
    small = {tensor.name for tensor in skeleton.graph.initializer}
    large = {name: array for name, array in graph.weights.items() if name not in small}
    inputs = [value for value in raised.graph.input if value.name not in graph.weights]
    del raised.graph.input[:]
    raised.graph.input.extend(inputs)
    if [value.name for value in raised.graph.input] != graph.input_names or [v.name for v in raised.graph.output] != graph.output_names:
        return None
    result = Graph.from_model(raised)
    result.weights.update(large)
    result.repairs = graph.repairs
    result.prune()
    return result
