"""report/side_by_side.py: engines side by side, which one was written, and what the comparison comes to."""

import pytest
from html_page import Page
from made_results import result

from onnx2trt.compare.evidence import Evidence
from onnx2trt.report import html
from onnx2trt.report.side_by_side import variants

EMPTY = dict.fromkeys(("delivered", "status", "engine_bytes", "moved_bytes", "p50_ms", "p99_ms", "throughput_per_s", "structure"))
EMPTY |= dict.fromkeys(("drop_percent", "metric", "sqnr_db", "build_s", "error"))


def row(precision: str, megabytes: float = 1.0, **changes) -> dict:
    values = {"precision": precision, "delivered": precision, "status": "simulated", "engine_bytes": int(megabytes * 1e6)}
    return {**EMPTY, **values, **changes}


FAILED = {"delivered": None, "status": "failed", "engine_bytes": None, "error": "no data"}
CONCLUSIONS = [
    (
        [row("fp16", p50_ms=2.0, drop_percent=0.01), row("int8", p50_ms=1.0, drop_percent=0.5), row("fp32", p50_ms=3.0)],
        "INT8 is the fastest of those that keep to the limit: 2.00 times as fast as FP16, with a drop of 0.50 %.",
    ),
    (
        [row("fp16", p50_ms=1.0), row("int8", p50_ms=1.02)],
        "FP16 is the fastest of those that keep to the limit: 1.02 times as fast as INT8; a",
    ),
    ([row("fp16", p50_ms=1.0), row("int8", p50_ms=0.5, status="failed"), row("fp32", p50_ms=2.0)], "FP16 is the fastest of those"),
    (
        [row("fp16", 10), row("int8", 5, drop_percent=0.5)],
        "INT8 has 0.50 times the size of FP16, with a drop of 0.50 %. Which one is faster was not",
    ),
    (
        [row("fp16", 10, moved_bytes=40), row("int8", 5, moved_bytes=50)],
        "INT8 has 0.50 times the size and moves 1.25 times the bytes of FP16",
    ),
    ([row("fp16"), row("int8", **FAILED)], "There is no INT8 engine."),
    ([row("fp32")], ""),
]


@pytest.mark.parametrize("rows, sentence", CONCLUSIONS)
def test_the_conclusion(rows, sentence):
    found = variants(result(variants=rows))["conclusion"]
    assert found.startswith(sentence) if sentence else found == ""


def test_structures_are_compared_with_one_another_only_where_there_is_nothing_else():
    built = [row("int8", p50_ms=1.0, structure="bound"), row("int8", p50_ms=1.5, structure="qdq")]
    alone = variants(result(structures=built))
    assert "INT8 (bound) is the fastest" in alone["conclusion"] and "INT8 (qdq)" in alone["conclusion"]
    with_fp16 = variants(result(structures=built, variants=[row("fp16", p50_ms=2.0), row("int8", p50_ms=1.0)]))
    assert "2.00 times as fast as FP16" in with_fp16["conclusion"] and len(with_fp16["rows"]) == 3


def test_the_engine_that_was_written_is_marked():
    rows = [row("fp16", 2), row("int8", 1), row("fp32", 1)]
    found = variants(result(variants=rows))  # its engine: INT8, of 1 MB
    assert found["written"] == [False, True, False]
    (sizes,) = found["bars"]
    assert [(bar["part"], bar["written"]) for bar in sizes["rows"]] == [(1.0, False), (0.5, True), (0.5, False)]
    assert not any(variants(result(variants=rows, engine=None))["written"])


def test_nothing_is_compared_where_nothing_was_built():
    assert variants(result()) is None


def test_it_stands_above_everything_else_on_the_page():
    read = Page(html.render(result(variants=[row("fp16", 2), row("int8", 1)]), Evidence(True), []))
    assert next(iter(read.sections)) == "variants" and "written" in read.sections["variants"] and "0.50 times the size" in read.text
