"""stages/int8/equalize.py: channels become alike by what the data shows, and the network stays what it is."""

from types import SimpleNamespace

import numpy as np
import pytest
from models import conv_net, model, node, profiles, random

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import TensorSpec
from onnx2trt.compare.change import Change
from onnx2trt.data import samples
from onnx2trt.data.datasets import Data
from onnx2trt.data.reader import Reader
from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.keep_fp32 import KEPT_FP32_ABOVE
from onnx2trt.rewrite.qdq import quantizable_layers
from onnx2trt.stages import ranges as ranging
from onnx2trt.stages.int8 import equalize as equalizing
from onnx2trt.stages.int8.equalize import equalize

SHAPE = (1, 3, 16, 16)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "data").mkdir()
    for index in range(6):
        np.save(tmp_path / "data" / f"{index}.npy", random(*SHAPE, seed=index))
    found = samples.find(str(tmp_path / "data"), "--calibration-dir", 100, ExitCode.CALIBRATION)
    shapes = profiles(x=SHAPE)
    return SimpleNamespace(
        profiles=shapes,
        plan=SimpleNamespace(backend="tensorrt"),
        data=Data(Reader((TensorSpec("x", SHAPE, "float32"),), shapes, None), found, None, None),
    )


def equalized(job, graph, tensors=("x", "r1", "r2"), int8=None, maxima=()):
    console = SimpleNamespace(track=lambda found, *_: found, warn=lambda _: None)
    read = tensors if int8 is None else int8
    layers = [layer for layer in quantizable_layers(graph) if layer.activation in read]
    return equalize(job, graph, tensors, dict(maxima), SimpleNamespace(console=console)).graph(read, layers)


def feeds(count=3):
    return [{"x": random(*SHAPE, seed=100 + seed)} for seed in range(count)]


def outputs(graph, extra=()):
    session = Session.from_graph(graph, extra)
    return [session.run(feed, (*graph.output_names, *extra)) for feed in feeds()]


def int8_change(graph):
    """How far minmax INT8 is from FP32."""
    maxima = absolute_maxima(graph, profiles(x=SHAPE), lambda: iter(feeds()))
    layers = quantizable_layers(graph)
    quantized = Fit({layer.activation: maxima[layer.activation] / 127 for layer in layers}).apply(graph, layers)
    return Change(outputs(graph))(outputs(quantized))


def uneven_net():
    """A channel of r1 is up to a thousand times another."""
    graph = Graph.from_model(conv_net())
    factors = np.geomspace(1e-3, 1, 16).astype(np.float32)
    graph.weights["w1"] = graph.weights["w1"] * factors.reshape(-1, 1, 1, 1)
    graph.weights["b1"] = graph.weights["b1"] * factors
    graph.weights["w2"] = graph.weights["w2"] / factors.reshape(-1, 1, 1, 1)
    return graph


def test_channels_become_alike_and_the_network_stays_what_it_is(job):
    graph = uneven_net()
    before = {name: array.copy() for name, array in graph.weights.items()}
    result = equalized(job, graph)
    for a, b in zip(outputs(graph), outputs(result)):
        np.testing.assert_allclose(a["y"], b["y"], rtol=1e-3, atol=1e-4)

    def spread(of):
        largest = np.max([np.abs(found["r1"]).max(axis=(0, 2, 3)) for found in outputs(of, ("r1",))], axis=0)
        return largest.max() / largest.min()

    assert spread(graph) > 100 and spread(result) < 10
    assert int8_change(result) < 0.3 * int8_change(graph)
    assert [n.name for n in result.nodes] == [n.name for n in graph.nodes]
    assert all(np.array_equal(graph.weights[name], array) for name, array in before.items()), "the graph itself stays as it was"


def test_a_channel_that_is_always_zero_does_no_harm(job):
    graph = uneven_net()
    graph.weights["w1"][3], graph.weights["b1"][3] = 0, -1
    result = equalized(job, graph)
    assert all(np.isfinite(array).all() for array in result.weights.values())
    for a, b in zip(outputs(graph), outputs(result)):
        np.testing.assert_allclose(a["y"], b["y"], rtol=1e-3, atol=1e-4)


