"""Make the channels of activations alike before INT8 gives each tensor one scale; see graph.equalize."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graph.channels import Group, scale_groups, shift_groups
from graph.equalize import choose_scales, choose_shifts, consumer_weights, equalize, shift
from graph.graph import Graph
from graph.observe import observe, static_shapes
from stages.job import Job
from stages.run import Run
from stages.split import Parts, Split

SAMPLES = 16  # of which the channels' ranges are taken
MIGRATION = 0.65  # choose_scales' alpha


def balance(job: Job, graph: Graph, tensors: tuple[str, ...], split: Split, run: Run) -> Graph:
    """The same network with channels shifted and scaled as far as its constants can take that in.

    Args:
        graph: FP32, folded; not changed.
        tensors: that INT8 layers read.
    """
    shapes = static_shapes(graph, job.profiles)
    shifts = shift_groups(graph, shapes)
    if shifts:
        seen = _channel_ranges(job, graph, shifts, tensors, split, run)
        vectors = [choose_shifts(-group.largest(seen.negated_minima), group.largest(seen.maxima)) for group in shifts]
        graph = shift(graph, shifts, vectors)
    groups = scale_groups(graph, shapes)
    if not groups:
        return graph
    largest = _channel_ranges(job, graph, groups, tensors, split, run).largest
    vectors = [choose_scales(group.largest(largest), consumer_weights(graph, group), MIGRATION, group.anchor(largest)) for group in groups]
    return equalize(graph, groups, vectors)


@dataclass
class _Ranges:
    """Extremes of each channel by tensor, [C]."""

    maxima: dict[str, np.ndarray] = field(default_factory=dict)
    negated_minima: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def largest(self) -> dict[str, np.ndarray]:
        return {name: np.maximum(high, self.negated_minima[name]) for name, high in self.maxima.items()}


def _channel_ranges(job: Job, graph: Graph, groups: tuple[Group, ...], tensors: tuple[str, ...], split: Split, run: Run) -> _Ranges:
    ranges = _Ranges()
    axes = {name: place.axis for group in groups for name, place in group.places.items() if name in tensors}

    def visit(name: str, values: np.ndarray) -> None:
        others = tuple(axis for axis in range(values.ndim) if axis != axes[name])
        for extremes, found in ((ranges.maxima, values.max(axis=others)), (ranges.negated_minima, -values.min(axis=others))):
            extremes[name] = np.maximum(extremes[name], found) if name in extremes else found

    observe(graph, job.profiles, list(axes), Parts(job.data, split, run, "balancing channels", SAMPLES), visit)
    return ranges
