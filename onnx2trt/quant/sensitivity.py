"""Which layers INT8 may have: measured one by one, ranked, and given up in that order until the accuracy is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from onnx2trt.base.model_info import Profile
from onnx2trt.model.graph import Graph
from onnx2trt.quant.part_errors import Feed, Measure, Part, part_errors
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer

Given = TypeVar("Given", bound=Hashable)  # what is given up as one: the name of a layer, or a part of the graph
Rung = TypeVar("Rung")  # what was measured with `kept` parts given up, and whether it `passed`
AIM = 0.9  # of the limit: a guess that passes is worth more than one that just fails
NEAR = 0.9  # of the finest step
# What is asked for beyond the final check: errors within the limit as they were measured, of which few samples show as little as a third;
# best scores that are near
DROPS, SCORES = "drops", "scores"
FINEST_STEP = 0.01  # of the work: rungs of the ladder nearer to each other than this are not told apart


@dataclass(frozen=True)
class Tried:
    """One rung: this many layers given up, and what was measured."""

    kept: int
    mac_share: float  # in 8 bits
    drop_percent: float
    standard_error: float
    passed: bool = False  # within the limit
    reached: float = 0.0  # what is held against the limit, in %
    seen_in_calibration: bool = False  # measured on samples that the scales were chosen on
    best_scores_points: float | None = None  # by how much the best scores differ, of outputs that hold scores
    enough: bool = False  # it passes the final check, whatever else was asked for
    measured: bool = True  # on all samples; else what a part of them lets expect


def layer_errors(
    graph: Graph, profiles: tuple[Profile, ...], layers: Sequence[Layer], fit: Fit, feeds: list[Feed], measure: Measure
) -> Iterator[tuple[str, float]]:
    """(node, change of the outputs) with that one layer in INT8 and everything else in FP32; see part_errors."""
    by_part = {layer.attention.nodes if layer.attention else (layer.node,): layer for layer in layers}

    def in_int8(around: Graph, part: Part) -> Graph:
        return fit.apply(around, (by_part[part],))

    for part, error in part_errors(graph, profiles, list(by_part), in_int8, feeds, measure):
        yield by_part[part].node, error


def by_error_per_mac(errors: dict[str, float], macs: dict[str, int]) -> list[str]:
    """The layers in the order in which they are given up: what costs most accuracy for the work that it speeds up comes first.

    Errors of layers add up by their squares. By error alone, tolerant layers with much work would go before sensitive ones with little.
    """
    return sorted(errors, key=lambda node: errors[node] ** 2 / max(macs.get(node, 1), 1), reverse=True)


def left(order: Sequence[Given], amounts: Mapping[Given, float]) -> list[float]:
    """What is left of these amounts with the first n of `order` given up, for each n."""
    return [*accumulate((amounts.get(one, 0) for one in reversed(order)), initial=0)][::-1]


def climb(
    shares: Sequence[float],
    least_share: float,
    first: Rung,
    measure: Callable[[int], Rung],
    guess: Callable[[list[Rung]], int | None] | None = None,
    settle: Callable[[Rung], Rung] = lambda rung: rung,
) -> list[Rung]:
    """Search for the fewest layers to give up, by their share of the work.

    Args:
        shares: of the work that is left with the first n layers given up, for each n.
        least_share: of the work that has to stay in the lower precision.
        first: the accuracy with nothing given up, which was not enough.
        measure: accuracy with the first n given up, or an estimate of it.
        guess: what was tried -> how many layers may be enough; the search looks there twice out of three times.
        settle: makes of an estimate what was measured; of what was, and of what needs not be, the same. The search ends between two
            settled rungs.

    Returns:
        What was tried, in order; the best is the passed one with the fewest layers given up. No rung passed: there is none.
    """
    last = last_rung(shares, least_share)
    tried = {first.kept: first}
    while last:
        high = min((rung.kept for rung in tried.values() if rung.passed), default=last)
        low = max(kept for kept, rung in tried.items() if not rung.passed and kept < high)
        if high - low > 1 and shares[low] - shares[high] >= FINEST_STEP:
            middle = _next(shares, low, high, list(tried.values()), guess)
        elif high not in tried:
            middle = high
        else:
            settled = ((kept, settle(tried[kept])) for kept in (low, high))
            changed = next(((kept, rung) for kept, rung in settled if rung is not tried[kept]), None)
            if changed is None:
                break
            tried[changed[0]] = changed[1]
            continue
        tried[middle] = measure(middle)
    return list(tried.values())


def last_rung(shares: Sequence[float], least_share: float) -> int:
    """The most layers that may be given up, as for climb."""
    return max((kept for kept, share in enumerate(shares) if share >= least_share), default=0)


def _next(shares: Sequence[float], low: int, high: int, tried: list[Rung], guess: Callable[[list[Rung]], int | None] | None) -> int:
    """The rung between two others that is guessed, or whose share is nearest to halfway."""
    guessed = guess(tried) if guess and len(tried) % 3 else None
    wanted = (shares[low] + shares[high]) / 2
    if guessed is not None:  # near an end, as far from it as the search can end there
        wanted = min(max(shares[guessed], shares[high] + NEAR * FINEST_STEP), shares[low] - NEAR * FINEST_STEP)
    return min(range(low + 1, high), key=lambda kept: abs(shares[kept] - wanted), default=high)


def by_noise(noise: Sequence[float], limit: float) -> Callable[[list[Tried]], int | None]:
    """A guess for `climb`: what is held against the limit grows with the squares of the layers' errors.

    Args:
        noise: sum of the squares that is left with the first n layers given up, for each n.
        limit: of the accuracy drop, in %.
    """

    def guess(tried: list[Tried]) -> int | None:
        failed = max((rung for rung in tried if not rung.passed), key=lambda rung: rung.kept)
        passed = min((rung for rung in tried if rung.passed), key=lambda rung: rung.kept, default=None)
        wanted = AIM * noise[failed.kept] * limit / failed.reached if failed.reached > limit else math.nan
        if passed is not None and 0 < passed.reached < limit < failed.reached and noise[failed.kept] > noise[passed.kept] > 0:
            place = math.log(limit / passed.reached) / math.log(failed.reached / passed.reached)
            wanted = noise[passed.kept] * (noise[failed.kept] / noise[passed.kept]) ** place
        return next((kept for kept, left_over in enumerate(noise) if left_over <= wanted), None) if wanted < math.inf else None

    return guess
