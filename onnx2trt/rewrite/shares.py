"""The work of a graph in multiply-accumulates, and the share of it that is done in each precision."""

from __future__ import annotations

from collections.abc import Iterable

from onnx2trt.base.model_info import Profile
from onnx2trt.model.attention import find_attentions
from onnx2trt.model.bodies import inner_graphs
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import FP16, HalfType
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.operators import CONVOLUTIONS
from onnx2trt.model.work import count_macs
from onnx2trt.rewrite import qdq
from onnx2trt.rewrite.inner_work import macs_in_bodies
from onnx2trt.rewrite.keep_fp32 import unconvertible_nodes
from onnx2trt.rewrite.number_formats import INT8

OF_A_TRANSFORMER = 0.25  # of the work; those that were measured have 2 % and less, detectors with some attention most of theirs


def macs_of(graph: Graph, profiles: tuple[Profile, ...]) -> dict[str, int]:
    """Multiply-accumulates of each convolution, matrix product, recurrent layer and Attention, in bodies of control flow, too; see
    model.work and rewrite.inner_work."""
    shapes = static_shapes(graph, profiles)
    return {**count_macs(graph, shapes), **macs_in_bodies(graph, shapes)}


def mac_share(graph: Graph, profiles: tuple[Profile, ...], nodes: set[str] | None = None) -> float:
    """Share of the multiply-accumulates (macs_of) that these nodes do; None: those whose operands are in 8 bits."""
    return _share(macs_of(graph, profiles), qdq.quantized_layers(graph) if nodes is None else nodes) or 0.0


def mac_shares(graph: Graph, profiles: tuple[Profile, ...]) -> dict[str, float]:
    """The same of the nodes whose operands are in an 8-bit format, for each that there is; INT8 where there is none."""
    found = {name: nodes for name, nodes in qdq.layers_by_format(graph).items() if nodes} or {INT8.name: set()}
    macs = macs_of(graph, profiles)
    return {name: _share(macs, nodes) or 0.0 for name, nodes in found.items()}


def operator_share(graph: Graph, profiles: tuple[Profile, ...], operators: Iterable[str]) -> float:
    """Share of the multiply-accumulates (macs_of) that nodes of these operators do."""
    nodes = {node.name for one in (graph, *inner_graphs(graph)) for node in one.nodes if node.op_type in operators}
    return _share(macs_of(graph, profiles), nodes) or 0.0


def is_transformer(graph: Graph, profiles: tuple[Profile, ...]) -> bool:
    """Whether a graph has attention, and convolutions do hardly any of its work.

    The compiler in TensorRT that attention makes take over such a network (Myelin) heeds no calibrator.
    """
    attentions = find_attentions(graph, static_shapes(graph, profiles))
    return bool(attentions) and operator_share(graph, profiles, CONVOLUTIONS) < OF_A_TRANSFORMER


def half_mac_share(graph: Graph, profiles: tuple[Profile, ...], half: set[str] | None = None, half_type: HalfType = FP16) -> float | None:
    """Share that these nodes do, of the multiply-accumulates (macs_of) of those that can be of 16 bits; None where there are none.

    Args:
        half: nodes, of an engine whose network is weakly typed: bodies of control flow stay FP32 there, whatever is in them. None: those
            whose results are `half_type` by the types of the graph, and that are not INT8.
    """
    graphs = [graph, *inner_graphs(graph)]
    without = {name for one in graphs for name in unconvertible_nodes(one)}
    if half is not None:
        without.update(node.name for one in graphs[1:] for node in one.nodes)
    macs = {name: count for name, count in macs_of(graph, profiles).items() if name not in without}
    if half is None:
        int8 = qdq.quantized_layers(graph)
        half = set().union(*(_of_type(one, half_type) for one in graphs)) - int8
    return _share(macs, half)


def _of_type(graph: Graph, half_type: HalfType) -> set[str]:
    """Nodes with a result of this type; a GRU may make Y_h alone."""
    made = {name for name, elem_type in graph.types().items() if elem_type == half_type.elem_type}
    return {node.name for node in graph.nodes if not made.isdisjoint(node.output)}


def _share(macs: dict[str, int], nodes: set[str]) -> float | None:
    """None where there is no work."""
    total = sum(macs.values())
    return sum(count for name, count in macs.items() if name in nodes) / total if total else None


def by_layer(macs: dict[str, int], layers: Iterable[qdq.Layer]) -> dict[str, int]:
    """Multiply-accumulates by node, where an attention's first product has those of both; the sum stays."""
    found = dict(macs)
    for layer in layers:
        if layer.attention:
            found[layer.node] = found.get(layer.node, 0) + found.pop(layer.attention.context, 0)
    return found
