"""One floating-point type of a whole model written as another: what a model carries in BF16 or FP64, or FP16 that shall be FP32."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.nodes import reads, rename_reads

FLOAT, HALF, BFLOAT16, DOUBLE = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"))
NAMES = {HALF: "float16", BFLOAT16: "bfloat16", DOUBLE: "float64"}  # of their arrays; an older onnx gives float32 for BF16
TYPED_DOMAINS = (*STANDARD_DOMAINS, "com.microsoft")
NAMING_A_TYPE = ("to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision")  # attributes, TensorProto.DataType


def as_float32(graph: Graph, types: Iterable[int], same_io: bool = False) -> Graph:
    """The graph with these types replaced by FP32, in weights, attributes, inputs, outputs and graphs inside nodes.

    FP16 and BF16 are exact in FP32. Finite FP64 values become finite FP32 values that are 0 only where they were: a mask of -1.8e308
    stays finite, and 1e-300 still keeps a denominator off zero.

    Args:
        graph: not changed.
        types: of HALF, BFLOAT16, DOUBLE.
        same_io: inputs and outputs keep their types, with Casts inside.

    Returns:
        A new graph without the Casts that have nothing left to do.
    """
    return without_idle_casts(_as_float32(graph, frozenset(types), same_io))


def _as_float32(graph: Graph, old: frozenset[int], same_io: bool) -> Graph:
    result = graph.copy()
    arrays = {NAMES[elem_type] for elem_type in old}
    result.weights = {name: _float32(array) if array.dtype.name in arrays else array for name, array in graph.weights.items()}
    own = result.proto.graph
    inputs, outputs = ([value for value in io if value.type.tensor_type.elem_type in old] for io in (own.input, own.output))
    declared = {value.name: value.type.tensor_type.elem_type for value in (*inputs, *outputs)} if same_io else {}
    _retype(result.proto.graph, old)
    if same_io:
        _cast_io(result, inputs, outputs, declared)
    return result


def _float32(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.float64:
        return array.astype(np.float32)
    limits = np.finfo(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        found = np.asarray(array.astype(np.float32))
    found = np.where(np.isinf(found) & np.isfinite(array), np.copysign(limits.max, found), found)
    return np.where((found == 0) & (array != 0), np.copysign(limits.tiny, array), found).astype(np.float32)


def _retype(graph: onnx.GraphProto, old: frozenset[int]) -> None:
    for tensor in graph.initializer:
        _retype_tensor(tensor, old)
    for sparse in graph.sparse_initializer:
        _retype_tensor(sparse.values, old)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _retype_value(value.type, old)
    for node in graph.node:
        for attribute in node.attribute:
            _retype_attribute(attribute, old, node.domain in TYPED_DOMAINS)


def _retype_attribute(attribute: onnx.AttributeProto, old: frozenset[int], typed: bool) -> None:
    """
    Args:
        typed: an attribute of these names is a type; in plugins it may be anything.
    """
    if typed and attribute.type == onnx.AttributeProto.INT and attribute.name in NAMING_A_TYPE and attribute.i in old:
        attribute.i = FLOAT
    for tensor in (*((attribute.t,) if attribute.HasField("t") else ()), *attribute.tensors):
        _retype_tensor(tensor, old)
    if attribute.HasField("sparse_tensor"):
        _retype_tensor(attribute.sparse_tensor.values, old)
    if attribute.HasField("tp"):
        _retype_value(attribute.tp, old)
    for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
        _retype(graph, old)


def _retype_tensor(tensor: onnx.TensorProto, old: frozenset[int]) -> None:
    if tensor.data_type in old:
        tensor.CopyFrom(onnx.numpy_helper.from_array(_float32(array_of(tensor)), tensor.name))


def _retype_value(kind: onnx.TypeProto, old: frozenset[int]) -> None:
    held = kind.WhichOneof("value")
    if held in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(kind, held)
        tensor.elem_type = FLOAT if tensor.elem_type in old else tensor.elem_type
    elif held in ("sequence_type", "optional_type"):
        _retype_value(getattr(kind, held).elem_type, old)


def _cast_io(graph: Graph, inputs, outputs, declared: dict[str, int]) -> None:
    """Give the inputs and outputs that are FP32 now the types that they had."""
    nodes = list(graph.nodes)
    for value in inputs:
        value.type.tensor_type.elem_type = declared[value.name]
        inside = graph.unique(f"{value.name}__fp32")
        for node in nodes:
            rename_reads(node, value.name, inside)
        nodes.insert(0, onnx.helper.make_node("Cast", [value.name], [inside], name=graph.unique(f"{inside}__cast"), to=FLOAT))
    for value in outputs:
        value.type.tensor_type.elem_type = declared[value.name]
        inside = graph.unique(f"{value.name}__fp32")
        for node in nodes:
            rename_reads(node, value.name, inside)
            node.output[:] = [inside if name == value.name else name for name in node.output]
        if value.name in graph.weights:
            graph.weights[inside] = graph.weights.pop(value.name)
        nodes.append(onnx.helper.make_node("Cast", [inside], [value.name], name=graph.unique(f"{inside}__cast"), to=declared[value.name]))
    graph.replace_nodes(nodes)


def with_io_types(graph: Graph, wanted: dict[str, int]) -> Graph:
    """The graph with other types of FP32 inputs and outputs, and Casts behind or before them.

    Args:
        graph: not changed.
        wanted: input or output -> TensorProto.DataType; what is not FP32 stays as it is.
    """
    result = graph.copy()
    own = result.proto.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*own.input, *own.output)}
    wanted = {name: elem_type for name, elem_type in wanted.items() if types.get(name) == FLOAT}
    inputs, outputs = ([value for value in io if value.name in wanted] for io in (own.input, own.output))
    _cast_io(result, inputs, outputs, wanted)
    return result


def without_idle_casts(graph: Graph) -> Graph:
    """`graph` itself, without Casts from FP32 to FP32, as far as types are known; those that make outputs stay."""
    types, outputs = graph.types(), set(graph.output_names)
    idle = {
        node.output[0]: node.input[0]
        for node in graph.nodes
        if node.op_type == "Cast" and types.get(node.input[0]) == types.get(node.output[0]) == FLOAT and node.output[0] not in outputs
    }
    kept = [node for node in graph.nodes if node.output[0] not in idle]
    for node in kept:
        for target in [name for name in dict.fromkeys(reads(node)) if name in idle]:
            source = target
            while source in idle:
                source = idle[source]
            rename_reads(node, target, source)
    graph.replace_nodes(kept)
    graph.prune()
    return graph
