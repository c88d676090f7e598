"""FP32 graph -> FP16 graph for strongly typed networks; inputs and outputs keep their types."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from fnmatch import fnmatchcase

import numpy as np
import onnx

from core.errors import ConversionError, ExitCode
from core.plan import FP16_MAX
from graph.graph import Graph, array_of
from graph.nodes import STANDARD_DOMAINS, attribute, reads, rename_reads, subgraphs

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
HELD_ABOVE = FP16_MAX / 2  # a factor of two for data that was not measured
FP16_SMALLEST_NORMAL = 2.0**-14  # below it, FP16 loses precision bit by bit
HALF_ROUNDING = 2.0**-11  # largest relative error of rounding to FP16
WEIGHT_ERROR = 0.01  # largest accepted ||w16 - w|| / ||w||
PART = 2**18  # weights looked at together
# Slots that the ONNX schema would allow in FP16 but that are parameters, not data.
PARAMETER_SLOTS = {("Resize", 1), ("Resize", 2), ("Upsample", 1)}


def choose_holds(
    graph: Graph, maxima: dict[str, float], wishes: tuple[tuple[str, str], ...], measured: bool, structural: bool = True
) -> dict[str, str]:
    """The nodes that stay in FP32.

    Args:
        graph: FP32.
        maxima: tensor -> max |x| over the data.
        wishes: (pattern, "fp32" | "fp16") of the user; the last that matches a node decides about it.
        measured: False leaves out what is held for its range (--disable-strict-types).
        structural: hold what `convert` cannot convert; False where TensorRT chooses the types itself (weak typing).

    Returns:
        Node name -> reason, in words.

    Raises:
        ConversionError: USAGE, for a pattern that matches no node.
    """
    unconvertible = _structural_holds(graph) if structural else {}
    holds = dict(unconvertible)
    if measured:
        types = graph.types()
        for name in _normalisation_nodes(graph):
            holds.setdefault(name, "part of a normalisation written out in single operators")
        for node in graph.nodes:
            reason = _range_reason(node, graph, maxima, types)
            if reason:
                holds.setdefault(node.name, reason)
    for pattern, precision in wishes:
        matched = [node.name for node in graph.nodes if fnmatchcase(node.name, pattern)]
        if not matched:
            some = ", ".join(repr(node.name) for node in graph.nodes[:5])
            raise ConversionError(
                f"--layer-precisions {pattern}:{precision} matches no node of the model",
                hint=f"Patterns are matched with the ONNX node names (* ? []), for example {some}.",
                code=ExitCode.USAGE,
            )
        for name in matched:
            if precision == "fp32":
                holds[name] = f"--layer-precisions {pattern}:fp32"
            elif name not in unconvertible:
                holds.pop(name, None)
    return holds


def _structural_holds(graph: Graph) -> dict[str, str]:
    """Nodes that cannot be converted: control flow, operators without a schema."""
    holds = {}
    for node in graph.nodes:
        if subgraphs(node):
            holds[node.name] = "control flow"
        elif _schema(node, graph.opset) is None:
            holds[node.name] = f"operator {node.domain + '.' if node.domain else ''}{node.op_type} is not known to ONNX"
    return holds


def _range_reason(node: onnx.NodeProto, graph: Graph, maxima: dict[str, float], types: dict[str, int]) -> str:
    for name in dict.fromkeys((*reads(node), *node.output)):
        if types.get(name) != FLOAT:
            continue
        if name in graph.weights:
            largest_result = maxima.get(node.output[0], 0.0) if _is_summand(node, name) else 0.0
            reason = _weight_reason(name, graph.weights[name], largest_result * HALF_ROUNDING)
            if reason:
                return reason
            continue
        largest = maxima.get(name, 0.0)
        if math.isnan(largest) or largest > HELD_ABOVE:
            return f"{name} reaches {largest:.3g}, above {HELD_ABOVE:.0f} (half of FP16's largest)"
        if 0 < largest < FP16_SMALLEST_NORMAL:
            return f"{name} stays within {largest:.1e}, below FP16's normal range (6.1e-05)"
    return ""


def _is_summand(node: onnx.NodeProto, name: str) -> bool:
    """The weight is only added, so what it loses is lost once, not multiplied."""
    if node.op_type in ("Add", "Sub"):
        return True
    return node.op_type in ("Conv", "ConvTranspose", "Gemm") and list(node.input).index(name) == 2


def _weight_reason(name: str, values: np.ndarray, negligible: float) -> str:
    """Why FP16 cannot hold these weights; an absolute error up to `negligible` does not count."""
    largest = max((float(np.abs(part).max()) for part in _finite_parts(values)), default=0.0)
    if largest > FP16_MAX:
        return f"weights {name} reach {largest:.3g}, above FP16's largest (65504)"
    energy = lost_energy = largest_loss = 0.0
    for part in _finite_parts(values):
        lost = np.abs(part.astype(np.float16).astype(np.float32) - part)
        energy += float(np.dot(part, part))
        lost_energy += float(np.dot(lost, lost))
        largest_loss = max(largest_loss, float(lost.max()))
    norm, error = math.sqrt(energy), math.sqrt(lost_energy)
    if error > WEIGHT_ERROR * norm and largest_loss > negligible:
        return f"weights {name} (up to {largest:.1e}) lose {error / norm:.0%} in FP16"
    return ""


def _finite_parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """The finite values in parts that stay in the cache; whole copies of large weights would take many times as long."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, PART):
        part = flat[start : start + PART]
        finite = part[np.isfinite(part)]
        if finite.size:
            yield finite


