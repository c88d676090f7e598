"""How much memory one inference takes, before it is tried."""

from __future__ import annotations

import math

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import reads

BYTES = 4  # of a value; most are float32


def peak_bytes(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> int:
    """Of the tensors that are alive at the same time; those whose shape is not known are left out.

    Args:
        graph: in order of execution.
        shapes: as static_shapes gives them.
    """
    last = {name: index for index, node in enumerate(graph.nodes) for name in reads(node)}
    alive = peak = sum(_bytes(name, shapes) for name in graph.input_names)
    ends: dict[int, list[str]] = {}
    for name, index in last.items():
        ends.setdefault(index, []).append(name)
    for index, node in enumerate(graph.nodes):
        alive += sum(_bytes(name, shapes) for name in node.output)
        peak = max(peak, alive)
        alive -= sum(_bytes(name, shapes) for name in ends.get(index, ()) if name not in graph.weights)
    return peak


def _bytes(name: str, shapes: dict[str, tuple[int, ...]]) -> int:
    return BYTES * math.prod(shapes[name]) if name in shapes else 0
