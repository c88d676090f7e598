"""Fit the INT8 weights of all layers to data, once to all samples and once without each part that accuracy is measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import in_groups, observe
from onnx2trt.quant.weight_solver import Columns, Sums, rows_wanted, solve, supports
from onnx2trt.rewrite.qdq import Layer, Rounded, takes_bias

Feed = dict[str, np.ndarray]
SUMS_BYTES = 2**28  # sums kept at a time; the layers beyond take another pass over the data


def fit_weights(
    graph: Graph,
    profiles: tuple[Profile, ...],
    layers: tuple[Layer, ...],
    scales: dict[str, float],
    feeds: Callable[[], Iterable[Feed]],
    samples: int,
    trials: int = 0,
    trial: Callable[[], int] = lambda: -1,
) -> list[dict[str, Rounded]]:
    """See quant.weight_solver for what is fitted.

    Args:
        graph: FP32.
        layers: those without a scale, and those that quant.weight_solver does not support, are left out.
        scales: activation tensor -> scale.
        feeds: makes a fresh iterator over the data.
        samples: how many feeds there are.
        trials: how many more times to fit without a part of the data.
        trial: number of the trial that leaves the present feed out; -1 for none.

    Returns:
        Node -> fitted weights: one for each trial, and last for all samples.
    """
    nodes = {node.name: node for node in graph.nodes}
    usable = [layer for layer in layers if layer.activation in scales and supports(nodes[layer.node], graph.weights[layer.weight])]
    columns = {layer.node: Columns(nodes[layer.node], graph.weights[layer.weight]) for layer in usable}
    fits: list[dict[str, Rounded]] = [{} for _ in range(trials + 1)]

    def sums_bytes(layer: Layer) -> int:
        return 8 * columns[layer.node].groups * columns[layer.node].count ** 2 * (trials + 1)

    for group in in_groups(usable, sums_bytes, SUMS_BYTES):
        sums = _collect(graph, profiles, group, columns, scales, feeds, samples, trial)
        for layer in group:
            parts = sums.pop(layer.node)
            for number, fit in enumerate(fits):
                seen = [part for key, part in parts.items() if key != number]  # the last number is no part's
                if seen:
                    own, biased = columns[layer.node], takes_bias(graph, nodes[layer.node])
                    fit[layer.node] = solve(own, layer, graph.weights[layer.weight], _total(seen, own), biased)
    return fits


def _collect(graph, profiles, group, columns, scales, feeds, samples, trial) -> dict[str, dict[int, Sums]]:
    """Node -> trial -> sums of the samples that it leaves out."""
    readers: dict[str, list[Layer]] = {}
    for layer in group:
        readers.setdefault(layer.activation, []).append(layer)
    sums: dict[str, dict[int, Sums]] = {layer.node: {} for layer in group}
    random = np.random.default_rng(0)

    def visit(name: str, values: np.ndarray) -> None:
        for layer in readers[name]:
            own = columns[layer.node]
            most = -(-rows_wanted(own) // max(samples, 1))
            part = sums[layer.node].setdefault(trial(), Sums(own))
            part.add(own.sample(values, most, random), scales[name])

    observe(graph, profiles, list(readers), feeds, visit)
    return sums


def _total(parts: list[Sums], columns: Columns) -> Sums:
    if len(parts) == 1:
        return parts[0]
    total = Sums(columns)
    for part in parts:
        total.merge(part)
    return total
