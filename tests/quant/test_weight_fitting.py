"""quant/weight_fitting.py: weights are fitted to all samples, and once more without each part that accuracy is measured on."""

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
    parts = [0, 1, -1, 0, 1, -1]
    clean = fits(feeds(), 2, parts)
    assert [set(fit) for fit in clean] == [{"one", "two", "three"}] * 3
    poisoned = feeds()
    poisoned[0], poisoned[3] = random(1, 6, 8, 8, seed=50) * 40, random(1, 6, 8, 8, seed=51) * 40
    again = fits(poisoned, 2, parts)
    assert same(clean[0], again[0]), "its own samples were poisoned, and it has not seen them"
    assert not same(clean[1], again[1]) and not same(clean[2], again[2])


def test_a_trial_that_would_have_no_sample_left_fits_nothing():
    found = fits(feeds(), 2, [0] * 6)
    assert found[0] == {} and set(found[1]) == set(found[2]) == {"one", "two", "three"} and same(found[1], found[2])


def test_layers_that_do_not_fit_into_memory_together_take_another_pass(monkeypatch):
    together = fits(feeds(), 1, [0, -1] * 3)
    monkeypatch.setattr(weight_fitting, "SUMS_BYTES", 1)
    assert all(same(a, b) for a, b in zip(together, fits(feeds(), 1, [0, -1] * 3)))


def test_layers_without_a_scale_are_not_fitted():
    assert set(fits(feeds(), 0, scales={"r": 0.05})[0]) == {"two"}
