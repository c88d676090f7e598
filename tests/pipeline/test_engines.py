"""pipeline/engines.py: several engines of one model, by --compare and --precision best, and timed against each other."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from command import onnx2trt
from helpers import quiet_run
from made_engines import ENGINE, attempt, does_not_fit, does_not_fit_beside_another, int8_job, latency, made_of
from models import conv_net, model, node, random

from onnx2trt.pipeline import attempt as attempts_of
from onnx2trt.pipeline import engines, structures
from onnx2trt.pipeline.attempt import Attempt
from onnx2trt.pipeline.structures import Int8Engines
from onnx2trt.report.result import Precision, Result
from onnx2trt.stages.faithful import Faithful

# ---- by the command line, without a GPU


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    onnx.save(conv_net(), tmp_path / "net.onnx")
    (tmp_path / "data").mkdir()
    for index in range(8):
        np.save(tmp_path / "data" / f"{index}.npy", random(1, 3, 16, 16, seed=index))
    np.save(tmp_path / "test.npy", random(1, 3, 16, 16, seed=99))
    return tmp_path


def rows_of(result):
    return {row["precision"]: row for row in result["variants"]}


def test_three_precisions_side_by_side(folder):
    flags = ("--compare", "--calibration-dir", "data", "--test-image", "test.npy", "--max-accuracy-drop", "20")
    done = onnx2trt(folder, "--onnx", "net.onnx", *flags, "--json", "r.json")
    assert done.code == 0, done.stderr
    result = done.json("r.json")
    rows = rows_of(result)
    assert set(rows) == {"fp32", "fp16", "bf16", "int8"} and all(row["delivered"] == name for name, row in rows.items())
    assert rows["fp32"]["status"] == "not_validated" and rows["fp32"]["sqnr_db"] is None, "it would be compared with itself"
    assert rows["fp16"]["status"] == rows["int8"]["status"] == "simulated"
    assert rows["fp16"]["sqnr_db"] > rows["int8"]["sqnr_db"] > 10
    assert all(row["engine_bytes"] > 0 and row["p50_ms"] is None and row["error"] is None for row in rows.values())
    assert result["precision"]["delivered"] == "fp16" and result["engine"]["bytes"] == rows["fp16"]["engine_bytes"]
    assert (folder / "net.engine").stat().st_size == rows["fp16"]["engine_bytes"], "the precision asked for is what is written"
    assert result["calibration"] is None, "of another engine"
    assert json.loads((folder / "net.engine.json").read_text())["variants"] == result["variants"]
    assert "no latencies: the engines were not executed here" in done.stdout
    table = done.stdout.partition("moved through memory")[0]
    shown = [line.split()[0] for line in table.splitlines() if line.startswith(tuple(rows))]
    assert shown == ["fp32", "bf16", "fp16", "int8"]


def test_what_cannot_be_built_is_a_line_with_the_reason(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--compare", "--test-image", "test.npy", "--json", "r.json")
    assert done.code == 0, done.stderr
    rows = rows_of(done.json("r.json"))
    assert rows["int8"]["status"] == "failed" and "needs calibration data" in rows["int8"]["error"] and rows["int8"]["engine_bytes"] is None
    assert (
        rows["fp32"]["status"] == "not_validated"
        and rows["fp16"]["status"] == "simulated"
        and "needs calibration data" in " ".join(done.stdout.split())
    )


def test_the_precision_asked_for_decides_and_the_others_are_shown_all_the_same(folder):
    flags = ("--compare", "--precision", "int8", "--calibration-dir", "data", "--test-image", "test.npy", "--max-accuracy-drop", "0.0001")
    done = onnx2trt(folder, "--onnx", "net.onnx", *flags, "--metric", "noise", "--json", "r.json")
    assert done.code == 7 and "does not reach" in done.error and not (folder / "net.engine").exists()
    rows = rows_of(done.json("r.json"))
    assert rows["int8"]["status"] == "failed" and rows["fp16"]["status"] == "simulated"


def test_what_is_wrong_with_the_data_is_not_compared(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--compare", "--precision", "int8", "--json", "r.json")
    assert done.code == 5 and "needs calibration data" in done.error and "fp32: building" not in done.stderr


def test_a_model_that_carries_fp16_has_an_fp32_engine(folder):
    half = onnx.TensorProto.FLOAT16
    source = model([node("Relu", "x", "y")], {"x": (half, [1, 8])}, {"y": (half, [1, 8])})
    onnx.save(source, folder / "half.onnx")
    done = onnx2trt(folder, "--onnx", "half.onnx", "--compare", "--json", "r.json")
    assert done.code == 0, done.stderr
    rows = rows_of(done.json("r.json"))
    assert [(rows[name]["delivered"], rows[name]["error"]) for name in ("fp32", "fp16")] == [("fp32", None), ("fp16", None)]


# ---- timed against each other; engines, GPU and times are made up

ONE_BY_ONE = {"int8": 1.0, "fp16": 2.0}  # milliseconds


@pytest.fixture
def job(tmp_path, monkeypatch):
    return int8_job(tmp_path, monkeypatch)


@pytest.fixture
def make_all(job, monkeypatch):
    """make_all(): (engine, result, run), where both engines were built, checked and timed one by one; and what would be remembered."""
    remembered = []

    def checked(job, result, run):
        precision = job.plan.precision
        result.take(status="validated", latency=latency(ONE_BY_ONE[precision]), precision=Precision(precision, precision))
        return made_of(job, precision)

    def int8_engines(job, common, run):
        attempt = Attempt("int8", common.variant(), run.labelled("int8"), structure="calibrator")
        attempt.made = checked(job, attempt.result, attempt.run)
        return Int8Engines([attempt], 1, attempt.run)

    monkeypatch.setattr(engines, "make_engine", checked)
    monkeypatch.setattr(engines, "build_int8", int8_engines)
    monkeypatch.setattr(engines.baseline, "recall", lambda job, run: None)
    monkeypatch.setattr(structures.baseline, "remember", lambda job, row, timed, run: remembered.append(row))
    monkeypatch.setattr(structures.structure_times, "remember", lambda job, measured, run: None)

    def make():
        result, run = Result(plan={"max_accuracy_drop": 1.0}), quiet_run()
        return engines.make_all(job, result, run), result, run

    make.remembered = remembered
    return make


def is_delivered(engine, result) -> bool:
    """The INT8 engine that was asked for, as it was checked; the pipeline writes it and ends with 0."""
    return engine.built is ENGINE and engine.job.plan.precision == "int8" and result.status == "validated" and result.error is None


def test_engines_that_do_not_fit_into_the_gpu_together_are_delivered_all_the_same(make_all, monkeypatch):
    monkeypatch.setattr(attempts_of, "loaded_engine", does_not_fit_beside_another())
    monkeypatch.setattr(engines, "give_slow_layers_back", lambda *args: None)
    engine, result, run = make_all()
    assert is_delivered(engine, result)
    (warning,) = run.console.warnings
    assert "the engines were not timed in turn, so their latencies are less comparable" in warning and "8.0 GB are free" in warning
    assert (result.latency.p50_ms, result.latency.fp16_p50_ms) == (1.0, 2.0), "as they were measured one by one"
    assert {row.precision: row.p50_ms for row in result.variants} == ONE_BY_ONE


def test_an_engine_whose_layers_cannot_be_timed_is_delivered_all_the_same(make_all, monkeypatch):
    monkeypatch.setattr(attempts_of, "_time", lambda *args: None)
    monkeypatch.setattr(attempts_of, "loaded_engine", does_not_fit)
    engine, result, run = make_all()
    assert is_delivered(engine, result) and result.latency.p50_ms == 1.0
    (warning,) = run.console.warnings
    assert "the layers were not timed, so none goes back to FP16 for being slow" in warning and "8.0 GB are free" in warning
    assert not make_all.remembered, "what was not measured is not remembered"


@pytest.mark.parametrize("error", [RuntimeError("CUDA error 700: an illegal memory access"), MemoryError()], ids=repr)
def test_whatever_goes_wrong_while_engines_are_timed_the_one_asked_for_is_delivered(make_all, monkeypatch, error):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(attempts_of, "loaded_engine", broken)
    engine, result, run = make_all()
    assert is_delivered(engine, result) and len(run.console.warnings) == 2
    assert all(type(error).__name__ in warning for warning in run.console.warnings)


def test_the_fastest_is_one_that_could_be_timed(job):
    attempts = {"fp16": attempt(job, "fp16"), "int8": attempt(job, "int8")}
    for one in attempts.values():
        one.result.latency = None
    assert engines._fastest(attempts) is attempts["fp16"], "where none could, the first"
    attempts["int8"].result.latency = latency(99.0)
    assert engines._fastest(attempts) is attempts["int8"]


def test_where_nothing_can_be_loaded_once_more_both_are_said(make_all, monkeypatch):
    monkeypatch.setattr(attempts_of, "loaded_engine", does_not_fit)
    engine, result, run = make_all()
    assert is_delivered(engine, result) and len(run.console.warnings) == 2


def test_without_the_slow_layers_it_has_to_be_built_and_pass_or_the_first_stays(make_all, monkeypatch):
    monkeypatch.setattr(attempts_of, "_time", lambda *args: None)
    monkeypatch.setattr(structures, "_timed_layers", lambda job, made, run: ((), {}))
    monkeypatch.setattr(structures, "slower_in_int8", lambda *args: {"conv": "slower"})
    monkeypatch.setattr(structures, "build_and_check", does_not_fit)
    engine, result, run = make_all()
    assert is_delivered(engine, result) and result.latency.p50_ms == 1.0 and not run.console.warnings
    assert [row.precision for row in make_all.remembered] == ["fp16"]


def test_an_engine_that_may_compute_wrong_numbers_is_delivered_with_a_warning_where_there_is_no_other(make_all, monkeypatch):
    monkeypatch.setattr(attempts_of, "_time", lambda *args: None)
    monkeypatch.setattr(engines, "give_slow_layers_back", lambda *args: None)
    build = engines.build_int8

    def short(*args):
        found = build(*args)
        found.attempts[0].made = replace(found.attempts[0].made, faithful=Faithful(8.0, "output 'y' has 8.1 dB"))
        return found

    monkeypatch.setattr(engines, "build_int8", short)
    engine, result, run = make_all()
    assert is_delivered(engine, result) and "TensorRT may compute wrong numbers here: output 'y' has 8.1 dB" in run.console.warnings


def test_an_engine_that_is_built_alone_is_warned_of_too(job, monkeypatch):
    made = replace(made_of(job, "int8"), faithful=Faithful(8.0, "output 'y' has 8.1 dB"))
    monkeypatch.setattr(engines, "make_engine", lambda job, result, run: made)
    run = quiet_run()
    assert engines.make_all(replace(job, plan=replace(job.plan, variants=("int8",))), Result(plan={}), run) is made
    assert run.console.warnings == ["TensorRT may compute wrong numbers here: output 'y' has 8.1 dB"]


def test_fp8_layers_that_fp16_computes_faster_go_back_too(job, monkeypatch):
    """FP8 has one structure; the engine without its slow layers is built from the same choice, and the faster of the two delivered."""
    times, built = {"fp8": 1.0, "fp16": 2.0}, []

    def checked(job, result, run):
        precision = job.plan.precision
        result.take(status="validated", latency=latency(times[precision]), precision=Precision(precision, precision))
        return made_of(job, precision)

    def again(job, choice, prepared, result, run):
        built.append((job.plan.precision, prepared.without))
        result.take(status="validated", latency=latency(0.5), precision=Precision("fp8", "fp8"))
        return replace(made_of(job, "fp8"), prepared=prepared)

    monkeypatch.setattr(engines, "make_engine", checked)
    monkeypatch.setattr(engines.baseline, "recall", lambda job, run: None)
    monkeypatch.setattr(structures.baseline, "remember", lambda job, row, timed, run: None)
    monkeypatch.setattr(attempts_of, "_time", lambda *args: None)
    monkeypatch.setattr(structures, "_timed_layers", lambda job, made, run: ((), {}))
    monkeypatch.setattr(structures, "slower_in_int8", lambda *args: {"attention": "slower here"})
    monkeypatch.setattr(structures, "build_and_check", again)
    plan = replace(job.plan, precision="fp8", variants=("fp8", "fp16"))
    result = Result(plan={"max_accuracy_drop": 1.0})
    engine = engines.make_all(replace(job, plan=plan), result, quiet_run())
    assert built == [("fp8", {"attention": "slower here"})] and engine.job.plan.precision == "fp8"
    assert result.latency.p50_ms == 0.5 and result.latency.fp16_p50_ms == 2.0
    assert [(row.precision, row.p50_ms) for row in result.variants] == [("fp8", 0.5), ("fp16", 2.0)]


def test_what_is_best_is_decided_in_one_turn_of_all(job, monkeypatch):
    """Layers that went back were timed later than BF16 was, and the GPU may have had other work by then."""
    turns = iter([{"fp16": 2.0, "bf16": 1.5, "calibrator": 1.0}, {"fp16": 1.0, "bf16": 1.5, "int8": 1.2}])

    def checked(job, result, run):
        precision = job.plan.precision
        result.take(status="validated", latency=latency(9.0), precision=Precision(precision, precision))
        return made_of(job, precision)

    def int8_engines(job, common, run):
        attempt = Attempt("int8", common.variant(), run.labelled("int8"), structure="calibrator")
        attempt.made = checked(job, attempt.result, attempt.run)
        return Int8Engines([attempt], 1)

    def timed(job, made, run):
        for name, milliseconds in next(turns).items():
            made[name].result.latency = latency(milliseconds)

    monkeypatch.setattr(engines, "make_engine", checked)
    monkeypatch.setattr(engines, "build_int8", int8_engines)
    monkeypatch.setattr(engines, "give_slow_layers_back", lambda *args: None)
    monkeypatch.setattr(attempts_of, "_time", timed)
    plan = replace(job.plan, precision="best", variants=("fp16", "bf16", "int8"))
    result = Result(plan={"max_accuracy_drop": 1.0})
    engine = engines.make_all(replace(job, plan=plan), result, quiet_run())
    assert engine.job.plan.precision == "fp16" and result.latency.p50_ms == 1.0
    assert {row.precision: row.p50_ms for row in result.variants} == {"fp16": 1.0, "bf16": 1.5, "int8": 1.2}
