"""Look at inner tensors of the FP32 model while it runs over data, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnx

from onnx2trt.base.cores import usable_cores
from onnx2trt.base.model_info import Profile
from onnx2trt.base.padded import Padded
from onnx2trt.model.graph import Graph, infer_shapes
from onnx2trt.model.nodes import is_no_larger
from onnx2trt.model.padding import of_samples
from onnx2trt.model.session import Session

Feed = dict[str, np.ndarray]
Visit = Callable[[str, np.ndarray], None]
T = TypeVar("T")
GROUP_BYTES = 2**28  # inner tensors kept alive by one inference
OVERLAP_BYTES = 2**27  # up to here the tensors of one inference are visited while the next one runs
UNKNOWN_BYTES = 2**24  # assumed for a tensor whose shape cannot be inferred
MOST_THREADS = 8


def observe(graph: Graph, profiles: tuple[Profile, ...], names: Iterable[str], feeds: Callable[[], Iterable[Feed]], visit: Visit) -> int:
    """Run the graph over all feeds and show each named tensor to `visit`.

    Tensors are taken in groups that fit GROUP_BYTES, one pass over the feeds for each group, so that memory does not
    grow with the size of the model.

    Args:
        graph: is not changed.
        profiles: their opt shapes tell how large the tensors are.
        names: inputs or inner tensors.
        feeds: makes a fresh iterator over the data.
        visit: called with (tensor name, array) for every inference; the array is only valid during the call.

    Returns:
        The number of inferences of one pass.
    """
    return _observe(graph, profiles, names, feeds, lambda: visit, parallel=False)


def observe_parallel(
    graph: Graph, profiles: tuple[Profile, ...], names: Iterable[str], feeds: Callable[[], Iterable[Feed]], visitor: Callable[[], Visit]
) -> int:
    """The same on all cores, while the next inference runs already.

    Args:
        visitor: called after each inference, before the next feed is taken: gives the `visit` for its tensors. That is called
            from several threads at once, in any order, but for each tensor one inference after another.
    """
    return _observe(graph, profiles, names, feeds, visitor, parallel=True)


def _observe(graph: Graph, profiles, names, feeds, visitor: Callable[[], Visit], parallel: bool) -> int:
    inputs = set(graph.input_names)
    inferences = 0
    with ThreadPoolExecutor(min(usable_cores(), MOST_THREADS) if parallel else 1, thread_name_prefix="observe") as pool:
        for index, group in enumerate(_groups(names, static_shapes(graph, profiles))):
            inner = tuple(name for name in group if name not in inputs)
            session = Session.from_graph(graph, inner)
            visits: list[Future] = []
            for feed in feeds():
                found = _found(session, feed, inner, group)
                _wait(visits)
                visit = visitor()
                visits = [pool.submit(visit, name, array) for name, array in found.items()]
                if not parallel or sum(array.nbytes for array in found.values()) > OVERLAP_BYTES:
                    _wait(visits)
                inferences += index == 0
            _wait(visits)
    return inferences


def _found(session: Session, feed: Feed, inner: tuple[str, ...], names: list[str]) -> Feed:
    """Inputs and inner tensors of one inference, without what belongs to the rows that only fill a batch."""
    found = {**feed, **(session.run(feed, inner) if inner else {})}
    found = {name: found[name] for name in names}
    if isinstance(feed, Padded):
        other = feed.filled_otherwise()
        other |= session.run(other, inner) if inner else {}
        found = {name: of_samples(feed, array, other[name]) for name, array in found.items()}
    return found


def _wait(visits: list[Future]) -> None:
    """Until all have ended; raises what one of them raised, and lets go of the arrays."""
    for visit in visits:
        visit.result()
    visits.clear()


def absolute_maxima(graph: Graph, profiles: tuple[Profile, ...], feeds: Callable[[], Iterable[Feed]]) -> dict[str, float]:
    """max |x| of every float32 tensor over the data.

    Returns:
        Tensor -> max |x|, in execution order; for operators that only move values, the largest of their inputs is an upper bound and taken
        instead. nan or inf where the FP32 model itself makes them.
    """
    activations = graph.float_tensors()
    floats = {*activations, *(name for name, array in graph.weights.items() if array.dtype == np.float32)}
    moving = [node for node in graph.nodes if is_no_larger(node, graph.weights) and any(name in floats for name in node.input)]
    moved = {name for node in moving for name in node.output}
    measured = [name for name in activations if name not in moved]
    maxima: dict[str, float] = dict.fromkeys(measured, 0.0)

    def visit(name: str, values: np.ndarray) -> None:
        if values.size:
            seen = float(max(values.max(), -values.min()))
            maxima[name] = seen if math.isnan(seen) or seen > maxima[name] else maxima[name]

    observe_parallel(graph, profiles, measured, feeds, lambda: visit)
    for node in moving:
        largest = max((_maximum(name, maxima, graph) for name in node.input if name in floats), default=0.0)
        maxima.update((name, largest) for name in node.output if name in floats)
    return {name: maxima[name] for name in activations}


def _maximum(name: str, maxima: dict[str, float], graph: Graph) -> float:
    if name in graph.weights:
        return float(np.abs(graph.weights[name]).max()) if graph.weights[name].size else 0.0
    return maxima.get(name, 0.0)


def static_shapes(graph: Graph, profiles: tuple[Profile, ...]) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape at the opt shapes, as far as a run has shown it (graph.observed), or onnx can infer it.

    What rewrites have put between tensors whose shapes were observed is inferred from those.
    """
    proto = graph.skeleton()
    opt = {profile.name: profile.opt for profile in profiles}
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, opt.get(value.name, ())):
            dim.dim_value = size
    made = {name for node in graph.nodes for name in node.output}
    observed = {name: shape for name, shape in graph.observed.items() if name in made}
    declared = {value.name for value in proto.graph.output}
    proto.graph.value_info.extend(_of_shape(name, shape) for name, shape in observed.items() if name not in declared)
    inferred = infer_shapes(proto, values=True)
    shapes = {}
    for value in (*inferred.graph.output, *inferred.graph.value_info, *inferred.graph.input):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.dim_value > 0 for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return {**shapes, **observed}


def _of_shape(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    """Of a type that is left to be inferred: a rewrite may have made another one of it."""
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, shape)


def _groups(names: Iterable[str], shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    return in_groups(names, lambda name: 4 * math.prod(shapes[name]) if name in shapes else UNKNOWN_BYTES, GROUP_BYTES)


def in_groups(items: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The items in order, in groups whose sizes add up to at most `most` (an item that is larger alone is a group)."""
    group: list[T] = []
    total = 0
    for item in items:
        own = size(item)
        if group and total + own > most:
            yield group
            group, total = [], 0
        group.append(item)
        total += own
    if group:
        yield group
