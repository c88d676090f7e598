"""report/table.py: the verdict first, the next step last, and the same words for a terminal and for a pipe."""

import re
import shlex

import pytest
from made_results import result, row

from onnx2trt.report.table import render

CONTROL = re.compile(r"\x1b\[[0-9;]*m")
ENVIRONMENT = {"backend": "tensorrt-rtx", "tensorrt": "1.7.1", "gpu": None, "driver": None, "python": "3.11.7"}


def lines(found: dict, width: int = 110) -> list[str]:
    return render(found, width, color=False).splitlines()


def variants() -> list[dict]:
    numbers = {"engine_bytes": 10**6, "p50_ms": None, "p99_ms": None, "throughput_per_s": None, "drop_percent": 0.1, "sqnr_db": 30.0}
    numbers |= {"structure": None, "error": None, "build_s": 1.0, "moved_bytes": None}
    return [{"precision": name, **numbers} for name in ("fp16", "int8")]


@pytest.mark.parametrize("width", [60, 80, 110])
@pytest.mark.parametrize("changes", [{}, {"variants": variants()}, {"status": "not_validated", "not_validated_because": "of a reason"}])
def test_a_terminal_gets_what_a_pipe_gets_in_colour(width, changes):
    plain, coloured = (render(result(**changes), width, color) for color in (False, True))
    assert "\x1b" not in plain and "\x1b" in coloured
    assert [line.rstrip() for line in CONTROL.sub("", coloured).splitlines()] == plain.splitlines()
    assert not set("|+─━") & set(plain) and max(map(len, plain.splitlines())) <= width


@pytest.mark.parametrize(
    "changes, verdict",
    [
        ({}, "agrees within 1 %: simulated on the CPU, the engine was not executed here"),
        ({"status": "validated"}, "agrees within 1 %: validated on the GPU"),
        ({"accuracy": [row(inputs="synthetic")]}, "agrees within 1 % on made-up inputs: simulated on the CPU"),
        ({"accuracy": [row(seen_in_calibration=True, seen_samples=3)]}, "agrees within 1 % on its calibration data: simulated on the CPU"),
        (
            {"accuracy": [row(seen_in_calibration=True, seen_samples=3, held_out_percent=0.755)]},
            "agrees within 1 % on its calibration data, 0.76 % where it was made without them: simulated on the CPU",
        ),
        ({"accuracy": [row(seen_in_calibration=True, seen_samples=2)]}, "agrees within 1 %: simulated on the CPU"),
        (
            {"accuracy": [row(drop_percent=3.4, shown_percent=0.6, interval_percent=[0.0, 19.0])]},
            "3 samples do not show a drop above 1 % (measured 3.40 %, of which they show 0.60 %): simulated",
        ),
        ({"status": "not_validated", "not_validated_because": "nobody looked"}, "not validated: nobody looked"),
        ({"skipped": True}, "executed here; unchanged, so it was not built again"),
        ({"status": "planned", "engine": None, "accuracy": []}, "planned: nothing was built (--dry-run)"),
    ],
)
def test_the_verdict_is_the_first_line(changes, verdict):
    first = lines(result(**changes), 200)[0]
    assert re.match(r"verdict +\S", first) and verdict in first


def test_a_limit_that_was_chosen_is_the_one_in_the_verdict():
    plan = {**result()["plan"], "max_accuracy_drop": 2.5}
    assert "agrees within 2.5 %:" in lines(result(plan=plan))[0]


def test_what_decides_stands_beside_a_drop_above_the_limit_that_passes():
    few = row(metric="values", drop_percent=3.4, shown_percent=0.6, interval_percent=[0.0, 19.0], change_percent=2.23, sqnr_db=50.7)
    (shown,) = [line for line in lines(result(accuracy=[few]), 300) if line.startswith("accuracy")]
    assert "drop 3.40 % (0.00 to 19.00) (values), 3 samples show 0.60 % of it, the rest may be chance: from sample to sample" in shown
    assert "changes by only 2.2 % of its size; SQNR 50.7 dB" in shown
    for other in (row(), {**few, "drop_percent": 0.9}, {**few, "shown_percent": 1.1}, {**few, "nonfinite": 1}):
        assert "chance" not in "".join(lines(result(accuracy=[other]), 300)), "there is nothing to explain"


def test_one_slice_is_not_several():
    parts = [{"first": 0, "last": 0, "drop_percent": 0.1, "sqnr_db": 30.0}, {"first": 1, "last": 3, "drop_percent": 0.2, "sqnr_db": 20.0}]
    (shown,) = [line for line in lines(result(accuracy=[row(parts=parts)]), 300) if line.startswith("accuracy")]
    assert "(3 samples): drop" in shown and "; slice 0: drop 0.10 %, 30.0 dB; slices 1 to 3: drop 0.20 %" in shown
    assert "hardly" not in shown
    parts[1]["still"] = True
    (shown,) = [line for line in lines(result(accuracy=[row(parts=parts)]), 300) if line.startswith("accuracy")]
    assert "slices 1 to 3: drop 0.20 %, 20.0 dB, hardly anything happens there" in shown


def test_made_up_inputs_are_called_so():
    (shown,) = [line for line in lines(result(accuracy=[row(inputs="synthetic", samples=1)]), 300) if line.startswith("accuracy")]
    assert " on made-up inputs (1 sample): drop" in shown


def test_times_at_best_say_what_they_are_once():
    engine = {**result()["engine"], "least_ms": {"GeForce RTX 4090": 0.05}, "fp16_least_ms": {"GeForce RTX 4090": 0.06}}
    (shown,) = [line for line in lines(result(engine=engine), 200) if line.startswith("at best")]
    assert "RTX 4090 0.050 ms (in FP16 0.060); computed from data sheets, not measured: real times are usually longer" in shown
    several = [{**variant, "least_ms": {"A": 0.2, "B": 0.1}} for variant in variants()]
    text = " ".join(lines(result(variants=several), 200))
    assert text.count("data sheets") == 1 and "  fp16: A 0.200 ms, B 0.100" in text and "  int8: A 0.200 ms, B 0.100" in text


def test_the_next_step_is_the_last_line_also_after_a_comparison():
    for found in (result(), result(variants=variants())):
        shown = lines(found)
        assert shown[-1].startswith("next ") and "--validate-only net.engine" in shown[-1]
        assert any(line.startswith("next ") and "not in TensorRT or trtexec" in line for line in shown)


@pytest.mark.parametrize("width", [60, 110])
def test_a_command_is_never_broken(width):
    model = {**result()["model"], "path": "a folder of models/" + "net" * 20 + ".onnx"}
    shown = lines(result(model=model), width)
    assert shown[-2].startswith("next ") and shlex.split(shown[-1])[:2] == ["python", "onnx2trt.py"]
    assert shlex.split(shown[-1])[2:] == [model["path"], "--validate-only", "net.engine"]


def test_names_are_never_broken_at_the_narrowest():
    for word in ("TensorRT-RTX", "multiply-accumulates", "simulated"):
        assert any(word in line for line in lines(result(), 60))


def test_layers_that_were_measured_have_one_line_with_their_numbers():
    shown = lines(result(), 140)
    (kept,) = [line for line in shown if line.startswith("kept (3)")]
    assert "3 in FP16: INT8 there costs most accuracy" in kept and "layer2 (2.00 %), layer1 (1.00 %), layer0 (0.00 %)" in kept
