"""Several engines of one model: --compare, --precision best, and which INT8 layers are slower than in FP16."""

import json
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from command import onnx2trt
from helpers import LIBRARIES, network, parse, refused
from models import conv_net, model, node, profiles, random

from onnx2trt.base.errors import ExitCode
from onnx2trt.compare.latency import measure_in_turn
from onnx2trt.conversion.run import Variant
from onnx2trt.plan.plan import make_plan
from onnx2trt.plan.rules import flag_problem
from onnx2trt.stages import fp16_baseline as baseline
from onnx2trt.stages import variants
from onnx2trt.stages.fp16_baseline import Baseline
from onnx2trt.stages.slow_layers import at_one_pace, choose_slow, left_alone, served_by, slowed_down, slower_in_int8
from onnx2trt.trt.inspector import EngineLayer
from onnx2trt.trt.profile import Part, parts_of

# ---- which engines are built


@pytest.mark.parametrize(
    "library, flags, variants",
    [
        ("weak", "--precision fp16", ("fp16",)),
        ("weak", "--precision int8 --calibration-dir d", ("int8", "fp16")),
        ("weak", "--precision int8 --calibration-dir d --no-baseline", ("int8",)),
        ("weak", "--precision int8 --calibration-dir d --no-validate", ("int8",)),
        ("no gpu", "--precision int8 --calibration-dir d", ("int8",)),
        ("no gpu", "--compare", ("fp16", "fp32", "int8")),
        ("weak", "--precision int8 --compare", ("int8", "fp32", "fp16")),
        ("weak", "--precision best", ("fp16",)),
        ("weak", "--precision best --calibration-dir d", ("fp16", "int8")),
        ("weak", "--precision best --calibration-cache c", ("fp16", "int8")),
        ("strong", "--precision best --compare", ("fp16", "fp32", "int8")),
    ],
)
def test_what_is_built(library, flags, variants):
    assert make_plan(parse(*flags.split()), libraries()[library]).variants == variants


def libraries():
    return {**LIBRARIES, "no gpu": replace(LIBRARIES["rtx"], gpu="", gpu_arch="", driver_problem="there is no driver")}


def test_best_needs_a_gpu():
    with refused(ExitCode.MACHINE, "--precision best", "there is no driver", hint="--compare"):
        make_plan(parse("--precision", "best"), libraries()["no gpu"])


@pytest.mark.parametrize("flags", ["--compare", "--precision best"])
def test_comparing_is_measuring(flags):
    assert "--no-validate cannot go with it" in flag_problem(parse(*flags.split(), "--no-validate"))


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


# ---- the FP16 engine, remembered


class Remembering:
    """What stages.fp16_baseline needs of a run."""

    def __init__(self):
        self.said = []
        self.console = SimpleNamespace(info=self.said.append, debug=self.said.append)

    def write_now(self, contents):
        for path, data in contents.items():
            Path(path).write_bytes(data)


def int8_job(*flags, **changes):
    plan = make_plan(parse("--precision", "int8", "--calibration-dir", "d", *flags), replace(LIBRARIES["weak"], cache_folder="/caches"))
    return SimpleNamespace(plan=plan, inputs={"model": "m", "versions": {"gpu": "H200"}, **changes})


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    timed = ((layer("a + b", "a", "b", precision="fp16"),), {"a + b": 0.25})
    baseline.remember(int8_job(), {"precision": "fp16", "p50_ms": 1.25}, timed, Remembering())
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
    assert found.row == {"precision": "fp16", "p50_ms": 1.25} and found.timed == remembered
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
    "content", [b"", b"{}", b"[1]", b'{"row": {}, "layers": [], "layer_ms": {}, "measured": "x"}', b"\xff", b"[" * 10**5]
)
def test_a_damaged_memory_is_none(remembered, tmp_path, content):
    (path,) = (tmp_path / "onnx2trt" / "baseline").iterdir()
    path.write_bytes(content)
    assert baseline.recall(int8_job(), Remembering()) is None


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    run = Remembering()
    baseline.remember(int8_job(), {"p50_ms": 1.0}, ((), {}), run)
    assert "is not written" in run.said[0]


# ---- times of layers


def layer(name, *nodes, precision="int8", reads=(), writes=()):
    return EngineLayer(name, "CaskConvolution", precision, precision, precision, nodes, "", reads, writes)


def test_layers_of_two_engines_meet_where_both_fuse():
    first = ((layer("a + b", "a", "b"), layer("c", "c"), layer("d", "d")), {"a + b": 1.0, "c": 2.0, "d": 3.0})
    second = ((layer("a", "a"), layer("b + c", "b", "c"), layer("d", "d")), {"a": 0.5, "b + c": 0.7, "d": 5.0})
    parts = {part.nodes: (part.first_ms, part.second_ms) for part in parts_of(first, second)}
    assert parts == {frozenset("abc"): (3.0, pytest.approx(1.2)), frozenset("d"): (3.0, 5.0)}


