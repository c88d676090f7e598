"""rewrite/qdq.py: the same Q/DQ with values of FP8: which layers, which scales, and what is left of the signal."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from attention_forms import Form
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.maxima import absolute_maxima
from onnx2trt.model.session import Session
from onnx2trt.rewrite.attention import attention_layers
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.fold import fold
from onnx2trt.rewrite.number_formats import FP8, INT8
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.prepare import choose_layers
from onnx2trt.rewrite.qdq import (
    QUANTIZE_OPSET,
    insert,
    int8_layers,
    layers_by_format,
    quantizable_layers,
    quantize_weights,
    scales_by_range,
)
from onnx2trt.rewrite.shares import mac_shares
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.rewrite.strong_typing import strongly_typed

TYPE = onnx.TensorProto.FLOAT8E4M3FN


def products(seed: int) -> tuple[Graph, list[dict]]:
    """(a few matrix products of any form with activations between, samples)"""
    draw = np.random.default_rng(seed)
    widths = [int(width) for width in draw.choice([16, 24, 32, 64], draw.integers(3, 6))]
    rank3, nodes, weights, name = bool(draw.integers(2)), [], {}, "x"
    for index, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        gemm = not rank3 and bool(draw.integers(2))
        turned = gemm and bool(draw.integers(2))
        spread = np.exp(draw.standard_normal(outputs)).astype(np.float32)  # channels of different reach
        weight = random(inputs, outputs, seed=100 * seed + index) * spread / np.float32(np.sqrt(inputs))
        weights |= {f"w{index}": np.ascontiguousarray(weight.T) if turned else weight, f"b{index}": random(outputs, seed=index)}
        if gemm:
            nodes.append(node("Gemm", f"{name} w{index} b{index}", f"a{index}", f"layer{index}", transB=int(turned)))
        else:
            nodes += [node("MatMul", f"{name} w{index}", f"m{index}", f"layer{index}"), node("Add", f"m{index} b{index}", f"a{index}")]
        nodes.append(node(str(draw.choice(["Relu", "Identity", "LeakyRelu"])), f"a{index}", f"r{index}"))
        name = f"r{index}"
    shape = [4, 5, widths[0]] if rank3 else [20, widths[0]]
    source = model(nodes, {"x": shape}, {name: [*shape[:-1], widths[-1]]}, weights, opset=19)
    size = np.float32(10 ** draw.uniform(-2, 2))
    return Graph.from_model(source), [{"x": random(*shape, seed=seed + 50 + number) * size} for number in range(3)]


def decibels(graph: Graph, other: Graph, feeds) -> float:
    runs = [[next(iter(Session.from_graph(one).run(feed).values())).astype(np.float64) for feed in feeds] for one in (graph, other)]
    signal, noise = sum((a**2).sum() for a in runs[0]), sum(((a - b) ** 2).sum() for a, b in zip(*runs))
    return 10 * np.log10(signal / max(noise, 1e-30))


def in_fp8(graph: Graph, feeds: list[dict]) -> Graph:
    layers = quantizable_layers(graph, FP8)
    return Fit(scales_by_range(absolute_maxima(graph, (), lambda: feeds), FP8), fp16_scales=True).apply(graph, layers)


@pytest.mark.parametrize("seed", range(12))
def test_networks_of_matrix_products_keep_what_four_bits_of_mantissa_keep(seed):
    graph, feeds = products(seed)
    made = in_fp8(graph, feeds)
    assert layers_by_format(made) == {"fp8": {one.node for one in quantizable_layers(graph)}, "int8": set()}
    assert mac_shares(made, ()) == {"fp8": 1.0} and int8_layers(made) == set()
    found = decibels(graph, made, feeds)
    # a rounding to three bits of mantissa leaves 31.5 dB; each layer rounds its inputs and its weights
    expected = 31.5 - 10 * np.log10(2 * len(quantizable_layers(graph)))
    assert abs(found - expected) < 5, "one large channel can decide"
    typed = strongly_typed(made, {}, True)
    assert abs(decibels(graph, simulation(typed), feeds) - found) < 1, "FP16 around loses next to nothing"
    types = typed.types()
    for one in typed.nodes:
        if one.op_type == "QuantizeLinear":
            assert types[one.output[0]] == TYPE and types[one.input[1]] == onnx.TensorProto.FLOAT16
    onnx.checker.check_model(typed.to_model(), full_check=True)


@pytest.mark.parametrize("seed", range(8))
def test_one_scale_for_all_channels_loses_nothing_against_one_for_each(seed):
    """Why NumberFormat.per_channel is False; with INT8 it costs much."""
    weight = random(64, 32, seed=seed) * np.exp(np.random.default_rng(seed).standard_normal(32) * 1.5).astype(np.float32)
    lost = {}
    for number_format in (FP8, INT8):
        for axis in (None, 1):
            values, scales = quantize_weights(weight, axis, True, number_format)
            error = (values.astype(np.float32) * scales - weight) / np.abs(weight).max(axis=0)
            lost[number_format.name, axis] = np.square(error).mean()
    assert lost["fp8", None] < 1.6 * lost["fp8", 1] and lost["int8", None] > 5 * lost["int8", 1]


def test_convolutions_stay_what_they_are():
    nodes = [node("Conv", "x k", "c", "conv"), node("Reshape", "c shape", "f"), node("MatMul", "f w", "y", "dense")]
    weights = {"k": random(4, 3, 3, 3), "shape": np.int64([1, 64]), "w": random(64, 32)}
    graph = Graph.from_model(model(nodes, {"x": [1, 3, 6, 6]}, {"y": [1, 32]}, weights))
    assert [layer.node for layer in quantizable_layers(graph, FP8)] == ["dense"] and len(quantizable_layers(graph)) == 2


@pytest.mark.parametrize("size", [1e-9, 1e-7, 1e-4, 1.0, 1e6])
def test_scales_are_such_as_tensorrt_computes_with(size):
    """The inverse of an activation's scale has to fit FP16 (TensorRT-RTX), and no weight is cut off."""
    graph = Graph.from_model(model([node("MatMul", "x w", "y", "dense")], {"x": [4, 32]}, {"y": [4, 32]}, {"w": random(32, 32)}, opset=19))
    made = insert(graph, {"x": size / 448}, quantizable_layers(graph, FP8), True)
    (scale,) = (made.weights[one.input[1]] for one in made.nodes if one.op_type == "QuantizeLinear")
    assert float(np.float16(scale)) == scale and np.isfinite(np.float16(1) / np.float16(scale)) and scale >= 0.999 * size / 448


