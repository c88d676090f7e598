"""Shapes that onnx cannot infer, seen in a run at the opt shapes; graph.observed keeps them for all that is made of a graph."""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.infer import infer_shapes
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.session import Session


def without_shape(graph: Graph, profiles: tuple[Profile, ...]) -> frozenset[str]:
    """Tensors whose shape at the opt shapes is not known; sequences and optional values, which have none, are not among them."""
    known = static_shapes(graph, profiles)
    inferred = infer_shapes(graph.skeleton()).graph
    types = {value.name: value.type for value in (*inferred.value_info, *inferred.output)}
    others = {name for name, type_ in types.items() if type_.WhichOneof("value") not in (None, "tensor_type")}
    return frozenset(name for node in graph.nodes for name in node.output if name and name not in known and name not in others)


def observe_shapes(graph: Graph, names: frozenset[str], feed: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors in one inference.

    Only the shapes leave ONNX Runtime, and it takes them as soon as a tensor is there, so no tensor lives longer for it.

    Args:
        graph: is not changed.
        names: of tensors that its nodes make.

    Returns:
        Tensor -> shape; where a shape hangs on values, that of this feed.

    Raises:
        ConversionError: MODEL, where the graph does not run on this feed.
    """
    probe, named, nodes = graph.copy(), {}, []
    for node in probe.nodes:
        nodes.append(node)
        for name in filter(names.__contains__, node.output):
            named[name] = probe.unique(f"{name}__shape")
            nodes.append(onnx.helper.make_node("Shape", [name], [named[name]], name=named[name]))
    probe.replace_nodes(nodes)
    del probe.proto.graph.output[:]
    probe.proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None]) for name in named.values())
    found = Session.from_graph(probe, optimize=False).run(feed)
    return {name: tuple(found[shape].tolist()) for name, shape in named.items()}
