"""benchmarks/coverage.py: what it takes for converted, refused and wrong, that it outlives crashes, and a small part of it run."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from command import ROOT
from models import model, node

from benchmarks.scoreboard import attempt, case, page, pool
from benchmarks.scoreboard.classes import CLASSES, CONVERTED, CRASHED, INACCURATE, LATE, LIBRARY, NOTHING, OURS, WRONG, outcome, reason
from benchmarks.scoreboard.judge import difference
from benchmarks.scoreboard.raw import lacking_types
from benchmarks.scoreboard.results import Results, Version, version
from onnx2trt.plan.arguments import build_parser
from onnx2trt.rewrite.prepare import nothing_left

TAKEN, REFUSED = {"taken": True}, {"taken": False, "refused_at": "parse", "message": "no", "operators": ["NonZero"], "types": []}


@pytest.mark.parametrize(
    ("found", "library", "expected"),
    [
        ({"exit": 0, "right": True}, TAKEN, CONVERTED),
        ({"exit": 0, "right": None}, REFUSED, CONVERTED),
        ({"exit": 0, "right": False}, TAKEN, WRONG),
        ({"exit": 0, "right": False}, REFUSED, WRONG),
        ({"exit": 3, "message": "no"}, TAKEN, OURS),
        ({"exit": 3, "message": "no"}, REFUSED, LIBRARY),
        ({"exit": 3, "message": nothing_left({}, recurrent=0.9).message}, TAKEN, NOTHING),
        ({"exit": 3, "message": nothing_left({}, recurrent=0.1).message}, TAKEN, OURS),
        ({"exit": 1, "message": "unforeseen"}, REFUSED, CRASHED),
        ({"exit": 7, "message": "more than --max-accuracy-drop allows"}, TAKEN, INACCURATE),
        ({"exit": 7, "message": "the engine is fp32"}, TAKEN, OURS),
        ({"exit": 7, "message": "the engine is fp32", "hint": "y reaches 1e5, above 32752 (half of FP16's largest)"}, TAKEN, INACCURATE),
        ({"exit": 7, "message": "the engine is fp32", "hint": "y stays within 3e-32, below FP16's normal range"}, TAKEN, INACCURATE),
        ({"exit": 7, "message": "more than --max-accuracy-drop allows"}, REFUSED, INACCURATE),
        ({"crash": "not done in time"}, TAKEN, LATE),
        ({"exit": 3, "message": "no"}, {"crash": "not done in time"}, LATE),
        ({"crash": "SIGSEGV"}, TAKEN, CRASHED),
        ({"crash": "SIGSEGV"}, {"crash": "SIGSEGV"}, LIBRARY),
        ({"exit": 6, "message": "no"}, {"crash": "SIGFPE"}, LIBRARY),
        ({"exit": 3, "message": "no such file"}, {"crash": "no result"}, CRASHED),
    ],
)
def test_what_came_of_a_conversion(found, library, expected):
    assert outcome(found, library) == expected


@pytest.mark.parametrize(
    ("expected", "found", "precision", "right"),
    [
        ([1.0, 2.0], [1.0, 2.001], "fp32", True),
        ([1.0, 2.0], [1.0, 2.01], "fp32", False),
        ([1.0, 2.0], [1.0, 2.01], "fp16", True),
        ([1.0, 2.0], [1.0, 2.2], "fp16", False),
        ([1.0, np.nan], [1.0, np.nan], "fp32", True),
        ([1.0, np.nan], [1.0, 2.0], "fp32", False),
        ([1.0, 1e5], [1.0, np.inf], "fp16", False),
        ([1.0, np.inf], [1.0, 65504.0], "fp16", True),
        ([1.0, np.inf], [1.0, -np.inf], "fp16", False),
        ([0, 0], [0.0, 0.0], "fp32", True),
        ([[1.0, 2.0]], [1.0, 2.0], "fp32", False),
    ],
)
def test_outputs_are_compared_as_far_as_the_precision_goes(expected, found, precision, right):
    assert (not difference([np.array(expected, np.float32)], [np.array(found, np.float32)], precision)) == right


def test_integers_and_truth_values_are_equal_or_wrong():
    for dtype in (np.int64, np.uint8, bool):
        assert difference([np.array([1, 0], dtype)], [np.array([1, 1], dtype)], "fp16") == "output 0: 1 of 2 values, 1 instead of 0"
    assert difference([np.array(["a", "b"], object)], [np.array(["a", "c"], object)], "fp32") == "output 0 holds other strings"
    assert difference([], [np.zeros(1)], "fp32") == "1 outputs instead of 0"


def test_outputs_of_few_bits_are_compared_as_far_as_these_go():
    values = np.float32([1.0, 2.0]).astype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
    assert not difference([values], [np.float32([1.0, 2.02])], "fp32")
    assert difference([values], [np.float32([1.0, 2.1])], "fp32")


def test_types_that_the_library_lacks_are_found():
    tensors = {"x": (onnx.TensorProto.STRING, [2]), "z": (onnx.TensorProto.UINT16, [2])}
    net = model([node("Identity", "x", "y")], tensors, {"y": tensors["x"]})
    net.graph.input.append(onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, [2]))
    assert lacking_types(net) == ["STRING", "UINT16", "sequence"]


@pytest.fixture
def tiny(tmp_path) -> case.Case:
    net = model([node("Exp", "x", "y")], {"x": ["N", 3]}, {"y": ["N", 3]})
    onnx.save(net, tmp_path / "model.onnx")
    values = np.float32([[0, 1, 2]])
    case.write_arrays(tmp_path, ["x"], [values], [np.exp(values)])
    made = case.Case("onnx", "node", "tiny", str(tmp_path), flags=case.shape_flags(net, {"x": values}))
    made.save()
    return case.load(tmp_path)


def test_a_case_is_the_command_that_a_user_would_type(tiny):
    words = attempt.words_of(tiny, "fp16")
    args = build_parser().parse_args(words)
    assert args.onnx == str(tiny.path) and args.precision == "fp16" and "--opt-shapes=x:1x3" in words
    assert tiny.feed()["x"].tolist() == [[0, 1, 2]] and tiny.expected()[0].shape == (1, 3)


@pytest.mark.parametrize("values", [np.float32([1, np.nan]), np.array(["a"], object)])
def test_what_no_data_file_may_hold_is_left_out(tmp_path, values):
    assert case.write_samples(tmp_path / "data", [{"x": values}]) is None


def test_a_child_that_dies_costs_one_model_and_one_that_hangs_too(tiny, monkeypatch):
    def one(asked, precision, pipe):
        attempt._tell(pipe, {"stage": "build"})
        if precision == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while precision == "hangs":
            time.sleep(1)
        if precision == "raises":
            raise MemoryError
        return {"exit": 0, "seconds": 0.1, "peak_mb": 1.0}

    monkeypatch.setattr(attempt, "attempt", one)
    jobs = [(tiny, name) for name in ("killed", "good", "raises", "hangs", "last")]
    found = {precision: result for _, precision, result in pool.run(jobs, 2, lambda case: 2.0)}
    assert {name: result.get("crash") for name, result in found.items()} == {
        "killed": "SIGKILL",
        "good": None,
        "raises": "no result",
        "hangs": "not done in time",
        "last": None,
    }
    assert found["killed"]["stage"] == "build" and found["good"]["exit"] == 0


def test_rows_of_the_same_version_are_not_run_again(tiny, tmp_path):
    """The bare library's rows outlive a change of ours, and the others with --any-version alone."""
    old, new, other = Version("1", "a", "trt 1"), Version("2", "b", "trt 1"), Version("2", "b", "trt 2")
    kept = Results(tmp_path / "rows.jsonl", old)
    assert [precision for _, precision in kept.lacking([tiny], ())] == ["library", "fp32", "fp16"]
    for precision in ("library", "fp32"):
        kept.add(tiny, precision, {"exit": 0} if precision == "fp32" else TAKEN)

    def lacking(version, **how):
        return [precision for _, precision in Results(tmp_path / "rows.jsonl", version, **how).lacking([tiny], ())]

    assert lacking(old) == ["fp16"] and lacking(new) == ["fp32", "fp16"] and lacking(other) == ["library", "fp32", "fp16"]
    assert lacking(new, any_version=True) == ["fp16"]
    rows = Results(tmp_path / "rows.jsonl", new, any_version=True).rows([tiny], ())
    assert [(entry["precision"], entry["class"], entry["commit"]) for entry in rows] == [("fp32", CONVERTED, "a")]
    assert lacking(old, fresh=True) == ["library", "fp32", "fp16"]


