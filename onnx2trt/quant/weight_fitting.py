"""Fit the INT8 weights of all layers to data, once to all samples and once without each part that accuracy is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import in_groups, observe
from onnx2trt.quant.weight_solver import Columns, Sums, rows_wanted, solve, supports
from onnx2trt.rewrite.qdq import Layer, Rounded, takes_bias

Feed = dict[str, np.ndarray]
SUMS_BYTES = 2**28  # sums kept at a time; the layers beyond take another pass over the data


@dataclass(frozen=True)
class Samples:
    """The data that weights are fitted to, any number of times."""

    feeds: Callable[[], Iterable[Feed]]  # makes a fresh iterator over the data
    count: int  # of the feeds
    trials: int = 0  # how many more times to fit without a part of the data
    trial: Callable[[], int] = lambda: -1  # number of the trial that leaves the present feed out; -1 for none


def fit_weights(
    graph: Graph, profiles: tuple[Profile, ...], layers: tuple[Layer, ...], scales: dict[str, float], samples: Samples
) -> list[dict[str, Rounded]]:
    """See quant.weight_solver for what is fitted.

    Args:
        graph: FP32.
        layers: those without a scale, and those that quant.weight_solver does not support, are left out.
        scales: activation tensor -> scale.

    Returns:
        Node -> fitted weights: one for each trial, and last for all samples.
    """
    nodes = {node.name: node for node in graph.nodes}
    usable = [layer for layer in layers if layer.activation in scales and supports(nodes[layer.node], graph.weights[layer.weight])]
    columns = {layer.node: Columns(nodes[layer.node], graph.weights[layer.weight]) for layer in usable}
    fits: list[dict[str, Rounded]] = [{} for _ in range(samples.trials + 1)]

    def sums_bytes(layer: Layer) -> int:
        return 8 * columns[layer.node].groups * columns[layer.node].count ** 2 * (samples.trials + 1)

    for group in in_groups(usable, sums_bytes, SUMS_BYTES):
        sums = _collect(graph, profiles, {layer: columns[layer.node] for layer in group}, scales, samples)
        for layer in group:
            parts = sums.pop(layer.node)
            for number, fit in enumerate(fits):
                seen = [part for key, part in parts.items() if key != number]  # the last number is no part's
                if seen:
                    own, biased = columns[layer.node], takes_bias(graph, nodes[layer.node])
                    fit[layer.node] = solve(own, layer, graph.weights[layer.weight], _total(seen, own), biased)
    return fits


def _collect(
    graph: Graph, profiles: tuple[Profile, ...], group: dict[Layer, Columns], scales: dict[str, float], samples: Samples
) -> dict[str, dict[int, Sums]]:
    """Node -> trial -> sums of the samples that it leaves out."""
    readers: dict[str, list[Layer]] = {}
    for layer in group:
        readers.setdefault(layer.activation, []).append(layer)
    sums: dict[str, dict[int, Sums]] = {layer.node: {} for layer in group}
    random = np.random.default_rng(0)

    def visit(name: str, values: np.ndarray) -> None:
        for layer in readers[name]:
            own = group[layer]
            most = -(-rows_wanted(own) // max(samples.count, 1))
            part = sums[layer.node].setdefault(samples.trial(), Sums(own))
            part.add(own.sample(values, most, random), scales[name])

    observe(graph, profiles, list(readers), samples.feeds, visit)
    return sums


def _total(parts: list[Sums], columns: Columns) -> Sums:
    if len(parts) == 1:
        return parts[0]
    total = Sums(columns)
    for part in parts:
        total.merge(part)
    return total
