"""Fit the INT8 weights of all layers to data, once to all samples and once without each part that accuracy is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import in_groups, observe
from onnx2trt.quant.weight_solver import Columns, Sums, lost, rows_wanted, solve, supports
from onnx2trt.rewrite.qdq import Layer, Rounded, quantize_weights, takes_bias, weight_layout

Feed = dict[str, np.ndarray]
SUMS_BYTES = 2**28  # sums kept at a time; the layers beyond take another pass over the data


@dataclass(frozen=True)
class Samples:
    """The data that weights are fitted to, any number of times."""

    feeds: Callable[[], Iterable[Feed]]  # makes a fresh iterator over the data
    count: int  # of the feeds
    trials: int = 0  # how many more times to fit without a part of the data
    trial: Callable[[], int] = lambda: -1  # number of the trial that leaves the present feed out; -1 for none


@dataclass(frozen=True, eq=False)
class Shared:
    """The layers that read one weight in the same way; they are fitted together, so that it stays one."""

    layers: tuple[Layer, ...]
    columns: Columns
    weight: np.ndarray
    units: tuple[float, ...]  # INT8 scale of each layer's inputs
    biased: bool  # all of them can take a bias

    def fit(self, sums: Sums) -> list[Rounded]:
        """For each layer."""
        return solve(self.columns, self.weight, sums, self.units, self.biased)

    def pays(self, parts: dict[int, Sums], fits: dict[int, list[Rounded]]) -> bool:
        """Whether weights that were fitted without a part of the data are better for it than the nearest integers, over all parts; so where
        no part was left out.

        Args:
            parts: trial -> sums of what it leaves out.
            fits: trial -> for each layer, without that part.
        """
        nearest = [Rounded(*quantize_weights(self.weight, self.columns.axis, half=True), bias=None)] * len(self.layers)
        trials = fits.keys() & parts.keys()
        return not trials or sum(self._lost(parts[trial], nearest) - self._lost(parts[trial], fits[trial]) for trial in trials) > 0

    def _lost(self, sums: Sums, fit: list[Rounded]) -> float:
        return lost(self.columns, self.weight, sums, self.units, fit)


def fit_weights(
    graph: Graph, profiles: tuple[Profile, ...], layers: tuple[Layer, ...], scales: dict[str, float], samples: Samples
) -> list[dict[str, Rounded]]:
    """See quant.weight_solver for what is fitted.

    Args:
        graph: FP32.
        layers: those without a scale, and those that quant.weight_solver does not support, are left out.
        scales: activation tensor -> scale.

    Returns:
        Node -> fitted weights, where they are better than the nearest integers: one for each trial, and last for all samples.
    """
    fits: list[dict[str, Rounded]] = [{} for _ in range(samples.trials + 1)]

    def sums_bytes(shared: Shared) -> int:
        return 8 * shared.columns.groups * shared.columns.count**2 * (samples.trials + 1)

    for group in in_groups(_by_weight(graph, layers, scales), sums_bytes, SUMS_BYTES):
        sums = _collect(graph, profiles, group, samples)
        for shared in group:
            parts = sums.pop(shared)
            found = {}
            for number in range(samples.trials + 1):
                seen = [part for key, part in parts.items() if key != number]  # the last number is no part's
                if seen:
                    found[number] = shared.fit(_total(seen, shared))
            if shared.pays(parts, found):
                for number, own in found.items():
                    fits[number].update(zip((layer.node for layer in shared.layers), own))
    return fits


def _by_weight(graph: Graph, layers: tuple[Layer, ...], scales: dict[str, float]) -> list[Shared]:
    nodes = {node.name: node for node in graph.nodes}
    readers: dict[tuple, list[Layer]] = {}
    for layer in layers:
        node = nodes[layer.node]
        if layer.activation in scales and supports(node, graph.weights[node.input[1]]):
            readers.setdefault((*weight_layout(node), takes_bias(graph, node)), []).append(layer)
    found = []
    for (name, *_, biased), members in readers.items():
        weight, units = graph.weights[name], tuple(scales[layer.activation] for layer in members)
        found.append(Shared(tuple(members), Columns(nodes[members[0].node], weight), weight, units, biased))
    return found


def _collect(graph: Graph, profiles: tuple[Profile, ...], group: list[Shared], samples: Samples) -> dict[Shared, dict[int, Sums]]:
    """Trial -> sums of the samples that it leaves out, for each weight."""
    readers: dict[str, list[tuple[Shared, int]]] = {}
    for shared in group:
        for number, layer in enumerate(shared.layers):
            readers.setdefault(layer.activation, []).append((shared, number))
    sums: dict[Shared, dict[int, Sums]] = {shared: {} for shared in group}
    random = np.random.default_rng(0)

    def visit(name: str, values: np.ndarray) -> None:
        for shared, number in readers[name]:
            own = shared.columns
            most = -(-rows_wanted(own) // max(samples.count, 1))
            found = sums[shared].setdefault(samples.trial(), Sums(own, len(shared.layers)))
            found.add(own.sample(values, most, random), shared.units[number], number)

    observe(graph, profiles, list(readers), samples.feeds, visit)
    return sums


def _total(parts: list[Sums], shared: Shared) -> Sums:
    if len(parts) == 1:
        return parts[0]
    total = Sums(shared.columns, len(shared.layers))
    for part in parts:
        total.merge(part)
    return total