def test_channels_far_from_zero_are_shifted(job):
    """A batch normalisation whose channels lie around -50 to 50 uses a few of the levels of INT8."""
    nodes = [
        node("Conv", "x w1 b1", "c", "first"),
        node("Add", "c offsets", "a", "offset"),
        node("Conv", "a w2", "y", "second"),
    ]
    weights = {
        "w1": random(16, 3, 1, 1, seed=1),
        "b1": random(16, seed=2),
        "offsets": np.linspace(-50, 50, 16).astype(np.float32).reshape(16, 1, 1),
        "w2": random(4, 16, 1, 1, seed=3),
    }
    graph = Graph.from_model(model(nodes, {"x": list(SHAPE)}, {"y": [1, 4, 16, 16]}, weights))
    result = equalized(job, graph, ("x", "a"))
    for a, b in zip(outputs(graph), outputs(result)):
        np.testing.assert_allclose(a["y"], b["y"], rtol=1e-3, atol=1e-3)
    largest = [np.abs(np.concatenate([found["a"] for found in outputs(of, ("a",))])).max() for of in (graph, result)]
    assert largest[0] > 50 and largest[1] < 10
    read_in_half = equalized(job, graph, ("x", "a"), int8=("x",))
    first = np.concatenate([found["a"][:, 0] for found in outputs(read_in_half, ("a",))])
    assert abs(first.mean()) > 5 * first.std(), "FP16 is finest around 0: there, it stays where it is"


