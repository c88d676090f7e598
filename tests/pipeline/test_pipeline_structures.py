"""pipeline/structures.py: INT8 in the structure that is fastest; engines, GPU and times are made up, what is built of them is real."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import network, quiet_run
from made_engines import ENGINE, Chosen, attempt, int8_job, latency
from models import node, random

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode
from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.pipeline import structures
from onnx2trt.pipeline.engine import Made
from onnx2trt.pipeline.structures import Int8Engines, build_int8, build_with_own_weights, give_slow_layers_back
from onnx2trt.plan.structures import ATTENTION, BOUND, FREE, QDQ
from onnx2trt.report.console import Console
from onnx2trt.report.result import Precision, Result
from onnx2trt.stages.faithful import Faithful
from onnx2trt.stages.fp16_baseline import Baseline
from onnx2trt.trt.inspector import EngineLayer

NAMES = [FREE.name, QDQ.name, BOUND.name]
WITHOUT = {"conv": "slower in INT8 here"}


class Gpu:
    """Builds whatever it is given, and says how fast it is: milliseconds, or an error, by structure."""

    def __init__(self, found: dict):
        self.found, self.built, self.decibels = dict(found), [], {}

    def build_and_check(self, job, choice, prepared, result, run):
        name = prepared.structure.name + " without" * bool(prepared.without)
        assert job.plan.calibrator is prepared.structure.calibrator, "the job builds what was prepared"
        self.built.append(name)
        outcome = self.found[name]
        outcome = outcome.pop(0) if isinstance(outcome, list) else outcome
        if isinstance(outcome, ConversionError):
            raise outcome
        ms, short = outcome if isinstance(outcome, tuple) else (outcome, "")
        result.take(status="validated", latency=latency(ms), precision=Precision("int8", "int8", int8_mac_share=1.0))
        if name in self.decibels:
            result.take(accuracy=[Accuracy("gpu", "images", "y", "noise", 0.1, None, self.decibels[name], 0.5, 0, 8, None, None, False)])
        return Made(job, choice, prepared, ENGINE, {}, Faithful(5.0 if short else 0.1, short))


def missed(drop: float) -> AccuracyError:
    return AccuracyError(f"the outputs differ by {drop} %", hint="", drop_percent=drop)


def refused(code=ExitCode.VALIDATION) -> ConversionError:
    return ConversionError("int8 was asked for, but the engine is fp16", code=code)


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """gpu(found, flags): (job, Gpu); nothing is remembered from one test to another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(structures.baseline, "remember", lambda job, row, timed, run: None)

    def make(found, *flags, job=None):
        job = job or int8_job(tmp_path, monkeypatch, "--timing-cache", "t.cache", *flags)
        made = Gpu(found)
        monkeypatch.setattr(structures, "build_and_check", made.build_and_check)
        monkeypatch.setattr(structures, "choose", lambda job, run: (job, Chosen(job)))
        monkeypatch.setattr(structures, "time_in_turn", lambda job, attempts, fp16, run: None)
        monkeypatch.setattr(structures, "_timed_layers", lambda job, made, run: ((), {}))
        monkeypatch.setattr(structures, "slower_in_int8", lambda *args: WITHOUT)
        return replace(job, inputs={"model": "m", "data": {}, "versions": {}}), made

    return make


def built(job, common=None):
    return build_int8(job, common or Result(plan={"max_accuracy_drop": 1.0}), quiet_run_that_writes())


@pytest.mark.parametrize("fastest", NAMES)
def test_the_fastest_of_all_structures_is_chosen(gpu, fastest):
    job, made = gpu({name: 1.0 if name == fastest else 2.0 for name in NAMES}, "--quantization-effort", "best")
    found = built(job)
    assert made.built == NAMES and found.chosen.structure == fastest and found.builds == 4
    assert found.chosen.result.plan["quantization"] == ("qdq" if fastest == QDQ.name else "calibrator")
    assert [(row.structure, row.p50_ms) for row in found.rows()] == [(name, 1.0 if name == fastest else 2.0) for name in NAMES]


