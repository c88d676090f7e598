"""The benchmarks still run and say what they measured; never how fast."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command import ROOT
from helpers import write_conv_net
from models import conv_net, random
from real_models import ppocr

from benchmarks import ablation, endurance, fleet_kills, gelu, in_place, networks, scaling
from benchmarks.calibration import table as calibration_table
from onnx2trt.fleet.plan_file import read_plan
from onnx2trt.quant import weight_fitting, weight_solver
from onnx2trt.quant.calibration_cache import to_text
from onnx2trt.stages.int8 import equalize as stages_equalize

IMAGES = ROOT / "tests" / "data" / "ppocr_det" / "calibration"


def test_the_forms_of_gelu_compute_the_same():
    feed = {"x": random(1, 16, 8)}
    found = {form: ort.InferenceSession(gelu.network(form, [1, 16, 8], 2)).run(None, feed)[0] for form in gelu.FORMS}
    exact = found.pop("FP16, erf")
    other = [form for form, (_, kind, beside) in gelu.FORMS.items() if kind == "relu" or beside in ("factor", "factors", "shift")]
    others = [found.pop(form) for form in other]
    assert len(others) == 4 and all(array.shape == exact.shape and np.sum((array - exact) ** 2) > 0 for array in others)
    assert all(np.sum((array - exact) ** 2) < 0.01 * np.sum(exact**2) for array in found.values())


def test_assignments_in_place_move_less_by_slices():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    found = in_place.measure(32)
    for figure in ("kernels", "moved_bytes", "bytes"):
        assert found["slices"][figure] < found["ScatterND"][figure], figure


@pytest.mark.slow
def test_overhead_benchmark(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    command = [sys.executable, str(ROOT / "benchmarks" / "overhead.py"), "--runs", "1", "--models", "example", "--json", "r.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed, which on a busy machine says nothing
    found = json.loads((tmp_path / "r.json").read_text())
    assert [(row["model"], row["way"]) for row in found["conversions"]] == [("example", "as it is"), ("example", "to FP16")]
    for row in found["conversions"]:
        assert 0 < row["tensorrt_s"] + row["own_s"] <= row["ours_s"] and row["ratio"] == pytest.approx(row["ours_s"] / row["raw_s"])
        assert row["skipped_s"] > 0 and row["ours_cpu_s"] > 0 and row["raw_cpu_s"] > 0
    assert found["conversions"][0]["inference_s"] == 0 < found["conversions"][1]["inference_s"]
    assert found["help"]["help_s"] > found["help"]["bare_s"] > 0
    assert sum("reached" in line or "MISSED" in line for line in done.stdout.splitlines()) == 3


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="holds its processes to two CPUs")
def test_calibration_benchmark(tmp_path):
    try:
        ppocr("det")
    except RuntimeError as error:
        pytest.skip(str(error))
    (tmp_path / "few").mkdir()
    for path in sorted(IMAGES.iterdir())[:2]:
        shutil.copy(path, tmp_path / "few")
    command = [sys.executable, str(ROOT / "benchmarks" / "calibration.py"), "--images", "few", "--pairs", "1", "--copies", "2"]
    done = subprocess.run([*command, "--json", "r.json"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed, which on two images says nothing
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["images"] == 2 and found["threads"] == 2 and found["repeated"]["copies"] == 2
    assert len(found["ours"]) == len(found["inference"]) == 1
    for run in (*found["ours"], *found["inference"], found["quantize_static"], found["repeated"]):
        assert run["seconds"] > 0 and run["cpu_seconds"] > 0 and run["peak_mb"] > 50
    ratio = found["quantize_static"]["seconds"] / found["ours"][0]["seconds"]
    assert found["times_faster_than_quantize_static"] == pytest.approx(ratio)
    lines = done.stdout.splitlines()
    assert sum(line.endswith(("reached", "MISSED")) for line in lines) == 4 and "2 images, 2 threads" in lines[0]
    assert "modelopt" not in done.stdout, "it needs an environment of its own"
    slowest = {"seconds": 10 * found["ours"][0]["seconds"], "cpu_seconds": 1.0, "peak_mb": 100.0}
    assert "100 MB   10.0 times ours" in calibration_table({**found, "modelopt": slowest})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="holds its processes to two CPUs")
def test_preprocessing_benchmark(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "preprocessing.py"), "--sizes", "64x48", "--images", "4", "--others", "3"]
    done = subprocess.run([*command, "--runs", "1", "--json", "r.json"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed, which on four images says nothing
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["threads"] == 2 and found["memory"]["images"] == [1, 4]
    assert {size: figures["images"] for size, figures in found["sizes"].items()} == {"64x48": 3, "1920x1080": 4}
    for figures in found["sizes"].values():
        assert figures["jpeg_bytes"] > 500 and {"ours", "imdecode", "imdecode_kept", "opencv"} <= set(figures["runs"])
        for name, (run,) in figures["runs"].items():
            assert run["seconds"] > 0 and run["peak_mb"] > 20
            assert figures["images_per_second"][name] == pytest.approx(figures["images"] / run["seconds"])
            if name != "ours":
                assert figures["ours_over"][name] == pytest.approx(run["seconds"] / figures["runs"]["ours"][0]["seconds"])
                assert figures["ours_over_by_cpu_time"][name] > 0
    lines = done.stdout.splitlines()
    assert "2 threads" in lines[0] and sum(line.endswith(("reached", "MISSED")) for line in lines) == 2
    assert sum("images/s" in line for line in lines) == sum(len(figures["runs"]) for figures in found["sizes"].values())


@pytest.mark.slow
def test_calibration_samples_benchmark(tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    command = [sys.executable, str(ROOT / "benchmarks" / "calibration_samples.py"), "--counts", "2", "--draws", "1", "--effort", "fast"]
    done = subprocess.run([*command, "--json", "r.json"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    (row,) = found["rows"]
    assert (row["samples"], row["draws"], row["failed"], len(row["scores"])) == (2, 1, [], 1)
    assert 0.3 < row["worst"] <= row["median"] < 1 and 0.1 <= row["int8_mac_share"] <= 1 and row["seconds"] > 0
    assert done.stdout.startswith("FP32 0.95") and len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    "count, draws, expected",
    [
        (1, 3, [[0], [4], [8]]),
        (4, 3, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]),
        (8, 2, [[0, 1, 3, 4, 6, 7, 9, 10]]),
        (12, 3, [list(range(12))]),
    ],
)
def test_draws_differ_and_spread_over_all_images(count, draws, expected):
    from benchmarks.calibration_samples import draws_of

    assert draws_of(list(range(12)), count, draws) == expected


def test_endurance_benchmark(tmp_path):
    """Two of its 200 conversions; the calibrations take minutes."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    found = endurance.convert(2)
    assert found["seconds_each"] > 0 and {**found, "seconds_each": 0} == {
        "conversions": 2,
        "failed": 0,
        "engines": 1,
        "left": [],
        "stderr_lines": 0,
        "seconds_each": 0,
    }
    endurance.images(tmp_path, 2)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 2