def test_conversions_of_formats_count_for_the_layer_that_they_serve():
    copy = layer("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1")
    lonely = layer("Reformatting CopyNode for Network Output y")
    engine = (
        (layer("conv1 + relu1", "conv1", "relu1"), copy, lonely, layer("relu1")),
        {"conv1 + relu1": 1.0, copy.name: 0.5, lonely.name: 9.0},
    )
    (part,) = parts_of(engine, ((layer("conv1", "conv1"), layer("relu1", "relu1")), {"conv1": 0.8, "relu1": 0.1}))
    assert part == Part(frozenset({"conv1", "relu1"}), 1.5, pytest.approx(0.9))


def test_a_conversion_counts_for_the_int8_layer_that_makes_it_necessary():
    """Of what it reads; a conversion before an INT8 layer counts for that one."""
    after = layer("Reformatting CopyNode for Input Tensor 0 to b", reads=("t",), writes=("t2",))
    before = layer("Reformatting CopyNode for Input Tensor 0 to c", reads=("u",), writes=("u2",))
    layers = {
        "a": layer("a", "a", writes=("t",)),
        "b": layer("b", "b", precision="fp16", reads=("t2",), writes=("u",)),
        "c": layer("c", "c", reads=("u2",)),
    }
    times = {"a": 1.0, "b": 2.0, "c": 4.0, after.name: 0.5, before.name: 0.25}
    plain = tuple(layer(name, name, precision="fp16") for name in "abc")
    parts = parts_of(((*layers.values(), after, before), times), (plain, dict.fromkeys("abc", 1.0)))
    assert {"".join(part.nodes): part.first_ms for part in parts} == {"a": 1.5, "b": 2.0, "c": 4.25}
    half = (replace(layers["a"], precision="fp16"), layers["b"], layers["c"], after, before)
    parts = parts_of((half, times), (plain, dict.fromkeys("abc", 1.0)))
    assert {"".join(part.nodes): part.first_ms for part in parts} == {"a": 1.0, "b": 2.5, "c": 4.25}


WEIGHTS = {"w": random(4, 4, 1, 1), "s": np.float32(0.1), "z": np.int8(0)}


def pair(tensor):
    """Q and DQ; the result is d."""
    quantized, dequantized = f"{tensor}__quantized", f"{tensor}__dequantized"
    return [node("QuantizeLinear", f"{tensor} s z", "q", quantized), node("DequantizeLinear", "q s z", "d", dequantized)]


def test_quantising_counts_for_those_that_read_it():
    readers = [node("Conv", "d w", "a", "first"), node("Conv", "d w", "b", "second"), node("Add", "a b", "y", "sum")]
    graph = network([*pair("x"), *readers], WEIGHTS)
    quantise, fused = layer("x__quantized", "x__quantized", precision="fp32"), layer("second + sum", "x__dequantized", "second", "sum")
    assert [found.nodes for found in served_by(graph, (quantise, fused))] == [("first", "second"), ("first", "second", "sum")]


def test_engines_that_were_timed_at_another_pace_are_compared_at_one():
    others = [Part(frozenset({f"n{index}"}), 1.0, 2.0) for index in range(5)]
    slow = Part(frozenset({"a"}), 3.0, 4.0)
    paced = at_one_pace([slow, *others], {"a"})
    assert paced[0] == Part(frozenset({"a"}), 3.0, 2.0) and all(part.second_ms == 1.0 for part in paced[1:])
    assert at_one_pace([slow, *others[:4]], {"a"}) == [slow, *others[:4]], "too few to tell"
    assert set(choose_slow(paced, {"a"}, {}, 0)) == {"a"} and choose_slow([slow, *others], {"a"}, {}, 0) == {}


@pytest.mark.parametrize("conv_ms, share, slow", [(0.7, 0.0, False), (1.5, 0.0, True), (1.5, 1.0, False)])
def test_the_pace_is_that_of_what_no_engine_computes_in_int8(conv_ms, share, slow):
    """Here, INT8 pooling is twice as fast."""
    pools = [f"p{index}" for index in range(6)]
    nodes = [node("Conv", "x w", "c", "conv")]
    nodes += [node("MaxPool", before, after, name, kernel_shape=[1, 1]) for before, after, name in zip(["c", *pools], [*pools, "y"], pools)]
    nodes[-1].output[0] = "y"
    graph = network(nodes, WEIGHTS)
    job = SimpleNamespace(plan=SimpleNamespace(min_int8_share=share), profiles=profiles(x=(1, 4, 8, 8)))
    made = SimpleNamespace(prepared=SimpleNamespace(graph=graph))
    names = ["conv", *pools]
    int8 = (tuple(layer(name, name) for name in names), {"conv": conv_ms, **dict.fromkeys(pools, 0.5)})
    fp16 = (tuple(layer(name, name, precision="fp16") for name in names), dict.fromkeys(names, 1.0))
    assert set(slower_in_int8(job, made, int8, fp16)) == ({"conv"} if slow else set())


