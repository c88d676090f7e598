"""report/html.py and what it is made of: the page that --report writes, made from values; no engine is needed."""

import dataclasses
import os

import numpy as np
import pytest
from helpers import refused
from html_page import Page
from made_results import SHA, failed, result, row

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.compare.evidence import Drops, Evidence, Output, Sample, look
from onnx2trt.report import html
from onnx2trt.report.result import Result

EVIL = "<script>alert('x')</script>&\"'$x^2$"


def evidence(*outputs: Output, image=True, origin="images", plots=False) -> Evidence:
    """What a run has kept: a sample with these outputs; with plots three drops and two scales, which take their time to draw."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8) if image else None
    drops = [Drops("images", "y", "argmax", ("a.jpg", "b.jpg", "c.jpg"), (0.0, 0.5, 0.25))]
    scales = {"x": 1 / 127, "r": 0.0, "t": 50 / 127}
    kept = Evidence(True, Sample(origin, f"{origin}/a.jpg", pixels, outputs))
    return dataclasses.replace(kept, drops=drops, scales=scales, quantized=frozenset({"t"}), equalized=True) if plots else kept


def page(found: dict, kept: Evidence | None = None, arguments=("--onnx", "net.onnx")) -> Page:
    read = Page(html.render(found, kept or Evidence(True), list(arguments)))
    read.check_alone()
    return read


def output(kind: str, reference: np.ndarray, candidate: np.ndarray, threshold=None) -> Output:
    return look("y", kind, threshold, reference, candidate, False)


def blobs(channels: int, height=24, width=32) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((channels, height, width)).astype(np.float32)


# ---- each kind of output

CASES = {
    "classes": output("classes", blobs(4), blobs(4) + 0.1 * blobs(4)[::-1]),
    "mask": output("mask", blobs(1), blobs(1)[:, ::-1], 0.0),
    "map": output("map", blobs(1), blobs(1) * 1.01),
    "scores": output("scores", np.arange(12.0), np.arange(12.0)[::-1]),
    "values": output("values", blobs(5)[:, 0], blobs(5)[:, 0] * 1.01),
}
SHOWN = {
    "classes": ("not tinted", "class 3", "Difference", "Simulated engine", "ONNX model", "as the model sees it"),
    "mask": ("both", "the model only", "simulated engine only", "Pixels above 0", "of the pixels differ"),
    "map": ("Size of the error", "the same range in both", "Errors"),
    "scores": ("another best class", "class 11", "class 0", "softmax", "best"),
    "values": ("Values", "160 values", "Errors"),
}
PARTS = ("outputs", "accuracy", "latency", "layers", "calibration", "timings", "facts", "command")


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("image", [True, False], ids=["image", "arrays"])
def test_every_kind_of_output_has_its_figures_and_every_section_is_there(kind, image):
    read = page(result(), evidence(CASES[kind], image=image))
    assert tuple(read.sections) == PARTS
    for words in SHOWN[kind]:
        if image or words != "as the model sees it":
            assert words in read.sections["outputs"]
    assert len(read.images) == (kind in ("classes", "mask", "map")) * 3 + (image and kind != "values")
    assert ("arrays, so there is no image" in read.text) is not image
    assert len(read.source) < 500_000


def test_several_outputs_are_all_shown():
    outputs = [dataclasses.replace(one, name=f"out_{kind}") for kind, one in CASES.items()]
    read = page(result(), evidence(*outputs))
    assert all(f"out_{kind}" in read.sections["outputs"] for kind in CASES)


def test_the_worst_sample_is_shown_where_it_is_another_one():
    kept = evidence(CASES["classes"])
    kept.worst = [kept.sample]
    assert "agrees least" not in page(result(), kept).text
    kept.worst = [dataclasses.replace(kept.sample, path="the_worst.jpg")]
    read = page(result(), kept)
    assert "agrees least" in read.text and "the_worst.jpg" in read.text and len(read.images) == 8


def test_many_outputs_are_cut_short_and_the_page_stays_small():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (480, 640, 3), np.uint8)  # nothing compresses worse
    outputs = [dataclasses.replace(output("classes", *random.random((2, 2, 480, 640), np.float32)), name=f"o{i}") for i in range(2)]
    few, many = (Evidence(True, Sample("p", "p", noise, tuple(outputs * times))) for times in (1, 15))
    assert len(page(result(), few).source) < 6e6  # of a photograph it is a tenth
    read = page(result(), many)
    assert "and 18 more outputs" in read.text and len(read.images) == 1 + 3 * 12


def test_synthetic_inputs_are_said_to_be_so():
    read = page(result(), evidence(CASES["values"], image=False, origin="synthetic"))
    assert "made up" in read.sections["outputs"] and not read.images


def test_the_class_of_most_pixels_is_clear_and_what_differs_is_red():
    reference = np.zeros((2, 240, 320), np.float32)
    reference[0] = 0.5
    reference[1, :, 160:200] = 1  # class 1 in a stripe
    candidate = reference.copy()
    candidate[1, 116:124, 36:44] = 1  # and once outside of it
    image = np.full((240, 320, 3), 200, np.uint8)
    kept = Evidence(True, Sample("p", "p", image, (output("classes", reference, candidate),)))
    plain, model, engine, difference = (pixels.astype(int) for pixels in page(result(), kept).images)
    assert np.abs(model[:, :150] - plain[:, :150]).max() < 30 < np.abs(model[:, 165:195] - plain[:, 165:195]).max(2).min()
    assert np.abs(engine - model)[118:123, 38:43].max() > 50 > np.abs(engine - model)[:, 60:150].max()
    blue, green, red = difference[120, 40]
    assert red > 180 and green < 100 and difference[20, 300].std() < 10


def test_identical_outputs_have_no_histogram_of_errors():
    same = output("values", blobs(5)[:, 0], blobs(5)[:, 0])
    assert "Every value is the same" in page(result(), evidence(same)).text


def test_values_that_are_not_finite_can_be_shown():
    reference = blobs(1)
    reference[0, 0, :3] = np.nan, np.inf, -np.inf
    for kind in ("map", "values", "mask"):
        assert page(result(), evidence(output(kind, reference, blobs(1), 0.0)))
    scores = np.array([np.nan, -np.inf, 3, 2], np.float32)
    assert "class 2" in page(result(), evidence(output("scores", scores, scores))).text


# ---- the parts in words


def test_the_summary_says_what_people_look_for():
    head = page(result(), evidence(CASES["classes"])).text
    for words in ("net.onnx→net.engine", "Simulated on the CPU", "INT8 asked for", "80.0%", "1.0 MB", "0.50 × the model's 2.0 MB"):
        assert words in head
    for words in ("0.25 %", "0.10 % to 0.40 %, limit 1 %, argmax, simulated", "no GPU answers", "2.5 min", "1 warning", "something odd"):
        assert words in head


def test_accuracy_calibration_layers_and_facts():
    read = page(result(accuracy=[row(), row(output="same", sqnr_db=200.0)]), evidence(CASES["classes"], plots=True))
    assert "identical" in read.sections["accuracy"]
    assert "b.jpg" in read.sections["accuracy"] and "31.5 dB" in read.sections["accuracy"]
    assert "the worst 2" in read.sections["accuracy"]  # one sample did not change
    assert "6 INT8" in read.sections["layers"] and "3 kept in higher precision" in read.sections["layers"]
    kept = read.sections["layers"]
    assert kept.index("layer2") < kept.index("layer1") < kept.index("layer0"), "what costs most stands first"
    assert "2.00 %INT8 there costs most accuracy" in kept
    assert "1 constraint that TensorRT ignored" in read.sections["layers"] and "odd" in read.sections["layers"]
    calibration = read.sections["calibration"]
    for words in ("mse, 20 samples", "1 damaged files skipped", "✗ no", "✓ yes"):
        assert words in calibration
    assert "calibration by mse on 20 samples; of the network with equalized channels" in calibration
    assert "all 2 tensors" in calibration and "no INT8 layer" in calibration
    facts = read.sections["facts"]
    for words in ("TensorRT-RTX 1.7.1", "Nx3x24x32", "letterbox", "1, 2, 3", "min 1x3x24x32 opt 1x3x24x32 max 4x3x24x32", SHA, "head*"):
        assert words in facts
    assert "net.engine.json" in read.sections["command"]


def test_scales_from_a_cache_are_said_to_be_so():
    found = result()
    found["calibration"] = {**found["calibration"], "samples_used": None, "cache": "old.cache"}
    assert "from the calibration cache old.cache" in page(found, evidence(plots=True)).sections["calibration"]


def test_tried_choices_of_fp16():
    found = result(calibration=None)
    tried = [{"fp16_share": 0.5, "drop_percent": 0.4, "standard_error": 0.0, "passed": True}]
    found["precision"] = {**found["precision"], "tried": tried}
    assert "work in 16 bits" in page(found).sections["layers"]


def test_latency_where_it_was_measured():
    latency = {"mean_ms": 1.2, "p50_ms": 1.1, "p90_ms": 1.3, "p99_ms": 1.9, "runs": 500, "shape": {}, "covers": "the engine alone"}
    kept = Evidence(True, latency_ms=np.random.default_rng(0).gamma(2, 0.5, 500).tolist())
    read = page(result(status="validated", latency={**latency, "fp16_p50_ms": 1.5}), kept)
    for words in ("500 inferences", "the engine alone", "1.900 ms", "p50 in FP16", "p99 1.900 ms"):
        assert words in read.text
    assert "Validated on the GPU" in read.text and 'class="plot"' in read.source


def test_the_table_of_variants():
    empty = dict.fromkeys(("delivered", "status", "engine_bytes", "p50_ms", "p99_ms", "throughput_per_s"))
    empty |= dict.fromkeys(("drop_percent", "metric", "sqnr_db", "build_s", "error"))
    rows = [
        {**empty, "precision": "fp16", "delivered": "fp16", "engine_bytes": 5_000_000, "drop_percent": 0.01, "status": "simulated"},
        {**empty, "precision": "int8", "error": "could not be had"},
    ]
    read = page(result(variants=rows))
    assert "5.0 MB" in read.sections["variants"] and "could not be had" in read.sections["variants"]
    assert "per second" not in read.sections["variants"]  # no row has it
    assert "variants" not in page(result()).sections


@pytest.mark.parametrize("status", ["validated", "simulated", "not_validated", "planned"])
def test_every_status_has_its_words(status):
    assert "it was not built again" in page(result(status=status, skipped=True)).text
    assert html.sections.VERDICTS[status][2] in page(result(status=status)).text


def test_a_run_that_failed_at_once_says_why_at_the_top():
    error = ConversionError("net.onnx is damaged", hint="Export it again.", code=ExitCode.MODEL)
    read = page(failed(Result().to_dict(), error))
    assert "Failed, exit code 3" in read.text and "Next step: Export it again." in " ".join(read.text.split())
    assert tuple(read.sections) == ("facts", "command")


@pytest.mark.parametrize("missing", ["model", "plan", "preprocessing", "precision", "calibration", "engine"])
def test_a_run_may_fail_before_any_part_is_known(missing):
    error = ConversionError("no", code=ExitCode.BUILD)
    found = failed(result(**{missing: None}), error)
    if missing == "plan":
        found["accuracy"] = []  # measured only when there is a plan
    assert "Failed, exit code 6" in page(found, evidence(CASES["classes"])).text


def test_a_drop_above_the_limit_and_values_that_are_not_finite_are_marked():
    assert "level-bad" in page(result(accuracy=[row(drop_percent=2.0)])).source
    read = page(result(accuracy=[row(), row(output="z", nonfinite=7, constant=True)]))
    assert "7 values are NaN or infinite" in read.text and "no evidence" in read.text


# ---- strangers


def test_names_of_strangers_are_text_and_nothing_else():
    found = result(warnings=[EVIL], error={"message": EVIL, "hint": EVIL}, status="failed", exit_code=7)
    found["model"] = {**found["model"], "path": EVIL, "inputs": [{"name": EVIL, "dtype": EVIL, "shape": [EVIL]}]}
    found["engine"] = {**found["engine"], "path": EVIL}
    found["accuracy"] = [row(output=EVIL, inputs=EVIL, worst=EVIL)]
    found["precision"] = {**found["precision"], "fallback": [{"name": EVIL, "precision": "fp16", "reason": EVIL}]}
    found["precision"]["ignored_constraints"] = [{"name": EVIL, "asked": EVIL, "delivered": EVIL}]
    found["calibration"] = {**found["calibration"], "cache": EVIL, "samples_used": None}
    found["plan"] = {**found["plan"], "layer_precisions": [[EVIL, EVIL]]}
    found["variants"] = [{"precision": EVIL, "error": EVIL}]
    kept = evidence(*(dataclasses.replace(one, name=EVIL) for one in CASES.values()), plots=True)
    kept.worst = [kept.sample]
    kept.sample = dataclasses.replace(kept.sample, path=EVIL)
    kept.drops = [Drops(EVIL, EVIL, "noise", (EVIL, EVIL), (1.0, 2.0))]
    kept.scales = {EVIL: 0.5}
    read = page(found, kept, ["--onnx", EVIL])
    assert read.text.count(EVIL) > 15 and EVIL not in read.source and "<script" not in read.source


def test_names_that_are_no_text_can_be_written():
    found = result()
    found["model"] = {**found["model"], "path": os.fsdecode(b"m\xff.onnx")}
    assert b"m\\udcff.onnx" in html.render(found, Evidence(True), ["--onnx", os.fsdecode(b"m\xff.onnx")])


def test_the_command_can_be_typed_again():
    read = page(result(), None, ("--onnx", "my model.onnx", "--mean", "-0.5"))
    assert "python onnx2trt.py --onnx 'my model.onnx' --mean -0.5" in read.sections["command"]


# ---- when it cannot be made


def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(html.importlib.util, "find_spec", lambda name: None)
    with refused(ExitCode.MACHINE, "--report needs jinja2 and matplotlib", hint="pip install jinja2 matplotlib"):
        html.check_libraries()


def test_a_verdict_on_calibration_data_alone_says_so():
    from onnx2trt.report.sections import verdict

    seen = row(seen_in_calibration=True, seen_samples=3)
    assert "on other data INT8 may differ more" in verdict(result(accuracy=[seen]))["meaning"]
    assert "calibration" not in verdict(result(accuracy=[row()]))["meaning"]


@pytest.mark.parametrize(
    "name, parts",
    [
        ("000.jpg", ["000.jpg"]),
        ("a_long/name-of.a.picture.jpeg", ["a_", "long/", "name-", "of.", "a.", "picture.jpeg"]),
        ("/model.22/cv3.1/Conv", ["/", "model.", "22/", "cv3.", "1/", "Conv"]),
        ("version.of_the_weights", ["version.", "of_", "the_", "weights"]),
        ("<b>.png", ["&lt;b&gt;.png"]),
    ],
)
def test_names_break_behind_separators_and_not_before_an_ending(name, parts):
    assert str(html.wrapped(name)) == "<wbr>".join(parts)
