"""rewrite/shifts.py: zero points of activations end in biases, and the products read INT8."""

import numpy as np
import pytest
from foreign_models import quantized_input, truth
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.qdq import int8_layers
from onnx2trt.rewrite.shifts import absorb_shifts
from onnx2trt.rewrite.signed import signed


def product(operator: str, weight_shape, x_shape, bias=0, dtype="uint8", zero=77, opset=17, read_twice=False, **attributes):
    """x -> Q/DQ with a zero point -> the product with dequantized weights -> y"""
    nodes, weights = quantized_input(dtype, zero)
    integers = np.random.default_rng(0).integers(-127, 128, weight_shape).astype(np.int8)
    weights |= {"w": integers, "ws": np.float32(0.01), "wz": np.int8(0)} | ({"b": random(bias, seed=4)} if bias else {})
    nodes += [node("DequantizeLinear", "xq xs xz", "xd"), node("DequantizeLinear", "w ws wz", "wd")]
    nodes.append(node(operator, "xd wd b" if bias else "xd wd", "y", "product", **attributes))
    outputs = {"y": None}
    if read_twice:
        nodes.append(node("Relu", "xd", "z"))
        outputs["z"] = None
    return model(nodes, {"x": x_shape}, outputs, weights, opset)


FORMS = {
    "convolution": {"operator": "Conv", "weight_shape": (5, 4, 3, 3), "x_shape": [2, 4, 7, 6]},
    "padded": {"operator": "Conv", "weight_shape": (5, 4, 3, 3), "x_shape": [2, 4, 7, 6], "bias": 5, "pads": [1, 2, 0, 1]},
    "strided groups": {
        "operator": "Conv",
        "weight_shape": (6, 2, 3, 3),
        "x_shape": [1, 4, 9, 9],
        "group": 2,
        "strides": [2, 2],
        "pads": [1] * 4,
    },
    "dilated": {"operator": "Conv", "weight_shape": (3, 4, 3, 3), "x_shape": [1, 4, 9, 9], "dilations": [2, 2], "pads": [2] * 4, "bias": 3},
    "one dimension": {"operator": "Conv", "weight_shape": (3, 4, 3), "x_shape": [1, 4, 9], "pads": [1, 1]},
    "auto_pad VALID": {"operator": "Conv", "weight_shape": (5, 4, 3, 3), "x_shape": [2, 4, 7, 6], "auto_pad": "VALID"},
    "signed": {"operator": "Conv", "weight_shape": (5, 4, 3, 3), "x_shape": [2, 4, 7, 6], "pads": [1] * 4, "dtype": "int8", "zero": -9},
    "read twice": {"operator": "Conv", "weight_shape": (5, 4, 3, 3), "x_shape": [2, 4, 7, 6], "pads": [1] * 4, "read_twice": True},
    "matrix product": {"operator": "MatMul", "weight_shape": (6, 5), "x_shape": [2, 3, 6]},
    "batched matrix product": {"operator": "MatMul", "weight_shape": (2, 6, 5), "x_shape": [2, 3, 6]},
    "Gemm": {"operator": "Gemm", "weight_shape": (6, 5), "x_shape": [3, 6]},
    "Gemm with everything": {
        "operator": "Gemm",
        "weight_shape": (5, 6),
        "x_shape": [3, 6],
        "bias": 5,
        "transB": 1,
        "alpha": 0.5,
        "beta": 2.0,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_product_reads_int8_and_computes_the_same(form):
    source = product(**FORMS[form])
    feed = {"x": random(*FORMS[form]["x_shape"], seed=7)}
    graph = absorb_shifts(signed(Graph.from_model(source)).graph)
    assert int8_layers(graph) == {"product"}
    for found, expected in zip(Session.from_graph(graph).run(feed).values(), truth(source, feed), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


OTHERS = {
    "sizes that are known at run time": {
        "operator": "Conv",
        "weight_shape": (5, 4, 3, 3),
        "x_shape": [2, 4, 7, 6],
        "auto_pad": "SAME_UPPER",
    },
    "transposed convolution": {"operator": "ConvTranspose", "weight_shape": (4, 5, 3, 3), "x_shape": [2, 4, 7, 6]},
    "transposed activation": {"operator": "Gemm", "weight_shape": (6, 5), "x_shape": [6, 3], "transA": 1},
    "no bias that counts": {"operator": "Gemm", "weight_shape": (6, 5), "x_shape": [3, 6], "beta": 0.0},
}


@pytest.mark.parametrize("form", OTHERS)
def test_what_cannot_take_the_shift_stays_right(form):
    source = product(**OTHERS[form])
    feed = {"x": random(*OTHERS[form]["x_shape"], seed=7)}
    graph = absorb_shifts(signed(Graph.from_model(source)).graph)
    assert int8_layers(graph) == set()
    np.testing.assert_allclose(Session.from_graph(graph).run(feed)["y"], truth(source, feed)[0], atol=2e-5)


def test_convolutions_with_the_same_padding_share_it():
    nodes, weights = quantized_input("uint8", 77)
    nodes.append(node("DequantizeLinear", "xq xs xz", "xd"))
    for name in "ab":
        nodes.append(node("Conv", f"xd w{name}", f"y{name}", name, pads=[1] * 4))
        weights[f"w{name}"] = random(3, 4, 3, 3)
    graph = absorb_shifts(signed(Graph.from_model(model(nodes, {"x": [1, 4, 5, 5]}, {"ya": None, "yb": None}, weights))).graph)
    assert [made.op_type for made in graph.nodes].count("Pad") == 1
