"""Stage 'calibrate': activation scales by histograms of the calibration data, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnx2trt.base.cores import peak_memory_mb
from onnx2trt.conversion.exact import Exact
from onnx2trt.conversion.int8 import Calibrated
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import batches_to_compare
from onnx2trt.data.holdout import Parts, choose_split, without
from onnx2trt.data.reader import Batch
from onnx2trt.data.samples import Dataset
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import Visit, observe_parallel
from onnx2trt.quant.candidates import Looked, Method, Outcome, best_of, compare_methods, surely_better
from onnx2trt.quant.histograms import Collector
from onnx2trt.quant.rare import may_be_rare, rare
from onnx2trt.quant.sensitivity import Feed
from onnx2trt.quant.simulations import Simulations
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite.body_layers import exposing
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.number_formats import NumberFormat
from onnx2trt.rewrite.qdq import Layer

METHOD_SAMPLES = 8  # on which calibration methods are compared
CONFIRMING_SAMPLES = 4  # of each group of others, on which the chosen one is held against the widest once more


@dataclass
class Inference:
    """One of the calibration."""

    samples: tuple[str, ...]
    peaks: dict[str, float] = field(default_factory=dict)  # tensor -> max |x|


@dataclass(frozen=True)
class _Seen:
    """What the pass over the data has shown, beside the histograms."""

    exact: Exact
    inferences: list[Inference] = field(default_factory=list)

    @property
    def peaks(self) -> list[dict[str, float]]:
        """Tensor -> max |x|, of each inference."""
        return [one.peaks for one in self.inferences]


@dataclass(frozen=True)
class Wanted:
    """What is to be calibrated."""

    names: tuple[str, ...]  # of the tensors
    layers: tuple[Layer, ...]  # on which --calibration-method auto compares the methods
    samples: int | None = None  # at most
    method: str | None = None  # of calibration; None: as the user has it

    def scales(self, collector: Collector, method: str, number_format: NumberFormat, chosen: bool = True) -> dict[str, float]:
        """Tensor -> scale by a method, but nothing of the probabilities of an attention is cut off.

        Most of them are next to nothing, so that a method finds it cheap to cut off the few that decide: in a ViT-S all methods but that of
        the largest value are better off (by 1.5 to 13 dB) where it is taken for them.

        Args:
            chosen: by us, so that nothing is cut off where too few values are known either; a method of the user's is followed.
        """
        whole = frozenset(layer.attention.probabilities for layer in self.layers if layer.attention)
        whole |= collector.sparse() if chosen else frozenset()
        return collector.scales(method, number_format, whole)


def calibrate(job: Job, graph: Graph, wanted: Wanted, run: Run, purpose: str = "") -> Calibrated:
    """Scales of the tensors of a graph.

    Args:
        purpose: what they are for where that is not the engine itself, or which graph it is; in words for the user.

    Raises:
        ConversionError: CALIBRATION.
    """
    split = choose_split(job.data)
    parts = Parts(job.data, split, run.console, "calibrating", wanted.samples)
    collectors: dict[int, Collector] = {}
    seen = _Seen(Exact(tuple(graph.output_names)))
    with run.stage("calibrate", f"calibrating on {len(parts)} samples of {split.fitted.called}{purpose}"):
        names, visitor = {*wanted.names, *graph.output_names}, _visitor(wanted, parts, collectors, seen)
        observe_parallel(exposing(graph, wanted.layers), job.profiles, names, parts, visitor)
        method = wanted.method or job.plan.calibration.method
        chosen = job.plan.calibration.method == "auto"
        if method == "auto":
            method = _choose_method(job, graph, wanted, collectors, seen, run)
        every = without(collectors, (), Collector)
        found = wanted.scales(every, method, job.number_format, chosen)  # in the order in which threads came to the tensors
        scales = {name: found[name] for name in wanted.names if name in found}
        others = [without(collectors, (trial,), Collector) for trial in range(split.trials)]
        trials = tuple(wanted.scales(collector, method, job.number_format, chosen) for collector in others)
    silent = tuple(name for name in wanted.names if name not in scales)
    seconds = round(run.console.timings["calibrate"], 3)
    used, skipped, cache = parts.feeds.used, len(parts.feeds.skipped), job.plan.calibration.cache
    about = Calibration(method, used, skipped, cache, seconds, peak_memory_mb(), profile=job.usual_profile)
    return Calibrated(method, scales, silent, trials, about, seen.exact)


def _visitor(wanted: Wanted, parts: Parts, collectors: dict[int, Collector], seen: _Seen) -> Callable[[], Visit]:
    """Of each inference."""
    names = frozenset(wanted.names)

    def begin() -> Visit:
        collector, own = collectors.setdefault(parts.current, Collector()), Inference(parts.feeds.samples)
        outputs = () if parts.padded else seen.exact.names  # of some of the rows, nobody asks for them
        seen.inferences.append(own)

        def visit(name: str, values: np.ndarray) -> None:
            if name in outputs:
                seen.exact.add(own.samples, name, values)
            if name in names:
                own.peaks[name] = collector.visit(name, values)

        return visit

    return begin


def _choose_method(job: Job, graph: Graph, wanted: Wanted, collectors: dict[int, Collector], seen: _Seen, run: Run) -> str:
    """The one that suits best, on samples that its scales are not from (where there are several), and on the rare ones."""
    judged, number_format = choose_split(job.data).judged, job.number_format
    final = [()] if may_be_rare(seen.peaks) else []  # only rare samples ask for the scales of all of the data
    parts = [without(collectors, left_out, Collector) for left_out in (judged, *final)]
    methods, as_fp16 = [], job.fp16_scales(graph)
    for name in number_format.methods:
        fits = [Fit(wanted.scales(part, name, number_format), fp16_scales=as_fp16) for part in parts]
        methods.append(Method(name, fits[0], fits[-1]))
    simulations = Simulations(graph, wanted.layers)
    looked = _looked(job, methods, seen, simulations)
    if not looked.usual:  # all of them are damaged
        return number_format.methods[0]
    tracked = run.console.track(methods, len(methods), "comparing calibration methods")
    outcomes = compare_methods(simulations, tracked, looked, job.comparison().change)
    told = ", ".join(f"{one.method} {one.change:.2%} (worst sample {one.worst:.2%})" for one in outcomes)
    run.console.debug(f"change of the outputs by method, {len(looked.rare)} rare samples among them: {told}")
    chosen = best_of(outcomes)
    if chosen is not outcomes[0]:
        others = _Others(job, wanted, collectors, seen.exact, simulations, run)
        while chosen is not outcomes[0] and not others.confirm(outcomes[0], chosen):
            outcomes.remove(chosen)
            chosen = best_of(outcomes)
    return chosen.method


class _Others:
    """The samples by which nothing was chosen yet: what narrow scales cut off may not be in the few that chose them."""

    def __init__(self, job: Job, wanted: Wanted, collectors: dict[int, Collector], exact: Exact, simulations: Simulations, run: Run):
        """
        Args:
            exact: what the graph gives, as far as that is known.
            simulations: of the graph with all layers.
        """
        self._job, self._wanted, self._collectors, self._simulations, self._run = job, wanted, collectors, simulations, run
        self._exact = exact
        self._split = choose_split(job.data)
        self._groups = () if self._split.measured is not None else self._split.unjudged

    @cached_property
    def _looked(self) -> list[Looked]:
        each = [_batches(self._job, self._split.of_trials(group, CONFIRMING_SAMPLES)) for group in self._groups]
        expected = iter(_expected([batch for batches in each for batch in batches], self._exact, self._simulations))
        return [Looked(_feeds(batches), expected=[next(expected) for _ in batches]) for batches in each]

    def confirm(self, widest: Outcome, chosen: Outcome) -> bool:
        """Whether the scales that were chosen are better off than the widest here, too; where there are no such samples, they are."""
        if not self._groups:
            return True
        wide, narrow = [widest], [chosen]
        groups = list(zip(self._groups, self._looked))
        for group, looked in self._run.console.track(groups, len(groups), "comparing two of them on other samples"):
            methods = [self._method(one.method, group) for one in (widest, chosen)]
            found = compare_methods(self._simulations, methods, looked, self._job.comparison().change) if looked.usual else []
            if len(found) == 1:  # the narrow ones are far worse, or those that the wide ones are
                narrow = [replace(narrow[0], worst=math.inf)]
                break
            for outcomes, outcome in zip((wide, narrow), found):
                outcomes.append(outcome)
        confirmed = surely_better(wide, narrow)
        if not confirmed:
            self._run.console.debug(f"{chosen.method} is no better than {widest.method} on other samples")
        return confirmed

    def _method(self, name: str, group: frozenset[int]) -> Method:
        scales = self._wanted.scales(without(self._collectors, group, Collector), name, self._job.number_format)
        fit = Fit(scales, fp16_scales=self._job.fp16_scales(self._simulations.graph))
        return Method(name, fit, fit)


def _looked(job: Job, methods: list[Method], seen: _Seen, simulations: Simulations) -> Looked:
    """What the methods are compared on."""
    split, names = choose_split(job.data), methods[0].final.scales
    narrow = {name: job.number_format.largest * min(one.final.scales.get(name, math.inf) for one in methods) for name in names}
    samples = tuple(sample for number in rare(seen.peaks, narrow) for sample in seen.inferences[number].samples)
    judging = split.to_judge(METHOD_SAMPLES)
    usual = replace(judging, samples=tuple(sample for sample in judging.samples if sample not in samples))
    share = len(samples) / max(sum(len(one.samples) for one in seen.inferences), 1)

    if not samples or judging.samples and not usual.samples:
        usual, apart, share = _batches(job, judging), [], 0.0
    else:
        usual, apart = _batches(job, usual), _batches(job, replace(split.fitted, samples=samples))
    return Looked(_feeds(usual), _feeds(apart), share, _expected([*usual, *apart], seen.exact, simulations))


def _batches(job: Job, dataset: Dataset) -> list[Batch]:
    return list(batches_to_compare(job.data, [dataset]))


def _feeds(batches: list[Batch]) -> list[Feed]:
    return [batch.feed for batch in batches]


def _expected(batches: list[Batch], exact: Exact, simulations: Simulations) -> list[Feed]:
    """What the graph gives for each; computed where it is not known."""
    missing = [batch.feed for batch in batches if exact.of(batch.samples) is None]
    computed = iter(simulations.exact(missing) if missing else ())
    return [exact.of(batch.samples) or next(computed) for batch in batches]
