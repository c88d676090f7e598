"""quant/weight_fitting.py: weights fitted in FP8 lose less than the nearest values, on samples that they have not seen, and are kept."""

import numpy as np
from models import correlated, model, node, profiles, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant.fit_file import Found, Packed, pack
from onnx2trt.quant.weight_fitting import Samples, fit_weights
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.number_formats import FP8
from onnx2trt.rewrite.qdq import quantizable_layers


def test_fitted_weights_lose_less_on_other_samples_and_come_back_from_their_file():
    nodes = [node("MatMul", "x w1", "a", "one"), node("Gemm", "x w2 b", "c", "two", transB=1)]
    weights = {"w1": random(24, 16, seed=1), "w2": random(16, 24, seed=2), "b": random(16, seed=3)}
    graph = Graph.from_model(model(nodes, {"x": [64, 24]}, {"a": [64, 16], "c": [64, 16]}, weights, opset=19))
    feeds = [{"x": np.ascontiguousarray(correlated(24, 64, 5).T + random(64, 24, seed=seed, scale=0.3))} for seed in range(8)]
    layers = quantizable_layers(graph, FP8)
    scales = {"x": max(np.abs(feed["x"]).max() for feed in feeds) / 448}
    (rounded,) = fit_weights(graph, profiles(x=(64, 24)), layers, scales, Samples(lambda: iter(feeds[:6]), 6))
    assert set(rounded) == {"one", "two"} and all(own.weights.dtype == FP8.dtype and own.scales.shape == () for own in rounded.values())
    reference = Session.from_graph(graph)
    lost = []
    for fit in (Fit(scales), Fit(scales, rounded)):
        session = Session.from_graph(fit.apply(graph, layers))
        pairs = [(reference.run(feed), session.run(feed)) for feed in feeds[6:]]
        lost.append(sum(np.square(exact[name] - found[name]).sum() for exact, found in pairs for name in exact))
    assert lost[1] < 0.7 * lost[0]
    again = Packed(bytes(pack(Found("minmax", Fit(scales, rounded)), {}))).unpack(graph, FP8).fit
    for name, own in rounded.items():
        assert again.rounded[name].weights.dtype == FP8.dtype
        assert (again.rounded[name].weights.view(np.uint8) == own.weights.view(np.uint8)).all()
        assert (again.rounded[name].scales == own.scales).all() and (name == "one" or (again.rounded[name].bias == own.bias).all())
