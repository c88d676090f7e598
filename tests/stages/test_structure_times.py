"""stages/structure_times.py: what was measured of INT8 engines, remembered."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_fp16_baseline import ROW, Remembering, int8_job

from onnx2trt.stages import structure_times
from onnx2trt.stages.structure_times import Fastest, Measured

A, B = (replace(ROW, precision="int8", structure=name, p50_ms=ms) for name, ms in (("a", 1.0), ("b", 2.0)))
MEASURED = Measured((A, B), Fastest("a", {"conv": "slower"}))


def job_of(*flags, **inputs):
    job = int8_job(*flags)
    job.inputs |= inputs
    return job


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    structure_times.remember(job_of(), MEASURED, Remembering())
    return tmp_path


def test_the_same_conversion_knows_what_was_measured_and_when(folder):
    run = Remembering()
    found = structure_times.recall(job_of(), run)
    assert found.fastest == MEASURED.fastest and [replace(row, measured_on=None) for row in found.rows] == [A, B]
    assert all(row.measured_on for row in found.rows) and "what was slower is not built again" in run.said[0]


@pytest.mark.parametrize(
    "job",
    [
        job_of(model="other"),
        job_of(data={}),
        job_of(versions={"gpu": "H100"}),
        job_of("--max-accuracy-drop", "2"),
        job_of("--timing-cache", "none"),
    ],
    ids=["model", "data", "gpu", "options", "nothing kept"],
)
def test_another_conversion_knows_nothing(folder, job):
    assert structure_times.recall(job, Remembering()) == Measured()


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace("1.0", "9.0"), lambda text: "[]"])
def test_what_is_damaged_is_not_known(folder, damage):
    (path,) = Path(folder).rglob("structures/*.json")
    path.write_text(damage(path.read_text()))
    assert structure_times.recall(job_of(), Remembering()) == Measured()


def test_only_what_may_be_the_fastest_is_built_after_a_run_that_was_killed(folder):
    failed = replace(B, structure="c", error="refused")
    assert Measured().still_to_build(("a", "b", "c")) == ("a", "b", "c")
    assert Measured((A, B, failed)).still_to_build(("a", "b", "c", "d")) == ("a", "d")
    assert Measured((failed,)).still_to_build(("c",)) == ("c",), "nothing has worked: it is tried again"
    assert json.loads(next(Path(folder).rglob("structures/*.json")).read_text())["rows"][0]["measured_on"] is None


def test_a_row_that_is_taken_over_keeps_its_date(folder):
    old = replace(B, measured_on="2020-01-01")
    structure_times.remember(job_of(), Measured((A, old), Fastest("a")), Remembering())
    dates = [row.measured_on for row in structure_times.recall(job_of(), Remembering()).rows]
    assert dates[1] == "2020-01-01" and dates[0] > "2026"
