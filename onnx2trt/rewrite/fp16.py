"""FP32 graph -> FP16 or BF16 graph for strongly typed networks; inputs and outputs keep their types."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import onnx

from onnx2trt.model.bodies import body_graph, is_plain, write_back
from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.half_types import FP16, HalfType
from onnx2trt.model.nodes import attribute, captured, reads, rename_reads, standard_schema, subgraphs
from onnx2trt.model.operators import RECURRENT
from onnx2trt.rewrite.element_types import with_io_types

FLOAT = onnx.TensorProto.FLOAT
# Slots that the ONNX schema would allow in FP16 but that are parameters, not data.
PARAMETER_SLOTS = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}
# Operators whose result is of a type that no operand has, but an attribute names, or its default: those that can follow
FOLLOWING = {"Cast", "ConstantOfShape", "DequantizeLinear"}


def convert(graph: Graph, kept_fp32: dict[str, str], fp16_io: frozenset[str] = frozenset(), half: HalfType = FP16) -> Graph:
    """Make every node of that type that is not kept in FP32, with Casts where the two meet.

    If, Loop and Scan take and give FP32, with Casts in their bodies: states of a loop lose nothing from step to step but in its own nodes.

    Args:
        graph: FP32, not changed; may carry Q/DQ pairs (FP16 scales need opset 19).
        kept_fp32: node name, in bodies too -> reason.
        fp16_io: inputs and outputs that become FP16 (--io-types), whatever the type of the nodes: NumPy has no BF16.
        half: the type.

    Returns:
        A new graph. Inputs and outputs keep names, types and order; inner tensors keep their names where they have one
        precision only.
    """
    if half is FP16:
        return _Converter(graph, kept_fp32, fp16_io, half).run()
    return with_io_types(_Converter(graph, kept_fp32, frozenset(), half).run(), dict.fromkeys(fp16_io, FP16.elem_type))


def _takes_half(schema, parameters, index: int) -> bool:
    """Whether slot `index` may be of 16 bits; the last parameter of a variadic operator stands for all that follow.

    What takes FP16 is taken to take BF16: ONNX has added that to some operators (Conv, recurrent layers) as late as opset 22, TensorRT's
    parser takes it whatever the opset, and what it refuses stays in FP32 (rewrite.refused).
    """
    parameter = parameters[min(index, len(parameters) - 1)]
    for constraint in schema.type_constraints:
        if constraint.type_param_str == parameter.type_str:
            return "tensor(float16)" in constraint.allowed_type_strs
    return parameter.type_str == "tensor(float16)"


def stays_float(node: onnx.NodeProto, schema) -> bool:
    """Whether an operator is left as it is, because FP16 operands alone do not make its results FP16, or not of a type that fits.

    Those are operators that draw random numbers or make windows, which have a type of their own, and lists of tensors.
    """
    read = {parameter.type_str for parameter in schema.inputs}
    types = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    for parameter in (*schema.inputs, *schema.outputs):
        if any(kind.startswith(("seq(", "optional(")) for kind in types.get(parameter.type_str, (parameter.type_str,))):
            return node.op_type != "Identity"  # of tensors, as far as types are known
    own = [parameter.type_str for parameter in schema.outputs if parameter.type_str not in read]
    return node.op_type not in FOLLOWING and any({"tensor(float)", "tensor(float16)"} <= set(types.get(name, ())) for name in own)


class _Converter:
    def __init__(self, graph: Graph, kept_fp32: dict[str, str], half_io: frozenset[str], half: HalfType, outside: _Converter | None = None):
        """
        Args:
            outside: of the graph around this one, which is a body of control flow; what it captures, that one casts.
        """
        self._source = graph
        self._result = graph.copy()
        self._outputs = frozenset(graph.output_names)
        self._outside = outside
        self._captured: frozenset[str] = frozenset()
        self._unique: Callable[[str], str] = outside._unique if outside else self._result.unique
        self._types = graph.types()
        self._kept_fp32 = kept_fp32
        self._half_io, self._half = half_io, half
        self._made_half: dict[str, str] = {}  # float32 tensor -> its name, where a node now makes it in 16 bits
        self._cast_half: dict[str, str] = {}  # float32 tensor or weight -> name of its copy in 16 bits
        self._cast_float: dict[str, str] = {}  # tensor made in 16 bits -> name of its FP32 copy
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> Graph:
        for value in self._result.proto.graph.input:
            if value.name in self._half_io and self._types.get(value.name) == FLOAT:
                value.type.tensor_type.elem_type = self._half.elem_type
                self._made_half[value.name] = value.name
        for node in list(self._result.nodes):
            self._convert_node(node)
        for value in self._result.proto.graph.output:
            if value.name in self._half_io and self._types.get(value.name) == FLOAT:
                self._half_output(value)
            else:
                self._as_float(value.name)
        self._result.replace_nodes(self._nodes)
        self._result.prune()
        return self._result

    def _convert_node(self, node: onnx.NodeProto) -> None:
        if node.name not in self._kept_fp32 and is_plain(node):
            self._convert_bodies(node)
            return
        schema = None if node.name in self._kept_fp32 else standard_schema(node, self._source.opset)
        if schema is None or stays_float(node, schema):
            for name in dict.fromkeys(reads(node)):
                if self._types.get(name) == FLOAT:
                    rename_reads(node, name, self._as_float(name))
            if node.op_type in RECURRENT and node.input[0] not in {*self._source.input_names} - self._half_io:
                node.input[0] = self._added_to_zero(node.input[0])
            self._nodes.append(node)
            return
        keeps_type = node.op_type == "Cast"  # reads either precision as it comes
        for index, name in enumerate(node.input):
            if self._types.get(name) != FLOAT:
                continue
            half = _takes_half(schema, schema.inputs, index) and (node.op_type, index) not in PARAMETER_SLOTS
            if keeps_type:
                node.input[index] = self._as_it_comes(name)
            else:
                node.input[index] = self._as_half(name) if half else self._as_float(name)
        self._nodes.append(node)
        _write_half(node, self._half)
        for index, name in enumerate(node.output):
            if self._types.get(name) == FLOAT and _takes_half(schema, schema.outputs, index):
                half_name = self._unique(f"{name}__{self._half.name}") if name in self._outputs else name
                node.output[index] = half_name
                self._made_half[name] = half_name

    def _convert_bodies(self, node: onnx.NodeProto) -> None:
        """Control flow takes and gives what it did; inside, its bodies are of 16 bits."""
        for index, name in enumerate(node.input):
            if self._types.get(name) == FLOAT:
                node.input[index] = self._as_float(name)
            if node.op_type == "Scan" and name in self._source.input_names:
                node.input[index] = self._copied(node.input[index])
        for body in subgraphs(node):
            inner = _Converter(body_graph(body, self._source, self._types), self._kept_fp32, frozenset(), self._half, self)
            inner._captured = frozenset(captured(body))
            write_back(inner.run(), body, inner._captured)
        self._nodes.append(node)

    def _copied(self, name: str) -> str:
        """An Identity behind an input: TensorRT-RTX 1.7 builds no FP16 loop over the rows of a network's input itself (error in Myelin)."""
        target = self._unique(f"{name}__rows")
        self._nodes.append(onnx.helper.make_node("Identity", [name], [target], name=self._unique(f"{target}__identity")))
        return target

    def _added_to_zero(self, name: str) -> str:
        """A sum between a Cast and a recurrent layer in FP32: TensorRT-RTX 1.7 reads the steps of what is cast behind the loop over them,
        where it has removed all that lies between (error in Myelin: "reshape op: input tensor has shape [8,1,8] and output [1,1,8]")."""
        target, zero = self._unique(f"{name}__steps"), self._unique(f"{name}__zero")
        self._result.weights[zero] = np.zeros(1, np.float32)
        self._nodes.append(onnx.helper.make_node("Add", [name, zero], [target], name=self._unique(f"{target}__add")))
        return target

    def _as_it_comes(self, name: str) -> str:
        """The tensor in whichever precision it was made."""
        return self._outside._as_it_comes(name) if name in self._captured else self._made_half.get(name, name)

    def _half_output(self, value: onnx.ValueInfoProto) -> None:
        """The output's FP32 form, if a node kept in FP32 makes it, moves to another name."""
        name = value.name
        value.type.tensor_type.elem_type = self._half.elem_type
        if name not in self._made_half:
            moved = self._unique(f"{name}__fp32")
            for node in self._nodes:
                for index, output in enumerate(node.output):
                    node.output[index] = moved if output == name else output
                rename_reads(node, name, moved)
            self._cast(moved, name, self._half.elem_type)
        else:
            self._cast(self._made_half[name], name, self._half.elem_type)

    def _as_half(self, name: str) -> str:
        if name in self._captured:
            return self._outside._as_half(name)
        if name in self._made_half:
            return self._made_half[name]
        if name not in self._cast_half:
            target = self._unique(f"{name}__{self._half.name}")
            if name in self._source.weights:
                self._result.weights[target] = _halves.of(self._source.weights[name], self._half)
            else:
                self._cast(name, target, self._half.elem_type)
            self._cast_half[name] = target
        return self._cast_half[name]

    def _as_float(self, name: str) -> str:
        if name in self._captured:
            return self._outside._as_float(name)
        if name not in self._made_half:
            return name
        if name not in self._cast_float:
            target = name if name in self._outputs else self._unique(f"{name}__fp32")
            self._cast(self._made_half[name], target, FLOAT)
            self._cast_float[name] = target
        return self._cast_float[name]

    def _cast(self, source: str, target: str, elem_type: int) -> None:
        name = self._unique(f"{target}__cast")
        self._nodes.append(onnx.helper.make_node("Cast", [source], [target], name=name, to=elem_type))


