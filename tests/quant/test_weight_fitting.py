"""quant/weight_fitting.py: weights are fitted to all samples, and once more without each part that accuracy is measured on."""

import weakref

import numpy as np
from models import correlated, model, node, profiles, random

from onnx2trt.model.graph import Graph
from onnx2trt.quant import weight_fitting
from onnx2trt.quant.weight_fitting import Samples, fit_weights
from onnx2trt.rewrite.qdq import quantizable_layers


def net():
    nodes = [
        node("Conv", "x w1", "a", "one"),
        node("Relu", "a", "r"),
        node("Conv", "r w2", "b", "two"),
        node("MatMul", "x w3", "c", "three"),
    ]
    weights = {"w1": random(8, 6, 1, 1, seed=1), "w2": random(4, 8, 3, 3, seed=2), "w3": random(8, 5, seed=3)}
    outputs = {"b": [1, 4, 6, 6], "c": [1, 6, 8, 5]}
    return Graph.from_model(model(nodes, {"x": [1, 6, 8, 8]}, outputs, weights))


def fits(feeds, trials, parts=None, scales=None):
    graph, seen = net(), iter(())

    def passes():
        nonlocal seen
        seen = iter(parts or [])
        for feed in feeds:
            passes.current = next(seen, -1)
            yield {"x": feed}

    passes.current = -1
    scales = scales or {"x": 0.05, "r": 0.05}
    layers = quantizable_layers(graph)
    return fit_weights(graph, profiles(x=(1, 6, 8, 8)), layers, scales, Samples(passes, len(feeds), trials, lambda: passes.current))


def feeds(count=6):
    return [correlated(6, 64, seed).reshape(1, 6, 8, 8) * 3 for seed in range(count)]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name].weights, b[name].weights) for name in a)


def test_a_trial_does_not_know_the_samples_that_it_leaves_out():
    parts = [0, 1, -1, 2] * 4
    clean = fits(feeds(16), 3, parts)
    assert [set(fit) for fit in clean] == [{"one", "two", "three"}] * 4
    poisoned = [other if part == 0 else feed for part, feed, other in zip(parts, feeds(16), feeds(32)[16:])]
    again = fits(poisoned, 3, parts)
    assert same(clean[0], again[0]), "its own samples were poisoned, and it has not seen them"
    assert not same(clean[1], again[1]) and not same(clean[3], again[3])


def test_a_trial_that_would_have_no_sample_left_fits_nothing():
    found = fits(feeds(), 2, [0] * 6)
    assert found[0] == {} and set(found[1]) == set(found[2]) == {"one", "two", "three"} and same(found[1], found[2])


def test_layers_that_do_not_fit_into_memory_together_take_another_pass(monkeypatch):
    together = fits(feeds(), 1, [0, -1] * 3)
    monkeypatch.setattr(weight_fitting, "SUMS_BYTES", 1)
    collect, alive, left = weight_fitting._collect, weakref.WeakSet(), []

    def collected(*arguments):
        left.append(len(alive))
        found = collect(*arguments)
        alive.update(sums for parts in found for sums in parts.values())
        return found

    monkeypatch.setattr(weight_fitting, "_collect", collected)
    assert all(same(a, b) for a, b in zip(together, fits(feeds(), 1, [0, -1] * 3)))
    assert left == [0, 0, 0], "nothing of a group is kept while the next one is looked at"


def test_layers_without_a_scale_are_not_fitted():
    assert set(fits(feeds(), 0, scales={"r": 0.05})[0]) == {"two"}


def shared_net(size=8):
    """`one`, `again` and `wide` read w in the same way, `back` in another; `plain` has no place for a bias."""
    nodes = [
        node("Conv", "x w", "a", "one"),
        node("Relu", "a", "r"),
        node("Conv", "r w b", "c", "again"),
        node("Conv", "r w", "d", "wide", pads=[1] * 4),
        node("ConvTranspose", "c w", "e", "back"),
    ]
    outputs = dict.fromkeys(("d", "e"))
    return Graph.from_model(model(nodes, {"x": [1, 6, size, size]}, outputs, {"w": random(6, 6, 1, 1, seed=1), "b": random(6)}))


def test_layers_that_read_one_weight_in_the_same_way_get_one():
    graph, samples = shared_net(), feeds()
    scales = dict.fromkeys(("x", "r", "c"), 0.05)
    layers = quantizable_layers(graph)
    *trials, fit = fit_weights(
        graph, profiles(x=(1, 6, 8, 8)), layers, scales, Samples(lambda: ({"x": feed} for feed in samples), len(samples))
    )
    assert trials == [] and set(fit) == {"one", "again", "wide", "back"}
    assert fit["one"].weights is fit["again"].weights is fit["wide"].weights and fit["one"].scales is fit["wide"].scales
    assert fit["back"].weights is not fit["one"].weights and not np.array_equal(fit["one"].bias, fit["again"].bias)


