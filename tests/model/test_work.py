"""model/work.py: multiply-accumulates, counted by hand."""

import pytest
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.work import count_macs


def test_multiply_accumulates_are_counted_by_hand():
    nodes = [
        node("Conv", "x w1", "a", "conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", "a w2", "b", "depthwise", group=8, pads=[1, 1, 1, 1]),
        node("ConvTranspose", "b w3", "c", "up", strides=[2, 2]),
        node("Flatten", "c", "f"),
        node("Gemm", "f w4", "g", "dense"),
        node("MatMul", "g w5", "y", "product"),
    ]
    weights = {
        "w1": random(8, 3, 3, 3),
        "w2": random(8, 1, 3, 3),
        "w3": random(8, 5, 2, 2),
        "w4": random(5 * 16 * 16, 6),
        "w5": random(6, 7),
    }
    graph = Graph.from_model(model(nodes, {"x": [2, 3, 16, 16]}, {"y": [2, 7]}, weights))
    shapes = {"x": (2, 3, 16, 16), "a": (2, 8, 8, 8), "b": (2, 8, 8, 8), "c": (2, 5, 16, 16), "f": (2, 1280), "g": (2, 6), "y": (2, 7)}
    assert count_macs(graph, shapes) == {
        "conv": 2 * 8 * 8 * 8 * 27,
        "depthwise": 2 * 8 * 8 * 8 * 9,
        "up": 2 * 8 * 8 * 8 * 5 * 4,
        "dense": 2 * 6 * 1280,
        "product": 2 * 7 * 6,
    }


@pytest.mark.parametrize(
    "shapes, heads, past",
    [
        ([(2, 4, 12, 16), (2, 4, 20, 16), (2, 4, 20, 8)], {}, 0),
        ([(2, 12, 64), (2, 20, 64), (2, 20, 32)], {"q_num_heads": 4, "kv_num_heads": 4}, 0),
        ([(2, 4, 12, 16), (2, 4, 20, 16), (2, 4, 20, 8)], {}, 5),
        ([(2, 4, 12, 16), (2, 1, 20, 16), (2, 1, 20, 8)], {}, 0),  # one head of keys for all queries
    ],
)
def test_the_attention_operator_is_two_products(shapes, heads, past):
    inputs = dict(zip("qkv", map(list, shapes)))
    names = "q k v"
    if past:
        inputs |= {"pk": [2, 4, past, 16], "pv": [2, 4, past, 8]}
        attended = [node("Attention", "q k v", "y pk1 pv1", "attention", **heads)]
        attended[0].input.extend(["", "pk", "pv"])
    else:
        attended = [node("Attention", names, "y", "attention", **heads)]
    graph = Graph.from_model(model(attended, inputs, {"y": None}, opset=23))
    assert count_macs(graph, static_shapes(graph, ())) == {"attention": 2 * 4 * 12 * (20 + past) * (16 + 8)}