@pytest.mark.parametrize("free", [{}, {"x": [4, 3, 32, 32]}], ids=["fixed", "free"])
def test_commands_of_the_engines_are_accepted(tmp_path, free):
    from benchmarks import engines
    from benchmarks.race.sources import NAMES, Source
    from onnx2trt.plan.arguments import build_parser

    (tmp_path / "about.json").write_text(json.dumps({"model": "model.onnx", "data": "data", "free": free, "rows": 32}))
    options = engines.arguments().parse_args([])
    for source in [*map(Source, NAMES), Source("other", "model.onnx", "data")]:
        for way, flags in engines.WAYS.items():
            command = engines.command_of(source, way, tmp_path, options)
            if flags is None:
                assert json.loads(command[-1])["int8"] is (way == "raw int8")
                continue
            args = build_parser().parse_args([str(part) for part in command[2:]])
            assert args.precision == flags[1] and bool(args.opt_shapes) is bool(free)
            calibrated = way in engines.CALIBRATED
            assert (args.calibration_dir is not None) == calibrated and (args.max_accuracy_drop == 100) == source.made_up


def test_other_networks_are_given_with_their_data(tmp_path):
    from benchmarks.race.sources import Source, parse

    assert parse("a=m.onnx:data") == Source("a", str(Path("m.onnx").resolve()), str(Path("data").resolve()))
    assert parse("a=m.onnx:data:4").shape == (4,) and parse("a=m.onnx:data:1x3x8x8").shape == (1, 3, 8, 8)
    for wrong in ("m.onnx:data", "a=m.onnx", "a/b=m.onnx:data"):
        with pytest.raises(ValueError, match="is not NAME="):
            parse(wrong)


