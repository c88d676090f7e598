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
LOST_DB = 0.5  # what a way may lose against another in one output and still be preferred
LIMIT_DB = 200.0  # stands for "identical"
TINY = 1e-30  # keeps a logarithm off zero


@dataclass(frozen=True)
class Noise:
    """Of one output, sample by sample."""

    signal: float  # squared values of the reference, of all samples together
    squares: np.ndarray  # [samples]: squared error

    @property
    def sqnr_db(self) -> float:
        """Within -LIMIT_DB and LIMIT_DB."""
        total = float(self.squares.sum())
        if total == 0 or self.signal == 0 or not math.isfinite(total):
            return LIMIT_DB if total == 0 else -LIMIT_DB
        return min(max(10 * math.log10(self.signal / total), -LIMIT_DB), LIMIT_DB)

    def more_than(self, other: Noise) -> float:
        """By how many dB the other is better, one standard error included: what a few samples say may be chance.

        By the jackknife: what leaving out one sample after the other makes of it.
        """
        difference = other.sqnr_db - self.sqnr_db
        count = len(self.squares)
        if abs(difference) >= LIMIT_DB or count < 2:
            return difference
        sums = [(squares.sum() - squares) + TINY * self.signal + TINY for squares in (self.squares, other.squares)]
        left = 10 * np.log10(sums[0] / sums[1])
        return difference + float(np.sqrt((count - 1) * left.var()))


@dataclass(frozen=True)
class Outcome:
    """What one way to INT8 makes of the outputs."""

    method: str  # of calibration
    change: float  # see sensitivity.change
    noise: dict[str, Noise]  # of each output

    @property
    def worst_db(self) -> float:
        """Signal to noise of the worst output."""
        return min((noise.sqnr_db for noise in self.noise.values()), default=LIMIT_DB)

    def behind(self, other: Outcome) -> tuple[float, str]:
        """(by how many dB it is worse in the output where it is worst, one standard error included; which that is)"""
        return max(((noise.more_than(other.noise[name]), name) for name, noise in self.noise.items()), default=(0.0, ""))


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
            outcomes.append(Outcome(method, change(self._expected, found), noise_of(self._expected, found)))
        told = (f"{one.method} {one.change:.2%} ({one.worst_db:.1f} dB)" for one in outcomes)
        self.console.debug("change of the outputs by method: " + ", ".join(told))
        return best_of(outcomes)


def best_of(outcomes: list[Outcome]) -> Outcome:
    """The one that changes least of those that are good in every output; the first of equals.

    The change is that of most values. It does not see the few that a scale cuts off, and that the noise is made of.
    """
    best = {name: max(outcome.noise[name].sqnr_db for outcome in outcomes) for name in outcomes[0].noise}
    behind = [max((best[name] - noise.sqnr_db for name, noise in outcome.noise.items()), default=0.0) for outcome in outcomes]
    return min((one for one, lost in zip(outcomes, behind) if lost <= min(behind) + ALIKE_DB), key=lambda one: one.change)


def noise_of(expected: list[Feed], found: list[Feed]) -> dict[str, Noise]:
    """Of each output. Values that are not finite in the reference count for nothing; those that are not finite in `found` alone, and
    another shape, are infinite noise."""
    return {name: _noise([(one[name], other[name]) for one, other in zip(expected, found)]) for name in expected[0]}


def _noise(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Noise:
    signal, squares = 0.0, []
    for reference, output in pairs:
        told = np.isfinite(reference)
        exact = reference[told].astype(np.float64)
        signal += float(np.square(exact).sum())
        same = output.shape == reference.shape
        squares.append(float(np.square(output[told].astype(np.float64) - exact).sum()) if same else math.inf)
    return Noise(signal, np.where(np.isfinite(squares), squares, math.inf))
