"""quant/simulations.py: one loaded graph computes with other scales what a graph of its own computes."""

import numpy as np
import pytest
from attention_forms import Form
from models import conv_net, model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant import simulations
from onnx2trt.quant.simulations import Simulations
from onnx2trt.rewrite import qdq
from onnx2trt.rewrite.attention import attention_layers
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.placement import readings, tensors
from onnx2trt.rewrite.qdq import Rounded, quantizable_layers, quantize_weights


@pytest.fixture
def loaded(monkeypatch):
    """How many graphs were loaded, as a list."""
    found, load = [], Session.from_graph

    def counted(graph, **options):
        found.append(graph)
        return load(graph, **options)

    monkeypatch.setattr(simulations.Session, "from_graph", counted)
    return found


def by_itself(graph, layers, fit, feeds):
    return list(Session.from_graph(fit.apply(graph, layers), in_turn=False).run_each(feeds))


def alike(first, second):
    for one, other in zip(first, second, strict=True):
        for name in other:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("half", [False, True])
def test_sets_of_scales_share_one_session(loaded, half):
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    layers, feeds = quantizable_layers(graph), [{"x": random(1, 3, 16, 16, seed=seed)} for seed in range(3)]
    fits = [Fit(dict.fromkeys(("x", "r1", "r2"), scale), fp16_scales=half) for scale in (0.04, 0.3, 0.01)]
    runs = Simulations(graph, layers)
    found = [list(runs.run_each(fit, feeds)) for fit in fits]
    assert len(loaded) == 1
    for fit, outputs in zip(fits, found):
        alike(outputs, by_itself(graph, layers, fit, feeds))
    alike(runs.exact(feeds), Session.from_graph(graph).run_each(feeds))


def test_weights_are_rounded_once_and_those_that_layers_share_stay_one(monkeypatch):
    nodes = [node("MatMul", "x w", "a", "one"), node("Relu", "a", "r"), node("MatMul", "r w", "y", "two")]
    graph = raise_opset(Graph.from_model(model(nodes, {"x": [4, 8]}, {"y": [4, 8]}, {"w": random(8, 8)})), 19)
    layers, feeds, rounded = quantizable_layers(graph), [{"x": random(4, 8, seed=seed)} for seed in range(2)], []
    monkeypatch.setattr(simulations, "quantize_weights", lambda *args: rounded.append(1) or quantize_weights(*args))
    monkeypatch.setattr(qdq, "quantize_weights", lambda *_: pytest.fail("rounded once more"))
    runs = Simulations(graph, layers)
    found = [list(runs.run_each(Fit({"x": scale, "r": scale}), feeds)) for scale in (0.04, 0.3)]
    monkeypatch.undo()
    assert len(rounded) == 1
    for scale, outputs in zip((0.04, 0.3), found):
        alike(outputs, by_itself(graph, layers, Fit({"x": scale, "r": scale}), feeds))


def test_what_differs_in_more_than_its_scales_has_a_session_of_its_own(loaded):
    graph = raise_opset(Graph.from_model(conv_net()), 19)
    layers, feeds = quantizable_layers(graph), [{"x": random(1, 3, 16, 16)}]
    scales = dict.fromkeys(("x", "r1", "r2"), 0.04)
    first = next(one for one in graph.nodes if one.name == layers[0].node)
    integers, steps = quantize_weights(graph.weights[first.input[1]], 0, False)
    other = Rounded(np.roll(integers, 1), steps, None)
    fits = [Fit(scales), Fit({"x": 0.04, "r1": 0.04}), Fit(scales, {layers[0].node: other}), Fit(scales)]
    runs = Simulations(graph, layers)
    found = [list(runs.run_each(fit, feeds)) for fit in fits]
    assert len(loaded) == 4
    for fit, outputs in zip(fits, found):
        alike(outputs, by_itself(graph, layers, fit, feeds))


@pytest.mark.parametrize("seed", range(6))
def test_attentions_with_factors_and_masks(loaded, seed):
    """Scales of queries that carry a factor, and of probabilities, are made of others."""
    form = Form.random(seed)
    given = form.network()
    graph = raise_opset(Graph.from_model(given), 19)
    layers = (*attention_layers(graph, ()), *quantizable_layers(graph))
    names = tensors(layers, readings(graph, layers))
    random_state = np.random.default_rng(seed)
    feeds = [{name: random(*shape, seed=number) for name, shape in form.inputs.items()} for number in range(2)]
    fits = [Fit({name: float(random_state.uniform(0.005, 0.05)) for name in names}, fp16_scales=half) for half in (True, True, False)]
    runs = Simulations(graph, layers)
    found = [list(runs.run_each(fit, feeds)) for fit in fits]
    assert len(loaded) == 2, "scales rounded to FP16 change the weights"
    for fit, outputs in zip(fits, found):
        alike(outputs, by_itself(graph, layers, fit, feeds))
