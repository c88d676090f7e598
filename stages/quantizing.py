"""Stage 'quantize': FP32 graph and data -> which layers are INT8, with which scales and weights, as accurate as was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core import calibration_cache
from core.errors import ConversionError, ExitCode
from core.plan import EFFORTS, Effort
from graph.fitting import fit_weights
from graph.graph import Graph
from graph.guard import Fit, Tried, by_error_per_mac, climb, layer_errors
from graph.observe import static_shapes
from graph.qdq import Layer, count_macs, quantizable_layers
from stages import balancing, calibrating
from stages.balancing import Balance
from stages.calibrating import Calibrated
from stages.job import Job
from stages.run import Run
from stages.split import Parts, Split, choose_split
from stages.trials import Trials

FIT_SAMPLES = 64  # more hardly change the weights
STEP_DOWN = 0.02  # of the work: what is given up at a time where the final fit is unlucky


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
            weights = fit_weights(graph, job.profiles, layers, found.scales, parts, len(parts), half, trials, lambda: parts.current)
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


def choose_int8(job: Job, fitted: Fitted, run: Run, half: bool, finish: Callable[[Graph], Graph]) -> dict[str, str]:
    """The layers that INT8 has to give up for --max-accuracy-drop.

    Args:
        finish: see Trials.

    Returns:
        Node -> reason.

    Raises:
        ConversionError: VALIDATION, where the limit cannot be met; the message holds what was tried.
    """
    if fitted.given_up is not None:
        return fitted.given_up
    if fitted.split is None:
        run.console.warn("without --calibration-dir or --validation-dir no data tells what INT8 costs: all layers that can be are INT8")
        return {}
    if not job.plan.validation.enabled:
        return {}
    macs = count_macs(fitted.graph, static_shapes(fitted.graph, job.profiles))
    trials = Trials(job, fitted, macs, half, finish, run)
    errors: dict[str, float] = {}
    order: list[str] = []
    with run.stage("choose", "choosing the INT8 layers"):
        tried = [trials.measure(())]
        if not tried[0].passed:
            errors = _layer_errors(job, fitted, run, half)
            order = by_error_per_mac(errors, macs)
            for node in order:
                run.console.debug(f"{node}: {errors[node]:.3%} for {macs[node] / sum(macs.values()):.2%} of the work")
            least = job.plan.min_int8_share
            tried = climb(order, macs, sum(macs.values()), least, tried[0], lambda kept: trials.measure(order[:kept]))
        best = _confirmed(job, order, trials, tried)
    run.result["calibration"]["tried"] = [
        {"int8_mac_share": t.int8_mac_share, "drop_percent": t.drop_percent, "standard_error": t.standard_error, "passed": t.passed}
        for t in tried
    ]
    for rung in tried:
        run.console.debug(_line(rung))
    if best is None:
        raise ConversionError(
            f"INT8 does not reach --max-accuracy-drop {job.plan.validation.max_drop_percent:g} %: {'; '.join(map(_line, tried))}",
            hint="Use --precision fp16, more calibration data, --quantization-effort best, or a larger --max-accuracy-drop.",
            code=ExitCode.VALIDATION,
        )
    return {node: f"INT8 here alone changes the outputs by {errors[node]:.2%}" for node in order[:best]}


def _confirmed(job: Job, order: list[str], trials: Trials, tried: list[Tried]) -> int | None:
    """How many layers to give up: the fewest that passed, and more while what will be built does not pass; None: no number is enough.

    The trials show what to expect on average; one fit can be unlucky, and then a few decisions tip over.
    """
    kept = min((rung.kept for rung in tried if rung.passed), default=None)
    while kept is not None:
        tried.append(trials.measure(order[:kept], final=True))
        if tried[-1].passed:
            return kept
        lower = tried[-1].int8_mac_share - STEP_DOWN
        more = (number for number in range(kept + 1, len(order) + 1) if trials.share(order[:number]) <= lower)
        kept = next(more, None)
        if kept is not None and trials.share(order[:kept]) < job.plan.min_int8_share:
            kept = None
    return None


def _layer_errors(job: Job, fitted: Fitted, run: Run, half: bool) -> dict[str, float]:
    few = list(Parts(job.data, fitted.split, run, "reading samples", job.plan.calibration.effort.samples)())
    found = layer_errors(fitted.graph, fitted.layers, fitted.fit, few, half)
    return dict(run.console.track(found, len(fitted.layers), "measuring what INT8 costs in each layer"))


def _line(rung: Tried) -> str:
    return f"{rung.int8_mac_share:.0%} INT8: drop {rung.drop_percent:.2f} +- {rung.standard_error:.2f} %"
