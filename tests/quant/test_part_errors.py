"""quant/part_errors.py: the same errors as from a session of the whole graph for each part."""

import numpy as np
import pytest
from models import conv_net, profiles, random
from onnx import TensorProto, helper, numpy_helper
from random_networks import random_network

from onnx2trt.base.model_info import Profile
from onnx2trt.base.padded import Padded
from onnx2trt.compare.change import Change
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant import part_errors as part_errors_module
from onnx2trt.quant.fp16_segments import segment_errors, segments
from onnx2trt.quant.part_errors import part_errors
from onnx2trt.quant.sensitivity import layer_errors
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.fp16 import convert
from onnx2trt.rewrite.prepare import working_graph
from onnx2trt.rewrite.qdq import quantizable_layers
from onnx2trt.rewrite.simulate import simulation


def case(seed: int):
    network = random_network(8100 + seed)
    graph = working_graph(Graph.from_model(network.model), quantize=True, fp16_scales=False)
    feeds = [network.feed(number) for number in range(3)]
    shapes = tuple(Profile(name, *[feeds[0][name].shape] * 3) for name in graph.input_names)
    return graph, shapes, feeds


def by_hand(graphs: dict, graph: Graph, feeds) -> dict:
    change = Change(list(Session.from_graph(graph).run_each(feeds)))
    return {part: change(list(Session.from_graph(changed).run_each(feeds))) for part, changed in graphs.items()}


@pytest.mark.parametrize("seed", range(12))
def test_layers_in_int8_cost_what_they_cost_in_the_whole(seed):
    graph, shapes, feeds = case(seed)
    layers = quantizable_layers(graph)
    session = Session.from_graph(graph, tuple(layer.activation for layer in layers if layer.activation not in graph.input_names))
    found = [{**feed, **session.run(feed, tuple(session.output_names))} for feed in feeds]
    fit = Fit({layer.activation: max(float(np.abs(one[layer.activation]).max()) for one in found) / 127 + 1e-6 for layer in layers})
    expected = by_hand({layer.node: fit.apply(graph, (layer,)) for layer in layers}, graph, feeds)
    errors = dict(layer_errors(graph, shapes, layers, fit, feeds, Change))
    assert list(errors) == [layer.node for layer in layers]
    for name, error in expected.items():
        assert errors[name] == pytest.approx(error, rel=0.1, abs=1e-5), name


@pytest.mark.parametrize("seed", range(12))
def test_parts_in_fp16_cost_what_they_cost_in_the_whole(seed):
    graph, shapes, feeds = case(seed)
    parts = segments([n.name for n in graph.nodes], 12)
    others = {part: {n.name: "" for n in graph.nodes if n.name not in part} for part in parts}
    expected = by_hand({part: simulation(convert(graph, others[part])) for part in parts}, graph, feeds)
    errors = dict(segment_errors(graph, shapes, parts, feeds, Change))
    assert list(errors) == parts
    for part, error in expected.items():
        assert errors[part] == pytest.approx(error, rel=0.1, abs=1e-5), part


def test_what_is_not_changed_costs_nothing_and_is_loaded_once(monkeypatch):
    graph, shapes, feeds = case(3)
    loaded, load = [], Session.from_graph
    monkeypatch.setattr(Session, "from_graph", lambda *args, **more: loaded.append(len(args[0].nodes)) or load(*args, **more))
    parts = [(n.name,) for n in graph.nodes]
    assert set(dict(part_errors(graph, shapes, parts, lambda around, part: around, feeds, Change)).values()) == {0.0}
    assert sum(loaded) <= len(graph.nodes) * (1 + 2 * len(parts) / part_errors_module.MOST_SEGMENTS)


def test_rows_that_fill_a_batch_count_for_nothing():
    graph, lost = Graph.from_model(conv_net()), []
    arrays = {"x": random(2, 3, 16, 16)}

    def measure(expected):
        assert all(len(one["y"]) == 1 for one in expected)
        return lambda found: lost.append([len(one["y"]) for one in found]) or 0.0

    parts = [(n.name,) for n in graph.nodes]
    assert len(list(part_errors(graph, profiles(x=(2, 3, 16, 16)), parts, lambda g, p: g, [Padded(arrays, 2, 1)], measure))) == len(parts)
    assert lost == [[1]] * len(parts)


def test_outputs_that_no_node_makes_are_there():
    """Constants, and inputs that are handed on."""
    model = conv_net()
    model.graph.output.append(model.graph.input[0])
    model.graph.output.append(helper.make_tensor_value_info("k", TensorProto.INT64, [3]))
    model.graph.initializer.append(numpy_helper.from_array(np.arange(3), "k"))
    graph, feeds = Graph.from_model(model), [{"x": random(2, 3, 16, 16)}]
    expected = Session.from_graph(graph).run(feeds[0])
    assert {"x", "y", "k"} == set(expected)

    def measure(outputs):
        assert all(np.array_equal(outputs[0][name], array) for name, array in expected.items())
        return Change(outputs)

    parts = [(n.name,) for n in graph.nodes]
    assert [error for _, error in part_errors(graph, profiles(x=(2, 3, 16, 16)), parts, lambda g, p: g, feeds, measure)] == [0.0] * len(
        parts
    )
