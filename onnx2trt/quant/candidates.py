"""Ways to INT8 held against each other: which calibration method, and whether equalized channels and fitted weights pay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant.sensitivity import Feed, Measure
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import Layer

FAR = 2.0  # 6 dB: what is so much worse on half of the samples is not the best on all of them
LIMIT_DB = 60.0  # less noise than this is none: FP16 makes as much
MOST_LOST_DB = 1.0  # in the worst output: a way that may lose more against a simpler one is not taken
Z_ONE_SIDED = 1.64  # of the standard normal distribution: 95 % lie below
USUAL_SPREAD_DB = 1.0  # of the gain, as one sample more: what few samples show of how much they differ can be far too small

SamplesDb = Mapping[str, Sequence[float]]  # output -> signal to noise of each sample


@dataclass(frozen=True)
class Outcome:
    """What the scales of one calibration method make of the outputs."""

    method: str
    change: float  # of the outputs, as the measure has it
    each_db: tuple[float, ...]  # the change in each inference, as signal to noise


def compare_methods(
    graph: Graph, layers: tuple[Layer, ...], methods: Iterable[tuple[str, Fit]], feeds: list[Feed], measure: Measure
) -> list[Outcome]:
    """What each calibration method makes of the outputs, with all layers in INT8; without those that are far worse than one before them on
    the first half of the samples.

    Args:
        graph: FP32.
        methods: (name, scales and weights).
        feeds: a few samples that the scales were not taken from, where there are such.
        measure: makes of the expected outputs what tells how far others are from them.
    """
    change, outcomes = measure(list(Session.from_graph(graph, in_turn=False).run_each(feeds))), []
    least = math.inf
    for name, fit in methods:
        runs = Session.from_graph(fit.apply(graph, layers), in_turn=False).run_each(feeds)
        found = list(islice(runs, len(feeds) // 2))
        lost = math.hypot(*change.each(found)) / math.sqrt(max(len(found), 1))
        if lost > FAR * least:
            continue
        least = min(least, lost) if found else least
        found += runs
        outcomes.append(Outcome(name, change(found), tuple(map(_in_db, change.each(found)))))
    return outcomes


def best_of(outcomes: list[Outcome]) -> Outcome:
    """The one whose change is smallest.

    What wide scales round off shows in every sample; of the values that narrow ones cut off, few samples show few. So narrow ones are
    luckier on them than on the rest of the data.

    Args:
        outcomes: from wide scales to narrow ones: a later one is best only where its change is surely smaller.
    """
    chosen = outcomes[0]
    for one in outcomes[1:]:
        if one.change < chosen.change and most_lost(chosen.each_db, one.each_db) < 0:
            chosen = one
    return chosen


def worse_than(simple: SamplesDb, found: SamplesDb) -> str:
    """In what a way may be worse than a simpler one, in words; empty where it loses no more than the limit in every output, with a
    confidence of 95 %.

    Args:
        simple, found: measured on the same samples, which neither was fitted to.
    """
    lost = {name: most_lost(simple[name], found[name]) for name in found}
    worst, most = max(lost.items(), key=lambda one: one[1])
    return f"it could be {most:.1f} dB further from the model in output {worst!r}" if most > MOST_LOST_DB else ""


def _in_db(change: float) -> float:
    """Within -LIMIT_DB and LIMIT_DB."""
    return min(max(-20 * math.log10(change), -LIMIT_DB), LIMIT_DB) if 0 < change < math.inf else (-LIMIT_DB if change else LIMIT_DB)


def most_lost(before: Sequence[float], after: Sequence[float]) -> float:
    """As much as the mean over all samples may lose, judged by these, in dB, with a confidence of 95 %; below 0 for a sure gain."""
    lost = np.subtract(before, after)
    variance = (np.square(lost - lost.mean()).sum() + USUAL_SPREAD_DB**2) / lost.size
    return float(lost.mean()) + Z_ONE_SIDED * math.sqrt(variance / lost.size)


def sqnr_db(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """10 log10(signal / noise) of pairs (reference, output) together, within -LIMIT_DB and LIMIT_DB.

    Values that are not finite in the reference count for nothing; those that are not finite in the output alone, and another shape, are
    infinite noise.
    """
    signal = noise = 0.0
    for reference, output in pairs:
        if output.shape != reference.shape:
            return -LIMIT_DB
        told = np.isfinite(reference)
        exact = reference[told].astype(np.float64)
        signal += float(np.square(exact).sum())
        noise += float(np.square(output[told].astype(np.float64) - exact).sum())
    if noise == 0:
        return LIMIT_DB
    if signal == 0 or not math.isfinite(noise):
        return -LIMIT_DB
    return min(max(10 * math.log10(signal / noise), -LIMIT_DB), LIMIT_DB)