def test_the_race_says_what_was_missed_and_against_what():
    from benchmarks.race import table

    rows = {"raw fp16": 1.0, "raw int8": 0.8, "fp16": 1.03, "int8": 0.81, "best": 0.9}
    rows = {way: {"graph_p50_ms": ms, "p50_ms": ms} for way, ms in rows.items()}
    found = table.verdict("resnet50", rows)
    assert found["int8"]["reached"] and found["int8"]["against"] == "raw int8" and not found["best"]["reached"]
    assert not found["fp16"]["reached"] and not found["int8 of raw fp16"]["reached"], "its target is 0.69"
    for row in rows.values():
        row["build_s"] = 10.0
    assert table.verdict("resnet50", rows)["builds"]["value"] == 1.0
    rows["raw int8"]["error"] = "exit code 1"
    assert "builds" not in table.verdict("resnet50", rows), "a build that failed has no time to hold against"
    assert "**MISSED**" in table.markdown({"level": 3, "date": "2026-01-01", "networks": {"resnet50": {"rows": rows}}})


def test_where_an_engine_loses_time_is_said_worst_first():
    from benchmarks.race.clock import losses
    from onnx2trt.trt.inspector import EngineLayer

    def timed(**times):
        nodes = {name: () if "Reformat" in name else (name,) for name in times}
        return tuple(EngineLayer(name, "kind", "fp16", "fp16", "fp16", made, "") for name, made in nodes.items()), times

    lines = losses("int8", timed(a=0.010, b=0.002, Reformat_b=0.004), timed(a=0.011, b=0.001))
    assert lines[0] == "int8: 1 conversions, 0.004 of 0.016 ms in 3 layers; raw fp16: 0 conversions, 0.000 of 0.012 ms in 2 layers"
    assert [line.split(": ")[1] for line in lines[1:]] == ["b", "a"] and "6.0 us against     1.0" in lines[1]


def test_entropy_scales_benchmark(tmp_path, monkeypatch):
    """All of it on a tiny network and two made-up images."""
    from benchmarks import entropy_scales

    onnx.save(conv_net(1, size=640), tmp_path / "net.onnx")
    scales = {"x": 0.03, "r1": 0.02, "r2": 0.02}
    (tmp_path / "their.cache").write_text(to_text(scales, "entropy"))
    monkeypatch.setattr(entropy_scales, "CACHE", tmp_path / "their.cache")
    monkeypatch.setattr(entropy_scales, "ppocr", lambda name: tmp_path / "net.onnx")
    monkeypatch.setattr(entropy_scales, "images", lambda folder: ({"x": random(1, 3, 640, 640, seed=seed)} for seed in range(2)))
    found = entropy_scales.measure()
    assert found["tensors"] == 3 and 0 <= found["median_difference"] <= found["q90_difference"]
    assert 0.5 < found["iou_ours"] <= 1 and 0.5 < found["iou_tensorrt"] <= 1


def test_stages_that_are_inference_are_named_as_in_the_result():
    """Else their seconds would count as ours."""
    from benchmarks.overhead import INFERENCE

    sources = "".join(path.read_text() for path in (ROOT / "onnx2trt").rglob("*.py"))
    assert [stage for stage in INFERENCE if f'stage("{stage}"' not in sources] == []


@pytest.mark.parametrize(
    "model, shape", [(networks.transformer(2, 64, 8), (1, 8, 64)), (networks.detector(64), (1, 84, 6)), (networks.classifier(2), (2, 100))]
)
def test_networks_of_the_scaling_benchmark_run(model, shape):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    assert session.run(None, {source.name: random(*source.shape)})[0].shape == shape


def test_scaling_benchmark_says_how_seconds_grow_and_what_was_missed():
    rows = [{"pass_s": seconds, "own_s": 7 * seconds**1.5} for seconds in (0.1, 0.4, 2.0)]
    assert scaling.exponent(rows) == pytest.approx(1.5) and scaling.exponent(rows[:1]) is None and scaling.exponent([]) is None
    passes = dict.fromkeys(scaling.STAGES, 1.25)
    common = {"pass_s": 0.5, "stages_passes": passes, "own_passes": 9.5, "cpu_passes": 8.25, "total_s": 6.0, "peak_mb": 700.0}
    good = {"network": "small", "reached": {"whole": True, "memory": True}, **common}
    bad = {"network": "large", "reached": {"whole": False, "memory": True}, **common}
    lines = scaling.table({"rows": [good, bad], "exponents": {"detector": 1.5}}).splitlines()
    assert lines[1].startswith("small") and lines[1].endswith("  reached") and lines[2].endswith("  MISSED: whole")
    assert "9.5     8.2" in lines[1] and lines[3] == "detector: seconds grow as those of a pass to the power of 1.50"


