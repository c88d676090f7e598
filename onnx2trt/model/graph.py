"""The working form of a model: its nodes as protobuf, its weights as arrays beside them.

Weights outside the protobuf keep every step clear of the 2 GB limit of one message, and let many variants share them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import STANDARD_DOMAINS, Profile
from onnx2trt.model.infer import infer_shapes
from onnx2trt.model.nodes import all_nodes, reads, subgraphs

INLINE_LIMIT = 2**31 - 2**26  # bytes; a margin under protobuf's limit for the nodes
MIN_IR_VERSION = 8  # initializers need not be inputs (4), and what opset 17 was released with


class Graph:
    """Nodes, inputs and outputs (`proto`, without initializers) and `weights` (name -> array)."""

    def __init__(self, proto: onnx.ModelProto, weights: dict[str, np.ndarray]):
        self.proto = proto
        self.weights = weights
        self.repairs: tuple[str, ...] = ()  # what had to be changed about the inputs' declarations
        self.observed: dict[str, tuple[int, ...]] = {}  # tensor -> shape, as a run at the opt shapes has shown it (observed_shapes.py)
        self._taken: set[str] | None = None

    @classmethod
    def from_model(cls, model: onnx.ModelProto, profiles: tuple[Profile, ...] = (), weights: dict[str, np.ndarray] | None = None) -> Graph:
        """Normalised: local functions inlined, constants as weights, every node named, in execution order.

        Args:
            model: with all its data in memory; left as it is.
            profiles: the shapes that will be used, to which the inputs' declarations are fitted (see `repairs`).
            weights: the data of initializers that the model itself is without (see apart.py); they are not copied.
        """
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        proto = onnx.ModelProto()
        proto.ir_version = max(model.ir_version, MIN_IR_VERSION)
        proto.opset_import.extend(model.opset_import)
        proto.producer_name = "onnx2trt"
        proto.graph.name = model.graph.name or "graph"
        given = weights or {}
        weights = {t.name: given[t.name] if t.name in given else array_of(t) for t in model.graph.initializer}
        for sparse in model.graph.sparse_initializer:
            weights[sparse.values.name] = _dense(sparse)
        proto.graph.input.extend(value for value in model.graph.input if value.name not in weights)
        proto.graph.output.extend(model.graph.output)
        repairs = (*_declare_ranks(proto.graph.input, profiles), *_separate_symbols(proto.graph, profiles))
        for node in model.graph.node:
            value = constant_value(node)
            if value is None:
                proto.graph.node.append(node)
            else:
                weights[node.output[0]] = value
        graph = cls(proto, weights)
        graph.repairs = repairs
        graph.sort()
        graph.name_nodes()
        graph.prune()
        return graph

    @property
    def nodes(self):
        return self.proto.graph.node

    @property
    def input_names(self) -> list[str]:
        return [value.name for value in self.proto.graph.input]

    @property
    def output_names(self) -> list[str]:
        return [value.name for value in self.proto.graph.output]

    @property
    def opset(self) -> int:
        return max((entry.version for entry in self.proto.opset_import if entry.domain in STANDARD_DOMAINS), default=0)

    def copy(self) -> Graph:
        """A copy that can be rewired; the arrays themselves are shared and never written to."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        copied = Graph(proto, dict(self.weights))
        copied.repairs, copied.observed = self.repairs, self.observed
        return copied

    def producers(self) -> dict[str, onnx.NodeProto]:
        """Tensor -> the node that makes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Tensor -> the nodes that read it, in order, those included whose subgraphs do; a node once for each reading."""
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in reads(node):
                readers.setdefault(name, []).append(node)
        return readers

    def only_readers(self) -> dict[str, onnx.NodeProto]:
        """Tensor that is no output -> the node that alone reads it, and once; no nodes of other domains, or that give nothing."""
        outputs, readers = set(self.output_names), self.consumers()
        alone = {name: found[0] for name, found in readers.items() if len(found) == 1 and name not in outputs}
        return {name: node for name, node in alone.items() if node.domain in STANDARD_DOMAINS and node.output}

    def unique(self, name: str) -> str:
        """A tensor or node name that is not taken yet, `name` itself where possible."""
        taken = self._names_taken()
        candidate, number = name, 1
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        return candidate

    def share_names(self, other: Graph) -> None:
        """From now on, a name that is taken in one of the two is taken in both: one is a body inside the other."""
        self._taken = other._names_taken()

    def _names_taken(self) -> set[str]:
        if self._taken is None:
            self._taken = {*self.weights, *self.input_names, *self.output_names}
            for node in all_nodes(self.proto.graph):
                inside = (value.name for body in subgraphs(node) for value in (*body.input, *body.output, *body.initializer))
                self._taken.update((node.name, *node.input, *node.output), inside)
        return self._taken

    def sort(self) -> None:
        """Bring the nodes into execution order (the parser tolerates disorder, ONNX Runtime does not).

        Layers, their names and so the engine follow this order: nodes that are in order stay as they are. Others come out as if the list
        were passed through again and again, each pass taking what has all its inputs by then.

        Raises:
            ConversionError: MODEL, where a node waits for its own output.
        """
        nodes = list(self.nodes)
        given = {*self.weights, *self.input_names}
        producer = {name: index for index, node in enumerate(nodes) for name in node.output if name not in given}
        needs = {index: [producer[name] for name in reads(node) if name in producer] for index, node in enumerate(nodes)}
        taken_in = [0] * len(nodes)  # the pass in which a node is taken: the next one where its producer stands behind it
        try:
            for index in TopologicalSorter(needs).static_order():
                taken_in[index] = max((taken_in[before] + (before > index) for before in needs[index]), default=0)
        except CycleError as error:
            node = nodes[min(error.args[1])]
            raise ConversionError(f"the graph has a cycle through node {node.name or node.op_type!r}", code=ExitCode.MODEL) from None
        self.replace_nodes(nodes[index] for index in sorted(range(len(nodes)), key=taken_in.__getitem__))

    def name_nodes(self) -> None:
        """Give every node a name of its own, OpType_index where it has none, so that it can be spoken of; those in bodies, too."""
        counts = Counter(node.name for node in all_nodes(self.proto.graph))
        for index, node in enumerate(self.nodes):
            for place, own in enumerate((node, *(inner for body in subgraphs(node) for inner in all_nodes(body)))):
                if not own.name or counts[own.name] > 1:
                    own.name = self.unique(f"{node.name}/" * bool(place) + f"{own.name or own.op_type}_{place or index}")

    def prune(self) -> None:
        """Drop nodes and weights that no output depends on."""
        needed = set(self.output_names)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(reads(node))
        self.replace_nodes(reversed(kept))
        self.weights = {name: array for name, array in self.weights.items() if name in needed}

    def replace_nodes(self, nodes) -> None:
        """Put `nodes` in the place of all nodes."""
        kept = list(nodes)
        copies = []
        for node in kept:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copies.append(copy)
        del self.nodes[:]
        self.nodes.extend(copies)

    def skeleton(self) -> onnx.ModelProto:
        """The model with large weights as typed inputs, for tools that only look at structure and types."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for name, array in self.weights.items():
            if array.nbytes <= 1024:  # shapes, axes, scales: inference needs their values
                proto.graph.initializer.append(numpy_helper.from_array(array, name))
            else:
                elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                proto.graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, array.shape))
        return proto

    def types(self) -> dict[str, int]:
        """Tensor -> TensorProto.DataType, of the main graph, as far as onnx can infer it."""
        inferred = infer_shapes(self.skeleton())
        values = (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info)
        types = {value.name: value.type.tensor_type.elem_type for value in values if value.type.HasField("tensor_type")}
        for name, array in self.weights.items():
            types[name] = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        return {name: elem_type for name, elem_type in types.items() if elem_type}

    def float_tensors(self) -> list[str]:
        """Inputs and activations that are float32, in execution order."""
        types = self.types()
        made = [name for node in self.nodes for name in node.output]
        return [name for name in (*self.input_names, *made) if types.get(name) == onnx.TensorProto.FLOAT]

    @property
    def bytes(self) -> int:
        """Size when serialized, nearly."""
        return self.proto.ByteSize() + sum(array.nbytes + 64 for array in self.weights.values())

    def to_model(self) -> onnx.ModelProto:
        """An ordinary model with its weights inside; may be too large to serialize as one message."""
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.weights.items())
        return model

    def with_external_data(self, data_name: str) -> tuple[bytes, dict[str, np.ndarray]]:
        """For graphs beyond one message: the model's bytes, and the weights whose data follow each other in file `data_name`."""
        model, arrays, offset = onnx.ModelProto(), {}, 0
        model.CopyFrom(self.proto)
        for name, array in self.weights.items():
            if array.nbytes <= 1024 or array.dtype.kind == "V" and array.dtype.itemsize == 1:  # INT4, say, which ONNX packs
                model.graph.initializer.append(numpy_helper.from_array(array, name))
                continue
            model.graph.initializer.append(external_tensor(name, array, data_name, offset))
            arrays[name] = np.ascontiguousarray(array)
            offset += array.nbytes
        return model.SerializeToString(), arrays

    def save(self, path: str, data_name: str) -> None:
        """Write the model, with its weights in a file `data_name` beside it where one message cannot hold them."""
        if self.bytes > INLINE_LIMIT:
            return self.save_apart(path, data_name)
        with open(path, "wb") as stream:
            stream.write(self.to_model().SerializeToString())

    def save_apart(self, path: str, data_name: str) -> None:
        """The same with a file of weights in any case, and without a copy of them in memory."""
        data, arrays = self.with_external_data(data_name)
        with open(path, "wb") as stream:
            stream.write(data)
        with open(os.path.join(os.path.dirname(path), data_name), "wb") as stream:
            for array in arrays.values():
                stream.write(array)


