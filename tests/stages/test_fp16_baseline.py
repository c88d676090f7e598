"""stages/fp16_baseline.py: the FP16 engine that INT8 is measured against, remembered."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_engines import layer
from helpers import LIBRARIES, parse
from made_results import result

from onnx2trt.plan.plan import make_plan
from onnx2trt.report.built import VariantRow
from onnx2trt.report.side_by_side import variants
from onnx2trt.report.table import render
from onnx2trt.stages import fp16_baseline as baseline

ROW = VariantRow(
    precision="fp16",
    status="validated",
    delivered="fp16",
    int8_mac_share=None,
    engine_bytes=1000,
    p50_ms=1.25,
    p99_ms=1.5,
    throughput_per_s=800.0,
    drop_percent=0.01,
    metric="argmax",
    sqnr_db=60.0,
    build_s=9.0,
    error=None,
)
UNTIMED = replace(ROW, p50_ms=None)


class Remembering:
    """What stages.fp16_baseline needs of a run."""

    def __init__(self):
        self.said = []
        self.console = SimpleNamespace(info=self.said.append, debug=self.said.append)

    def replace_now(self, path, data, required):
        assert not required, "a memory that cannot be written ends no conversion"
        Path(path).write_bytes(data)


def int8_job(*flags, **changes):
    plan = make_plan(parse("--precision", "int8", "--calibration-dir", "d", *flags), replace(LIBRARIES["weak"], cache_folder="/caches"))
    return SimpleNamespace(plan=plan, inputs={"model": "m", "data": {"--calibration-dir": "1"}, "versions": {"gpu": "H200"}, **changes})


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    timed = ((layer("a + b", "a", "b", precision="fp16"),), {"a + b": 0.25})
    baseline.remember(int8_job(), ROW, timed, Remembering())
    return timed


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--calibration-dir", "other"),
        ("--calibration-method", "mse"),
        ("--quantization", "qdq"),
        ("--min-int8-share", "50"),
        ("-o", "x"),
    ],
    ids=str,
)
def test_the_fp16_engine_is_remembered_for_every_int8_engine_of_the_model(remembered, flags):
    run = Remembering()
    found = baseline.recall(int8_job(*flags), run)
    assert replace(found.row, measured_on=None, other_data=None) == ROW and found.timed == remembered
    assert "not built again: p50 1.250 ms" in run.said[0]


@pytest.mark.parametrize(
    "data, other",
    [
        ({"--calibration-dir": "1"}, False),
        ({"--calibration-dir": "2"}, True),
        ({"--calibration-dir": "1", "--validation-dir": "3"}, True),
        ({"--calibration-dir": "1", "--test-image": "4"}, True),
        ({}, True),
    ],
    ids=str,
)
def test_a_row_of_other_data_is_marked_as_such(remembered, data, other):
    run = Remembering()
    row = baseline.recall(int8_job(data=data), run).row
    assert row.other_data is other and row.measured_on in run.said[0] and ("on other data" in run.said[0]) is other
    shown = render({**result(), "variants": [asdict(row), {**asdict(ROW), "precision": "int8"}]}, 100, False)
    text = " ".join(shown.split())
    assert f"* fp16 was measured by an earlier run, on {row.measured_on}" in text and ("its data were others" in text) is other
    assert "fp16 *" in text and "int8 *" not in text, "the row itself is marked, and only that one"
    page = variants({**result(), "variants": [asdict(row), asdict(ROW)]})
    place = page["heads"].index("on this run's data")
    assert (
        page["rows"][0][place].startswith("no: its drop and SQNR are of other data" if other else "yes") and page["rows"][1][place] is None
    )


def test_other_plugins_make_another_engine(remembered):
    assert baseline.recall(int8_job(data={"--calibration-dir": "1", "--plugins": ["5"]}), Remembering()) is None


@pytest.mark.parametrize(
    "flags, changes",
    [
        (("--builder-optimization-level", "5"), {}),
        (("--max-batch-size", "8"), {}),
        (("--layer-precisions", "a:fp32"), {}),
        (("--timing-cache", "none"), {}),
        ((), {"model": "other"}),
        ((), {"versions": {"gpu": "A100"}}),
    ],
    ids=str,
)
def test_another_fp16_engine_is_measured_again(remembered, flags, changes):
    assert baseline.recall(int8_job(*flags, **changes), Remembering()) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"row": {}, "layers": [], "layer_ms": {}, "measured": "x"}',
        b'{"row": {"precision": "fp16", "p50_ms": 1.25}, "layers": [], "layer_ms": {}, "measured": "as format 1 had it"}',
        json.dumps({"row": asdict(UNTIMED), "layers": [], "layer_ms": {}, "measured": "x"}).encode(),
        b"\xff",
        b"[" * 10**5,
    ],
)
def test_a_damaged_memory_is_none(remembered, tmp_path, content):
    (path,) = (tmp_path / "onnx2trt" / "baseline").iterdir()
    path.write_bytes(content)
    assert baseline.recall(int8_job(), Remembering()) is None


@pytest.mark.parametrize("field, value", [("p99_ms", "1.5"), ("sqnr_db", None), ("build_s", [])], ids=str)
def test_a_memory_that_was_changed_by_hand_is_none(remembered, tmp_path, field, value):
    (path,) = (tmp_path / "onnx2trt" / "baseline").iterdir()
    kept = json.loads(path.read_text())
    kept["row"][field] = value
    path.write_text(json.dumps(kept))
    assert baseline.recall(int8_job(), Remembering()) is None


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    run = Remembering()
    baseline.remember(int8_job(), ROW, ((), {}), run)
    assert "is not written" in run.said[0]