def test_a_constant_that_fp16_reads_stays_one_for_all_channels(job):
    """One a channel would be a kernel of its own in TensorRT's INT8 mode; what an INT8 layer writes is equalized as it was fitted."""
    nodes = [
        node("Conv", "x w1", "c", "first"),
        node("Sigmoid", "c", "s"),
        node("Mul", "s up", "m", "scale"),
        node("Conv", "m w2", "d", "second"),
        node("Relu", "d", "r"),
        node("Conv", "r w3", "y", "third"),
    ]
    weights = {"w1": random(16, 3, 1, 1, seed=1), "up": np.array([2.0], np.float32), "w2": random(16, 16, 1, 1, seed=2)}
    weights |= {"w3": random(4, 16, 1, 1, seed=3)}
    graph = Graph.from_model(model(nodes, {"x": list(SHAPE)}, {"y": [1, 4, 16, 16]}, weights))
    everywhere, first, second = (equalized(job, graph, ("x", "m", "r"), int8) for int8 in (None, ("x",), ("m",)))
    assert everywhere.weights[everywhere.nodes[2].input[1]].size == 16
    assert [n.input[1] for n in first.nodes if n.op_type == "Mul"] == ["up"] and first.weights["up"].size == 1
    assert np.array_equal(first.weights["w3"], graph.weights["w3"])
    written = [of.weights[of.nodes[3].input[1]] for of in (everywhere, second)]
    assert np.array_equal(*written) and not np.array_equal(written[0], graph.weights["w2"])
    for result in (everywhere, first, second):
        for a, b in zip(outputs(graph), outputs(result)):
            np.testing.assert_allclose(a["y"], b["y"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_what_gelu_gives_is_made_alike_where_that_costs_nothing(job, backend):
    """TensorRT computes GELU within the product before it only as long as its constants are single numbers."""
    lines = ["Conv x w1 p", "Div p root s", "Erf s e", "Add e one h", "Mul p h a", "Mul a half g", "Conv g w2 c", "Relu c r", "Conv r w3 y"]
    nodes = [node(op, " ".join(names[:-1]), names[-1], names[-1]) for op, *names in map(str.split, lines)]
    factors = np.geomspace(1e-2, 1, 16).astype(np.float32).reshape(-1, 1, 1, 1)
    weights = {"w1": factors * random(16, 3, 1, 1, seed=1), "w2": random(16, 16, 1, 1, seed=2) * factors, "w3": random(4, 16, 1, 1, seed=3)}
    weights |= {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    graph = Graph.from_model(model(nodes, {"x": list(SHAPE)}, {"y": [1, 4, 16, 16]}, weights))
    job.plan.backend = backend
    result = equalized(job, graph, ("x", "g", "r"))
    sizes = {one.output[0]: result.weights[one.input[1]].size for one in result.nodes if one.input[-1] in result.weights}
    assert sizes["s"] == sizes["h"] == 1 and sizes["g"] == (16 if backend == "tensorrt-rtx" else 1)
    assert not np.array_equal(result.weights["w3"], graph.weights["w3"]), "what has no GELU before it is made alike"
    for a, b in zip(outputs(graph), outputs(result)):
        np.testing.assert_allclose(a["y"], b["y"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("tensors_kept, passes", [(0, 2), (1, 2), (2, 1)])
def test_what_there_is_no_room_to_keep_is_computed_again_and_gives_the_same(job, monkeypatch, tensors_kept, passes):
    """Two tensors, of 16 x 16 x 16 values each; four of the six samples are looked at, since the others judge."""
    graph, real, looked = uneven_net(), equalizing.observe_parallel, []

    def observe(graph, profiles, names, *others):
        looked.append(set(names))
        return real(graph, profiles, names, *others)

    usual = equalized(job, graph, ("r1", "r2"))
    monkeypatch.setattr(equalizing, "observe_parallel", observe)
    monkeypatch.setattr(equalizing, "KEPT_BYTES", tensors_kept * 4 * 4 * 16**3)
    found = equalized(job, graph, ("r1", "r2"))
    assert looked == [{"r1", "r2"}, {"r1", "r2"} if not tensors_kept else {"r1"}][:passes], "the last one made is kept first"
    assert all(np.array_equal(array, found.weights[name]) for name, array in usual.weights.items())


def test_nothing_to_equalize_leaves_the_values_as_they_are(job):
    nodes = [node("Conv", "x w", "c", "only"), node("Sigmoid", "c", "y")]
    graph = Graph.from_model(model(nodes, {"x": list(SHAPE)}, {"y": [1, 4, 16, 16]}, {"w": random(4, 3, 1, 1)}))
    result = equalized(job, graph, ("x",))
    assert np.array_equal(result.weights["w"], graph.weights["w"])


@pytest.mark.parametrize("known", [False, True])
def test_what_a_relu_lets_nothing_through_of_stays_within_fp16(job, known):
    """A channel seldom above 0, and thousands below: enlarged by what is left of it, it would be kept in FP32 in front of the Relu."""
    nodes = [node("Conv", "x w1 b1", "c", "first"), node("Relu", "c", "r1"), node("Conv", "r1 w2", "y", "second")]
    weights = {"w1": 500 * random(8, 3, 3, 3, seed=1), "b1": np.zeros(8, np.float32), "w2": random(4, 8, 1, 1, seed=2) / 500}
    graph = Graph.from_model(model(nodes, {"x": list(SHAPE)}, {"y": [1, 4, 14, 14]}, weights))
    read = [{"x": np.load(path)} for path in job.data.calibration.samples]
    first = np.stack([Session.from_graph(graph, ("c",)).run(feed, ("c",))["c"][:, 0] for feed in read])
    graph.weights["b1"] = np.float32([-np.quantile(first, 0.99), *[0] * 7])
    before = absolute_maxima(graph, profiles(x=SHAPE), lambda: iter(read))
    assert before["c"] < KEPT_FP32_ABOVE / 2, "as it came it stays FP16"
    changed = equalized(job, graph, ("x", "r1"), maxima=before if known else {})
    after = absolute_maxima(changed, profiles(x=SHAPE), lambda: iter(read))
    assert (after["c"] <= KEPT_FP32_ABOVE) is known
    assert Change(outputs(graph))(outputs(changed)) < 1e-5
    assert not np.array_equal(changed.weights["w1"], graph.weights["w1"]), "equalized nevertheless"


@pytest.mark.parametrize("count, told", [(40, False), (700, True)])
def test_channels_of_which_few_values_are_known_stay_as_they_are(tmp_path, count, told):
    """A vector for each sample: of 40 samples, what is equalized without the held-out ones would be known by 24 values a channel."""
    factors = np.geomspace(1e-2, 1, 8).astype(np.float32)
    nodes = [node("MatMul", "x w1", "m", "first"), node("Relu", "m", "r"), node("MatMul", "r w2", "y", "second")]
    weights = {"w1": random(8, 8, seed=1) * factors, "w2": random(8, 4, seed=2) / factors[:, None]}
    graph = Graph.from_model(model(nodes, {"x": ["N", 8]}, {"y": ["N", 4]}, weights))
    np.save(tmp_path / "all.npy", random(count, 8, seed=3))
    reader = Reader((TensorSpec("x", ("N", 8), "float32"),), profiles(x=(1, 8)), None)
    found = samples.find(
        str(tmp_path), "--calibration-dir", 1000, ExitCode.CALIBRATION, lambda path: reader.rows.count(path, reader.inputs)
    )
    vectors = SimpleNamespace(profiles=profiles(x=(1, 8)), plan=SimpleNamespace(backend="tensorrt"), data=Data(reader, found, None, None))
    console = SimpleNamespace(track=lambda found, *_: found, warn=lambda _: None)
    equalization = equalize(vectors, graph, ("x", "r"), {}, SimpleNamespace(console=console))
    assert equalization.empty != told
    changed = equalization.graph(("x", "r"), quantizable_layers(graph))
    assert np.array_equal(changed.weights["w1"], graph.weights["w1"]) != told


# ---- the ranges of the equalized model


def chosen(job, graph, tensors=("x", "r1", "r2")):
    console = SimpleNamespace(track=lambda found, *_: found, warn=lambda _: None)
    return equalize(job, graph, tensors, {}, SimpleNamespace(console=console))


def maxima_of(graph):
    return absolute_maxima(graph, profiles(x=SHAPE), lambda: iter(feeds()))


@pytest.mark.parametrize("seed", range(8))
def test_the_ranges_of_the_equalized_model_lie_within_the_bounds(job, seed):
    """By random scales and shifts, applied for all layers and for some."""
    graph, draw = Graph.from_model(conv_net()), np.random.default_rng(seed)
    found = chosen(job, graph)
    drawn = (
        tuple((group, draw.uniform(-1, 1, group.size)) for group, _ in found.shifts),
        tuple((group, np.exp(draw.uniform(-2, 2, group.size))) for group, _ in found.scales),
    )
    equalization, before, tensors = type(found)(graph, *drawn), maxima_of(graph), ("x", "r1", "r2")
    bounds = equalization.reaches(before)
    assert bounds
    for read in (tensors, tensors[1:2]):
        layers = [layer for layer in quantizable_layers(graph) if layer.activation in read]
        after = maxima_of(equalization.graph(read, layers))
        for name, largest in after.items():
            low, high = bounds.get(name, (before[name], before[name]))
            assert low * (1 - 1e-4) - 1e-6 <= largest <= high * (1 + 1e-4) + 1e-6, name


@pytest.mark.parametrize("by_range", [False, True])
@pytest.mark.parametrize("factor", [1.0, 1e6, 1e-9, 0.0])
def test_ranges_are_measured_again_only_where_something_hangs_on_them(job, factor, by_range, monkeypatch):
    graph = Graph.from_model(conv_net())
    equalization, maxima = chosen(job, graph), {name: factor * value for name, value in maxima_of(graph).items()} if factor else {}
    monkeypatch.setattr(ranging, "measure_ranges", lambda *_, **__: {"measured": 1.0})
    job.scales_by_range = by_range
    found = ranging.equalized_ranges(job, equalization, graph, maxima, None)
    assert ("measured" in found) is (factor != 1 or by_range)
    if "measured" not in found:
        after = maxima_of(equalization.graph(("x", "r1", "r2"), quantizable_layers(graph)))
        assert found.keys() == after.keys() and all(found[name] >= value * (1 - 1e-4) for name, value in after.items())
