"""Stage 'choose' of INT8: which of the fitted layers become INT8; as many as the limit of the accuracy drop allows, by measurement."""

from __future__ import annotations

from functools import cached_property

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.int8 import Fitted
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.looks import FAR
from onnx2trt.conversion.run import Run
from onnx2trt.quant.sensitivity import (
    DROPS,
    SCORES,
    Tried,
    by_error_per_mac,
    by_noise,
    climb,
    last_rung,
    layer_errors,
    left,
)

STEP_DOWN = 0.02  # of the work: what goes back to FP16 at a time where the final fit is unlucky
WORTH_A_LOOK = 0.01  # of the work: smaller layers are not tried once more
OF_FP16 = 0.5  # of the limit: what FP16 may use up where nothing is INT8


class Fp16Inaccurate(Exception):
    """It is not INT8 alone that misses the limit: FP16, in the layers that are not INT8, uses up more than OF_FP16 of it."""


class Guard:
    """Chooses the layers of one fitted graph that go back to FP16; for a smaller drop again, without measuring anything twice."""

    def __init__(self, job: Job, fitted: Fitted, macs: dict[str, int], trials, run: Run):
        """
        Args:
            macs: node -> multiply-accumulates, of all of the graph.
            trials: measures a choice (stages.int8.trials.Trials).
        """
        self._job, self._fitted, self._macs, self._trials, self._run = job, fitted, macs, trials, run
        self.tried: list[Tried] = []  # of the last choice, in order
        self.held_out: dict[str, float] = {}  # output -> drop in %, of the last choice, where calibration samples were held out
        self.fp16_is_known = False  # to be blamed, or not to be helped

    def choose(self, limit: float, or_best: bool = False) -> dict[str, str]:
        """The layers that have to go back to FP16.

        Args:
            limit: of the accuracy drop, in %.
            or_best: where no choice meets the limit, the one with the fewest INT8 layers that was tried.

        Returns:
            Node -> reason.

        Raises:
            ConversionError: VALIDATION, where the limit cannot be met; the message holds what was tried.
            Fp16Inaccurate: at most once; a guard that was told of more layers in FP32 may meet the limit with more of them in INT8.
        """
        with self._run.stage("choose", f"choosing the {self._label} layers"):
            fallback = self._as_near_as_can_be(limit)
            self.held_out = {} if fallback is None else self._trials.held_out(fallback)
            self._trials.forget()
        tried = self.tried
        for rung in tried:
            self._run.console.debug(_line(rung, self._label))
        if fallback is None and or_best:
            fallback = self._first(max(rung.kept for rung in tried))
        if fallback is None:
            raise ConversionError(
                f"{self._label} does not reach --max-accuracy-drop {limit:g} %. What was tried:\n{_table(tried, self._label)}",
                hint="Use --precision fp16, more calibration data, --quantization-effort best, or a larger --max-accuracy-drop."
                + self._measured_on(),
                code=ExitCode.VALIDATION,
            )
        return {node: f"{self._label} here alone changes the outputs by {self._errors[node]:.2%}" for node in fallback}

    def _as_near_as_can_be(self, limit: float) -> list[str] | None:
        """As _fewest, and with less asked for beyond the final check where no choice passes else."""
        beyond, fallback = self._trials.beyond, self._fewest(limit)
        if fallback is None and SCORES in beyond and any(rung.best_scores_points is not None for rung in self.tried):
            beyond.remove(SCORES)
            fallback = self._fewest(limit)
        if fallback is None and DROPS in beyond and any(rung.enough and not rung.passed for rung in self.tried):
            fallback = self._safest(limit)
            if fallback is None:
                fallback = self._fewest(limit)
        return fallback

    def _safest(self, limit: float) -> list[str] | None:
        """The choice with the fewest INT8 layers of all that may be, where no errors as measured are within the limit, but few samples
        leave open whether they are. From now on, errors count by what is shown of them.

        Returns:
            None where FP16 alone does not come nearer, other data judge in the end, or this choice does not pass either.
        """
        fp16 = self._trials.measure(tuple(self._order), limit, final=True)
        self._trials.beyond.remove(DROPS)
        if not fp16.passed or not self._holds_out:
            return None
        fallback = self._first(max(rung.kept for rung in self.tried))
        self.tried += (self._trials.measure(fallback, limit, final) for final in (False, True))
        if not all(rung.passed for rung in self.tried[-2:]):
            return None
        drop, count = max(rung.drop_percent for rung in self.tried[-2:]), len(self._fitted.split.to_measure().samples)
        self._run.console.warn(
            f"{count} samples leave open whether {self._label} keeps to --max-accuracy-drop {limit:g} % on other data: with "
            f"{self.tried[-1].mac_share:.0%} of the work in {self._label}, the least that was tried, a drop of {drop:.2f} % was measured, "
            "of which they show less. More calibration data, or others by --validation-dir, tell"
        )
        return fallback

    @property
    def _holds_out(self) -> bool:
        """The drop is measured on calibration samples, each by what was made without it; there are no others to judge by."""
        split = self._fitted.split
        return split is not None and split.measured is None and not split.blind

    def _measured_on(self) -> str:
        """What a user can do about it, where the samples are to blame."""
        if not self._holds_out:
            return ""
        count = len(self._fitted.split.to_measure().samples)
        return (
            f" This was measured on {count} calibration samples, each with scales and weights made without it; where so few cannot tell, "
            "more do, or others by --validation-dir."
        )

    @property
    def _label(self) -> str:
        return self._job.number_format.label

    def _fewest(self, limit: float) -> list[str] | None:
        """The fewest layers that have to go back to FP16; None where no choice passes. What was measured is in `tried`."""
        self.tried = [self._trials.measure((), limit)]
        if not self.tried[0].passed:
            self.tried = self._climbed(self.tried[0], limit)
        best = self._confirmed(self.tried, limit)
        return None if best is None else self._take_back(self._first(best), self.tried, limit)

    def _climbed(self, first: Tried, limit: float) -> list[Tried]:
        """What was measured on the way; a look tells where to measure, nothing is decided by it that is near."""
        least, guess = self._job.plan.min_int8_share, by_noise(self._noise, limit)
        last = last_rung(self._shares, least)

        def measured(kept: int) -> Tried:
            return self._trials.measure(self._first(kept), limit)

        def seen(kept: int) -> Tried:
            return measured(kept) if kept == last else self._trials.look(self._first(kept), limit)

        def settled(rung: Tried) -> Tried:
            failed = not rung.passed and rung.reached > FAR * limit
            return rung if rung.measured or failed else measured(rung.kept)

        tried = climb(self._shares, least, first, seen, guess, settled)
        for rung in tried:
            if not rung.measured:
                self._run.console.debug(f"{_line(rung, self._label)}, by a part of the samples")
        return [rung for rung in tried if rung.measured]

    def reached(self, fallback: dict[str, str], limit: float) -> float:
        """What was held against the limit with these layers in FP16, in %, of what will be built."""
        return self._trials.measure(tuple(fallback), limit, final=True).reached

    @cached_property
    def _errors(self) -> dict[str, float]:
        """Node -> what INT8 there alone changes."""
        fitted = self._fitted
        found = layer_errors(fitted.graph, self._job.profiles, fitted.layers, fitted.fit, self._trials.telling(), self._trials.change)
        return dict(self._run.console.track(found, len(fitted.layers), f"measuring what {self._label} costs in each layer"))

    @cached_property
    def _order(self) -> list[str]:
        """The layers in the order in which they go back to FP16."""
        order = by_error_per_mac(self._errors, self._macs)
        for node in order:
            share = self._macs.get(node, 0) / max(sum(self._macs.values()), 1)  # a layer whose shapes nobody can infer has none
            self._run.console.debug(f"{node}: {self._errors[node]:.3%} for {share:.2%} of the work")
        return order

    @cached_property
    def _shares(self) -> list[float]:
        """Of the work that is INT8 with the first n layers in FP16, for each n."""
        total = max(sum(self._macs.values()), 1)
        return [work / total for work in left(self._order, self._macs)]

    @cached_property
    def _noise(self) -> list[float]:
        """What all layers but the first n change alone, summed by squares, for each n."""
        return left(self._order, {node: error**2 for node, error in self._errors.items()})

    def _first(self, kept: int) -> list[str]:
        """The first layers to go back to FP16; where it is none, nothing has to be ranked."""
        return self._order[:kept] if kept else []

    def _confirmed(self, tried: list[Tried], limit: float) -> int | None:
        """How many layers go back to FP16: the fewest that passed, and more while what will be built does not pass; None: none is enough.

        The trials show what to expect on average; one fit can be unlucky, and then a few decisions tip over. So little more goes back at
        first, but twice as much each time: where the trials promise too much altogether, it takes many layers.
        """
        kept, step = min((rung.kept for rung in tried if rung.passed), default=None), STEP_DOWN
        while kept is not None:
            tried.append(self._trials.measure(self._first(kept), limit, final=True))
            if tried[-1].passed:
                return kept
            self._blame_fp16(limit)
            share, least = tried[-1].mac_share - step, self._job.plan.min_int8_share
            more = [number for number in range(kept + 1, len(self._order) + 1) if self._shares[number] >= least]
            kept = next((number for number in more if self._shares[number] <= share), more[-1] if more else None)
            step *= 2
        return None

    def _blame_fp16(self, limit: float) -> None:
        if self.fp16_is_known:
            return
        self.fp16_is_known = True
        if self._trials.measure(tuple(self._order), limit, final=True).reached > OF_FP16 * limit:
            raise Fp16Inaccurate

    def _take_back(self, fallback: list[str], tried: list[Tried], limit: float) -> list[str]:
        """What still has to be FP16 when the layers with most work, tried one by one, are INT8 again where that passes.

        Errors of layers do not simply add up, so their order cannot tell which ones do; of equal work it comes last first.
        """
        candidates = sorted(fallback, key=lambda node: (self._macs.get(node, 0), fallback.index(node)), reverse=True)
        least = WORTH_A_LOOK * sum(self._macs.values())
        enough = len(tried) + self._job.plan.calibration.effort.second_looks
        for node in candidates:
            if self._macs.get(node, 0) < least or len(tried) >= enough:
                break
            rest = [other for other in fallback if other != node]
            for final in (True, False):  # what will be built first: it is the stricter one more often
                tried.append(self._trials.measure(rest, limit, final=final))
                if not tried[-1].passed:
                    break
            else:
                fallback = rest
        return fallback


def _line(rung: Tried, label: str) -> str:
    points = "" if rung.best_scores_points is None else f", best scores {rung.best_scores_points:.2f} points off"
    return f"{rung.mac_share:4.0%} {label}: drop {rung.drop_percent:6.2f} +- {rung.standard_error:.2f} %{points}"


def _table(tried: list[Tried], label: str) -> str:
    """One below the other."""
    return "\n".join(f"  {_line(rung, label)}" for rung in tried)
