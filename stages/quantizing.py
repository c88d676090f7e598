"""Stage 'quantize': FP32 graph and data -> a balanced graph with scales and weights for its INT8 layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core import calibration_cache
from core.plan import EFFORTS, Effort
from graph.fitting import fit_weights
from graph.graph import Graph
from graph.guard import Fit
from graph.qdq import Layer, quantizable_layers
from stages import balancing, calibrating
from stages.balancing import Balance
from stages.calibrating import Calibrated
from stages.job import Job
from stages.run import Run
from stages.split import Parts, Split, choose_split

FIT_SAMPLES = 64  # more hardly change the weights


@dataclass(frozen=True)
class Fitted:
    """A graph whose layers are ready to become INT8."""

    balance: Balance
    graph: Graph  # FP32, computes what the model computes; balanced for all of `layers`
    layers: tuple[Layer, ...]
    fit: Fit  # from all samples
    trials: tuple[Fit, ...]  # without the samples that each is measured on; empty where other data is measured on
    split: Split | None  # None: there is no data to measure on
    given_up: dict[str, str] | None = None  # layers that INT8 does not suit, where an earlier run has found them; node -> reason

    def graph_for(self, layers: Iterable[Layer]) -> Graph:
        """The graph, balanced for these INT8 layers; scales and weights that were fitted fit it, too."""
        return self.balance.graph({layer.activation for layer in layers})


def fit(job: Job, graph: Graph, layers: tuple[Layer, ...], run: Run, half: bool, as_is: bool = False) -> Fitted:
    """Scales from the cache or by calibration; with the calibration data, channels are balanced and weights fitted.

    Args:
        graph: FP32, folded.
        layers: that may become INT8.
        half: Q/DQ scales will be FP16.
        as_is: neither balance nor fit, and write no cache: TensorRT will calibrate by itself.

    Raises:
        ConversionError: CALIBRATION.
    """
    effort = EFFORTS["fast"] if as_is else job.plan.calibration.effort
    split = choose_split(job.data)
    names = tuple(dict.fromkeys(layer.activation for layer in layers))
    cache = calibrating.read_cache(job, run)
    given_up = None
    if cache is not None:
        scales = calibrating.scales_of(cache, names)
        balance = Balance(graph)
        found = Calibrated(cache.algorithm, scales, trials=(scales,) * (split.trials if split else 0))
        given_up = calibrating.known_to_be_given_up(job, cache)
    else:
        found, balance = _calibrate(job, graph, layers, names, split, effort, run, half, as_is)
    graph = balance.graph(names)
    weights: list[dict] = [{}] * (len(found.trials) + 1)
    if effort.fit and split is not None and split.may_fit and given_up is None:
        with run.stage("fit", "fitting INT8 weights"):
            parts = Parts(job.data, split, run, "fitting INT8 weights", FIT_SAMPLES)
            trials = len(found.trials)
            weights = fit_weights(graph, job.profiles, layers, found.scales, parts, len(parts), trials, lambda: parts.current)
    fits = [Fit(scales, rounded) for scales, rounded in zip((*found.trials, found.scales), weights)]
    return Fitted(balance, graph, layers, fits[-1], tuple(fits[:-1]), split, given_up)


def _calibrate(job, graph, layers, names, split, effort: Effort, run, half: bool, as_is: bool) -> tuple[Calibrated, Balance]:
    """(scales, and how the graph is balanced that they belong to)"""
    found = None
    if job.plan.calibration.cache or not effort.balance:
        everything = tuple(dict.fromkeys(layer.activation for layer in quantizable_layers(graph)))
        found = calibrating.calibrate(job, graph, layers, everything, split, run, half, with_weights=False)
        if not as_is:  # the cache keeps the scales of the model as it is, of all layers that anybody may want in INT8
            calibrating.write_cache(job, calibration_cache.to_text(found.scales, found.method), found.method, run, found.silent)
    if found is not None and not effort.balance:
        return found, Balance(graph)
    with run.stage("balance", "balancing channels"):
        balance = balancing.balance(job, graph, names, split, run)
    return calibrating.calibrate(job, balance.graph(names), layers, names, split, run, half, effort.fit), balance
