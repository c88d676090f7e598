"""Which layers INT8 may have: measured one by one, ranked, and given up in that order until the accuracy is there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer

Feed = dict[str, np.ndarray]
Part = TypeVar("Part", bound=Hashable)  # what is given up as one: the name of a layer, or a segment of the graph
Measure = Callable[[list[Feed]], Callable[[list[Feed]], float]]  # as compare.change: expected outputs -> outputs -> change
Rung = TypeVar("Rung")  # what was measured with `kept` parts given up, and whether it `passed`
FINEST_STEP = 0.01  # of the work: rungs of the ladder nearer to each other than this are not told apart


@dataclass(frozen=True)
class Tried:
    """One rung: this many layers given up, and what was measured."""

    kept: int
    int8_mac_share: float
    drop_percent: float
    standard_error: float
    passed: bool = False  # within the limit
    reached: float = 0.0  # what is held against the limit, in %
    seen_in_calibration: bool = False  # measured on samples that the scales were chosen on
    best_scores_points: float | None = None  # by how much the best scores differ, of outputs that hold scores


def layer_errors(graph: Graph, layers: tuple[Layer, ...], fit: Fit, feeds: list[Feed], measure: Measure) -> Iterator[tuple[str, float]]:
    """(node, change of the outputs) with that one layer in INT8 and everything else in FP32.

    Args:
        feeds: a few samples.
        measure: makes of the expected outputs what tells how far others are from them.
    """
    change = measure(list(Session.from_graph(graph, in_turn=False).run_each(feeds)))
    for layer in layers:
        session = Session.from_graph(fit.apply(graph, (layer,)), in_turn=False)
        yield layer.node, change(list(session.run_each(feeds)))


def by_error_per_mac(errors: dict[str, float], macs: dict[str, int]) -> list[str]:
    """The layers in the order in which they are given up: what costs most accuracy for the work that it speeds up comes first.

    Errors of layers add up by their squares. By error alone, tolerant layers with much work would go before sensitive ones with little.
    """
    return sorted(errors, key=lambda node: errors[node] ** 2 / max(macs.get(node, 1), 1), reverse=True)


def climb(
    order: Sequence[Part], work: dict[Part, int], total: int, least_share: float, first: Rung, measure: Callable[[int], Rung]
) -> list[Rung]:
    """Bisect for the fewest layers to give up, by their share of the work.

    Args:
        order: layers (or segments) in the order of giving them up.
        work, total: multiply-accumulates of each layer, and of all in the model; or another measure of what is given up.
        least_share: of the work that has to stay in the lower precision.
        first: the accuracy with nothing given up, which was not enough.
        measure: accuracy with the first n of `order` given up.

    Returns:
        What was tried, in order; the best is the passed one with the fewest layers given up. No rung passed: there is none.
    """
    shares = [sum(work.get(part, 0) for part in order[kept:]) / max(total, 1) for kept in range(len(order) + 1)]
    high = max((kept for kept, share in enumerate(shares) if share >= least_share), default=0)
    tried = [first]
    if high == 0:
        return tried
    low, middle = 0, _middle(shares, 0, high)
    while True:
        tried.append(measure(middle))
        low, high = (low, middle) if tried[-1].passed else (middle, high)
        passed = any(rung.passed for rung in tried)
        if high - low <= 1 or shares[low] - shares[high] < FINEST_STEP:
            if passed or high in (rung.kept for rung in tried):
                return tried
            middle = high
        else:
            middle = _middle(shares, low, high)


def _middle(shares: list[float], low: int, high: int) -> int:
    """The rung between two others whose share is nearest to halfway."""
    wanted = (shares[low] + shares[high]) / 2
    return min(range(low + 1, high), key=lambda kept: abs(shares[kept] - wanted), default=high)
