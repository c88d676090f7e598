"""pipeline/attempt.py: times of several engines that can be compared; engines, GPU and times are made up."""

from dataclasses import replace

from helpers import quiet_run
from made_engines import attempt, int8_job, loads, timed_as

from onnx2trt.pipeline import attempt as attempts_of
from onnx2trt.stages.faithful import SUSPECTED
from onnx2trt.stages.fp16_baseline import Baseline


def test_an_int8_engine_is_held_against_fp16_whichever_attempt_it_came_from(tmp_path, monkeypatch):
    job = int8_job(tmp_path, monkeypatch)
    milliseconds = {"first": 2.0, "int8": 3.0, "fp16": 1.0}
    monkeypatch.setattr(attempts_of, "loaded_engine", loads)
    monkeypatch.setattr(attempts_of, "latencies", timed_as(milliseconds))
    int8, fp16 = {"first": attempt(job, "int8"), "int8": attempt(job, "int8")}, attempt(job, "fp16")
    attempts_of.time_in_turn(job, int8, fp16, quiet_run())
    assert [one.result.latency.fp16_p50_ms for one in (*int8.values(), fp16)] == [1.0, 1.0, None]
    assert {name: one.run.evidence.latency_ms for name, one in int8.items()} == {name: [milliseconds[name]] * 3 for name in int8}
    known = Baseline(replace(fp16.row(), p50_ms=1.5), ((), {}), "2026-01-01")
    attempts_of.time_in_turn(job, int8, known, quiet_run())
    assert int8["first"].result.latency.fp16_p50_ms == 1.5, "remembered where it is not built"


def test_a_row_says_which_int8_engine_it_is(tmp_path, monkeypatch):
    job = int8_job(tmp_path, monkeypatch)
    one = attempt(job, "int8", "Q/DQ")
    assert one.row().structure == "Q/DQ" and one.row().falls_short is None
    one.slow = {"conv": "slower"}
    assert one.row().structure == "Q/DQ, slow layers in FP16" and attempt(job, "fp16").row().structure is None
    one.slow = {"conv": SUSPECTED}
    assert one.row().structure == "Q/DQ, grouped convolutions in FP16"
    one.slow = {"conv": SUSPECTED, "other": "slower"}
    assert one.row().structure == "Q/DQ, slow layers in FP16"
