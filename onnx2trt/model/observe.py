"""Look at inner tensors of the FP32 model while it runs over data, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnx

from onnx2trt.base.cores import usable_cores
from onnx2trt.base.model_info import Profile
from onnx2trt.base.padded import Padded
from onnx2trt.model.graph import Graph
from onnx2trt.model.infer import infer_shapes
from onnx2trt.model.padding import of_samples
from onnx2trt.model.segments import Segments, bounds_by_cost, tensor_bytes

Feed = dict[str, np.ndarray]
Visit = Callable[[str, np.ndarray], None]
T = TypeVar("T")
GROUP_BYTES = 2**28  # inner tensors kept alive by one inference
OVERLAP_BYTES = 2**27  # up to here the tensors of one inference are visited while the next one runs
MOST_THREADS = 8


def observe(graph: Graph, profiles: tuple[Profile, ...], names: Iterable[str], feeds: Callable[[], Iterable[Feed]], visit: Visit) -> int:
    """Run the graph over all feeds and show each named tensor to `visit`.

    The graph is cut into segments whose named tensors fit GROUP_BYTES, so every node runs once for each feed, and memory does not grow
    with the size of the model.

    Args:
        graph: is not changed.
        profiles: their opt shapes tell how large the tensors are.
        names: inputs or inner tensors.
        feeds: makes a fresh iterator over the data.
        visit: called with (tensor name, array) for every inference, in order of execution; the array is only valid during the call.

    Returns:
        The number of inferences.
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
    names = set(names)
    segments = Segments(graph, _bounds(graph, profiles, names), names)
    inferences = 0
    with ThreadPoolExecutor(min(usable_cores(), MOST_THREADS) if parallel else 1, thread_name_prefix="observe") as pool:
        visits: list[Future] = []
        for feed in feeds():
            visit = None
            for found in _found(segments, feed):
                _wait(visits)
                visit = visit or visitor()
                visits = [pool.submit(visit, name, array) for name, array in found.items()]
                if not parallel or sum(array.nbytes for array in found.values()) > OVERLAP_BYTES:
                    _wait(visits)
                del found  # else it lives until the next tensors are there
            inferences += 1
        _wait(visits)
    return inferences


def _found(segments: Segments, feed: Feed) -> Iterator[Feed]:
    """Inputs and inner tensors of one inference, segment by segment, without what belongs to the rows that only fill a batch."""
    if not isinstance(feed, Padded):
        yield from segments.run(feed)
        return
    for found, other in zip(segments.run(feed), segments.run(feed.filled_otherwise())):
        yield {name: of_samples(feed, array, other[name]) for name, array in found.items() if name in other}


def _bounds(graph: Graph, profiles: tuple[Profile, ...], names: set[str]) -> list[int]:
    """Where to cut a graph, so that what is wanted of a segment fits GROUP_BYTES as far as that is possible."""
    shapes = static_shapes(graph, profiles)
    made = {name: index for index, node in enumerate(graph.nodes) for name in node.output if name in names}
    groups = list(in_groups(made, lambda name: tensor_bytes(name, shapes), GROUP_BYTES))
    if len(groups) < 2:
        return [1 + max(made.values(), default=-1)]
    cost, bounds = bounds_by_cost(graph, shapes), []
    for group, following in zip(groups, groups[1:]):
        places = [place for place in range(made[group[-1]] + 1, made[following[0]] + 1) if place in cost]
        if places:
            bounds.append(min(places, key=cost.__getitem__))
    return [*bounds, 1 + made[groups[-1][-1]]]


def _wait(visits: list[Future]) -> None:
    """Until all have ended; raises what one of them raised, and lets go of the arrays."""
    for visit in visits:
        visit.result()
    visits.clear()


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
