"""What an engine of TensorRT's calibrator computes, by what its inspector says: it holds more in INT8 than what the layers read.

TensorRT keeps whatever has a scale in INT8 between the layers, if that is faster: the input of a hard-swish, a sum, an output.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.qdq import Reading, insert, quantizable_layers


@dataclass(frozen=True)
class InInt8:
    """What an engine computes and holds in INT8."""

    nodes: Collection[str]  # whose layer reads INT8
    written: Collection[str]  # tensors that a layer writes so
    read: Mapping[str, Collection[str]]  # tensor -> nodes that read it so, after a conversion for them


def as_built(graph: Graph, scales: Mapping[str, float], found: InInt8) -> Graph:
    """A Q/DQ model that rounds what the engine rounds.

    Args:
        graph: FP32, that the engine was built from; not changed.
        scales: tensor -> scale above 0, as the calibrator gave them; what has none is not rounded.

    Returns:
        A new graph with the same inputs and outputs.
    """
    result, scales, written = graph.copy(), dict(scales), set(found.written)
    for name in graph.output_names:
        if name in written and name in scales:
            written.add(_take_out(result, name, scales))
    layers = tuple(layer for layer in quantizable_layers(result) if layer.node in found.nodes and layer.activation in scales)
    more = [
        Reading(node.name, index, name, name)
        for node in result.nodes
        for index, name in enumerate(node.input)
        if name in scales and (name in written or node.name in found.read.get(name, ()))
    ]
    return insert(result, scales, layers, half=False, more=more)


def _take_out(graph: Graph, name: str, scales: dict[str, float]) -> str:
    """An output's value gets a name of its own inside, so that what is given out is rounded like what is read; that name."""
    inside = graph.unique(f"{name}__inside")
    for node in graph.nodes:
        for names in (node.input, node.output):
            for index, own in enumerate(names):
                if own == name:
                    names[index] = inside
    scales[inside] = scales[name]
    given = onnx.helper.make_node("Identity", [inside], [name], name=graph.unique(f"{name}__given"))
    graph.replace_nodes([*graph.nodes, given])
    return inside
