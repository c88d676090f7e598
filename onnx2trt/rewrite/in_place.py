"""Assignments to a part of a tensor (`y[..., 0:2] = z`) as slices that are put together, where an export gives the place of each element.

torch.onnx.export writes them as ScatterND, whose indices are as many integers as the part has elements, times the axes. TensorRT stores
and reads these, and fuses nothing across. By its plans boxes that are decoded like a YOLO's (4096 cells, FP16, TensorRT-RTX
1.7.1) move 4.0 MB in 7 kernels like that and 0.9 MB in 3 by slices, and the engine is 2.4 MB instead of 0.3 (benchmarks/in_place.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS, Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.rewrite.contrib_nodes import Replacement
from onnx2trt.rewrite.fold import fold_constants
from onnx2trt.rewrite.known_sizes import Sizes, all_sizes

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class _Box:
    """A part of a tensor: of each of its first axes the values from start to stop."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    given_as: tuple[int, ...]  # shape of the indices, without their last axis

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in zip(self.starts, self.stops))


def assigned_by_slices(
    graph: Graph, profiles: tuple[Profile, ...], overrides: tuple[tuple[str, str], ...] = (), stored_once: bool = False
) -> Graph:
    """The same values, bit for bit, without ScatterND where what is assigned is one block of fixed place and size.

    Args:
        overrides: (pattern, precision) of --layer-precisions; nodes that they name stay.
        stored_once: see fold.

    Returns:
        A new graph with its constants folded; `graph` itself where there is none of that.
    """
    if not any(_assigns(node, overrides) for node in graph.nodes):
        return graph
    folded = fold_constants(graph, stored_once)
    sizes, types = all_sizes(folded, profiles), folded.types()
    instead = {}
    for node in folded.nodes:
        if not _assigns(node, overrides) or node.input[1] not in folded.weights or types.get(node.input[0]) not in FLOATS:
            continue
        box = _box(folded.weights[node.input[1]], sizes.get(node.input[0]))
        made = box and _by_slices(folded, node, box, sizes[node.input[0]])
        if made:
            instead[node.name] = made
    if not instead:
        return graph
    folded.replace_nodes(node for old in folded.nodes for node in instead.get(old.name, (old,)))
    folded.prune()
    return folded


def _assigns(node: onnx.NodeProto, overrides: tuple[tuple[str, str], ...]) -> bool:
    plain = node.op_type == "ScatterND" and node.domain in STANDARD_DOMAINS and attribute(node, "reduction", b"none") == b"none"
    return plain and not any(fnmatchcase(node.name, pattern) for pattern, _ in overrides)


def _box(indices: np.ndarray, sizes: Sizes | None) -> _Box | None:
    """The part that these indices are, in the order of its elements; None where they are anything else, or none.

    Args:
        indices: [..., axes], as ScatterND takes them.
        sizes: of the tensor.
    """
    count = indices.shape[-1] if indices.ndim else 0
    if not indices.size or sizes is None or not 0 < count <= len(sizes) or None in sizes[:count]:
        return None
    grid, starts, stops, last = indices.shape[:-1], [], [], -1
    for axis, size in enumerate(sizes[:count]):
        places = np.where(indices[..., axis] < 0, indices[..., axis] + size, indices[..., axis])
        first = int(places.flat[0])
        along = next((dim for dim in range(last + 1, len(grid)) if grid[dim] > 1 and places.flat[-1] != first), None)
        extent = 1 if along is None else grid[along]
        steps = np.arange(extent).reshape([-1 if dim == along else 1 for dim in range(len(grid))])
        if first < 0 or first + extent > size or not np.array_equal(places, np.broadcast_to(first + steps, places.shape)):
            return None
        starts.append(first)
        stops.append(first + extent)
        last = last if along is None else along
    box = _Box(tuple(starts), tuple(stops), grid)
    return box if math.prod(box.shape) == math.prod(grid) else None  # no place is given more than once


def _by_slices(graph: Graph, node: onnx.NodeProto, box: _Box, sizes: Sizes) -> list[onnx.NodeProto]:
    """What takes the place of a ScatterND of `graph`, which gets the constants for it; nothing where that cannot be written."""
    n = Replacement(graph, node, np.float32)
    data, _, updates = node.input
    rest = sizes[len(box.starts) :]
    partial = [axis for axis, extent in enumerate(box.shape) if extent < sizes[axis]]
    if box.shape != box.given_as or not partial:
        if rest.count(None) > 1:
            return []
        shape = [*box.shape, *(-1 if size is None else size for size in rest)]
        updates = n("Reshape", updates, n.constant(shape, np.int64), to="" if partial else node.output[0])

    def part(tensor: str, axis: int, start: int, stop: int) -> str:
        return n("Slice", tensor, *(n.constant([value], np.int64) for value in (start, stop, axis)))

    def assigned(tensor: str, axes: list[int], to: str = "") -> str:
        """The tensor with the updates in its part along these axes."""
        axis, size = axes[0], sizes[axes[0]]
        start, stop = box.starts[axis], box.stops[axis]
        middle = assigned(part(tensor, axis, start, stop), axes[1:]) if axes[1:] else updates
        parts = [part(tensor, axis, 0, start)] if start else []
        parts += [middle, *([part(tensor, axis, stop, size)] if stop < size else [])]
        return n("Concat", *parts, to=to, axis=axis)

    if partial:
        assigned(data, partial, node.output[0])
    n.made[-1].name = node.name
    return n.made
