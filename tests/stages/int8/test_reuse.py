"""stages/int8/reuse.py: a second build with the cache makes the same engine, without an image; and who may rely on what."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from command import onnx2trt
from helpers import planned, refused
from models import mixed, model, node, profiles, random, weight_and_axis

from onnx2trt.base.errors import AccuracyError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.session import Session
from onnx2trt.pipeline import engine, int8
from onnx2trt.quant import calibration_cache
from onnx2trt.quant.equalize.groups import scale_groups
from onnx2trt.quant.fit_file import Packed
from onnx2trt.rewrite import prepare
from onnx2trt.rewrite.qdq import QUANTIZE_OPSET, int8_layers, quantizable_layers, quantize_weights
from onnx2trt.stages.int8 import trt_calibrator

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

CHANNELS = 24
LIMIT = "1"
COMMON = (
    "--onnx",
    "model.onnx",
    "--precision",
    "int8",
    "--metric",
    "noise",
    "--calibration-cache",
    "c.cache",
    "--json",
    "result.json",
    "--no-baseline",
)
DATA = ("--calibration-dir", "data")
WORK = {"ranges", "calibrate", "equalize", "fit", "choose"}  # the stages of the long work


def net():
    """A layer that INT8 does not suit (outliers), nodes beyond FP16's range, channels to be scaled, and others to be shifted."""
    nodes = [
        node("Conv", "x w", "h", "hostile"),
        node("Clip", "x low high", "c", "clip"),
        node("Conv", "c w1 b1", "f", "first", pads=[1] * 4),
        node("Relu", "f", "r", "relu"),
        node("Conv", "r w2", "s", "second", pads=[1] * 4),
        node("Add", "s offsets", "o", "offset"),
        node("Conv", "o w3", "t", "third"),
        node("Mul", "t up", "big", "enlarge"),
        node("Mul", "big down", "z", "reduce"),
        node("Add", "h z", "y", "sum"),
    ]
    uneven = np.geomspace(0.02, 1, CHANNELS).astype(np.float32)
    weights = {
        "w": random(CHANNELS, CHANNELS, 1, 1, seed=1, scale=0.6),
        "w1": random(CHANNELS, CHANNELS, 3, 3, seed=2, scale=0.07) * uneven.reshape(-1, 1, 1, 1),
        "b1": random(CHANNELS, seed=3) * uneven,
        "w2": random(CHANNELS, CHANNELS, 3, 3, seed=4, scale=0.07) / uneven.reshape(1, -1, 1, 1),
        "offsets": np.linspace(-9, 9, CHANNELS).astype(np.float32).reshape(-1, 1, 1),
        "w3": random(CHANNELS, CHANNELS, 1, 1, seed=5, scale=0.2),
        "low": np.float32(-3),
        "high": np.float32(3),
        "up": np.float32(1e5),
        "down": np.float32(1e-5),
    }
    shape = ["n", CHANNELS, 16, 16]
    return model(nodes, {"x": shape}, {"y": shape}, weights)


def write_samples(folder, count, first=0):
    folder.mkdir()
    for index in range(first, first + count):
        values = mixed(CHANNELS, 16, seed=100 + index)
        values.reshape(-1)[np.random.default_rng(index).integers(values.size)] = 200
        np.save(folder / f"{index:03}.npy", values)