@pytest.mark.parametrize("free, expected", [(3.0, NAMES[:2]), ((1.0, "wrong"), NAMES), (refused(), NAMES), (missed(2.0), NAMES)])
def test_layers_are_bound_only_where_the_choice_of_tensorrt_is_no_use(gpu, free, expected):
    job, made = gpu({FREE.name: free, QDQ.name: 2.0, BOUND.name: 1.0})
    found = built(job)
    assert made.built == expected and found.chosen.structure == expected[-1] and found.builds == 4 - len(expected)


def test_each_says_its_figures_as_soon_as_they_are_known(gpu, monkeypatch):
    said = []
    monkeypatch.setattr(Console, "info", lambda self, text: said.append(text))
    job, _ = gpu({name: float(ms) for ms, name in enumerate(NAMES, start=1)}, "--quantization-effort", "best")
    built(job)
    assert [text for text in said if "p50" in text] == [f"{name}: p50 {ms:.3f} ms, 100.0% INT8" for ms, name in enumerate(NAMES, start=1)]


@pytest.mark.parametrize("attention, ms", [(True, 0.5), (True, 4.0), (False, 0.5)])
def test_attention_in_int8_is_a_structure_of_its_own_where_there_is_any(gpu, monkeypatch, attention, ms):
    monkeypatch.setattr(Chosen, "has_attention", attention)
    job, made = gpu({FREE.name: 3.0, QDQ.name: 2.0, ATTENTION.name: ms, BOUND.name: 3.0})
    found = built(job)
    assert made.built == ([FREE.name, QDQ.name, ATTENTION.name] if attention else [FREE.name, QDQ.name])
    assert found.chosen.structure == (ATTENTION.name if attention and ms < 2 else QDQ.name)
    assert found.chosen.result.plan["quantization"] == "qdq" and found.builds == 2, "two builds are still left for slow layers"


@pytest.mark.parametrize(
    "found, flags, expected",
    [
        ({}, (), [QDQ, ATTENTION]),
        ({QDQ: refused()}, (), [QDQ, ATTENTION]),
        ({QDQ: refused(), ATTENTION: refused()}, (), [QDQ, ATTENTION, FREE]),
        ({QDQ: refused(), ATTENTION: refused(), FREE: refused()}, (), [QDQ, ATTENTION, FREE, BOUND]),
        ({}, ("--quantization-effort", "best"), [FREE, QDQ, ATTENTION, BOUND]),
        ({}, ("--quantization", "calibrator"), [FREE]),
        ({FREE: refused()}, ("--quantization", "calibrator"), [FREE, BOUND]),
    ],
)
def test_of_a_transformer_what_never_helps_is_built_only_where_nothing_else_passes(gpu, monkeypatch, found, flags, expected):
    monkeypatch.setattr(Chosen, "has_attention", True)
    monkeypatch.setattr(Chosen, "is_transformer", True)
    job, made = gpu({one.name: found.get(one, 1.0) for one in (FREE, QDQ, ATTENTION, BOUND)}, *flags)
    built(job)
    assert made.built == [one.name for one in expected]


def test_an_engine_that_computes_something_else_is_not_used(gpu):
    job, _ = gpu({FREE.name: 2.0, QDQ.name: (1.0, "output 'y' has 8.1 dB"), BOUND.name: 3.0})
    found = built(job)
    assert found.chosen.structure == FREE.name
    rows = {row.structure: row for row in found.rows()}
    assert rows[QDQ.name].falls_short == "output 'y' has 8.1 dB" and rows[QDQ.name].off_simulation_db == 5.0
    assert rows[FREE.name].falls_short is None and rows[FREE.name].off_simulation_db == 0.1
    job, _ = gpu(dict.fromkeys(NAMES, (1.0, "wrong")), "--max-accuracy-drop", "2")
    assert built(job).chosen.made.faithful.falls_short == "wrong", "where there is no other, it is; the pipeline warns"


