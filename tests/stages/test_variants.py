"""stages/variants.py: several engines of one model, by --compare and --precision best, and timed against each other."""

import json
from contextlib import contextmanager, nullcontext

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import conv_net, model, node, random

from onnx2trt.conversion.run import Variant
from onnx2trt.stages import variants
from onnx2trt.stages.fp16_baseline import Baseline

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
    assert set(rows) == {"fp32", "fp16", "int8"} and all(row["delivered"] == name for name, row in rows.items())
    assert rows["fp32"]["sqnr_db"] > rows["fp16"]["sqnr_db"] > rows["int8"]["sqnr_db"] > 10
    assert all(row["engine_bytes"] > 0 and row["p50_ms"] is None and row["error"] is None for row in rows.values())
    assert result["precision"]["delivered"] == "fp16" and result["engine"]["bytes"] == rows["fp16"]["engine_bytes"]
    assert (folder / "net.engine").stat().st_size == rows["fp16"]["engine_bytes"], "the precision asked for is what is written"
    assert result["calibration"] is None, "of another engine"
    assert json.loads((folder / "net.engine.json").read_text())["variants"] == result["variants"]
    assert "no latencies: the engines were not executed here" in done.stdout
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith(("|fp32", "|fp16", "|int8"))] == [
        "fp32",
        "fp16",
        "int8",
    ]


def test_what_cannot_be_built_is_a_line_with_the_reason(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--compare", "--test-image", "test.npy", "--json", "r.json")
    assert done.code == 0, done.stderr
    rows = rows_of(done.json("r.json"))
    assert rows["int8"]["status"] == "failed" and "needs calibration data" in rows["int8"]["error"] and rows["int8"]["engine_bytes"] is None
    assert rows["fp32"]["status"] == rows["fp16"]["status"] == "simulated" and "needs calibration data" in " ".join(done.stdout.split())


def test_the_precision_asked_for_decides_and_the_others_are_shown_all_the_same(folder):
    flags = ("--compare", "--precision", "int8", "--calibration-dir", "data", "--test-image", "test.npy", "--max-accuracy-drop", "0.0001")
    done = onnx2trt(folder, "--onnx", "net.onnx", *flags, "--metric", "noise", "--json", "r.json")
    assert done.code == 7 and "does not reach" in done.error and not (folder / "net.engine").exists()
    rows = rows_of(done.json("r.json"))
    assert rows["int8"]["status"] == "failed" and rows["fp32"]["status"] == "simulated"


def test_what_is_wrong_with_the_data_is_not_compared(folder):
    done = onnx2trt(folder, "--onnx", "net.onnx", "--compare", "--precision", "int8", "--json", "r.json")
    assert done.code == 5 and "needs calibration data" in done.error and "fp32: building" not in done.stderr


def test_a_model_that_carries_fp16_has_no_fp32_engine(folder):
    half = onnx.TensorProto.FLOAT16
    source = model([node("Relu", "x", "y")], {"x": (half, [1, 8])}, {"y": (half, [1, 8])})
    onnx.save(source, folder / "half.onnx")
    done = onnx2trt(folder, "--onnx", "half.onnx", "--compare", "--json", "r.json")
    assert done.code == 0, done.stderr
    assert "carries FP16" in rows_of(done.json("r.json"))["fp32"]["error"]


# ---- timed against each other


class OneGpu:
    """What variants needs of a job and a run to time engines."""

    plan = type("Plan", (), {"executes_here": True, "build": type("Build", (), {"version_compatible": False})})
    library = None
    console = type("Console", (), {"info": staticmethod(lambda text: None), "debug": staticmethod(lambda text: None)})

    @contextmanager
    def stage(self, name, label):
        yield

    @contextmanager
    def variant(self, precision):
        yield Variant(precision)


def test_an_int8_engine_is_held_against_fp16_whichever_attempt_it_came_from(monkeypatch):
    milliseconds = {"first": 2.0, "int8": 3.0, "fp16": 1.0}
    monkeypatch.setattr(variants.reading, "loaded_engine", lambda *args: nullcontext())
    timed = lambda job, engines, keep: {name: {"p50_ms": milliseconds[name], "fp16_p50_ms": None} for name in engines}  # noqa: E731
    monkeypatch.setattr(variants.checking, "latencies", lambda job, engines, keep: keep.update(milliseconds) or timed(job, engines, keep))
    made = type("Made", (), {"built": type("Built", (), {"data": b""})})
    attempts = {
        name: variants._Attempt(precision, Variant(precision), made) for name, precision in zip(milliseconds, ("int8", "int8", "fp16"))
    }
    variants._time(OneGpu(), attempts, OneGpu(), None)
    found = {name: attempt.variant.result["latency"]["fp16_p50_ms"] for name, attempt in attempts.items()}
    assert found == {"first": 1.0, "int8": 1.0, "fp16": None}
    known = Baseline({"p50_ms": 1.5}, ((), {}), "2026-01-01")
    variants._time(OneGpu(), {name: attempts[name] for name in ("first", "int8")}, OneGpu(), known)
    assert attempts["first"].variant.result["latency"]["fp16_p50_ms"] == 1.5, "remembered where it is not built"
    variants._time(OneGpu(), attempts, OneGpu(), None)
    slower = {"int8": attempts["first"], "fp16": attempts["fp16"]}  # the second attempt was no better
    assert "p50 2.000 ms against 1.000 ms" in variants._not_faster(slower)


def test_the_fp16_engine_is_remembered_as_it_was_timed_last(monkeypatch):
    built = type("Built", (), {"data": b"", "nbytes": 1})
    prepared = type("Prepared", (), {"without": staticmethod(lambda slow: None)})
    made = type("Made", (), {"built": built, "prepared": prepared, "job": None, "status": "validated"})
    nothing = {"precision": None, "latency": None, "accuracy": []}
    attempts = {name: variants._Attempt(name, Variant(name, dict(nothing)), made) for name in ("int8", "fp16")}
    times, kept = iter((1.0, 0.9)), []

    def timed_in_turn(job, engines, run, known):
        p50 = next(times)
        for attempt in engines.values():
            attempt.variant.result["latency"] = {"p50_ms": p50 if attempt.precision == "fp16" else 2 * p50, "fp16_p50_ms": p50}

    monkeypatch.setattr(variants, "_time", timed_in_turn)
    monkeypatch.setattr(variants, "time_layers", lambda job, made, run: ((), {}))
    monkeypatch.setattr(variants, "slower_in_int8", lambda *args: {"conv": "slower"})
    monkeypatch.setattr(variants.baseline, "remember", lambda job, row, timed, run: kept.append(row["p50_ms"]))
    variants._time(OneGpu(), attempts, OneGpu(), None)
    variants._give_slow_layers_back(OneGpu(), attempts, OneGpu(), lambda job, prepared: made, None)
    assert kept == [0.9] == [attempts["fp16"].variant.result["latency"]["p50_ms"]], "what the result says, too"
    assert attempts["int8"].variant.result["latency"]["p50_ms"] == 1.8, "the second engine is faster, and is taken"