def test_a_layer_without_a_scale_has_no_part_in_what_others_share():
    graph, samples = shared_net(), feeds()
    found = [
        fit_weights(graph, profiles(x=(1, 6, 8, 8)), chosen, scales, Samples(lambda: ({"x": feed} for feed in samples), len(samples)))[0]
        for chosen, scales in (
            (quantizable_layers(graph), {"x": 0.05}),
            (quantizable_layers(graph)[:1], {"x": 0.05, "r": 0.05}),
        )
    ]
    assert set(found[0]) == set(found[1]) == {"one"} and same(*found)


# ---- what layers share


def attention():
    """q, k and gemm read x, gemm with a bias; `other` reads r, by the weight of q."""
    nodes = [
        node("MatMul", "x q", "a", "q"),
        node("MatMul", "x k", "b", "k"),
        node("Gemm", "x g", "c", "gemm", transB=1),
        node("MatMul", "r q", "d", "other"),
        node("Relu", "x", "r"),
    ]
    weights = {"q": random(24, 6, seed=1), "k": random(24, 7, seed=2), "g": random(5, 24, seed=3)}
    return Graph.from_model(model(nodes, {"x": [300, 24]}, dict.fromkeys("abcd"), weights))


def fitted_to_rows(nodes, monkeypatch=None):
    """(fit of each trial, how often columns were taken of a tensor) of these layers."""
    graph, taken = attention(), []
    parts = [0, 1, -1] * 2
    current = iter(())

    def passes():
        nonlocal current
        current = iter(parts)
        for rows in np.split(correlated(24, 6 * 300, 1).T, 6):
            passes.part = next(current)
            yield {"x": rows.copy()}

    if monkeypatch:
        sample = weight_fitting.Columns.sample
        monkeypatch.setattr(weight_fitting.Columns, "sample", lambda self, *rest: taken.append(1) or sample(self, *rest))
    layers = tuple(layer for layer in quantizable_layers(graph) if layer.node in nodes)
    samples = Samples(passes, len(parts), 2, lambda: passes.part)
    return fit_weights(graph, profiles(x=(300, 24)), layers, {"x": 1.5, "r": 1.5}, samples), len(taken)


def test_layers_that_read_one_tensor_share_what_is_known_of_it(monkeypatch):
    """And find what they would have found alone, with a bias or without."""
    together, taken = fitted_to_rows(("k", "gemm"), monkeypatch)
    assert taken == 6, "once for each sample"
    for name in ("k", "gemm"):
        for all_of_them, alone in zip(together, fitted_to_rows((name,))[0]):
            assert np.array_equal(all_of_them[name].weights, alone[name].weights)
            assert name == "k" or np.array_equal(all_of_them[name].bias, alone[name].bias)


def test_a_weight_that_reads_more_than_its_neighbour_shares_nothing_with_it(monkeypatch):
    """q is the weight of `other`, too: it has to suit x and r."""
    together, taken = fitted_to_rows(("q", "k", "other"), monkeypatch)
    assert taken == 18 and together[-1]["q"].weights is together[-1]["other"].weights
    assert np.array_equal(together[-1]["k"].weights, fitted_to_rows(("k",))[0][-1]["k"].weights)


def test_layers_of_one_weight_read_each_in_its_own_way():
    """A dilated kernel has fewer positions."""
    nodes = [node("Conv", "x w", "a", "dense"), node("Conv", "x w", "b", "dilated", dilations=[2, 2])]
    graph = Graph.from_model(model(nodes, {"x": [1, 2, 9, 9]}, dict.fromkeys("ab"), {"w": random(4, 2, 2, 2)}))
    (family,) = weight_fitting._families(weight_fitting._by_weight(graph, quantizable_layers(graph), {"x": 0.1}))
    samples = Samples(lambda: [{"x": random(1, 2, 9, 9)}], 1)
    (parts,) = weight_fitting._collect(graph, profiles(x=(1, 2, 9, 9)), [family], samples)
    assert parts[-1].numbers.tolist() == [64, 49]


def test_who_comes_first_does_not_change_the_weights(monkeypatch):
    """Threads that look at tensors end in any order: here the last tensor of an inference comes first."""
    graph = shared_net(40)
    layers, scales = quantizable_layers(graph), dict.fromkeys(("x", "r", "c"), 0.05)
    samples = Samples(lambda: ({"x": random(1, 6, 40, 40, seed=index)} for index in range(4)), 4)

    def found():
        return fit_weights(graph, profiles(x=(1, 6, 40, 40)), layers, scales, samples)[0]

    usual, real = found(), weight_fitting.observe_parallel

    def backwards(graph, profiles, names, feeds, visitor):
        waiting = []

        def begin():
            visit = visitor()
            return lambda name, values: waiting.append((visit, name, values.copy()))

        real(graph, profiles, names, feeds, begin)
        for visit, name, values in sorted(waiting, key=lambda one: one[1], reverse=True):
            visit(name, values)

    monkeypatch.setattr(weight_fitting, "observe_parallel", backwards)
    other = found()
    assert usual and all(np.array_equal(one.weights, other[node].weights) for node, one in usual.items())
    assert all(one.bias is None or np.array_equal(one.bias, other[node].bias) for node, one in usual.items())
