"""What a GPU would make of a prepared graph, computed on a CPU.

ONNX Runtime's CPU computes FP16 operators in FP32 and keeps FP32 in between, so an overflow cannot be seen there. The
simulation rounds the output of every FP16 operator to FP16, by a pair of Casts that ONNX Runtime does not remove. The same makes up for the
BF16 operators that ONNX Runtime's CPU lacks. TensorRT adds up in FP32 within an operator, and so does this.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.bodies import body_graph, inner_graphs, is_plain, write_back
from onnx2trt.model.fp8_weights import dequantized
from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.half_types import BF16, BY_ELEM_TYPE
from onnx2trt.model.nodes import attribute, captured, reads, rename_reads, subgraphs
from onnx2trt.model.operators import EXACT

FLOAT, BFLOAT16 = onnx.TensorProto.FLOAT, BF16.elem_type
ARRAYS = ("float16", "bfloat16")  # dtypes
INT8 = np.dtype(np.int8)


def simulation(graph: Graph) -> Graph:
    """An FP32 graph that computes what `graph` computes, rounded to FP16 or BF16 wherever `graph` is that.

    Args:
        graph: FP32, FP16, BF16 and INT8 (Q/DQ) mixed; not changed.

    Returns:
        A new graph with the same inputs and outputs, but for those in BF16, which NumPy does not have: FP32. `graph` itself where it holds
        neither.
    """
    return simulated(graph)[0]


def simulated(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """(simulation of the graph, tensor of 16 bits of `graph` -> tensor of the simulation that has its values)."""
    types = graph.types()
    if not _has_half(types) and not any(_has_half(inner.types()) for inner in inner_graphs(graph)):
        return graph, {}
    run = _Simulation(graph, types)
    return run.run(), run.renamed


def _has_half(types: dict[str, int]) -> bool:
    return not BY_ELEM_TYPE.keys().isdisjoint(types.values())


class _Simulation:
    """One graph, or one body of control flow, on its way to FP32 with roundings."""

    def __init__(self, graph: Graph, types: dict[str, int]):
        self._source, self._types = graph, types
        self._half = {name: elem_type for name, elem_type in types.items() if elem_type in BY_ELEM_TYPE}
        self._nodes: list[onnx.NodeProto] = []
        self._result = graph.copy()
        self._outputs = frozenset(graph.output_names)
        weights = graph.weights.items()
        self._result.weights = {name: array.astype(np.float32) if array.dtype.name in ARRAYS else array for name, array in weights}
        self.renamed: dict[str, str] = {}

    def run(self) -> Graph:
        own = self._result.proto.graph
        for value in own.input:
            elem_type = self._half.get(value.name)
            if elem_type == BFLOAT16:
                value.type.tensor_type.elem_type = FLOAT
                self.renamed[value.name] = self._rounded(value.name, value.name, elem_type)
            elif elem_type:
                self.renamed[value.name] = self._cast(value.name, f"{value.name}__value", FLOAT)
        self._simulate_nodes()
        for value in own.output:
            elem_type = self._half.get(value.name)
            if elem_type == BFLOAT16:
                value.type.tensor_type.elem_type = FLOAT
            if elem_type:
                self._cast(self.renamed[value.name], value.name, value.type.tensor_type.elem_type)
        self._result.replace_nodes(self._nodes)
        self._result.prune()
        return self._result

    def _simulate_nodes(self) -> None:
        for node in self._result.nodes:
            if not subgraphs(node):
                self._simulate_node(node)
            elif is_plain(node) and self._half.keys().isdisjoint((*node.input, *node.output)):
                self._simulate_bodies(node)
            else:
                self._feed_subgraphs(node)

    def _simulate_node(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            node.input[index] = self.renamed.get(name, name)
        if node.op_type == "Cast" and node.output[0] in self._half:
            self.renamed[node.output[0]] = self._rounded(node.input[0], node.output[0], self._half[node.output[0]])
            return
        if node.op_type == "DequantizeLinear" and node.output[0] in self._half and self._outputs.isdisjoint(node.output):
            values = dequantized(node, self._result.weights, INT8)
            if values is not None:
                self._round_weights(node.output[0], values)
                return
        _write_float(node)
        self._nodes.append(node)
        for index, name in enumerate(node.output):
            if name not in self._half:
                continue
            value = self._result.unique(f"{name}__exact") if node.op_type not in EXACT or name in self._outputs else name
            node.output[index] = value
            self.renamed[name] = value if node.op_type in EXACT else self._rounded(value, name, self._half[name])

    def _round_weights(self, name: str, values: np.ndarray) -> None:
        """As a constant: ONNX Runtime would hold what it makes of the weights in between, too, three times their FP32 bytes at once."""
        self._result.weights[name] = BY_ELEM_TYPE[self._half[name]].of(values).astype(np.float32)
        self.renamed[name] = name

    def _simulate_bodies(self, node: onnx.NodeProto) -> None:
        """Control flow that takes and gives FP32: what its bodies read in 16 bits from outside is there as FP32 already."""
        for body in subgraphs(node):
            outside = frozenset(captured(body))
            around = body_graph(body, self._source, self._types)
            inner = _Simulation(around, around.types())
            inner._result.share_names(self._result)
            inner.renamed = {name: self.renamed[name] for name in outside if name in self.renamed}
            inner._simulate_nodes()
            inner._result.replace_nodes(inner._nodes)
            write_back(inner._result, body, outside)
        self._nodes.append(node)

    def _feed_subgraphs(self, node: onnx.NodeProto) -> None:
        """What a model itself hands to bodies in 16 bits, or gets out of them, is run as it is."""
        for name in dict.fromkeys(reads(node)):
            if name in self._half and self.renamed.get(name, name) != name:
                rename_reads(node, name, self._cast(self.renamed[name], f"{name}__half", self._half[name]))
        self._nodes.append(node)
        for index, name in enumerate(node.output):
            if name in self._half:
                node.output[index] = self._result.unique(f"{name}__half")
                self.renamed[name] = self._cast(node.output[index], f"{name}__value", FLOAT)

    def _rounded(self, source: str, name: str, elem_type: int) -> str:
        """Name of `source` rounded to a type of 16 bits, as FP32."""
        as_half = self._cast(source, f"{name}__half", elem_type)
        return self._cast(as_half, f"{name}__rounded", FLOAT)

    def _cast(self, source: str, target: str, elem_type: int) -> str:
        target = target if target in self._outputs else self._result.unique(target)
        name = self._result.unique(f"{target}__cast")
        self._nodes.append(onnx.helper.make_node("Cast", [source], [target], name=name, to=elem_type))
        return target


def _write_float(node: onnx.NodeProto) -> None:
    """FP16 or BF16 named by an attribute becomes FP32."""
    for entry in node.attribute:
        names_type = entry.name in ("to", "dtype", "output_dtype", "output_datatype") and entry.type == onnx.AttributeProto.INT
        if names_type and entry.i in BY_ELEM_TYPE:
            entry.i = FLOAT
    if node.op_type == "ConstantOfShape":
        value = attribute(node, "value")
        if value is not None and value.data_type in BY_ELEM_TYPE:
            array = array_of(value).astype(np.float32)
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(array)))
