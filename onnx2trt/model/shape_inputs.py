"""Inputs whose values, not shapes, decide about the shapes of other tensors: a length, a target size."""

from __future__ import annotations

from collections.abc import Iterable

from onnx2trt.base.model_info import STANDARD_DOMAINS, TensorSpec
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute

# operator -> its inputs whose values say how large something is, or along which axis, which TensorRT wants to know as early
SIZES = {
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
# what TensorRT computes on sizes before anything runs
ARITHMETIC = frozenset(
    (
        *("Abs", "Add", "Cast", "Ceil", "Concat", "Div", "Equal", "Expand"),
        *("Floor", "Gather", "GatherElements", "Greater", "Identity", "Less", "Max", "Min"),
        *("Mod", "Mul", "Neg", "Not", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("Relu", "Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Tile", "Unsqueeze", "Where"),
    )
)


def shape_inputs(graph: Graph, inputs: Iterable[TensorSpec]) -> tuple[str, ...]:
    """The integer inputs of at most one dimension from which sizes are computed; TensorRT calls them shape inputs.

    Args:
        inputs: of the graph.
    """
    sizes: set[str] = set()
    for node in reversed(graph.nodes):
        if node.domain not in STANDARD_DOMAINS:
            continue
        slots = SIZES.get(node.op_type, ())
        if node.op_type == "Reshape" and attribute(node, "shape") is not None:  # before opset 5
            slots = ()
        sizes.update(node.input[slot] for slot in slots if slot < len(node.input) and node.input[slot])
        if node.op_type in ARITHMETIC and sizes.intersection(node.output):
            sizes.update(filter(None, node.input))
    return tuple(spec.name for spec in inputs if spec.name in sizes and may_be_shape_input(spec))


def may_be_shape_input(spec: TensorSpec) -> bool:
    """Whether TensorRT takes the values of such an input for sizes: integers, a scalar or a list of fixed length."""
    if spec.dtype not in ("int32", "int64") or spec.shape is None or len(spec.shape) > 1:
        return False
    return all(isinstance(dim, int) for dim in spec.shape)
