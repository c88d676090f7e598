"""What a change in one part of a graph makes of its outputs, part after part.

The graph is cut into segments. Those that are as they were are loaded once, and only the segment of the changed part is loaded for it;
what stands before it is computed once, and what stands behind it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from onnx2trt.base.memory import return_freed
from onnx2trt.base.model_info import Profile
from onnx2trt.base.read_ahead import map_in_order
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import with_inner_nodes
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.padding import rows_of_samples
from onnx2trt.model.segments import Segments, bounds_by_cost
from onnx2trt.model.session import Session

Feed = dict[str, np.ndarray]
Part = tuple[str, ...]  # nodes, in the graph's order
Measure = Callable[[list[Feed]], Callable[[list[Feed]], float]]  # as compare.change: expected outputs -> outputs -> change
MOST_SEGMENTS = 16  # with more, copying what lies between them takes longer than loading them


@dataclass(frozen=True)
class _Inference:
    """One sample, as far as the segments that are through."""

    feed: Feed
    alive: Feed  # what the next segment and those behind it read
    outputs: Feed  # of the graph, made so far


def part_errors(
    graph: Graph,
    profiles: tuple[Profile, ...],
    parts: Sequence[Part],
    changed: Callable[[Graph, Part], Graph],
    feeds: list[Feed],
    measure: Measure,
) -> Iterator[tuple[Part, float]]:
    """(part, change of the outputs) with that one changed and everything else as it is, in the graph's order.

    Args:
        graph: FP32.
        profiles: their opt shapes tell where little lies between two segments.
        parts: that do not overlap; none of them empty. Of nodes of the graph, or of its bodies.
        changed: makes of a graph that holds all nodes of a part the same with that part changed; inputs and outputs stay.
        feeds: a few samples.
        measure: makes of the expected outputs what tells how far others are from them.
    """
    places = {own.name: index for index, node in enumerate(graph.nodes) for own in with_inner_nodes(node)}
    spans = sorted((min(places[node] for node in part), max(places[node] for node in part), part) for part in parts)
    bounds = _bounds(graph, profiles, [span[:2] for span in spans])
    segments = Segments(graph, bounds, graph.output_names, in_turn=False)
    at_once = Session.most_at_once(in_turn=False)

    def through(one: _Inference, index: int, session: Session | None = None) -> _Inference:
        """The same sample behind a segment, or behind what runs in its place."""
        alive = segments.step(index, one.alive, session)
        return _Inference(one.feed, alive, one.outputs | {name: alive[name] for name in graph.output_names if name in alive})

    def outputs(one: _Inference, first: int, session: Session | None = None) -> Feed:
        """Of the graph; from this segment on, with another session for it."""
        for index in range(first, len(segments.graphs)):
            one = through(one, index, session if index == first else None)
        return rows_of_samples(one.feed, one.outputs)

    outside = set(graph.output_names)  # of which those are left that no node makes: constants, and inputs that are handed on
    outside -= {name for node in graph.nodes for name in node.output}
    given = {name: graph.weights[name] for name in outside if name in graph.weights}
    inferences = [_Inference(feed, feed, given | {name: feed[name] for name in outside if name in feed}) for feed in feeds]
    change = measure([found for _, found in map_in_order(inferences, lambda one: outputs(one, 0), at_once)])
    for index, (start, end) in enumerate(zip((0, *bounds), bounds)):
        for _, _, part in (span for span in spans if start <= span[0] < end):
            session = Session.from_graph(changed(segments.graphs[index], part), in_turn=False)
            found = map_in_order(inferences, lambda one, at=index, own=session: outputs(one, at, own), at_once)
            yield part, change([made for _, made in found])
        inferences = [through(one, index) for one in inferences]
        segments.sessions[index] = None  # its weights are needed no more
        return_freed()


def _bounds(graph: Graph, profiles: tuple[Profile, ...], spans: list[tuple[int, int]]) -> list[int]:
    """Where to cut: about as many parts in each segment, and of the places that allow it the one across which least is handed on."""
    count, end = min(MOST_SEGMENTS, len(spans)), len(graph.nodes)
    open_spans = [0] * (end + 1)  # change of the number of parts that a cut would split
    for first, last in spans:
        open_spans[first + 1] += 1
        open_spans[last + 1] -= 1
    cost = bounds_by_cost(graph, static_shapes(graph, profiles))
    free = [place for place, split in enumerate(accumulate(open_spans)) if not split and place in cost and place < end]
    firsts, bounds = [first for first, _ in spans], []
    for number in range(1, count):
        around = [round((number + shift) * len(spans) / count) for shift in (-0.25, 0.25)]
        low, high = firsts[max(around[0], 1) - 1], firsts[min(around[1], len(spans) - 1)]
        places = [place for place in free if low < place <= high and place > (bounds or [0])[-1]]
        if places:
            bounds.append(min(places, key=cost.__getitem__))
    return [*bounds, end]
