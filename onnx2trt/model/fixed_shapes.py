"""Shapes of inner tensors where every input has one shape only: run once, the model tells those that onnx cannot infer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.model_info import STANDARD_DOMAINS, Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import reads, subgraphs
from onnx2trt.model.session import Session
from onnx2trt.model.shape_inputs import SIZES

BY_VALUE = frozenset(("Compress", "NonMaxSuppression", "NonZero", "StringSplit", "TfIdfVectorizer", "Unique"))  # as many as there are


def fixed_shapes(graph: Graph, profiles: tuple[Profile, ...], names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of those of the tensors that have the same one whatever the inputs hold; none where the profiles allow several.

    Args:
        graph: is not changed.
    """
    shapes = {profile.name: profile.opt for profile in profiles if profile.min == profile.max and profile.values is None}
    if set(shapes) != set(graph.input_names):
        return {}
    hanging = hang_on_values(graph)
    wanted = tuple(name for name in names if name not in hanging and name not in graph.weights and name not in shapes)
    if not wanted:
        return {}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.proto.graph.input}
    try:
        feed = {name: np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(types[name])) for name, shape in shapes.items()}
        found = Session.from_graph(graph, wanted).run(feed, wanted)
    except (ConversionError, KeyError, TypeError):  # nothing is lost but the knowledge
        return {}
    return {name: array.shape for name, array in found.items()}


def hang_on_values(graph: Graph) -> set[str]:
    """The tensors whose shapes may hang on what the inputs hold, and not on their shapes alone."""
    valued, shaped = set(graph.input_names), set()
    for node in graph.nodes:
        read = reads(node)
        if shaped.intersection(read) or _sizes_by_value(node, valued):
            shaped.update(node.output)
        if valued.intersection(read) and (node.op_type not in ("Shape", "Size") or shaped.intersection(read)):
            valued.update(node.output)
    return shaped


def _sizes_by_value(node: onnx.NodeProto, valued: set[str]) -> bool:
    if node.domain not in STANDARD_DOMAINS:
        return True
    if subgraphs(node):
        return node.op_type != "If" or node.input[0] in valued
    slots = (node.input[slot] for slot in SIZES.get(node.op_type, ()) if slot < len(node.input))
    return node.op_type in BY_VALUE and not valued.isdisjoint(node.input) or not valued.isdisjoint(slots)
