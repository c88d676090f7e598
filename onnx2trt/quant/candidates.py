"""Ways to INT8 held against each other: which calibration method, and whether equalized channels and fitted weights pay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from onnx2trt.quant.sensitivity import Feed, Measure
from onnx2trt.quant.simulations import Simulations
from onnx2trt.rewrite.fit import Fit

FAR = 2.0  # 6 dB: what is so much worse on half of the samples is not the best on all of them
NEARLY = 0.01  # scales that differ by less are the same: buckets of a histogram are as wide
LIMIT_DB = 60.0  # less noise than this is none: FP16 makes as much
MOST_LOST_DB = 1.0  # in the worst output: a way that may lose more against a simpler one is not taken
Z_ONE_SIDED = 1.64  # of the standard normal distribution: 95 % lie below
USUAL_SPREAD_DB = 1.0  # of the gain, as one sample more: what few samples show of how much they differ can be far too small


class Change(Protocol):
    """As compare.change.Change."""

    def __call__(self, found: list[Feed]) -> float: ...

    def each(self, found: list[Feed]) -> tuple[float, ...]: ...


SamplesDb = Mapping[str, Sequence[float]]  # output -> signal to noise of each sample


@dataclass(frozen=True)
class Looked:
    """The samples on which calibration methods are compared."""

    usual: list[Feed]  # a few; the scales were not taken from them, where there are others
    rare: list[Feed] = field(default_factory=list)  # those whose values narrow scales cut off (quant.rare)
    share: float = 0.0  # of all of the data, that the rare ones are
    expected: list[Feed] | None = None  # the model's outputs for all of them, where these are known


@dataclass(frozen=True)
class Method:
    """A calibration method, and what it makes of the data."""

    name: str
    fit: Fit  # of all but the usual samples, where there are others
    final: Fit  # of all of the data: what it will be


@dataclass(frozen=True)
class Outcome:
    """What the scales of one calibration method make of the outputs."""

    method: str
    change: float  # of the outputs, as the measure has it, over all of the data: the rare samples count for their share of it
    each_db: tuple[float, ...]  # the change in each usual inference, as signal to noise
    worst: float  # change in one inference


def compare_methods(simulations: Simulations, methods: Iterable[Method], looked: Looked, measure: Measure) -> list[Outcome]:
    """What each calibration method makes of the outputs, with all layers in INT8; without those that are far worse than one before them on
    the first half of the usual samples, or surely worse where no sample is rare, and without those whose scales are another's.

    Args:
        simulations: of the graph with all layers.
        measure: makes of the expected outputs what tells how far others are from them.
    """
    half = len(looked.usual) // 2
    change = measure(looked.expected or simulations.exact([*looked.usual, *looked.rare]))
    outcomes: list[Outcome] = []
    tried: list[Method] = []
    least, best_db = math.inf, ()
    for method in methods:
        if any(_nearly_equal(method, other) for other in tried):
            continue
        runs = None  # it holds the session of the method before, which is let go where this one needs another
        runs = simulations.run_each(method.fit, looked.usual)
        found = list(islice(runs, half))
        each = change.each(found)
        lost = math.hypot(*each) / math.sqrt(max(half, 1))
        first_db = tuple(map(_in_db, each))
        if lost > FAR * least or best_db and not looked.rare and most_lost(first_db, best_db) < 0:
            continue
        tried.append(method)
        if found and lost < least:
            least, best_db = lost, first_db
        found += runs
        if looked.rare:
            found += simulations.run_each(method.final, looked.rare)
        outcomes.append(_outcome(method.name, change, found, looked))
    return outcomes


def _outcome(name: str, change: Change, found: list[Feed], looked: Looked) -> Outcome:
    count, each = len(looked.usual), change.each(found)
    rare = math.hypot(*each[count:]) / math.sqrt(max(len(each) - count, 1))
    usual = change(found[:count]) if count else rare
    overall = math.hypot(math.sqrt(1 - looked.share) * usual, math.sqrt(looked.share) * rare) if looked.rare else usual
    return Outcome(name, overall, tuple(map(_in_db, each[:count])), max(each))


def _nearly_equal(one: Method, other: Method) -> bool:
    pairs = [(fit.scales, another.scales) for fit, another in ((one.fit, other.fit), (one.final, other.final))]
    return all(a.keys() == b.keys() and all(abs(scale / b[name] - 1) <= NEARLY for name, scale in a.items()) for a, b in pairs)


def best_of(outcomes: list[Outcome]) -> Outcome:
    """The one whose change is smallest, of those that leave no sample far behind.

    What wide scales round off shows in every sample; of the values that narrow ones cut off, few samples show few. So narrow ones are
    luckier on them than on the rest of the data, and may lose a rare sample altogether.

    Args:
        outcomes: from wide scales to narrow ones: a later one is best only where its change is surely smaller.
    """
    least = max(min(one.worst for one in outcomes), 10 ** (-LIMIT_DB / 20))
    even = min(one.change for one in outcomes if one.worst <= FAR * least)
    chosen, *others = (one for one in outcomes if one.worst <= FAR * least or FAR * one.change < even)
    for one in others:
        if one.change < chosen.change and most_lost(chosen.each_db, one.each_db) < 0:
            chosen = one
    return chosen


def surely_better(wide: Sequence[Outcome], narrow: Sequence[Outcome]) -> bool:
    """Whether narrow scales change the outputs less than wide ones, and leave no sample far behind, over all that was measured of both."""
    if max(one.worst for one in narrow) > FAR * max(max(one.worst for one in wide), 10 ** (-LIMIT_DB / 20)):
        return False
    before, after = ([db for one in outcomes for db in one.each_db] for outcomes in (wide, narrow))
    return not before or most_lost(before, after) < 0


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
