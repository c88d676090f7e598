"""rewrite/attention.py: which attentions INT8 may compute, and the form that they get."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attention_forms import Form
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.session import Session
from onnx2trt.rewrite.attention import attention_layers
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.fold import fold
from onnx2trt.rewrite.placement import readings
from onnx2trt.rewrite.prepare import choose_layers
from onnx2trt.rewrite.qdq import Reading, int8_layers, scales_by_range
from onnx2trt.rewrite.shares import by_layer, mac_share, macs_of


def feeds(form: Form, count: int = 3) -> list[dict]:
    random = np.random.default_rng(1)
    shapes = {"x": (form.batch, form.tokens, form.width), **{name: tuple(shape) for name, shape in form.inputs.items()}}
    return [{name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(count)]


def quantized(form: Form, layers: int = 2, weights: bool = True):
    """(FP32 graph, the same with attention in INT8, its layers, samples)"""
    graph = fold(Graph.from_model(form.network(layers)), (), stored_once=False)
    samples = feeds(form)
    attentions = attention_layers(graph, ())
    chosen, left = choose_layers(graph, {}, (), attentions)
    assert not left
    chosen = chosen if weights else attentions
    scales = scales_by_range(absolute_maxima(graph, (), lambda: samples))
    return graph, Fit(scales).apply(graph, chosen), chosen, samples


def decibels(graph: Graph, other: Graph, samples) -> float:
    pairs = [(Session.from_graph(graph).run(feed)["y"], Session.from_graph(other).run(feed)["y"]) for feed in samples]
    signal, noise = sum((a.astype(float) ** 2).sum() for a, _ in pairs), sum((a.astype(float) - b) ** 2 for a, b in pairs).sum()
    return 10 * np.log10(signal / max(noise, 1e-30))


@pytest.mark.parametrize("seed", range(30))
def test_both_products_read_int8_with_nothing_between(seed):
    form = Form.random(seed)
    graph, made, layers, samples = quantized(form)
    nodes, makers = {node.name: node for node in made.nodes}, made.producers()
    attentions = [layer.attention for layer in layers if layer.attention]
    assert len(attentions) == 2 and int8_layers(made) == {name for layer in layers for name in layer.nodes}
    for attention in attentions:
        for product in (attention.scores, attention.context):
            pairs = [makers[name] for name in nodes[product].input]
            assert [pair.op_type for pair in pairs] == ["DequantizeLinear"] * 2
            assert [makers[pair.input[0]].op_type for pair in pairs] == ["QuantizeLinear"] * 2
        (reader,) = made.consumers()[nodes[attention.scores].output[0]]
        assert reader.op_type not in ("Mul", "Div") or form.scale == "per head", "one number goes in front of the product"
        if attention.factor:
            assert makers[nodes[attention.factor].output[0]].op_type in ("Mul", "Div")
            (reader,) = made.consumers()[nodes[attention.factor].output[0]]
            assert reader.op_type == "QuantizeLinear"
    assert mac_share(made, ()) == 1.0
    sharp = form.scale == "none"  # scores beyond 10, whose Softmax is all but a maximum
    assert decibels(graph, made, samples) > (20 if sharp else 26)


@pytest.mark.parametrize("scale", ["behind mul", "behind div"])
@pytest.mark.parametrize("size", [16, 32])
def test_a_factor_in_front_changes_nothing_but_rounding(scale, size):
    """The scale of the queries goes along, so that they are the same integers."""
    graph, made, layers, samples = quantized(Form(scale, size=size), layers=1, weights=False)
    assert [layer.attention.factor for layer in layers] == ["l0_scaled"]
    behind = [replace(layer, attention=replace(layer.attention, factor=None)) for layer in layers]
    fit = Fit(scales_by_range(absolute_maxima(graph, (), lambda: samples)))
    unmoved = fit.apply(graph, behind)
    assert abs(decibels(graph, made, samples) - decibels(graph, unmoved, samples)) < 0.5
    assert decibels(unmoved, made, samples) > (100 if size == 16 else 45), "1 / 4 is exact; another one may turn a rounding"


@pytest.mark.parametrize(
    "change, found",
    [({}, 1), ({"size": 8}, 0), ({"size": 256}, 1), ({"size": 264}, 0), ({"tokens": 512}, 1), ({"tokens": 513}, 0)],
)
def test_tokens_and_heads_are_those_of_tensorrts_kernels(change, found):
    form = Form(**{"heads": 1, "batch": 1, **change})
    assert len(attention_layers(Graph.from_model(form.network()), ())) == found


def cached(factor: bool):
    """One head whose queries and keys are each joined of two halves."""
    nodes = [
        node("Concat", "q1 q2", "q", "join_q", axis=-2),
        node("Concat", "k1 k2", "k", "join_k", axis=-1),
        node("MatMul", "q k", "s", "scores"),
        *([node("Mul", "s c", "t", "scaled")] if factor else []),
        node("Softmax", "t" if factor else "s", "p", "softmax"),
        node("MatMul", "p v", "a", "context"),
        node("MatMul", "a w", "y", "dense"),
    ]
    inputs = {"q1": [2, 3, 16], "q2": [2, 4, 16], "k1": [2, 16, 5], "k2": [2, 16, 6], "v": [2, 11, 16]}
    graph = Graph.from_model(model(nodes, inputs, {"y": [2, 7, 16]}, {"w": random(16, 16), "c": np.float32(0.25)}))
    return graph, attention_layers(graph, ())


@pytest.mark.parametrize("factor", [False, True])
def test_what_joins_keys_is_int8_and_what_joins_queries_where_no_factor_follows(factor):
    graph, attentions = cached(factor)
    joined = "k" if factor else "qk"
    expected = {Reading(f"join_{name}", index, f"{name}{index + 1}", name) for name in joined for index in (0, 1)}
    assert set(readings(graph, attentions)) == expected


def test_all_of_an_attention_is_int8_or_nothing():
    graph, attentions = cached(factor=True)
    every = {"q", "k", "p", "v", "a"}
    for missing in every - {"a"}:
        made = Fit(dict.fromkeys(every - {missing}, 0.01)).apply(graph, choose_layers(graph, {}, (), attentions)[0])
        assert int8_layers(made) == {"dense"}
    for node_without in ("scores", "context"):
        fit = Fit(dict.fromkeys(every, 0.01), without_int8=frozenset({node_without}))
        assert int8_layers(fit.apply(graph, attentions)) == set()
        chosen, left = choose_layers(graph, {node_without: "its range"}, (), attentions)
        assert [layer.node for layer in chosen] == ["dense"] and left == {node_without: "its range"}
        chosen, left = choose_layers(graph, {}, ((node_without, "fp16"),), attentions)
        assert [layer.node for layer in chosen] == ["dense"] and left == {node_without: f"--layer-precisions {node_without}:fp16"}


def test_the_work_of_both_products_is_that_of_the_layer():
    graph, attentions = cached(factor=False)
    macs = macs_of(graph, ())
    assert macs == {"scores": 2 * 7 * 11 * 16, "context": 2 * 7 * 11 * 16, "dense": 2 * 7 * 16 * 16}
    assert by_layer(macs, attentions) == {"scores": 4 * 7 * 11 * 16, "dense": 2 * 7 * 16 * 16}
    dense = Fit({"a": 0.01}).apply(graph, choose_layers(graph, {}, (), attentions)[0])
    assert mac_share(dense, ()) == pytest.approx(16 / (16 + 2 * 11)), "an attention in FP16 does not count"
