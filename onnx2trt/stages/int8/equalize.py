"""Make the channels of activations alike before INT8 gives each tensor one scale; see quant.equalize.apply."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np

from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe, static_shapes
from onnx2trt.quant.equalize.apply import equalize, shift
from onnx2trt.quant.equalize.choice import choose_scales, choose_shifts
from onnx2trt.quant.equalize.groups import scale_groups, shift_groups
from onnx2trt.quant.equalize.ranges import ChannelRanges
from onnx2trt.quant.equalize.relations import Group
from onnx2trt.rewrite.qdq import Layer
from onnx2trt.stages.int8.holdout import Parts, Split

SAMPLES = 16  # of which the channels' ranges are taken


@dataclass(frozen=True)
class Equalization:
    """What was chosen for a graph, to be applied for those layers that will be INT8."""

    original: Graph
    shifts: tuple[tuple[Group, np.ndarray], ...] = ()
    scales: tuple[tuple[Group, np.ndarray], ...] = ()

    def graph(self, tensors: Container[str], layers: Iterable[Layer]) -> Graph:
        """The same network, equalized for INT8 layers.

        What is FP16 stays as it is. Shifted, it would lose what INT8 gains, since FP16 is finest around 0. Scaled, a constant that all
        channels share would become one for each, which TensorRT's INT8 mode does not fuse with the operator before: 24 kernels more in
        PP-OCRv4 det.

        Args:
            tensors: read by the layers.
            layers: what they write is equalized, too, since their fitted weights fit that.
        """
        chosen = {layer.node for layer in layers}
        written = {name for node in self.original.nodes if node.name in chosen for name in node.output}
        shifts = [(group, vector) for group, vector in self.shifts if any(name in tensors for name in group.places)]
        scales = [(g, vector) for g, vector in self.scales if any(name in tensors or name in written for name in g.places)]
        graph = shift(self.original, [group for group, _ in shifts], [vector for _, vector in shifts]) if shifts else self.original
        return equalize(graph, [group for group, _ in scales], [vector for _, vector in scales]) if scales else graph

    def vectors(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(shifts, scales) by the first tensor of each group; `rebuild` is the inverse."""
        return tuple({_first(group): vector for group, vector in chosen} for chosen in (self.shifts, self.scales))


def rebuild(job: Job, graph: Graph, shifts: dict[str, np.ndarray], scales: dict[str, np.ndarray]) -> Equalization:
    """The equalization that has these vectors.

    Raises:
        ValueError: they do not fit the graph.
    """
    shapes = static_shapes(graph, job.profiles)
    chosen = []
    for find, vectors in ((shift_groups, shifts), (scale_groups, scales)):
        groups = {_first(group): group for group in find(graph, shapes)} if vectors else {}
        if {name: (group.size,) for name, group in groups.items()} != {name: vector.shape for name, vector in vectors.items()}:
            raise ValueError("other channels are equalized together")
        chosen.append(tuple((group, vectors[name]) for name, group in groups.items()))
    if not all(np.isfinite(vector).all() for _, vector in chosen[0]):
        raise ValueError("a shift is not finite")
    if not all((np.isfinite(vector) & (vector > 0)).all() for _, vector in chosen[1]):
        raise ValueError("a scale of a channel is not above 0 and finite")
    return Equalization(graph, *chosen)


def _first(group: Group) -> str:
    return next(iter(group.places))


def equalization(job: Job, graph: Graph, tensors: tuple[str, ...], split: Split, run: Run) -> Equalization:
    """Shifts and scales for the channels of these tensors, as far as the network's constants can take them in.

    Args:
        graph: FP32, folded; not changed.
        tensors: that INT8 layers read.
    """
    shapes = static_shapes(graph, job.profiles)
    shifts, groups = shift_groups(graph, shapes), scale_groups(graph, shapes)
    ranges = _channel_ranges(job, graph, (*shifts, *groups), tensors, split, run)
    largest = {name: channels.symmetric() for name, channels in ranges.items()}
    shifted = {name for group in shifts for name in group.places}
    intervals = {name: channels.interval() for name, channels in ranges.items() if name in shifted}
    low, high = ({name: interval[i] for name, interval in intervals.items()} for i in (0, 1))
    middles = [choose_shifts(-group.largest({name: -values for name, values in low.items()}), group.largest(high)) for group in shifts]
    for group, vector in zip(shifts, middles):
        for name in group.places.keys() & intervals.keys():
            middle = group.expand(name, vector, 0.0)
            largest[name] = np.maximum(high[name] - middle, middle - low[name])
    scales = [choose_scales(group.largest(largest), group.anchor(largest)) for group in groups]
    return Equalization(graph, tuple(zip(shifts, middles)), tuple(zip(groups, scales)))


def _channel_ranges(
    job: Job, graph: Graph, groups: tuple[Group, ...], tensors: tuple[str, ...], split: Split, run: Run
) -> dict[str, ChannelRanges]:
    axes = {name: place.axis for group in groups for name, place in group.places.items() if name in tensors}
    ranges = {name: ChannelRanges(axis) for name, axis in axes.items()}
    feeds = Parts(job.data, split, run, "equalizing channels", SAMPLES)
    observe(graph, job.profiles, list(axes), feeds, lambda name, values: ranges[name].measure(values))
    observe(graph, job.profiles, list(axes), feeds, lambda name, values: ranges[name].count(values))
    return ranges