def convert(folder, *flags, limit=LIMIT, save="second.onnx"):
    return onnx2trt(folder, *COMMON, "--max-accuracy-drop", limit, "--save-onnx", save, *flags)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a model, data, and what a run has made of them."""
    folder = tmp_path_factory.mktemp("made")
    onnx.save(net(), folder / "model.onnx")
    write_samples(folder / "data", 8)
    done = convert(folder, *DATA, save="first.onnx")
    assert done.code == 0, done.stderr
    shutil.copy(folder / "result.json", folder / "first.json")
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "copy"))
    return Path.cwd()


@dataclass
class Prepared:
    """What became of a run up to the build."""

    model: prepare.Prepared
    choice: int8.Int8Choice
    job: Job
    run: Run
    said: list[str]

    @property
    def work(self):
        return set(self.run.console.timings) & WORK

    @property
    def is_the_first(self):
        return self.model.graph.to_model().SerializeToString() == Path("first.onnx").read_bytes()

    @property
    def kept(self):
        return {name for name, _, _ in self.model.fallback}


def prepared(*flags, route="rtx", limit=LIMIT):
    """Convert in the current folder, for one of helpers.LIBRARIES, up to the build."""
    (job, run), said = planned(*COMMON[2:8], "--max-accuracy-drop", limit, *flags, library=route), []
    run.write_now = lambda contents: [Path(path).write_bytes(data) for path, data in contents.items()]
    run.console.info = said.append
    choice = int8.choose(job, run)
    return Prepared(choice.prepared(run), choice, job, run, said)


def kept(result):
    return {entry["name"]: (entry["precision"], entry["reason"]) for entry in result["precision"]["fallback"]}


def found_in(folder):
    return Packed((folder / "c.cache.fit.npz").read_bytes()).unpack(Graph.from_model(net()))


def without_cache(folder):
    for path in folder.glob("c.cache*"):
        path.unlink()


# ---- the same again


def test_the_net_has_something_of_everything(made):
    """Otherwise, what follows would prove little."""
    found = found_in(made)
    assert set(found.fit.scales) == {"x", "c", "r", "o"} and set(found.fit.rounded) == {"hostile", "first", "second", "third"}
    assert all(own.bias is not None for own in found.fit.rounded.values())
    assert any(np.ptp(vector) > 1 for vector in found.shifts.values()) and any(np.ptp(vector) > 1 for vector in found.factors.values())
    assert set(found.fp16_fallback) == {"hostile"} and {"enlarge", "reduce"} <= set(found.kept_fp32)


@pytest.mark.parametrize("data", [(), DATA], ids=["without data", "with data"])
def test_a_second_build_is_the_first_again(folder, data):
    if not data:
        shutil.rmtree("data")
    done = convert(folder, *data)
    assert done.code == 0, done.stderr
    result, first = done.json("result.json"), done.json("first.json")
    assert Path("second.onnx").read_bytes() == Path("first.onnx").read_bytes() and not set(result["timings_s"]) & WORK
    assert "fitted weights and the choice of layers come from c.cache.fit.npz" in done.stderr
    assert not any("c.cache" in warning for warning in result["warnings"])
    assert kept(result) == kept(first) and result["precision"]["int8_mac_share"] == first["precision"]["int8_mac_share"] < 1
    assert result["calibration"]["samples_used"] is None and result["calibration"]["method"] == first["calibration"]["method"]
    if data:
        assert result["accuracy"] == first["accuracy"] and result["status"] == "simulated"
    else:
        assert result["accuracy"][0]["inputs"] == "synthetic" and result["status"] == "not_validated"
        assert "the accuracy of INT8 was not judged" in result["warnings"][-1]


def test_flags_that_change_nothing_about_the_layers_may_differ(folder):
    again = prepared("--max-batch-size", "4", "--tf32", "--test-image", "data/000.npy")
    assert again.is_the_first and not again.work and not again.run.console.warnings


def test_what_is_chosen_for_a_second_attempt_at_the_build_is_kept(folder):
    without_cache(folder)
    first = prepared(*DATA)
    missed = AccuracyError("ten times too much", hint="", drop_percent=10 * float(LIMIT))
    second = first.choice.lower(missed, first.run)
    assert len(second.fallback) > len(first.model.fallback)
    shutil.rmtree("data")
    assert prepared().model.fallback == second.fallback


# ---- other conditions


def test_with_data_another_limit_is_worked_for_anew(folder):
    again = prepared(*DATA, limit="90")
    assert "c.cache.fit.npz was made with another --max-accuracy-drop: everything is found again from data" in again.said
    assert again.work == WORK and again.kept == {"enlarge", "reduce"}, "hostile is INT8 now"
    shutil.rmtree("data")
    third = prepared(limit="90")
    assert not third.work and third.kept == again.kept, "the files are those of the new run"
    assert third.model.graph.to_model() == again.model.graph.to_model()


@pytest.mark.parametrize("flags", [("--max-accuracy-drop", "4"), ("--no-validate",), ("--metric", "cosine"), ("--min-int8-share", "30")])
def test_without_data_the_choice_of_layers_stands(folder, flags):
    again = prepared(*flags)
    assert again.is_the_first and not again.work
    warning = f"made with another {flags[0]}: the choice of layers is used as it is; give --calibration-dir to choose again"
    assert warning in again.run.console.warnings[0]


def test_a_validation_folder_is_enough_to_choose_again(folder):
    shutil.rmtree("data")
    write_samples(folder / "validation", 4, first=50)
    again = prepared("--validation-dir", "validation", limit="90")
    assert any("the layers are chosen again" in line for line in again.said) and again.work == {"choose"}
    assert "hostile" not in again.kept
    weights = again.model.graph.weights["w1__quantized"]
    assert np.array_equal(weights, found_in(folder).fit.rounded["first"].weights), "fitted ones"


def test_the_validation_data_that_layers_were_judged_by_is_a_condition(folder):
    write_samples(folder / "validation", 12, first=50)
    validation = ("--validation-dir", "validation")
    first = prepared(*DATA, *validation)
    assert "c.cache.fit.npz was made with another --validation-dir: everything is found again from data" in first.said
    assert not prepared(*DATA, *validation).work and not prepared(*validation).work
    shutil.copy("validation/050.npy", "validation/051.npy")
    for flags in ((), validation):
        again = prepared(*flags)
        assert not again.work and not again.run.console.warnings, "the choice stands, and what is built of it is checked"
    assert prepared(*DATA, *validation).work == WORK


@pytest.mark.parametrize("flags", [("--quantization-effort", "best"), ("--layer-precisions", "second:fp16"), ("--disable-strict-types",)])
def test_weights_made_under_other_conditions_are_not_used(folder, flags):
    again = prepared(*flags)
    warning = f"c.cache.fit.npz was made with another {flags[0]}: only the scales of c.cache are used. Accuracy may be much lower"
    assert warning in again.run.console.warnings[0]
    graph = Graph.from_model(net())
    plain, _ = quantize_weights(*weight_and_axis(graph, "first"), half=True)
    assert np.array_equal(again.model.graph.weights["w1__quantized"], plain), "neither equalized nor fitted"


def test_a_file_of_another_version_is_made_again(folder):
    about = json.loads(bytes(np.load("c.cache.fit.npz")["about"]))
    rewrite(folder, lambda arrays: {**arrays, "about": np.frombuffer(json.dumps({**about, "format": 0}).encode(), np.uint8)})
    again = prepared(*DATA)
    assert "c.cache.fit.npz was made with another version of onnx2trt: everything is found again from data" in again.said
    assert again.is_the_first and again.work == WORK


# ---- missing, damaged, foreign


def missing(folder):
    (folder / "c.cache.fit.npz").unlink()


def changed(folder):
    data = bytearray((folder / "c.cache.fit.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "c.cache.fit.npz").write_bytes(data)


def of_an_older_version(folder):
    record = json.loads((folder / "c.cache.json").read_text())
    del record["fit_sha256"]
    (folder / "c.cache.json").write_text(json.dumps(record))


def too_large(folder):
    with open(folder / "c.cache.fit.npz", "ab") as stream:
        stream.truncate(2**40)


@pytest.mark.parametrize("damage", [missing, changed, of_an_older_version, too_large])
def test_without_its_file_a_cache_is_only_scales(folder, damage):
    damage(folder)
    again = prepared()
    warning = again.run.console.warnings[0]
    assert "c.cache.fit.npz is missing, or belongs to another cache: only the scales of c.cache are used" in warning
    assert "Accuracy may be much lower; give --calibration-dir" in warning and not again.is_the_first


def test_with_data_a_missing_file_is_made_again(folder):
    before = {path.name: path.read_bytes() for path in folder.glob("c.cache*")}
    missing(folder)
    again = prepared(*DATA)
    assert "everything is found again from data" in again.said[0] and again.is_the_first and len(before) == 3
    assert {path.name: path.read_bytes() for path in folder.glob("c.cache*")} == before


def test_a_stale_cache_that_is_accepted_is_only_scales(folder):
    shutil.copy("data/001.npy", "data/000.npy")
    before = {path.name: path.read_bytes() for path in folder.glob("c.cache*")}
    again = prepared(*DATA, "--accept-stale-cache", limit="90")
    assert "other calibration files; used because of --accept-stale-cache" in again.run.console.warnings[0]
    assert again.work == {"ranges", "fit", "choose"} and not any("come from" in line for line in again.said)
    assert {path.name: path.read_bytes() for path in folder.glob("c.cache*")} == before, "what was accepted stays as it is"


def rewrite(folder, change):
    """Another content, tied to the cache as if it were ours."""
    with np.load(folder / "c.cache.fit.npz") as stored:
        np.savez(folder / "c.cache.fit.npz", **change(dict(stored)))
    record = json.loads((folder / "c.cache.json").read_text())
    record["fit_sha256"] = hashlib.sha256((folder / "c.cache.fit.npz").read_bytes()).hexdigest()
    (folder / "c.cache.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda arrays: {**arrays, "weights_0": arrays["weights_0"][:1]}, "it does not fit the model (weights_0 is int8 [1, 24, 1, 1])"),
        (lambda arrays: {**arrays, "factor_0": arrays["factor_0"][:-1]}, "other channels are equalized together"),
        (lambda arrays: {**arrays, "factor_0": -arrays["factor_0"]}, "a scale of a channel is not above 0 and finite"),
        (lambda arrays: {**arrays, "shift_0": arrays["shift_0"] * np.nan}, "a shift is not finite"),
    ],
)
@pytest.mark.parametrize("data", [(), DATA], ids=["without data", "with data"])
def test_a_file_that_does_not_fit_the_model_is_refused(folder, change, message, data):
    rewrite(folder, change)
    with refused(ExitCode.CALIBRATION, "c.cache.fit.npz cannot be used", message, hint="Delete it"):
        prepared(*data)


def test_files_that_cannot_be_written_are_found_before_the_work(folder):
    without_cache(folder)
    for name in ("c.cache.fit.npz", "c.cache.json"):
        Path(name).mkdir()
        done = convert(folder, *DATA)
        assert done.code == 8 and f"{name}: it is a folder" in done.error and "calibrating" not in done.stderr
        Path(name).rmdir()
    done = convert(folder, *DATA, "-o", "c.cache.fit.npz")
    assert done.code == 2 and "fit file" in done.stderr


# ---- from one route to the other


def noise(graph):
    """Of the outputs, on fresh samples."""
    folder = Path("fresh")
    if not folder.exists():
        write_samples(folder, 4, first=80)
    feeds = [{"x": np.load(path)} for path in sorted(folder.iterdir())]
    reference, session = Session.from_path("model.onnx"), Session.from_graph(graph)
    pairs = [(reference.run(feed)["y"], session.run(feed)["y"]) for feed in feeds]
    return sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs)


@pytest.mark.parametrize("flags", [(), ("--calibration-method", "entropy")], ids=["auto", "a method that the calibrator has"])
def test_what_a_cpu_found_feeds_the_calibrator_of_tensorrt_10(folder, flags):
    without_cache(folder)
    first = prepared(*DATA, *flags).model.graph
    shutil.rmtree("data")
    weak, found = prepared(*flags, route="weak"), found_in(folder)
    assert weak.job.plan.calibrator and not weak.work and not weak.run.console.warnings
    read = {layer.activation for layer in quantizable_layers(weak.model.graph) if layer.node != "hostile"}
    assert {name: found.fit.scales[name] for name in read}.items() <= weak.model.scales.items()
    assert not read & {"x"} and "x" not in weak.model.scales, "what only an FP16 layer reads is not quantised"
    assert {n for n, p in weak.model.constraints.items() if p == "int8"} == {"first", "second", "third"}
    assert "fp16" not in weak.model.constraints.values() and not weak.model.half_nodes, "hostile reads nothing that has a scale"
    assert {n for n, p in weak.model.constraints.items() if p == "fp32"} == set(found.kept_fp32)
    assert int8_layers(weak.model.equivalent) == {"first", "second", "third"} == int8_layers(first)
    for layer in quantizable_layers(weak.model.graph):
        if layer.node != "hostile":
            integers, scales = quantize_weights(*weight_and_axis(weak.model.graph, layer.node), half=False)
            own = found.fit.rounded[layer.node]
            assert np.array_equal(integers, own.weights), "TensorRT will round them to the fitted integers"
            np.testing.assert_allclose(scales, own.scales, rtol=1e-6)
    assert noise(weak.model.equivalent) == pytest.approx(noise(first), rel=0.1)
    missing(folder)
    assert noise(weak.model.equivalent) < 0.5 * noise(prepared(*flags, route="weak").model.equivalent), "there is something to take over"


@pytest.mark.parametrize("flags", [("--quantization", "qdq"), ("--strongly-typed",)])
def test_qdq_for_tensorrt_10_takes_it_over_too(folder, flags):
    weak = prepared(*flags, route="weak")
    assert not weak.job.plan.calibrator and not weak.work and not weak.run.console.warnings
    assert noise(weak.model.graph) == pytest.approx(noise(Graph.from_model(onnx.load("first.onnx"))), rel=0.1)


def test_what_the_weak_route_found_feeds_the_strong_one(folder):
    without_cache(folder)
    weak = prepared(*DATA, route="weak").model.equivalent
    shutil.rmtree("data")
    strong = prepared()
    assert not strong.work and not strong.run.console.warnings and strong.kept >= {"hostile", "enlarge", "reduce"}
    assert int8_layers(strong.model.graph) == int8_layers(weak)
    assert noise(strong.model.graph) == pytest.approx(noise(weak), rel=0.1)


def test_a_cache_of_tensorrts_own_calibrator_is_not_worked_for_again(folder):
    """Without a GPU: what stages/int8/trt_calibrator.py makes of the text that TensorRT would have written."""
    of_tensorrt = {**calibration_cache.read("c.cache").scales, "(Unnamed Layer* 0) [Constant]_output": 0.5}
    without_cache(folder)
    entropy = ("--calibration-method", "entropy")
    first = prepared(*DATA, *entropy, route="weak")
    assert first.model.scales is None and not Path("c.cache").exists()
    text = calibration_cache.to_text(of_tensorrt, "entropy", "101600").encode()
    calibrator = trt_calibrator.Calibrator(first.job, None, None, first.run)
    calibrator._object = SimpleNamespace(batches_used=8, written=text, samples_used=8)
    found = calibrator.found(1.0)
    engine._remember(first.job, first.model, found, first.run)
    assert Path("c.cache").read_bytes() == text
    shutil.rmtree("data")
    second = prepared(*entropy, route="weak")
    assert not second.work and not second.run.console.warnings
    assert second.model.constraints == first.model.constraints
    read = {layer.activation for layer in quantizable_layers(second.model.graph) if second.model.constraints.get(layer.node) == "int8"}
    assert read <= set(second.model.scales) and second.model.scales.items() <= found.scales.items()
    assert second.model.fallback == first.model.fallback
    assert all(np.array_equal(second.model.graph.weights[name], array) for name, array in first.model.graph.weights.items())


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17])
def test_both_routes_work_on_the_same_names_and_groups(opset):
    """Otherwise, what one has found would not fit the other."""
    softmax = "Softmax" if opset < 13 else "Relu"  # raising one of opset 12 adds nodes
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4),
        node("ReduceMean", "a", "m", axes=[2, 3], keepdims=1),  # its axes become an input with opset 18
        node("Mul", "a m", "g"),
        node(softmax, "g", "s", **({"axis": 1} if opset < 13 else {})),
        node("Conv", "s v b", "c"),
        node("BatchNormalization", "c one zero zero one", "n"),
        node("Relu", "n", "r"),
        node("Conv", "r v", "y"),
    ]
    one, zero = np.ones(8, np.float32), np.zeros(8, np.float32)
    weights = {"w": random(8, 3, 3, 3), "v": random(8, 8, 1, 1, seed=1), "b": random(8), "one": one, "zero": zero}
    made, shapes = model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 8, 8, 8]}, weights, opset), profiles(x=(1, 3, 8, 8))
    weak = prepare.working_graph(Graph.from_model(made, shapes), quantize=True, fp16_scales=False)
    strong = prepare.working_graph(Graph.from_model(made, shapes), quantize=True, fp16_scales=True)
    assert weak.opset <= 17 < QUANTIZE_OPSET <= strong.opset
    assert [n.name for n in weak.nodes] == [n.name for n in strong.nodes] and weak.float_tensors() == strong.float_tensors()
    assert quantizable_layers(weak) == quantizable_layers(strong) and len(quantizable_layers(weak)) == 3
    found = [[(list(g.places), g.size) for g in scale_groups(graph, static_shapes(graph, shapes))] for graph in (weak, strong)]
    assert found[0] == found[1] and len(found[0]) >= 1