def external_tensor(name: str, array: np.ndarray, location: str, offset: int) -> onnx.TensorProto:
    """An initializer whose data stands elsewhere."""
    tensor = onnx.TensorProto(
        name=name,
        dims=array.shape,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def array_of(tensor: onnx.TensorProto) -> np.ndarray:
    """The values of a tensor.

    Raises:
        ConversionError: MODEL.
    """
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:  # of a type so new that nobody has compared its bytes with its shape
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise ConversionError(
            f"tensor {tensor.name!r} of type {kind} and shape {list(tensor.dims)} cannot be read: {error}",
            hint="TensorRT takes weights in FP32, FP16 and integers: export the model in FP32.",
            code=ExitCode.MODEL,
        ) from error


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """COO to dense (onnx.proto: indices are linear, or [count, rank])."""
    values, indices = array_of(sparse.values), array_of(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    """Value of a Constant node; None for any other node, and for constants that are no plain tensor."""
    if node.op_type != "Constant" or node.domain not in STANDARD_DOMAINS or not node.attribute:
        return None
    entry = node.attribute[0]
    if entry.name == "value":
        return array_of(entry.t)
    if entry.name == "sparse_value":
        return _dense(entry.sparse_tensor)
    dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}.get(entry.name)
    return None if dtype is None else np.array(onnx.helper.get_attribute_value(entry), dtype)


def _declare_ranks(inputs, profiles: tuple[Profile, ...]) -> Iterator[str]:
    """TensorRT takes an input of unknown rank for a scalar, so its rank is written down."""
    ranks = {profile.name: len(profile.opt) for profile in profiles}
    for value in inputs:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") and value.name in ranks:
            tensor.shape.SetInParent()
            for index in range(ranks[value.name]):
                tensor.shape.dim.add().dim_param = f"{value.name}_{index}"
            yield f"input {value.name!r} has no declared rank: {ranks[value.name]} is taken from its shape flags"


def _separate_symbols(graph: onnx.GraphProto, profiles: tuple[Profile, ...]) -> Iterator[str]:
    """Dimensions of one name are equal to TensorRT; where they get different sizes ("?" is a common name), the name goes."""
    sizes: dict[str, set[tuple[int, int, int]]] = {}
    triples = {profile.name: list(zip(profile.min, profile.opt, profile.max)) for profile in profiles}
    for value in graph.input:
        for dim, triple in zip(value.type.tensor_type.shape.dim, triples.get(value.name, ())):
            if dim.dim_param:
                sizes.setdefault(dim.dim_param, set()).add(triple)
    for symbol in (symbol for symbol, found in sizes.items() if len(found) > 1):
        for value in (*graph.input, *graph.output):
            for index, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.dim_param == symbol:
                    dim.dim_param = f"{value.name}_{index}"
        yield f"input dimensions named {symbol!r} get different sizes: they are taken as independent"