@pytest.mark.parametrize("seed", range(10))
def test_attention_of_any_form_is_fp8_in_both_products(seed):
    form = Form.random(seed)
    graph = raise_opset(fold(Graph.from_model(form.network(1)), (), stored_once=False), QUANTIZE_OPSET)
    draw = np.random.default_rng(1)
    shapes = {"x": (form.batch, form.tokens, form.width), **{name: tuple(shape) for name, shape in form.inputs.items()}}
    feeds = [{name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(2)]
    attentions = attention_layers(graph, (), FP8)
    layers, left = choose_layers(graph, {}, (), attentions, FP8)
    assert not left and len(attentions) == 1
    made = Fit(scales_by_range(absolute_maxima(graph, (), lambda: feeds), FP8), fp16_scales=True).apply(graph, layers)
    assert layers_by_format(made)["fp8"] == {name for layer in layers for name in layer.nodes}
    (attention,) = (layer.attention for layer in attentions)
    context = next(one for one in made.nodes if one.name == attention.context)
    probabilities = made.producers()[made.producers()[context.input[0]].input[0]]
    assert made.weights[probabilities.input[1]] == np.float32(np.float16(1 / 448)), "nothing a Softmax gives exceeds 1"
    assert decibels(graph, made, feeds) > 20
    assert replace(attentions[0], number_format=INT8) in attention_layers(graph, ())