def test_a_version_is_what_the_package_holds(tmp_path):
    (tmp_path / "onnx2trt").mkdir()
    (tmp_path / "onnx2trt" / "a.py").write_text("x = 1\n")
    first = version(tmp_path, {"library": "trt 1"})
    (tmp_path / "onnx2trt" / "a.py").write_text("x = 2\n")
    assert first != version(tmp_path, {"library": "trt 1"}) and first.others == "library trt 1" and first.commit == ""


def row(name: str, kind: str, **found) -> dict:
    about = {"group": "onnx", "kind": "node", "name": name, "source": "onnx", "precision": "fp16", "class": kind}
    return {**about, "seconds": 1.0, "peak_mb": 200.0, "library": TAKEN, **found}


def test_the_page_counts_classes_and_groups_reasons():
    rows = [
        row("a", CONVERTED),
        row("b", OURS, message="/tmp/x/model.onnx: input 'p' has 3 things"),
        row("c", OURS, message="/tmp/y/model.onnx: input 'q' has 12 things"),
        row("d", LIBRARY, library=REFUSED, message=""),
        row("e", CRASHED, crash="SIGSEGV", stage="build"),
    ]
    assert reason(rows[1]) == reason(rows[2]) == "FILE input '…' has # things" and reason(rows[3]) == "operator NonZero"
    about = {"library": "lib 1", "gpu": None, "onnx": "1", "onnxruntime": "1", "numpy": "1", "skipped": ["(c) skipped: no torch"]}
    text = page.render(rows, about, rows[:2])
    assert "| Model tests of the `onnx` package | FP16 | 1 | 1 | 0 | 0 | 2 | 0 | 0 | 1 |" in text and len(CLASSES) == 8
    assert "| refused by us | FP16 | FILE input '…' has # things | 1 | 2 | `b` |" in text
    assert "| crashed | FP16 | SIGSEGV in stage build | 0 | 1 | `e` |" in text and "(c) skipped: no torch" in text
    assert "onnx/e fp16: crashed: SIGSEGV in stage build" in page.console(rows, about)
    assert "commit" not in text and "Made at commit `a1`." in page.render([row("a", CONVERTED, commit="a1")], about)
    two = [row("a", CONVERTED, commit="a1"), row("b", CONVERTED, commit="b2"), row("c", CONVERTED, commit="a1")]
    assert "runs at these commits: `a1` (2 rows), `b2` (1 rows)." in page.render(two, about)


@pytest.mark.real
def test_a_part_of_the_scoreboard(tmp_path):
    """Some forty models that others have made, in FP32 and FP16: what the library takes is converted, and right."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    command = [sys.executable, str(ROOT / "benchmarks" / "coverage.py"), "--sample", "--work", "work", "--json", "r.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert done.returncode == 0, done.stdout
    assert len(rows) > 80 and sum(entry["class"] == CONVERTED for entry in rows) >= 60
    assert all(entry["seconds"] > 0 and entry["peak_mb"] > 50 for entry in rows)
    right = [entry for entry in rows if entry["class"] == CONVERTED and entry["right"]]
    assert len(right) >= 55, "most come with outputs that can be compared"