def _normalisation_nodes(graph: Graph) -> set[str]:
    """Nodes of normalisations that were exported operator by operator: square, mean, + epsilon, root, division.

    Squares and their sums need more range than FP16 has for inputs that look harmless.
    """
    producers, consumers = graph.producers(), graph.consumers()
    found = set()
    for root in graph.nodes:
        if root.op_type != "Sqrt":
            continue
        add = producers.get(root.input[0])
        mean_input = root.input[0]
        chain = [root]
        if add is not None and add.op_type == "Add":
            chain.append(add)
            mean_input = next((name for name in add.input if name not in graph.weights), "")
        mean = producers.get(mean_input)
        if mean is None or mean.op_type not in ("ReduceMean", "ReduceSum", "GlobalAveragePool", "ReduceSumSquare"):
            continue
        chain.append(mean)
        square = producers.get(mean.input[0])
        if square is not None and (square.op_type == "Pow" or square.op_type == "Mul" and square.input[0] == square.input[1]):
            chain.append(square)
        elif mean.op_type != "ReduceSumSquare":
            continue
        chain.extend(node for node in consumers.get(root.output[0], []) if node.op_type in ("Div", "Reciprocal", "Mul"))
        found.update(node.name for node in chain)
    return found


def convert(graph: Graph, holds: dict[str, str], half_ends: frozenset[str] = frozenset()) -> Graph:
    """Make every node FP16 that is not held, with Casts where the two meet.

    Args:
        graph: FP32, not changed; may carry Q/DQ pairs (FP16 scales need opset 19).
        holds: node name -> reason.
        half_ends: inputs and outputs that become FP16 themselves (--io-types).

    Returns:
        A new graph. Inputs and outputs keep names, types and order; inner tensors keep their names where they have one
        precision only.
    """
    return _Converter(graph, holds, half_ends).run()


def _schema(node: onnx.NodeProto, opset: int):
    if node.domain not in STANDARD_DOMAINS or not onnx.defs.has(node.op_type, ""):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def _takes_half(schema, parameters, index: int) -> bool:
    """Whether slot `index` may be FP16; the last parameter of a variadic operator stands for all that follow."""
    parameter = parameters[min(index, len(parameters) - 1)]
    for constraint in schema.type_constraints:
        if constraint.type_param_str == parameter.type_str:
            return "tensor(float16)" in constraint.allowed_type_strs
    return parameter.type_str == "tensor(float16)"


