"""The strongly typed form of a graph: FP16 or BF16 but for what is kept in FP32, and around Q/DQ what TensorRT needs to fuse them."""

from __future__ import annotations

from onnx2trt.model.bodies import inner_graphs
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import FP16, HalfType
from onnx2trt.model.nodes import reads
from onnx2trt.model.operators import NO_LARGER, POINTWISE, QUANTIZERS
from onnx2trt.rewrite import fp16
from onnx2trt.rewrite.for_onnxruntime import with_biases_behind, with_float_concats
from onnx2trt.rewrite.one_scale import with_one_scale
from onnx2trt.rewrite.qdq import quantized_layers


def strongly_typed(
    graph: Graph,
    kept_fp32: dict[str, str],
    fp16_scales: bool,
    fp16_io: frozenset[str] = frozenset(),
    one_scale: bool = False,
    half: HalfType = FP16,
) -> Graph:
    """`half` for every node that is not kept in FP32.

    Args:
        graph: FP32, with or without Q/DQ.
        kept_fp32: node -> reason.
        fp16_scales: Q/DQ get FP16 scales (opset 19), so that layers between them are FP16. False: FP32 scales, and FP32 is the
            type of what lies between them; the layers themselves are INT8 all the same. TensorRT 10 needs that: it does not build
            every network with FP16 scales ("No supported formats"), and computes some of those that it builds wrongly. Only beside
            FP16 layers.
        fp16_io: inputs and outputs that become FP16 (--io-types).
        one_scale: INT8 weights of a convolution have one, and what the channels differ by stands behind it (rewrite.one_scale).
    """
    graph = with_one_scale(graph) if one_scale else graph
    graph, between = with_float_concats(with_biases_behind(graph)) if fp16_scales else (graph, between_scales(graph))
    between = dict.fromkeys(between, "between FP32 scales")
    return fp16.convert(graph, {**between, **kept_fp32}, fp16_io, half)


def between_scales(graph: Graph) -> set[str]:
    """Q/DQ nodes, the INT8 layers, and what TensorRT fuses into them or moves a Q across, in bodies of control flow, too; a Cast there
    would break that."""
    return set().union(*map(_between_scales, (graph, *inner_graphs(graph))))


def _between_scales(graph: Graph) -> set[str]:
    """Of the graph itself."""
    int8, producers, consumers = quantized_layers(graph), graph.producers(), graph.consumers()
    found = {node.name for node in graph.nodes if node.op_type in QUANTIZERS} | int8
    if not int8:
        return found
    for node in graph.nodes:
        sources = [producers[name].name in found for name in reads(node) if name in producers]
        if node.op_type in POINTWISE and any(sources) or node.op_type in NO_LARGER and sources and all(sources):
            found.add(node.name)
    for node in reversed(graph.nodes):  # moving data in FP32 pays only on the way to the next Q
        readers = [reader.name for name in node.output for reader in consumers.get(name, [])]
        if node.op_type in NO_LARGER - POINTWISE and not (readers and found.issuperset(readers)):
            found.discard(node.name)
    return found
