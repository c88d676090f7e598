"""Which of the fitted layers become INT8: as many as the limit of the accuracy drop allows, found by measurement."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.quant.sensitivity import Tried, by_error_per_mac, climb, layer_errors
from onnx2trt.rewrite.prepare import macs_of
from onnx2trt.stages.int8.holdout import Parts
from onnx2trt.stages.int8.quantize import Fitted
from onnx2trt.stages.int8.trials import Trials

STEP_DOWN = 0.02  # of the work: what is given up at a time where the final fit is unlucky
WORTH_A_LOOK = 0.01  # of the work: smaller layers are not tried once more


class Choice:
    """Chooses the INT8 layers of one fitted graph; for a smaller drop again, without measuring anything twice."""

    def __init__(self, job: Job, fitted: Fitted, run: Run, half: bool, finish: Callable[[Graph], Graph]):
        """
        Args:
            half: Q/DQ scales will be FP16.
            finish: see Trials.
        """
        self._job, self._fitted, self._run, self._half, self._finish = job, fitted, run, half, finish
        self._fp16_fallback: dict[str, str] = {}

    @property
    def can_measure(self) -> bool:
        return self._fitted.split is not None and self._job.plan.validation.enabled

    def choose_fallback(self) -> dict[str, str]:
        """The layers that INT8 has to give up for --max-accuracy-drop.

        Returns:
            Node -> reason.

        Raises:
            ConversionError: VALIDATION, where the limit cannot be met; the message holds what was tried.
        """
        if self._fitted.fp16_fallback is not None:
            self._fp16_fallback = self._fitted.fp16_fallback
        elif self._fitted.split is None:
            self._run.console.warn(
                "without --calibration-dir or --validation-dir no data tells what INT8 costs: all layers that can be are INT8"
            )
        elif self.can_measure:
            self._fp16_fallback = self._choose(self._job.plan.validation.max_drop_percent)
        return self._fp16_fallback

    def choose_more_fallback(self, factor: float) -> dict[str, str]:
        """What to give up for a drop that is smaller by this factor than what the first choice has reached, or as small as can be."""
        reached = self._trials.measure(tuple(self._fp16_fallback), 0.0, final=True)
        self._fp16_fallback = self._choose((reached.drop_percent + reached.standard_error) * factor, or_best=True)
        return self._fp16_fallback

    def _choose(self, limit: float, or_best: bool = False) -> dict[str, str]:
        order: list[str] = []
        with self._run.stage("choose", "choosing the INT8 layers"):
            tried = [self._trials.measure((), limit)]
            if not tried[0].passed:
                order = self._order
                least, total = self._job.plan.min_int8_share, sum(self._macs.values())
                tried = climb(order, self._macs, total, least, tried[0], lambda kept: self._trials.measure(order[:kept], limit))
            best = self._confirmed(order, tried, limit)
            fp16_fallback = None if best is None else self._take_back(order[:best], tried, limit)
            self._trials.forget()
        self._describe(tried)
        if fp16_fallback is None and or_best:
            fp16_fallback = order[: max(rung.kept for rung in tried)]
        if fp16_fallback is None:
            raise ConversionError(
                f"INT8 does not reach --max-accuracy-drop {limit:g} %. What was tried:\n{_table(tried)}",
                hint="Use --precision fp16, more calibration data, --quantization-effort best, or a larger --max-accuracy-drop.",
                code=ExitCode.VALIDATION,
            )
        return {node: f"INT8 here alone changes the outputs by {self._errors[node]:.2%}" for node in fp16_fallback}

    @cached_property
    def _macs(self) -> dict[str, int]:
        return macs_of(self._fitted.graph, self._job.profiles)

    @cached_property
    def _trials(self) -> Trials:
        return Trials(self._job, self._fitted, self._macs, self._half, self._finish, self._run)

    @cached_property
    def _errors(self) -> dict[str, float]:
        """Node -> what INT8 there alone changes."""
        job, fitted, run = self._job, self._fitted, self._run
        few = list(Parts(job.data, fitted.split, run, "reading samples", job.plan.calibration.effort.samples)())
        found = layer_errors(fitted.graph, fitted.layers, fitted.fit, few, self._half)
        return dict(run.console.track(found, len(fitted.layers), "measuring what INT8 costs in each layer"))

    @cached_property
    def _order(self) -> list[str]:
        """The layers in the order of giving them up."""
        order = by_error_per_mac(self._errors, self._macs)
        for node in order:
            self._run.console.debug(f"{node}: {self._errors[node]:.3%} for {self._macs[node] / sum(self._macs.values()):.2%} of the work")
        return order

    def _confirmed(self, order: list[str], tried: list[Tried], limit: float) -> int | None:
        """How many layers to give up: the fewest that passed, and more while what will be built does not pass; None: no number is enough.

        The trials show what to expect on average; one fit can be unlucky, and then a few decisions tip over.
        """
        kept = min((rung.kept for rung in tried if rung.passed), default=None)
        while kept is not None:
            tried.append(self._trials.measure(order[:kept], limit, final=True))
            if tried[-1].passed:
                return kept
            lower = tried[-1].int8_mac_share - STEP_DOWN
            more = (number for number in range(kept + 1, len(order) + 1) if self._trials.share(order[:number]) <= lower)
            kept = next(more, None)
            if kept is not None and self._trials.share(order[:kept]) < self._job.plan.min_int8_share:
                kept = None
        return None

    def _take_back(self, fp16_fallback: list[str], tried: list[Tried], limit: float) -> list[str]:
        """What still has to be given up when the layers with most work, tried one by one, are INT8 again where that passes.

        Errors of layers do not simply add up, so the order of giving them up cannot tell which ones do; of equal work it comes last first.
        """
        candidates = sorted(fp16_fallback, key=lambda node: (self._macs.get(node, 0), fp16_fallback.index(node)), reverse=True)
        least = WORTH_A_LOOK * sum(self._macs.values())
        enough = len(tried) + self._job.plan.calibration.effort.second_looks
        for node in candidates:
            if self._macs.get(node, 0) < least or len(tried) >= enough:
                break
            rest = [other for other in fp16_fallback if other != node]
            for final in (True, False):  # what will be built first: it is the stricter one more often
                tried.append(self._trials.measure(rest, limit, final=final))
                if not tried[-1].passed:
                    break
            else:
                fp16_fallback = rest
        return fp16_fallback

    def _describe(self, tried: list[Tried]) -> None:
        self._run.result["calibration"]["tried"] = [
            {"int8_mac_share": t.int8_mac_share, "drop_percent": t.drop_percent, "standard_error": t.standard_error, "passed": t.passed}
            for t in tried
        ]
        for rung in tried:
            self._run.console.debug(_line(rung))


def _line(rung: Tried) -> str:
    return f"{rung.int8_mac_share:4.0%} INT8: drop {rung.drop_percent:6.2f} +- {rung.standard_error:.2f} %"


def _table(tried: list[Tried]) -> str:
    """One below the other."""
    return "\n".join(f"  {_line(rung)}" for rung in tried)
