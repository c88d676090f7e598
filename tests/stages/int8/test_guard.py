"""stages/int8/guard.py: which layers go back to FP16, by what is measured of choices; here, what is measured is made up."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import quiet_run, refused

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.plan.efforts import EFFORTS
from onnx2trt.quant.sensitivity import DROPS, SCORES, Tried
from onnx2trt.rewrite.number_formats import INT8
from onnx2trt.stages.int8 import guard as guarding
from onnx2trt.stages.int8.guard import Fp16Inaccurate, Guard

MACS = {"most": 50, "large": 21, "twin": 21, "medium": 22, "tiny": 0.5, "rest": 885.5}  # together 1000
LIMIT = 1.0


class MadeUpTrials:
    """As stages.int8.trials.Trials. A layer costs 9 % wherever it is INT8; one with a '?' in the trials alone, one with a '!' in the
    final fit alone."""

    def __init__(self, hostile, standard_error=0.0):
        self._hostile, self._standard_error = hostile, standard_error
        self.asked, self.forgotten = [], 0
        self.beyond, self.of_scores = {DROPS, SCORES}, ()  # the layers that move the best scores too far, though not the output
        self.of_fp16, self.looked = 0.1, 0  # the drop where nothing is INT8; how often it was asked for
        self.expected = {}  # choice -> its drop, by a part of the samples
        self.shown = 1.0  # of a drop, as a share of it, by so few samples

    def measure(self, kept, limit, final=False) -> Tried:
        if final and set(kept) == set(MACS):
            self.looked += 1
            return Tried(len(kept), 0.0, self.of_fp16, 0.0, passed=self._counted(self.of_fp16) <= limit, reached=self.of_fp16)
        self.asked.append((tuple(kept), final))
        skipped = "?" if final else "!"
        bad = [name for name in self._hostile if name.strip("?!") not in kept and skipped not in name]
        drop = 9.0 * len(bad) or 0.1
        points = 5.0 if set(self.of_scores) - set(kept) else 0.1
        passed = self._counted(drop) <= limit and (points <= limit or SCORES not in self.beyond)
        told = {"best_scores_points": points} if self.of_scores else {}
        enough = self.shown * drop <= limit
        return Tried(len(kept), self.share(kept), drop, self._standard_error, passed=passed, reached=drop, enough=enough, **told)

    def _counted(self, drop: float) -> float:
        return drop if DROPS in self.beyond else self.shown * drop

    def look(self, kept, limit) -> Tried:
        """What was made up to be expected; where nothing was, it is measured."""
        if tuple(kept) not in self.expected:
            return self.measure(kept, limit)
        drop = self.expected[tuple(kept)]
        return Tried(len(kept), self.share(kept), drop, 0.0, passed=drop <= limit, reached=drop, measured=False)

    def change(self, expected):
        raise AssertionError("layer_errors is made up, too")

    def telling(self):
        return []

    def share(self, kept) -> float:
        return sum(macs for name, macs in MACS.items() if name not in kept) / sum(MACS.values())

    def held_out(self, kept) -> dict[str, float]:
        return {"y": 0.25}

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture
def guarded(monkeypatch):
    """Makes (guard, its trials, the nodes that were ranked by what INT8 costs in each, as often as they were).

    It gives layers up in this order, and the rest last.
    """

    def make(order, hostile, effort="default", least=0.1, standard_error=0.0, macs=MACS):
        ranked, order = [], [*order, "rest"]

        def layer_errors(graph, profiles, layers, fit, feeds, measure):
            ranked.extend(order)
            return ((name, (MACS[name] * 4.0**-index) ** 0.5 / 100) for index, name in enumerate(order))

        monkeypatch.setattr(guarding, "layer_errors", layer_errors)
        calibration = SimpleNamespace(effort=EFFORTS[effort])
        job = SimpleNamespace(
            plan=SimpleNamespace(calibration=calibration, min_int8_share=least), data=None, profiles=(), number_format=INT8
        )
        fitted = SimpleNamespace(graph=None, layers=tuple(order), fit=None, split=None)
        trials = MadeUpTrials(hostile, standard_error)
        return Guard(job, fitted, macs, trials, quiet_run()), trials, ranked

    return make


ALL = ["most", "large", "twin", "medium", "tiny"]


def test_where_all_of_it_passes_nothing_is_ranked(guarded):
    guard, trials, ranked = guarded(ALL, set())
    assert guard.choose(LIMIT) == {} and not ranked
    assert trials.asked == [((), False), ((), True)] and trials.forgotten == 1, "the trials, then what will be built"
    assert [rung.passed for rung in guard.tried] == [True, True]


@pytest.mark.parametrize("effort", ["fast", "default"])
def test_the_fewest_layers_that_are_enough_go_back(guarded, effort):
    guard, trials, ranked = guarded(ALL, {"large", "most"}, effort)
    assert guard.choose(LIMIT) == {
        "most": "INT8 here alone changes the outputs by 7.07%",
        "large": "INT8 here alone changes the outputs by 2.29%",
    }
    assert ranked == [*ALL, "rest"] and not guard.tried[0].passed and guard.tried[0].kept == 0
    assert len(guard.tried) == len(trials.asked) and trials.forgotten == 1
    assert (("most", "large"), True) in trials.asked, "what will be built is measured, too"


EVERY = {tuple(ALL[:kept]): 9.0 if kept < 2 else 0.5 for kept in range(1, 6)}  # as measured where "large" is what costs


@pytest.mark.parametrize("wrong", [{}, {("most",): 0.9}, {("most", "large"): 9.0}, {("most", "large"): 1.2}, {("most",): 1.1}])
def test_nothing_is_chosen_that_was_not_measured(guarded, wrong):
    """Whatever a part of the samples lets expect: of choices near the limit either way, it is measured what they lose."""
    guard, trials, _ = guarded(ALL, {"most", "large"}, effort="fast")
    trials.expected = EVERY | wrong
    fallback = list(guard.choose(LIMIT))
    assert fallback == (ALL[:2] if wrong.get(("most", "large")) != 9.0 else ALL[:3]), "far off: two fifths of the work are not worth it"
    assert (tuple(fallback), False) in trials.asked and (tuple(fallback), True) in trials.asked
    assert all(rung.measured for rung in guard.tried), "only that is told"


def test_before_it_is_refused_the_last_choice_is_measured(guarded):
    guard, trials, _ = guarded(ALL, {"rest"})
    trials.expected = {tuple(ALL[:kept]): 9.0 for kept in range(1, 6)}
    with refused(ExitCode.VALIDATION, "INT8 does not reach"):
        guard.choose(LIMIT)
    assert [kept for kept, _ in trials.asked] == [(), tuple(ALL)], "the others are far off"


def test_a_standard_error_is_said_but_neither_added_nor_subtracted(guarded):
    """The final check does neither."""
    guard, _, _ = guarded(ALL, {"rest"}, standard_error=0.95)
    with refused(ExitCode.VALIDATION, "+- 0.95 %"):
        guard.choose(LIMIT)
    guard, _, _ = guarded(ALL, set(), standard_error=0.95)
    assert guard.choose(LIMIT) == {}


def test_where_nothing_passes_all_that_was_tried_is_said(guarded):
    guard, trials, _ = guarded(ALL, {"rest"})
    with refused(ExitCode.VALIDATION, "INT8 does not reach --max-accuracy-drop 1 %. What was tried:\n", hint="--precision fp16"):
        try:
            guard.choose(LIMIT)
        except ConversionError as error:
            lines = error.message.splitlines()[1:]
            raise
    assert len(guard.tried) > 1 and not any(rung.passed for rung in guard.tried) and trials.forgotten == 1
    assert lines == [f"  {rung.mac_share:4.0%} INT8: drop   9.00 +- 0.00 %" for rung in guard.tried]


def test_best_scores_are_held_where_layers_can_be_chosen_for_them(guarded):
    guard, trials, _ = guarded(ALL, set())
    trials.of_scores = ("most",)
    assert list(guard.choose(LIMIT)) == ["most"] and SCORES in trials.beyond
    assert [rung.best_scores_points for rung in guard.tried if rung.passed] == [0.1] * sum(rung.passed for rung in guard.tried)
    guard, trials, _ = guarded(ALL, {"large"})
    trials.of_scores = ("rest",)  # no choice holds them
    assert "large" in guard.choose(LIMIT) and SCORES not in trials.beyond and any(rung.passed for rung in guard.tried)
    assert trials.forgotten == 1


def held_out(count=12, measured=None):
    """As data.holdout.Split."""
    return SimpleNamespace(measured=measured, blind=False, to_measure=lambda: SimpleNamespace(samples=range(count)))


def test_layers_are_chosen_by_errors_as_they_were_measured_however_little_few_samples_show(guarded):
    guard, trials, _ = guarded(ALL, {"large"})
    trials.shown, guard._fitted.split = 0.1, held_out()
    assert "large" in guard.choose(LIMIT) and guard.held_out == {"y": 0.25}
    assert guard.tried[0].enough and not guard.tried[0].passed


@pytest.mark.parametrize("hostile", ["rest", "rest?", "rest!"])
def test_where_no_choice_comes_so_near_the_one_with_the_fewest_int8_layers_is_taken(guarded, hostile):
    """The engine would agree on its calibration data with all layers in INT8, but there are no others to judge it by."""
    guard, trials, _ = guarded(ALL, {hostile})
    trials.shown, guard._fitted.split = 0.1, held_out()
    assert list(guard.choose(LIMIT)) == ALL and guard.held_out == {"y": 0.25}
    (said,) = guard._run.console.warnings
    assert said.startswith("12 samples leave open whether INT8 keeps to --max-accuracy-drop 1 % on other data")
    assert "with 89% of the work in INT8" in said and "a drop of 9.00 % was measured" in said


def test_a_drop_that_is_shown_is_refused_and_it_is_said_on_what_it_was_measured(guarded):
    guard, trials, _ = guarded(ALL, {"rest"})
    guard._fitted.split = held_out()
    hint = "measured on 12 calibration samples, each with scales and weights made without it; where so few cannot tell, more do"
    with refused(ExitCode.VALIDATION, "INT8 does not reach --max-accuracy-drop 1 %", hint=hint):
        guard.choose(LIMIT)
    assert guard.held_out == {} and not guard._run.console.warnings


@pytest.mark.parametrize("of_fp16, other_data", [(2.0, None), (0.1, "validation")])
def test_what_few_samples_do_not_show_is_not_held_against_int8_where_something_else_tells(guarded, of_fp16, other_data):
    """FP16 alone seems to be as far off, or other data judge in the end."""
    guard, trials, _ = guarded(ALL, {"rest?"})
    trials.shown, trials.of_fp16, guard._fitted.split = 0.1, of_fp16, held_out(measured=other_data)
    assert guard.choose(LIMIT) == {} and trials.beyond == {SCORES}


def test_no_more_falls_back_than_the_share_allows(guarded):
    guard, trials, _ = guarded(ALL, {"rest"}, least=0.92)
    with refused(ExitCode.VALIDATION, "INT8 does not reach"):
        guard.choose(LIMIT)
    assert min(trials.share(kept) for kept, _ in trials.asked) == pytest.approx(0.929), "most and large"


def test_the_best_that_was_tried_can_be_had_all_the_same(guarded):
    guard, _, _ = guarded(ALL, {"rest"})
    assert list(guard.choose(LIMIT, or_best=True)) == ALL[: max(rung.kept for rung in guard.tried)] != []


def test_a_smaller_limit_is_chosen_for_without_ranking_again(guarded):
    guard, _, ranked = guarded(ALL, {"most"})
    assert list(guard.choose(LIMIT)) == ["most"] and guard.reached({"most": ""}, LIMIT) == 0.1 and guard.reached({}, LIMIT) == 9.0
    with pytest.raises(ConversionError):
        guard.choose(0.05)
    assert ranked == [*ALL, "rest"]


def test_what_is_reached_is_that_of_the_final_fit(guarded):
    guard, trials, _ = guarded(ALL, {"large?", "most!"}, standard_error=0.25)
    assert guard.reached({"most": "why"}, LIMIT) == 0.1 and guard.reached({}, LIMIT) == 9.0
    assert trials.asked == [(("most",), True), ((), True)]


# ---- one fit can be unlucky


def test_more_goes_back_while_the_final_fit_does_not_pass(guarded):
    guard, trials, _ = guarded(ALL, {"most", "medium!"}, effort="fast")
    assert list(guard.choose(LIMIT)) == ALL[:4]
    finals = [kept for kept, final in trials.asked if final]
    assert finals == [("most",), ("most", "large"), ("most", "large", "twin", "medium")], "2 % of the work, then 4 %"


def test_each_step_down_is_worth_its_measurement(guarded):
    guard, trials, _ = guarded(["most", "tiny", "medium", "large", "twin"], {"most", "medium!"}, effort="fast")
    assert list(guard.choose(LIMIT)) == ["most", "tiny", "medium"]
    assert [len(kept) for kept, final in trials.asked if final] == [1, 3], "one small layer more would hardly change a thing"


def test_layers_are_ranked_where_the_trials_pass_at_once_and_the_final_fit_does_not(guarded):
    guard, trials, ranked = guarded(ALL, {"large!"}, effort="fast")
    assert list(guard.choose(LIMIT)) == ["most", "large", "twin"] and ranked == [*ALL, "rest"]
    assert trials.asked == [((), False), ((), True), (("most",), True), (("most", "large", "twin"), True)]
    assert [rung.passed for rung in guard.tried] == [True, False, False, True]


def test_fp16_is_looked_at_once_where_the_final_fit_does_not_pass(guarded):
    guard, trials, _ = guarded(ALL, {"large!"}, effort="fast")
    trials.of_fp16 = 0.6
    with pytest.raises(Fp16Inaccurate):
        guard.choose(LIMIT)
    assert list(guard.choose(LIMIT)) == ["most", "large", "twin"] and trials.looked == 1, "what could be done about it was done"
    for hostile, of_fp16, looked in (({"large!"}, 0.4, 1), ({"large"}, 0.6, 0)):
        guard, trials, _ = guarded(ALL, hostile, effort="fast")
        trials.of_fp16 = of_fp16
        assert "large" in guard.choose(LIMIT) and trials.looked == looked


def test_where_no_final_fit_passes_the_ladder_is_climbed_to_its_end(guarded):
    guard, trials, _ = guarded(ALL, {"rest!"}, least=0.88)
    with refused(ExitCode.VALIDATION, "INT8 does not reach --max-accuracy-drop 1 %"):
        guard.choose(LIMIT)
    assert [len(kept) for kept, final in trials.asked if final] == [0, 1, 3, 5], "no more than 12 % of the work may go back"
    assert list(guard.choose(LIMIT, or_best=True)) == ALL


def test_it_ends_where_the_share_would_be_too_small(guarded):
    guard, trials, _ = guarded(ALL, {"most", "medium!"}, effort="fast", least=0.92)
    with refused(ExitCode.VALIDATION, "INT8 does not reach"):
        guard.choose(LIMIT)
    assert [kept for kept, final in trials.asked if final] == [("most",), ("most", "large")]


# ---- layers that fell back are tried in INT8 once more


@pytest.mark.parametrize(
    "effort, order, hostile, left",
    [
        ("default", ["large", "twin", "medium", "tiny", "most"], {"most"}, ["tiny", "most"]),
        ("default", ["most", "large", "medium", "tiny", "twin"], {"most", "twin"}, ["most", "tiny", "twin"]),
        ("default", ["most", "twin", "medium", "tiny", "large"], {"large?"}, ["tiny", "large"]),
        ("default", ["most", "large", "twin", "tiny", "medium"], {"most", "large", "twin", "medium"}, None),
        ("best", ["most", "large", "twin", "tiny", "medium"], {"medium"}, ["tiny", "medium"]),
        ("best", ALL, {"medium"}, ["medium"]),
        ("fast", ["large", "twin", "medium", "tiny", "most"], {"most"}, None),
    ],
)
def test_layers_are_taken_back_where_both_measurements_pass(guarded, effort, order, hostile, left):
    """`left` None: all of them; a layer of next to no work is not tried."""
    guard, trials, _ = guarded(order, hostile, effort)
    fallback = guard.choose(LIMIT)
    assert list(fallback) == (order if left is None else left)
    assert len(guard.tried) == len(trials.asked)
    last = [kept for kept, _ in trials.asked if list(kept) == list(fallback)]
    assert len(last) >= 2, "what is chosen was measured both ways"


def test_of_equal_work_the_last_that_fell_back_comes_first(guarded):
    guard, trials, _ = guarded(["large", "twin", "most"], {"most"})
    assert list(guard.choose(LIMIT)) == ["most"]
    finals = [kept for kept, final in trials.asked if final]
    assert finals == [("large", "twin", "most"), ("large", "twin"), ("large", "most"), ("most",)]


def test_second_looks_are_counted(guarded, monkeypatch):
    monkeypatch.setitem(EFFORTS, "default", replace(EFFORTS["default"], second_looks=2))
    guard, _, _ = guarded(["large", "twin", "medium", "tiny", "most"], {"medium", "most"})
    assert list(guard.choose(LIMIT)) == ["large", "twin", "medium", "tiny", "most"], "most and medium in vain, and that was enough"


def test_a_layer_of_unknown_work_is_ranked_like_any_other(guarded):
    """Nobody can infer the shapes of every network, so a layer may have no count."""
    known = {name: macs for name, macs in MACS.items() if name != "large"}
    guard, _, ranked = guarded(ALL, {"large"}, macs=known)
    assert "large" in guard.choose(LIMIT) and "large" in ranked


def test_where_no_work_is_known_at_all_the_limit_is_what_fails(guarded):
    guard, _, ranked = guarded(ALL, {"large"}, macs={})
    with refused(ExitCode.VALIDATION, "INT8 does not reach --max-accuracy-drop"):
        guard.choose(LIMIT)
    assert ranked
