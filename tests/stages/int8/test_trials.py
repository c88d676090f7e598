"""stages/int8/trials.py: what a choice of INT8 layers costs, by the fits that have not seen the samples or by the final one."""

import weakref
from dataclasses import replace

import pytest
from helpers import planned, write_conv_net

from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.conversion import comparing
from onnx2trt.model import session
from onnx2trt.pipeline import int8
from onnx2trt.plan.efforts import EFFORTS
from onnx2trt.quant.sensitivity import DROPS
from onnx2trt.rewrite.shares import macs_of
from onnx2trt.stages.int8 import trials as measuring
from onnx2trt.stages.int8.trials import Trials


@pytest.fixture
def measured(tmp_path, monkeypatch, request):
    """(trials of a network, its layers, how many sessions were made, the graphs that were finished)"""
    monkeypatch.chdir(tmp_path)
    metric, samples = getattr(request, "param", ("noise", 6))
    write_conv_net(tmp_path, samples)
    effort = ("--quantization-effort", "fast", "--no-validate", "--metric", metric)
    job, run = planned("--precision", "int8", "--calibration-dir", "data", *effort, library="rtx")
    fitted = int8.choose(job, run)._fitted
    finished, made, real = [], [], measuring.Session

    class Counted(real):
        @classmethod
        def from_graph(cls, *arguments, **options):
            made.append(arguments)
            return real.from_graph(*arguments, **options)

    def finish(graph):
        finished.append(graph)
        return graph

    for module in (measuring, comparing):
        monkeypatch.setattr(module, "Session", Counted)
    return Trials(job, fitted, macs_of(fitted.graph, job.profiles), finish, run), fitted, made, finished


def test_each_choice_is_measured_once_whatever_the_limit(measured):
    trials, fitted, made, _ = measured
    assert fitted.split.trials == len(fitted.trials) == 5
    first = trials.measure((), 50.0)
    assert len(made) == 5, "each trial on the samples that it has not seen; what the model gives is known from calibration"
    strict = trials.measure((), first.drop_percent / 2)
    trials.forget()
    assert first.passed and not strict.passed and strict.drop_percent == first.drop_percent and len(made) == 5
    assert first.kept == 0 and first.standard_error > 0 and 0 < first.drop_percent < 5


def test_a_large_model_is_measured_as_any_other_but_never_loaded_beside_another(measured, monkeypatch):
    trials, fitted, _, _ = measured
    fitted.exact.forget()  # so that the model itself is loaded, too
    usual = trials.measure((), 50.0)
    monkeypatch.setattr(session, "LARGE", 0)
    large = Trials(trials._job, trials._fitted, trials._macs, trials._finish, trials._run)
    alive, most = weakref.WeakSet(), []

    class Alone(comparing.Session):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)
            most.append(len(alive))

        @classmethod
        def from_graph(cls, *arguments, **options):
            found = super().from_graph(*arguments, **options)
            return cls(found._session, found._keep_alive, found.at_once)

    for module in (measuring, comparing):
        monkeypatch.setattr(module, "Session", Alone)
    assert large.measure((), 50.0) == usual and len(most) == 6 and max(most) == 1


@pytest.mark.parametrize("measured", [("values", 10)], indirect=True)
def test_a_look_takes_one_part_and_no_part_is_computed_twice(measured, monkeypatch):
    trials, fitted, made, _ = measured
    usual = Trials(trials._job, fitted, trials._macs, trials._finish, trials._run).measure(("stem",), 50.0)
    monkeypatch.setattr(session, "AT_ONCE", 1)  # of two threads, one may come late and find its part let go
    first, ran, run = trials.measure((), 50.0), [], session.Session.run
    del made[:]
    monkeypatch.setattr(session.Session, "run", lambda self, feed, *rest: ran.append(feed) or run(self, feed, *rest))
    looked = trials.look(("stem",), 50.0)
    assert (len(made), len(ran), looked.measured, looked.passed) == (1, 2, False, True)
    assert trials.look(("stem",), 50.0) == looked and len(ran) == 2, "seen once"
    assert looked.mac_share == usual.mac_share and 0.5 * usual.reached < looked.reached < first.reached
    assert trials.measure(("stem",), 50.0) == usual and (len(made), len(ran)) == (5, 10), "the other four parts"
    assert trials.look(("stem",), 50.0) == usual and len(ran) == 10, "what was measured is told as it was"


