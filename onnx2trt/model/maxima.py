"""The largest value of every tensor over data, found inside of the graph: copying a tensor out of it can take longer than making it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain, islice

import numpy as np
import onnx

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.model_info import Profile
from onnx2trt.base.padded import Padded
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import is_no_larger
from onnx2trt.model.observe import Feed, observe_parallel, static_shapes
from onnx2trt.model.session import AT_ONCE, Session, threads_of

Feeds = Callable[[], Iterable[Feed]]
Shape = tuple[int, ...]
# ONNX Runtime's maxima may miss a NaN, or hide behind one what is larger; a sum cannot
OPERATORS = ("ReduceMax", "ReduceMin", "ReduceSum")
AXES_AS_INPUT = {"ReduceMax": 18, "ReduceMin": 18, "ReduceSum": 13}  # from this opset on
SMALL = 2**15  # values that one thread reduces in the time that one more node costs
LEAST_PART = 64  # values; in parts of 4, two threads take five times as long as one for the whole
FEW_THREADS = 4  # below, one thread is fast enough where the first axis alone does not give each its part
CHUNK = 2**17  # values looked at twice while they are in the cache


def absolute_maxima(graph: Graph, profiles: tuple[Profile, ...], feeds: Feeds, exact: bool = False) -> dict[str, float]:
    """max |x| of every float32 tensor over the data.

    Args:
        graph: is not changed.
        profiles: their opt shapes tell how large the tensors are.
        feeds: makes a fresh iterator over the data; called once more where there is NaN.
        exact: no upper bounds.

    Returns:
        Tensor -> max |x|, in execution order; for operators that only move values or make them smaller, the largest of their inputs is an
        upper bound and taken instead, unless `exact`: behind a ReLU it can be 30 times as large. inf where the FP32 model itself makes it.
        NaN is NaN in any precision, so it is left out, unless nothing else is there.
    """
    activations = graph.float_tensors()
    floats = {*activations, *(name for name, array in graph.weights.items() if array.dtype == np.float32)}
    smaller = () if exact else (node for node in graph.nodes if is_no_larger(node, graph.weights))
    moving = [node for node in smaller if any(name in floats for name in node.input)]
    moved = {name for node in moving for name in node.output}
    maxima = _measured(graph, profiles, [name for name in activations if name not in moved], lambda: map(_filled, feeds()))
    for node in moving:
        largest = max((_maximum(name, maxima, graph) for name in node.input if name in floats), default=0.0)
        maxima.update((name, largest) for name in node.output if name in floats)
    return {name: maxima[name] for name in activations}


def _filled(feed: Feed) -> Feed:
    """The maximum over samples and copies of them is that over the samples, wherever a model puts its batch; so nothing has to be cut out.

    That holds where the rows of a batch do not depend on each other. Where they do, what is computed of the samples depends on what fills
    their batch, and no filling is more right than another.
    """
    return feed.filled_by_samples() if isinstance(feed, Padded) else feed


def _maximum(name: str, maxima: dict[str, float], graph: Graph) -> float:
    if name in graph.weights:
        return float(np.abs(graph.weights[name]).max()) if graph.weights[name].size else 0.0
    return maxima.get(name, 0.0)


def _measured(graph: Graph, profiles: tuple[Profile, ...], names: list[str], feeds: Feeds) -> dict[str, float]:
    maxima = _reduced(graph, static_shapes(graph, profiles), names, feeds)
    unsure = [name for name in names if name not in maxima]
    return {**maxima, **_looked_at(graph, profiles, unsure, feeds)} if unsure else maxima


def _reduced(graph: Graph, shapes: dict[str, Shape], names: list[str], feeds: Feeds) -> dict[str, float]:
    """max |x| as ONNX Runtime finds it, of tensors without NaN.

    Of none where it cannot: 1.19 has no maximum of an empty tensor. Where it cannot run the model itself, looking at the tensors says so.
    """
    data = iter(feeds())
    first = list(islice(data, AT_ONCE))
    in_turn = len(first) < AT_ONCE
    threads = threads_of(Session.most_at_once(in_turn))
    reducing, ends = _reducing(graph, names, shapes, threads)
    maxima = dict.fromkeys(names, 0.0)
    try:
        for found in Session.from_graph(reducing, in_turn=in_turn).run_each(chain(first, data)):
            for name in list(maxima):
                largest, smallest, total = (float(found[end]) for end in ends[name])
                if math.isnan(total):  # NaN, or infinities of both signs
                    del maxima[name]
                else:
                    maxima[name] = max(largest, -smallest, maxima[name])
    except ConversionError:
        return {}
    return maxima


def _reducing(graph: Graph, names: list[str], shapes: dict[str, Shape], threads: int) -> tuple[Graph, dict[str, list[str]]]:
    """A graph that gives one number for each of OPERATORS and each of the tensors, and nothing else; and the names of these.

    ONNX Runtime begins with the nodes that nothing reads, the last one first, and computes before each what that needs. The nodes of the
    first tensor therefore stand last: so each tensor is reduced as soon as it is there, and memory stays what the model itself needs. That
    they give single numbers keeps its optimizer from putting a Transpose behind them, which would come before all others.
    """
    reducing = graph.copy()
    axes_names: dict[Shape, str] = {}
    groups, ends = [], {}

    def reduce(operator: str, tensor: str, axes: Shape) -> onnx.NodeProto:
        made = reducing.unique(f"{tensor}/{operator}")
        if not axes:
            return onnx.helper.make_node(operator, [tensor], [made], keepdims=0)
        if graph.opset < AXES_AS_INPUT[operator]:
            return onnx.helper.make_node(operator, [tensor], [made], keepdims=0, axes=axes)
        if axes not in axes_names:
            axes_names[axes] = reducing.unique("axes_to_reduce")
            reducing.weights[axes_names[axes]] = np.array(axes, np.int64)
        return onnx.helper.make_node(operator, [tensor, axes_names[axes]], [made], keepdims=0)

    for name in names:
        axes = _axes(shapes.get(name, ()), threads)
        first = [reduce(operator, name, axes) for operator in OPERATORS]
        second = [reduce(operator, node.output[0], ()) for operator, node in zip(OPERATORS, first)] if axes else []
        groups.append([*first, *second])
        ends[name] = [node.output[0] for node in second or first]
    reducing.replace_nodes([*graph.nodes, *(node for group in reversed(groups) for node in group)])
    del reducing.proto.graph.output[:]
    reducing.proto.graph.output.extend(onnx.ValueInfoProto(name=end) for found in ends.values() for end in found)
    reducing.prune()
    return reducing, ends


def _axes(shape: Shape, threads: int) -> Shape:
    """The last axes of a tensor, as many as leave each thread two parts; none where the whole is better reduced at once, by one thread.

    So every part is one piece of memory. That may change where axes in front are kept, too: where ONNX Runtime's optimizer moves a
    Transpose behind the tensor (those between [N, H, W, C] and [N, C, H, W] in models of TensorFlow), parts take five times as long.

    Args:
        shape: () where it is not known.
    """
    size = math.prod(shape)
    if size <= SMALL or threads == 1:
        return ()
    for kept in range(1, len(shape)):
        parts = math.prod(shape[:kept])
        if parts >= 2 * threads or kept == len(shape) - 1:
            worth = parts > 1 and size >= LEAST_PART * parts and (kept == 1 or threads >= FEW_THREADS)
            return tuple(range(kept, len(shape))) if worth else ()
    return ()


def _looked_at(graph: Graph, profiles: tuple[Profile, ...], names: list[str], feeds: Feeds) -> dict[str, float]:
    """max |x| of what is no NaN, found outside of the graph."""
    maxima: dict[str, float] = dict.fromkeys(names, 0.0)
    with_nan: set[str] = set()

    def visit(name: str, values: np.ndarray) -> None:
        flat = values.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK]
            seen = float(max(chunk.max(), -chunk.min()))
            if math.isnan(seen):
                with_nan.add(name)
                seen = float(np.abs(chunk[~np.isnan(chunk)]).max(initial=0.0))
            maxima[name] = max(seen, maxima[name])

    observe_parallel(graph, profiles, names, feeds, lambda: visit)
    maxima.update((name, math.nan) for name in with_nan if not maxima[name])
    return maxima
