"""How quantized tensors are read: to be moved, or as a bias."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnx2trt.model import operators
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, reads

MOVING = operators.MOVING - {"Dropout"}
BIAS_SLOT = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}


def moves(node: onnx.NodeProto) -> bool:
    """Whether a node only moves values, or takes one of several, so that it is the same before rounding and after it."""
    return node.op_type in MOVING or node.op_type == "Pad" or node.op_type == "Resize" and attribute(node, "mode", b"nearest") == b"nearest"


def bias_only(graph: Graph) -> set[str]:
    """Tensors that are read as biases alone, which TensorRT has in floating point."""
    slots: dict[str, set[bool]] = {}
    for name, is_bias in _slots(graph):
        slots.setdefault(name, set()).add(is_bias)
    return {name for name, found in slots.items() if found == {True}} - set(graph.output_names)


def _slots(graph: Graph) -> Iterator[tuple[str, bool]]:
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            yield name, BIAS_SLOT.get(node.op_type) == index
        yield from ((name, False) for name in reads(node) if name not in node.input)