def test_a_layer_answers_for_what_its_balanced_channels_slow_down():
    """A multiplication with one factor for each channel, not fused any more, is read by an INT8 layer through Q and DQ."""
    before = [node("Sigmoid", "x", "g", "gate"), node("Mul", "g f", "m", "affine")]
    graph = network([*before, *pair("m"), node("Conv", "d w", "y", "conv")], {**WEIGHTS, "f": random(4, 1, 1)})
    before = Part(frozenset({"gate", "affine"}), 3.0, 1.0)
    assert slowed_down(graph, [before], {"conv"}) == [("affine", "gate", "conv")]
    assert slowed_down(graph, [replace(before, first_ms=1.0)], {"conv"}) == [], "it is no slower"
    assert slowed_down(graph, [before], {"conv", "gate"}) == [], "it is INT8 itself"
    assert slowed_down(graph, [before], set()) == []
    timed = [(layer("gate", "gate", precision="fp16"), layer("affine", "affine", precision="fp16"), layer("conv", "conv"))]
    timed.append((layer("gate + affine", "gate", "affine", precision="fp16"), layer("conv", "conv", precision="fp16")))
    times = {"gate": 2.0, "affine": 1.0, "conv": 2.0}, {"gate + affine": 1.0, "conv": 3.0}
    (part,) = parts_of(*zip(timed, times), [("affine", "gate", "conv")])
    assert part == Part(frozenset({"gate", "affine", "conv"}), 5.0, 4.0)


def test_only_what_gains_enough_goes_back():
    parts = [Part(frozenset({"a", "r"}), 3.0, 1.0), Part(frozenset({"b"}), 1.02, 1.0), Part(frozenset({"c"}), 1.0, 4.0)]
    assert set(choose_slow(parts, {"a", "b", "c"}, {}, 0)) == {"a"}, "b is within the noise, c is faster"
    assert "3.0000 ms against 1.0000 ms in FP16" in choose_slow(parts, {"a"}, {}, 0)["a"]
    assert choose_slow([*parts, Part(frozenset({"z"}), 1000.0, 1001.0)], {"a"}, {}, 0) == {}, "two of a thousand milliseconds"
    assert choose_slow(parts, {"b", "c"}, {}, 0) == {}, "what is FP16 already cannot go back"


@pytest.mark.parametrize("least, back", [(0, "abc"), (1, "ac"), (10, "ab"), (11, "a"), (21, "c"), (30, "b"), (31, "")])
def test_what_loses_least_stays_where_a_share_was_asked_for(least, back):
    parts = [Part(frozenset({"a", "r"}), 9.0, 1.0), Part(frozenset({"b"}), 2.0, 1.0), Part(frozenset({"c"}), 2.5, 1.0)]
    work = {"a": 20, "b": 1, "c": 10, "fp16": 100}  # they lose 8, 1 and 1.5 ms
    assert "".join(sorted(choose_slow(parts, {"a", "b", "c"}, work, least))) == back


@pytest.mark.parametrize("lost, back", [(3.05, "small"), (3.8, "large")])
def test_one_large_layer_stays_rather_than_many_small_ones_that_lose_about_as_much(lost, back):
    parts = [Part(frozenset({"large"}), 10.0 + lost, 10.0), *(Part(frozenset({f"small{index}"}), 2.0, 1.0) for index in range(3))]
    work = {"large": 39, **{f"small{index}": 10 for index in range(3)}}
    assert {name.rstrip("012") for name in choose_slow(parts, set(work), work, 30)} == {back}


@pytest.mark.parametrize(
    "slow, beside_ms, room, back",
    [
        ("first", 1.0, 10, ["after", "beside"]),
        ("first", 0.5, 10, []),  # one of the two is worth the conversion that they share
        ("first", 1.0, 1, []),
        ("", 1.0, 10, []),
        ("other", 1.0, 10, []),  # their neighbour stays
        ("first other", 1.0, 10, ["after", "beside"]),
    ],
)
def test_what_gains_nothing_goes_back_with_its_neighbours(slow, beside_ms, room, back):
    """`after` and `beside` read, through Q and DQ, what `first` makes; `other` has nothing to do with them."""
    nodes = [node("Conv", "x w", "t", "first"), *pair("t"), node("Conv", "d w", "u", "after"), node("Conv", "d w", "v", "beside")]
    nodes += [node("Add", "u v", "y", "sum"), node("Conv", "x w", "o", "other")]
    times = {"first": (3.0, 1.0), "after": (1.0, 1.0), "beside": (beside_ms, 1.0), "other": (1.0, 1.0), "sum": (0.5, 1.0)}
    parts = [Part(frozenset({name}), *both) for name, both in times.items()]
    layers = {name: 1 for name in times if name != "sum"}
    assert sorted(left_alone(network(nodes, WEIGHTS), parts, {*layers}, set(slow.split()), layers, room)) == back


def test_engines_are_timed_in_turn():
    calls = []

    def timer(name, milliseconds):
        return lambda runs: calls.append(name) or [milliseconds] * runs

    found = measure_in_turn({"a": timer("a", 10.0), "b": timer("b", 20.0)})
    assert found["a"]["p50_ms"] == 10.0 and found["b"]["p99_ms"] == 20.0
    assert calls == ["a", "a", "b", "b", *["a", "b"] * 5], "a first look and a warm-up each, then rounds"
    assert found["a"]["runs"] == 100 and found["b"]["runs"] == 50, "about a second each"