class _Converter:
    def __init__(self, graph: Graph, holds: dict[str, str], half_ends: frozenset[str]):
        self._source = graph
        self._result = graph.copy()
        self._types = graph.types()
        self._holds = holds
        self._half_ends = half_ends
        self._made_half: dict[str, str] = {}  # float32 tensor -> its name, where a node now makes it in FP16
        self._cast_half: dict[str, str] = {}  # float32 tensor or weight -> name of its FP16 copy
        self._cast_float: dict[str, str] = {}  # tensor made in FP16 -> name of its FP32 copy
        self._nodes: list[onnx.NodeProto] = []

    def run(self) -> Graph:
        for value in self._result.proto.graph.input:
            if value.name in self._half_ends and self._types.get(value.name) == FLOAT:
                value.type.tensor_type.elem_type = HALF
                self._made_half[value.name] = value.name
        outputs = {value.name for value in self._result.proto.graph.output}
        for node in list(self._result.nodes):
            self._convert_node(node, outputs)
        for value in self._result.proto.graph.output:
            if value.name in self._half_ends and self._types.get(value.name) == FLOAT:
                self._half_output(value)
            else:
                self._as_float(value.name)
        self._result.replace_nodes(self._nodes)
        self._result.prune()
        return self._result

    def _convert_node(self, node: onnx.NodeProto, outputs: set[str]) -> None:
        schema = None if node.name in self._holds else _schema(node, self._source.opset)
        if schema is None:
            for name in dict.fromkeys(reads(node)):
                if self._types.get(name) == FLOAT:
                    rename_reads(node, name, self._as_float(name))
            self._nodes.append(node)
            return
        keeps_type = node.op_type == "Cast"  # reads either precision as it comes
        for index, name in enumerate(node.input):
            if self._types.get(name) != FLOAT:
                continue
            half = _takes_half(schema, schema.inputs, index) and (node.op_type, index) not in PARAMETER_SLOTS
            if keeps_type:
                node.input[index] = self._made_half.get(name, name)
            else:
                node.input[index] = self._as_half(name) if half else self._as_float(name)
        self._nodes.append(node)
        if not _write_half(node):
            return
        for index, name in enumerate(node.output):
            if self._types.get(name) == FLOAT and _takes_half(schema, schema.outputs, index):
                half_name = self._result.unique(f"{name}__fp16") if name in outputs else name
                node.output[index] = half_name
                self._made_half[name] = half_name

    def _half_output(self, value: onnx.ValueInfoProto) -> None:
        """The output's FP32 form, if a held node makes it, moves to another name."""
        name = value.name
        value.type.tensor_type.elem_type = HALF
        if name not in self._made_half:
            moved = self._result.unique(f"{name}__fp32")
            for node in self._nodes:
                for index, output in enumerate(node.output):
                    node.output[index] = moved if output == name else output
                rename_reads(node, name, moved)
            self._cast(moved, name, HALF)
        else:
            self._cast(self._made_half[name], name, HALF)

    def _as_half(self, name: str) -> str:
        if name in self._made_half:
            return self._made_half[name]
        if name not in self._cast_half:
            target = self._result.unique(f"{name}__fp16")
            if name in self._source.weights:
                self._result.weights[target] = _half_of(self._source.weights[name])
            else:
                self._cast(name, target, HALF)
            self._cast_half[name] = target
        return self._cast_half[name]

    def _as_float(self, name: str) -> str:
        if name not in self._made_half:
            return name
        if name not in self._cast_float:
            target = name if name in self._source.output_names else self._result.unique(f"{name}__fp32")
            self._cast(self._made_half[name], target, FLOAT)
            self._cast_float[name] = target
        return self._cast_float[name]

    def _cast(self, source: str, target: str, elem_type: int) -> None:
        name = self._result.unique(f"{target}__cast")
        self._nodes.append(onnx.helper.make_node("Cast", [source], [target], name=name, to=elem_type))


_halves: dict[int, tuple[weakref.ref, np.ndarray]] = {}


def _half_of(array: np.ndarray) -> np.ndarray:
    """Weights in FP16, rounded once for all graphs that share them: every choice of layers that is tried converts the whole model."""
    key = id(array)
    source, half = _halves.get(key, (None, None))
    if source is None or source() is not array:
        with np.errstate(over="ignore"):  # infinities in attention masks stay infinities
            half = array.astype(np.float16)
        _halves[key] = (weakref.ref(array, lambda _: _halves.pop(key, None)), half)
    return half


def _write_half(node: onnx.NodeProto) -> bool:
    """Adjust an attribute that names the output's type; False where the output stays FP32."""
    if node.op_type == "Cast":
        for entry in node.attribute:
            if entry.name == "to" and entry.i == FLOAT:
                entry.i = HALF
        return True
    if node.op_type == "ConstantOfShape":
        value = attribute(node, "value")
        array = np.zeros(1, np.float32) if value is None else array_of(value)
        if array.dtype == np.float32:
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(array.astype(np.float16))))
        return True
    return attribute(node, "dtype") is None