def test_what_one_structure_cannot_another_may(gpu):
    job, made = gpu({FREE.name: refused(), QDQ.name: refused(ExitCode.BUILD), BOUND.name: 3.0})
    found = built(job)
    assert made.built == NAMES and found.chosen.structure == BOUND.name
    assert [row.status for row in found.rows()] == ["failed", "failed", "validated"]
    job, made = gpu({FREE.name: refused(ExitCode.MACHINE)}, "--max-accuracy-drop", "2")
    assert built(job).chosen.error.code is ExitCode.MACHINE and made.built == NAMES[:1], "no structure mends a machine"


def test_fewer_layers_are_tried_only_where_no_structure_meets_the_limit(gpu, monkeypatch):
    lowered = []

    def lower(self, error, run):
        lowered.append((self.structure.name, error.drop_percent))
        return self.prepared(run)

    monkeypatch.setattr(Chosen, "lower", lower, raising=False)
    job, made = gpu({FREE.name: missed(9.0), QDQ.name: [missed(3.0), 1.0], BOUND.name: missed(5.0)})
    found = built(job)
    assert lowered == [(QDQ.name, 3.0)] and found.chosen.structure == QDQ.name and found.chosen.made and found.builds == 0
    job, made = gpu({FREE.name: missed(9.0), QDQ.name: 2.0, BOUND.name: missed(5.0)}, "--max-accuracy-drop", "2")
    assert built(job).chosen.structure == QDQ.name and len(lowered) == 1


@pytest.mark.parametrize(
    "effort, structures_of, most, tried",
    [("default", NAMES[:2], 4, [QDQ.name]), ("best", NAMES, 6, [QDQ.name, BOUND.name])],
)
def test_slow_layers_go_back_from_the_fastest_as_long_as_builds_are_left(gpu, effort, structures_of, most, tried):
    """Not where TensorRT itself has taken FP16 for what is slow."""
    times = {FREE.name: 0.9, QDQ.name: 1.0, BOUND.name: 3.0}
    job, made = gpu({**times, **{f"{name} without": ms - 0.5 for name, ms in times.items()}}, "--quantization-effort", effort)
    found = built(job)
    fp16 = Baseline(attempt(job, "fp16").row(), ((), {}), "2026-01-01")
    give_slow_layers_back(job, found, fp16, quiet_run())
    assert made.built == [*structures_of, *(f"{name} without" for name in tried)] and len(made.built) <= most
    assert (found.chosen.label, found.chosen.p50_ms) == ("Q/DQ, slow layers in FP16", 0.5)


@pytest.mark.parametrize(
    "groups, without, tried, label",
    [
        (2, 1.2, FREE.name, "calibrator, grouped convolutions in FP16"),
        (2, (1.2, "still wrong"), FREE.name, QDQ.name),
        (1, None, QDQ.name, "Q/DQ, slow layers in FP16"),
    ],
)
def test_what_may_be_computed_wrongly_goes_back_from_the_fastest(gpu, monkeypatch, groups, without, tried, label):
    graph = network([node("Conv", "x w", "c", "grouped", group=groups), node("Conv", "c v", "y", "plain")], convs(groups))
    engine = tuple(EngineLayer(name, "CaskConvolution", "int8", "int8", "int8", (name,), "") for name in ("grouped", "plain"))
    job, made = gpu({FREE.name: (1.0, "wrong"), QDQ.name: 2.0, BOUND.name: 3.0, "calibrator without": without, "Q/DQ without": 1.5})
    monkeypatch.setattr(Chosen, "graph", graph)
    monkeypatch.setattr(structures, "_timed_layers", lambda job, made, run: (engine, {}))
    found = built(job)
    assert found.chosen.structure == QDQ.name
    give_slow_layers_back(job, found, Baseline(attempt(job, "fp16").row(), ((), {}), "2026-01-01"), quiet_run())
    assert made.built == [*NAMES, f"{tried} without"] and found.chosen.label == label
    given_back = found.attempts[-1].slow.keys()
    assert given_back == ({"grouped"} if groups > 1 else WITHOUT.keys()), "of the others only those that are slow"


