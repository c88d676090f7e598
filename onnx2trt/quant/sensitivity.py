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
Rung = TypeVar("Rung")  # what was measured with `kept` parts given up, and whether it `passed`
SMALLEST_CHANGE = 1e-12  # stands for none at all
FINEST_STEP = 0.01  # of the work: rungs of the ladder nearer to each other than this are not told apart


@dataclass(frozen=True)
class Tried:
    """One rung: this many layers given up, and what was measured."""

    kept: int
    int8_mac_share: float
    drop_percent: float
    standard_error: float
    passed: bool = False  # within the limit
    finite: bool = True  # no output became NaN or infinite


def layer_errors(graph: Graph, layers: tuple[Layer, ...], fit: Fit, feeds: list[Feed]) -> Iterator[tuple[str, float]]:
    """(node, change of the outputs (see `change`)) with that one layer in INT8 and everything else in FP32.

    Args:
        feeds: a few samples.
    """
    expected = list(Session.from_graph(graph, in_turn=False).run_each(feeds))
    for layer in layers:
        session = Session.from_graph(fit.apply(graph, (layer,)), in_turn=False)
        yield layer.node, change(expected, list(session.run_each(feeds)))


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
    shares = [sum(work.get(part, 0) for part in order[kept:]) / total for kept in range(len(order) + 1)]
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


def change(expected: list[Feed], found: list[Feed]) -> float:
    """How far outputs are from the expected ones: mean |err| / mean |ref|, geometric mean over the samples, of the worst output.

    Squared errors would be ruled by the few places where a decision tips over, which is chance: between two layers of equal
    noise they differ by a factor of ten. Absolute errors and the geometric mean show the noise itself. A sample whose reference
    is all zero (no object in the image) is held against the mean of the others; values that are not finite in the reference
    count for nothing, those that are not finite in `found` alone make the change infinite, and so does another shape (as of
    outputs that list what was found).
    """
    changes = []
    for name in expected[0]:
        errors, sizes = np.array([_error_and_size(reference[name], output[name]) for reference, output in zip(expected, found)]).T
        sizes = np.where(sizes > 0, sizes, sizes.mean())
        shares = [error / size if size else (0.0 if error == 0 else np.inf) for error, size in zip(errors, sizes)]
        changes.append(float(np.exp(np.mean(np.log(np.maximum(shares, SMALLEST_CHANGE))))))
    return max(changes, default=0.0)


def _error_and_size(reference: np.ndarray, output: np.ndarray) -> tuple[float, float]:
    """(mean |output - reference|, mean |reference|) where the reference is finite."""
    if output.shape != reference.shape:
        return np.inf, 1.0
    told = np.isfinite(reference)
    if not told.any():
        return 0.0, 0.0
    if not np.isfinite(output[told]).all():
        return np.inf, float(np.abs(reference[told].astype(np.float64)).mean())
    exact = reference[told].astype(np.float64)
    return float(np.abs(output[told].astype(np.float64) - exact).mean()), float(np.abs(exact).mean())
