"""stages/fp16_baseline.py: the FP16 engine that INT8 is measured against, remembered."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_engines import layer
from helpers import LIBRARIES, parse

from onnx2trt.plan.plan import make_plan
from onnx2trt.report.result import VariantRow
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
    return SimpleNamespace(plan=plan, inputs={"model": "m", "versions": {"gpu": "H200"}, **changes})


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
    assert found.row == ROW and found.timed == remembered
    assert "not built again: p50 1.250 ms" in run.said[0]


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


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    run = Remembering()
    baseline.remember(int8_job(), ROW, ((), {}), run)
    assert "is not written" in run.said[0]