def convs(groups: int) -> dict:
    return {"w": random(4, 4 // groups, 1, 1), "v": random(4, 4, 1, 1, seed=1)}


def test_the_next_run_builds_the_fastest_alone_and_shows_the_others(gpu):
    times = {FREE.name: refused(), QDQ.name: 1.0, BOUND.name: 3.0, "Q/DQ without": 0.5}
    job, made = gpu(times)
    found = built(job)
    give_slow_layers_back(job, found, Baseline(attempt(job, "fp16").row(), ((), {}), "2026-01-01"), quiet_run())
    found.remember(quiet_run_that_writes())
    job, made = gpu(times, job=job)
    again = built(job)
    assert made.built == ["Q/DQ without"] and again.chosen.slow == WITHOUT and again.builds == 0
    assert {row.structure: bool(row.measured_on) for row in again.rows()} == {
        "Q/DQ, slow layers in FP16": False,
        FREE.name: True,
        QDQ.name: True,
        BOUND.name: True,
    }
    job, made = gpu({**times, "Q/DQ without": refused()}, job=job)
    assert built(job).chosen.structure == QDQ.name and made.built == ["Q/DQ without", QDQ.name], "what is not as it was is chosen again"


def test_a_run_that_was_killed_is_taken_up_where_it_ended(gpu, monkeypatch):
    job, made = gpu({FREE.name: 1.0, QDQ.name: 2.0, BOUND.name: KeyboardInterrupt()}, "--quantization-effort", "best")
    monkeypatch.setattr(structures, "build_and_check", interrupted_at(made, BOUND.name))
    with pytest.raises(KeyboardInterrupt):
        built(job)
    job, made = gpu({FREE.name: 1.0, BOUND.name: 3.0}, job=job)
    found = built(job)
    assert found.chosen.structure == FREE.name and made.built == [FREE.name, BOUND.name], "Q/DQ is known to be slower"
    found.remember(quiet_run_that_writes())
    job, made = gpu({FREE.name: 1.0}, job=job)
    assert built(job).builds == 0 and made.built == [FREE.name], "now it is known to the end"


def test_what_a_run_that_was_killed_has_measured_tells_what_need_not_be_built(gpu, monkeypatch):
    job, made = gpu({FREE.name: 2.0, QDQ.name: 1.0})
    built(job)
    job, made = gpu({QDQ.name: 1.0}, job=job)
    assert built(job).chosen.structure == QDQ.name and made.built == [QDQ.name], "bound layers are no use where the free engine was right"


def test_one_engine_without_structures_may_give_its_slow_layers_back(gpu):
    job, made = gpu({"bound calibrator without": 0.5})
    one = attempt(job, "int8")
    one.result.latency, one.made.choice.structure = latency(1.0), BOUND
    found = Int8Engines([one], 1)
    give_slow_layers_back(job, found, Baseline(attempt(job, "fp16").row(), ((), {}), "2026-01-01"), quiet_run())
    assert made.built == ["bound calibrator without"] and found.chosen.p50_ms == 0.5 and found.rows() == []


def interrupted_at(gpu: Gpu, name: str):
    def build(job, choice, prepared, result, run):
        if prepared.structure.name == name:
            raise KeyboardInterrupt
        return gpu.build_and_check(job, choice, prepared, result, run)

    return build


def quiet_run_that_writes():
    """No parent gives the files their names."""
    run = quiet_run()
    run.replace_now = lambda path, data, required: Path(path).write_bytes(data)
    return run


@pytest.fixture
def half_in_fp16(gpu, monkeypatch):
    """half_in_fp16(second engine, its tactic): (job, Gpu, engines) where the fastest computes one of two INT8 layers in FP16."""
    fitted = network([node("Conv", "x w__fitted", "c", "int8"), node("Conv", "c v__fitted", "y", "fp16")], fitted_convs("__fitted"))
    own = network([node("Conv", "x w__fitted", "c", "int8"), node("Conv", "c v", "y", "fp16")], fitted_convs(""))

    def prepared(self, run, more=None):
        graph = own if "fp16" in self.structure.own_weights else fitted
        name = self.structure.name + " with own weights" * bool(self.structure.own_weights)
        return SimpleNamespace(graph=graph, without=more, structure=replace(self.structure, name=name))

    def layers(job, made, run):
        again = bool(made.choice.structure.own_weights)
        tactics = {"int8": "imma", "fp16": made_gpu.tactic if again else "hmma"}
        return tuple(EngineLayer(name, "CaskConvolution", name, name, name, (name,), tactic) for name, tactic in tactics.items())

    made_gpu = SimpleNamespace(tactic="hmma")

    def make(outcome, tactic="hmma"):
        monkeypatch.setattr(Chosen, "prepared", prepared)
        monkeypatch.setattr(structures, "_layers", layers)
        made_gpu.tactic = tactic
        job, made = gpu({FREE.name: 1.0, QDQ.name: 2.0, f"{FREE.name} with own weights": outcome})
        made.decibels = {FREE.name: 40.0, f"{FREE.name} with own weights": 50.0}
        return job, made, built(job)

    return make


def fitted_convs(ending: str) -> dict:
    return {"w__fitted": random(4, 4, 1, 1), f"v{ending}": random(4, 4, 1, 1, seed=1)}


def test_what_is_not_computed_in_int8_gets_its_own_weights_back(half_in_fp16):
    job, made, found = half_in_fp16(1.001)
    build_with_own_weights(job, found, None, quiet_run())
    assert made.built == [FREE.name, QDQ.name, "calibrator with own weights"] and found.builds == 1
    assert found.chosen.structure == FREE.name and found.chosen.own_weights == {"fp16"} and found.chosen.p50_ms == 1.001
    assert [row.structure for row in found.rows()] == [FREE.name, QDQ.name], "it takes the place of the other"
    found.remember(quiet_run_that_writes())
    made.built.clear()
    again = built(job)
    assert made.built == ["calibrator with own weights"] and again.chosen.own_weights == {"fp16"}, "the next run builds it alone"


@pytest.mark.parametrize(
    "outcome, tactic, decibels", [(1.0, "other", 50), (1.0, "hmma", 39), ((1.0, "wrong"), "hmma", 50), (refused(), "hmma", 50)]
)
def test_own_weights_are_kept_only_where_they_are_better_by_the_same_kernels(half_in_fp16, outcome, tactic, decibels):
    job, made, found = half_in_fp16(outcome, tactic)
    first, made.decibels["calibrator with own weights"] = found.chosen, decibels
    build_with_own_weights(job, found, None, quiet_run())
    assert made.built[-1] == "calibrator with own weights" and found.chosen is first and not first.own_weights


def test_own_weights_take_a_build_and_layers_that_are_not_int8(half_in_fp16, monkeypatch):
    job, made, found = half_in_fp16(0.5)
    found.builds = 0
    build_with_own_weights(job, found, None, quiet_run())
    found.builds = 2
    monkeypatch.setattr(
        structures, "_layers", lambda job, made, run: (EngineLayer("all", "Conv", "int8", "int8", "int8", ("int8", "fp16"), ""),)
    )
    build_with_own_weights(job, found, None, quiet_run())
    found.attempts[0].result.latency = latency(3.0)
    build_with_own_weights(job, found, None, quiet_run())
    assert made.built == [FREE.name, QDQ.name] and found.builds == 2 and found.chosen.structure == QDQ.name