HALVES_BYTES = 2**26  # of weights; where there are more, rounding them is little beside what else is done with them


class _Halves:
    """Weights in 16 bits, rounded once for all graphs that share them, as far as there is room: every choice of layers that is tried
    converts the whole model."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], tuple[weakref.ref, np.ndarray]] = {}
        self._bytes = 0

    def of(self, array: np.ndarray, half: HalfType) -> np.ndarray:
        key = (id(array), half.name)
        source, found = self._kept.get(key, (None, None))
        if source is None or source() is not array:
            self._drop(key)
            found = half.of(array)
            if self._bytes + found.nbytes <= HALVES_BYTES:
                self._kept[key] = (weakref.ref(array, lambda _: self._drop(key)), found)
                self._bytes += found.nbytes
        return found

    def _drop(self, key: tuple[int, str]) -> None:
        if key in self._kept:
            self._bytes -= self._kept.pop(key)[1].nbytes

    def forget(self) -> None:
        self._kept.clear()
        self._bytes = 0


_halves = _Halves()


def forget_halves() -> None:
    """Let go of the weights in 16 bits, where no more graphs will be converted for a while."""
    _halves.forget()


def _write_half(node: onnx.NodeProto, half: HalfType) -> None:
    """Adjust an attribute that names the output's type."""
    if node.op_type in ("Cast", "DequantizeLinear"):
        for entry in node.attribute:
            if entry.name in ("to", "output_dtype") and entry.i == FLOAT:
                entry.i = half.elem_type
    elif node.op_type == "ConstantOfShape":
        value = attribute(node, "value")
        array = np.zeros(1, np.float32) if value is None else array_of(value)
        if array.dtype == np.float32:
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(half.of(array))))