@pytest.mark.parametrize("measured", [("values", 10)], indirect=True)
def test_where_other_data_is_measured_on_a_look_takes_a_fifth_of_it(measured, monkeypatch):
    trials, fitted, made, _ = measured
    split = replace(fitted.split, parts=1, trials=0, measured=fitted.split.fitted)
    usual, own = (Trials(trials._job, replace(fitted, split=split, trials=()), trials._macs, trials._finish, trials._run) for _ in range(2))
    own.measure((), 50.0)
    ran, run = [], session.Session.run
    monkeypatch.setattr(session.Session, "run", lambda self, feed, *rest: ran.append(feed) or run(self, feed, *rest))
    assert not own.look(("stem",), 50.0).measured and len(ran) == 2
    assert own.measure(("stem",), 50.0) == usual.measure(("stem",), 50.0) and len(ran) == 2 + 8 + 10


@pytest.mark.parametrize("measured", [("values", 10)], indirect=True)
def test_what_a_look_finds_far_off_takes_no_memory(measured):
    trials, *_ = measured
    trials.measure((), 50.0)
    assert not trials.look(("stem",), 1e-6).passed and not trials._looked["stem",].outputs._known


def test_where_a_part_of_the_samples_cannot_tell_all_are_measured(measured):
    """Here the user has asked for another metric than the size of errors in what varies."""
    trials, _, made, _ = measured
    assert trials.look((), 50.0).measured and trials.look(("stem",), 50.0).measured and len(made) == 10
    assert trials.look(("stem",), 50.0) == trials.measure(("stem",), 50.0) and len(made) == 10


@pytest.mark.parametrize("measured", [("values", 10)], indirect=True)
def test_where_errors_count_by_what_is_shown_of_them_nothing_is_expected(measured):
    trials, *_ = measured
    trials.measure((), 50.0)
    trials.beyond.remove(DROPS)
    assert trials.look(("stem",), 50.0).measured


def test_the_more_layers_the_fewer_samples_rank_them(measured):
    """Each layer costs half a pass of its samples; `best` asks for as many as ever."""
    trials, fitted, _, _ = measured
    trials.measure((), 50.0)
    samples = len(fitted.split.to_measure().samples)

    def ranked_on(effort, layers):
        plan = replace(trials._job.plan, calibration=replace(trials._job.plan.calibration, effort=EFFORTS[effort]))
        trials._job = replace(trials._job, plan=plan)
        trials._fitted = replace(fitted, layers=fitted.layers[:1] * layers)
        return len(trials.telling())

    assert [ranked_on("default", layers) for layers in (1, 2 * samples, 4 * samples, 8 * samples, 1000)] == [6, 6, 4, 2, 2]
    assert ranked_on("fast", 1) == 4 and ranked_on("best", 1000) == min(samples, 20)


def test_what_will_be_built_is_finished_and_measured_by_itself(measured):
    trials, _, made, finished = measured
    average = trials.measure((), 50.0)
    assert not finished
    final = trials.measure((), 50.0, final=True)
    assert len(made) == 6 and len(finished) == 1 and final.drop_percent != average.drop_percent


def test_it_passes_by_the_rule_of_the_final_check(measured):
    """No standard error is added here that the final check would not add."""
    trials, *_ = measured
    found = trials.measure((), 50.0)
    assert trials.measure((), found.drop_percent + 0.1 * found.standard_error).passed
    assert not trials.measure((), found.drop_percent - 0.1 * found.standard_error).passed
    assert found.reached == pytest.approx(found.drop_percent, abs=1e-5)


def test_errors_count_as_measured_where_few_samples_show_little_of_them(measured):
    """Until no choice of layers is left that passes so; what was held out is told as it was measured, too."""
    trials, *_ = measured
    noisy = Accuracy("simulated", "data", "y", "values", 2.0, None, 17.0, 0.1, 0, 6, None, None, False, "values", shown_percent=0.7)
    stepped = replace(noisy, steps=6, drop_percent=0.1, shown_percent=0.1)
    trials._measured[(), False] = (noisy, stepped)
    found = trials.measure((), 1.0)
    assert not found.passed and found.enough and found.reached == found.drop_percent == 2.0
    trials.beyond.remove(DROPS)
    found = trials.measure((), 1.0)
    assert found.passed and found.reached == 0.7 and trials.held_out(()) == {"y": 2.0}
    trials._fitted = replace(trials._fitted, split=replace(trials._fitted.split, measured=trials._fitted.split.fitted))
    assert trials.held_out(()) == {}, "nothing is held out"


def test_layers_in_fp16_cost_nothing_and_do_no_int8_work(measured):
    """Stem and head do 432 and 64 of 640 multiply-accumulates for each pixel; the depthwise layer is no INT8 layer."""
    trials, fitted, *_ = measured
    assert [layer.node for layer in fitted.layers] == ["stem", "head"]
    assert trials.share(()) == pytest.approx(496 / 640) and trials.share(("stem",)) == pytest.approx(64 / 640)
    every, without, nothing = (trials.measure(kept, 50.0) for kept in ((), ("stem",), ("stem", "head")))
    assert every.drop_percent > without.drop_percent > nothing.drop_percent == 0
    assert (without.kept, without.mac_share) == (1, 0.1)
