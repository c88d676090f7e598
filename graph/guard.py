"""Choices made by measuring: each candidate is simulated on data and compared with the FP32 model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from graph.graph import Graph
from graph.qdq import Layer, insert
from graph.reference import Session

Feed = dict[str, np.ndarray]


def choose_scales(
    graph: Graph, layers: tuple[Layer, ...], candidates: dict[str, dict[str, float]], feeds: Callable[[], Iterable[Feed]], half: bool
) -> tuple[str, dict[str, float]]:
    """The candidate scales whose INT8 simulation is nearest to the FP32 graph.

    Args:
        graph: FP32.
        layers: what would be quantised; layers without a scale are left out.
        candidates: method -> tensor -> scale.
        feeds: makes a fresh iterator over a few samples.

    Returns:
        (method, method -> noise share of the outputs); the first of equals.
    """
    reference = Session.from_graph(graph)
    expected = [reference.run(feed) for feed in feeds()]
    noise = {}
    for method, scales in candidates.items():
        usable = tuple(layer for layer in layers if layer.activation in scales)
        session = Session.from_graph(insert(graph, scales, usable, half))
        noise[method] = noise_share(expected, [session.run(feed) for feed in feeds()])
    return min(noise, key=noise.get), noise


def noise_share(expected: list[Feed], found: list[Feed]) -> float:
    """sum err^2 / sum ref^2 over all samples, of the worst output."""
    shares = []
    for name in expected[0]:
        error = sum(float(((b[name].astype(np.float64) - a[name]) ** 2).sum()) for a, b in zip(expected, found))
        energy = sum(float((a[name].astype(np.float64) ** 2).sum()) for a in expected)
        shares.append(error / energy if energy else (0.0 if error == 0 else np.inf))
    return max(shares, default=0.0)
