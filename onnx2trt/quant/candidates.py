"""Ways to INT8 tried on a few samples: which calibration method, and whether equalized channels and fitted weights pay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx2trt.base.model_info import Profile
from onnx2trt.base.progress import Progress
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import observe
from onnx2trt.model.session import Session
from onnx2trt.quant.histograms import Collector
from onnx2trt.quant.sensitivity import Feed, change
from onnx2trt.quant.weight_fitting import Samples, fit_weights
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.placement import readings, tensors
from onnx2trt.rewrite.qdq import Layer

ROUGHLY = 4  # times fewer rows than for the final fit are enough to compare candidates
ALIKE_DB = 1.0  # outputs nearer to each other than this are not told apart by their noise alone
LOST_DB, CHANGED_MORE = 0.5, 1.02  # what a way may lose against another, in one output and in all, and still be preferred
LIMIT_DB = 80.0  # less noise than this is none: FP16 makes more


@dataclass(frozen=True)
class Outcome:
    """What one way to INT8 makes of the outputs."""

    method: str  # of calibration
    change: float  # see sensitivity.change
    sqnr_db: dict[str, float]  # output -> signal to noise

    @property
    def worst_db(self) -> float:
        return min(self.sqnr_db.values(), default=LIMIT_DB)

    def worse_than(self, other: Outcome) -> str:
        """In what it is worse, in words; empty where it is not.

        Of a few samples, one can rule the noise of an output, or hide the noise of all others; the change tells of most values of all
        samples. So both have to be in order.
        """
        lost, name = max(((other.sqnr_db[name] - found, name) for name, found in self.sqnr_db.items()), default=(0.0, ""))
        if lost > LOST_DB:
            return f"it would be {lost:.1f} dB further from the model in output {name!r}"
        if self.change > CHANGED_MORE * other.change:
            return f"it would change the outputs by {self.change:.2%} instead of {other.change:.2%}"
        return ""


@dataclass(frozen=True)
class Bench:
    """Where ways to INT8 are compared."""

    graph: Graph  # FP32, as it is without equalization
    profiles: tuple[Profile, ...]
    layers: tuple[Layer, ...]  # what would be quantised
    methods: tuple[str, ...]  # of calibration
    samples: Callable[[], tuple[list[Feed], list[Feed]]]  # reads a few to fit to, and others to judge by
    fp16_scales: bool
    console: Progress

    @cached_property
    def _samples(self) -> tuple[list[Feed], list[Feed]]:
        return self.samples()

    @cached_property
    def _expected(self) -> list[Feed]:
        return list(Session.from_graph(self.graph, in_turn=False).run_each(self._samples[1]))

    @cached_property
    def plain(self) -> Outcome:
        """What there is with neither equalized channels nor fitted weights, by scales of the samples to fit to."""
        collector = Collector()
        names = tensors(self.layers, readings(self.graph, self.layers))
        observe(self.graph, self.profiles, names, lambda: self._samples[0], collector.visit)
        return self.try_methods(self.graph, collector, with_weights=False)

    def try_methods(self, graph: Graph, collector: Collector, with_weights: bool) -> Outcome:
        """The calibration method that suits best.

        Args:
            graph: that of the bench, equalized or not.
            collector: of its tensors.
            with_weights: weights will be fitted to the scales, so they are for the comparison, too.
        """
        seen, fresh = self._samples
        samples = Samples(lambda: seen, ROUGHLY * len(seen))  # as if there were so many, of which each gives so many fewer rows
        outcomes = []
        for method in self.console.track(self.methods, len(self.methods), "comparing calibration methods"):
            scales = collector.scales(method)
            rounded = fit_weights(graph, self.profiles, self.layers, scales, samples)[0] if with_weights else {}
            session = Session.from_graph(Fit(scales, rounded, self.fp16_scales).apply(graph, self.layers), in_turn=False)
            found = list(session.run_each(fresh))
            outcomes.append(Outcome(method, change(self._expected, found), sqnr_db(self._expected, found)))
        told = (f"{one.method} {one.change:.2%} ({one.worst_db:.1f} dB)" for one in outcomes)
        self.console.debug("change of the outputs by method: " + ", ".join(told))
        return best_of(outcomes)


def best_of(outcomes: list[Outcome]) -> Outcome:
    """The one that changes least of those that are good in every output; the first of equals.

    The change is that of most values. It does not see the few that a scale cuts off, and that the noise is made of.
    """
    best = {name: max(outcome.sqnr_db[name] for outcome in outcomes) for name in outcomes[0].sqnr_db}
    behind = [max((best[name] - found for name, found in outcome.sqnr_db.items()), default=0.0) for outcome in outcomes]
    return min((one for one, lost in zip(outcomes, behind) if lost <= min(behind) + ALIKE_DB), key=lambda one: one.change)


def sqnr_db(expected: list[Feed], found: list[Feed]) -> dict[str, float]:
    """Output -> 10 log10(signal / noise) over all samples, within -LIMIT_DB and LIMIT_DB.

    Values that are not finite in the reference count for nothing; those that are not finite in `found` alone, and another shape, are
    infinite noise.
    """
    return {name: _sqnr_db([(one[name], other[name]) for one, other in zip(expected, found)]) for name in expected[0]}


def _sqnr_db(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
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
