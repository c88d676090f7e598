"""Parts of a graph that FP16 or BF16 can be given up in, and what it costs in each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import BY_NAME, FP16, HalfType
from onnx2trt.model.nodes import reads
from onnx2trt.model.operators import NO_WORK
from onnx2trt.quant.part_errors import Feed, Measure, Part, part_errors
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.simulate import simulation

# A measurement takes a session of its own and some inferences: node by node, a network of thousands of nodes would take hours.
# What FP16 loses, it loses in few places, so the worst of the segments are cut up and measured again (stages/fp16_guard.py).
MOST_SEGMENTS = 64
FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Tried:
    """One choice of layers kept in FP32, and what was measured."""

    kept: int  # segments kept in FP32
    fp16_share: float  # of the work
    drop_percent: float
    standard_error: float
    passed: bool
    decided_by: str  # the worst output, in words
    few: bool = False  # the samples are too few to tell the limit


def unconvertible(graph: Graph) -> dict[str, str]:
    """The nodes that have no form in 16 bits, with the reason, whatever was measured."""
    return choose_kept_fp32(graph, {}, (), half=None)


def lowered(graph: Graph, kept_fp32: Iterable[str]) -> Part:
    """The nodes that FP16 or BF16 changes: not kept in FP32, and reading or making a float32 tensor."""
    types, in_fp32 = graph.types(), set(kept_fp32)
    floats = {name for name, elem_type in types.items() if elem_type == FLOAT}
    return tuple(node.name for node in graph.nodes if node.name not in in_fp32 and floats.intersection((*reads(node), *node.output)))


def bound_to_half(graph: Graph, overrides: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """The nodes that the user wants in 16 bits whatever it costs (--layer-precisions; the last match counts)."""
    last = {node.name: next((to for pattern, to in reversed(overrides) if fnmatchcase(node.name, pattern)), None) for node in graph.nodes}
    return frozenset(name for name, precision in last.items() if precision in BY_NAME)


def working(graph: Graph) -> frozenset[str]:
    """The nodes that compute float32 values: those that count as layers of a precision."""
    types = graph.types()
    return frozenset(
        node.name for node in graph.nodes if node.op_type not in NO_WORK and any(types.get(name) == FLOAT for name in node.output)
    )


def segments(nodes: Sequence[str], most: int = MOST_SEGMENTS) -> list[Part]:
    """The nodes in their order, in at most `most` groups whose lengths differ by at most one."""
    count = min(most, len(nodes))
    bounds = [index * len(nodes) // count for index in range(count + 1)] if count else []
    return [tuple(nodes[start:end]) for start, end in zip(bounds, bounds[1:])]


def segment_errors(
    graph: Graph, profiles: tuple[Profile, ...], parts: Sequence[Part], feeds: list[Feed], measure: Measure, half: HalfType = FP16
) -> Iterator[tuple[Part, float]]:
    """(part, change of the outputs) with that one in 16 bits and everything else in FP32; see part_errors."""

    def in_half(around: Graph, part: Part) -> Graph:
        return simulation(convert(around, {node.name: "" for node in around.nodes if node.name not in part}, half=half))

    return part_errors(graph, profiles, parts, in_half, feeds, measure)