def test_the_ablation_tells_what_is_lost_without_each_mechanism():
    db = {"as it is": 30.5, "all steps": 30.0, "no shifts": 28.0, "no scales": 30.25}
    one = {"db": db, "cpu_s": {"total": 12.0, "fit": 3.25}, "method": "mse", "equalized": True, "fitted": True}
    one |= {"share": 0.91234, "share_before_second_look": None}
    rows = ("dB", *db, "share", "share_before_second_look", "method")
    cells = dict(zip(rows, (line.split() for line in ablation.table({"net": one}).splitlines())))
    assert cells["dB"] == ["dB", "net"] and cells["as it is"][-1] == "30.50" and cells["all steps"][-1] == "30.00"
    assert cells["no shifts"][-1] == "-2.00" and cells["no scales"][-1] == "0.25", "against all steps"
    assert cells["share"][-1] == "0.912" and cells["share_before_second_look"][-1] == "None" and cells["method"][-1] == "mse"


@pytest.mark.slow
def test_the_ablation_leaves_out_what_its_rows_say(tmp_path, monkeypatch):
    """Of a small network; figures of all rows, and each mechanism is there again afterwards."""
    monkeypatch.chdir(tmp_path)
    write_conv_net(tmp_path, 8)
    (tmp_path / "data").rename("calibration")
    shutil.copytree("calibration", "test")
    before = stages_equalize.shift_groups, weight_solver.settle, weight_fitting.learn
    found = ablation.study(tmp_path, ())
    assert found["failed"] is None and found["share"] > 0.5 and found["cpu_s"]["total"] > found["cpu_s"]["fit"] > 0
    assert all(10 < db <= 60 for db in found["db"].values()) and len(found["db"]) == 16
    changed = {name for name, db in found["db"].items() if db != found["db"]["all steps"]}
    assert changed >= {"no fitting of weights", "no least squares", "no bias correction", "weights rounded to the nearest"}
    assert before == (stages_equalize.shift_groups, weight_solver.settle, weight_fitting.learn)


def test_the_refit_benchmark_changes_weights_alone_and_judges():
    from benchmarks import refit
    from onnx2trt.model.fingerprint import fingerprint
    from onnx2trt.model.graph import Graph

    before, after = (fingerprint(Graph.from_model(source)) for source in (conv_net(), refit.with_other_weights(conv_net())))
    assert before.first_difference(after) == "" and before.changed(after) == before.values.keys()
    figures = {"times_as_fast": 25.0, "sqnr_db": {"fresh": 70.0, "refitted": 58.0}}
    assert all(reached for _, reached in refit.judged(figures)), "above 60 dB it is rounding"
    figures = {"times_as_fast": 19.0, "sqnr_db": {"fresh": 50.0, "refitted": 40.0}}
    assert not any(reached for _, reached in refit.judged(figures))


def test_the_fleet_that_is_killed_counts_every_file_that_stood_under_an_engine_s_name(tmp_path):
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    plan = fleet_kills.make_plan(tmp_path, 2)
    assert len(read_plan(str(plan)).models) == 2 and len(read_plan(str(plan)).targets) == 3
    first, second = ((tmp_path / "models" / f"net00{number}.onnx").read_bytes() for number in range(2))
    assert first != second
    ort.InferenceSession(first).run(None, {"x": random(1, 3, 16, 16)})
    watch = fleet_kills.Watch(tmp_path)
    folder = tmp_path / "engines" / "ada"
    folder.mkdir(parents=True)
    for name, text in (("a", "one"), ("b", "two"), ("a", "three")):
        (folder / "new").write_text(text)
        (folder / "new").replace(folder / f"{name}.engine")
        watch.look()
        watch.look()
    assert {name: len(builds) for name, builds in watch.builds.items()} == {"engines/ada/a.engine": 2, "engines/ada/b.engine": 1}


def test_the_fleet_s_victims_are_found_below_the_driver_alone():
    sleeper = [
        sys.executable,
        "-c",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()', 'onnx2trt.fleet.' + 'leash'], stderr=-3)",
    ]
    with subprocess.Popen(sleeper, stdin=subprocess.PIPE) as driver:
        try:
            while not (found := fleet_kills.victims("conversion", driver.pid)):
                time.sleep(0.01)
            assert len(found) == 1 and found[0] != driver.pid and fleet_kills.victims("driver", driver.pid) == [driver.pid]
            assert fleet_kills.victims("conversion", os.getpid()) == found and fleet_kills.victims("raylet", os.getpid()) == []
            assert fleet_kills.still_there({found[0]: fleet_kills.descendants(driver.pid)[found[0]], 2**22 + 1: "ray::convert"}) == 1
        finally:
            driver.stdin.close()
