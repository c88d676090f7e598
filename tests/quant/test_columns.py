"""quant/columns.py: columns are what ONNX Runtime computes with."""

import numpy as np
import pytest
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant import columns as module
from onnx2trt.quant.columns import MOST_COLUMNS, Columns, supports

ALL = 10**9


def product(op, x, weight, **attributes):
    """(node, output [N, M, ...] of ONNX Runtime)"""
    layer = node(op, "x w", "y", "layer", **attributes)
    graph = Graph.from_model(model([layer], {"x": list(x.shape)}, {"y": None}, {"w": weight}))
    return layer, Session.from_graph(graph).run({"x": x})["y"]


CONVOLUTIONS = {
    "1-D": ((2, 3, 11), (4, 3, 3), {"pads": [1, 2]}),
    "2-D": ((2, 3, 7, 8), (4, 3, 3, 3), {}),
    "3-D": ((1, 2, 5, 6, 4), (3, 2, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 0], "strides": [2, 1, 1]}),
    "stride": ((2, 3, 9, 8), (4, 3, 3, 3), {"strides": [2, 3]}),
    "dilation": ((1, 3, 9, 10), (4, 3, 3, 2), {"dilations": [2, 3], "pads": [2, 0, 1, 1]}),
    "asymmetric": ((1, 2, 6, 7), (3, 2, 3, 5), {"pads": [0, 3, 2, 1]}),
    "same upper": ((1, 2, 7, 8), (3, 2, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same lower": ((1, 2, 7, 8), (3, 2, 4, 2), {"auto_pad": "SAME_LOWER", "strides": [1, 1]}),
    "valid": ((1, 2, 7, 8), (3, 2, 4, 2), {"auto_pad": "VALID"}),
    "groups": ((2, 6, 5, 5), (4, 3, 3, 3), {"group": 2, "pads": [1] * 4}),
    "depthwise": ((2, 6, 5, 5), (6, 1, 3, 3), {"group": 6, "pads": [1] * 4}),
    "pointwise": ((3, 6, 5, 5), (4, 6, 1, 1), {}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_rows_times_columns_are_a_convolution(case):
    shape, kernel, attributes = CONVOLUTIONS[case]
    x, weight = random(*shape, seed=1), random(*kernel, seed=2)
    layer, expected = product("Conv", x, weight, **attributes)
    columns = Columns(layer, weight)
    got = columns.rows(weight) @ columns.sample(x, ALL, np.random.default_rng(0))  # [G, O, positions]
    np.testing.assert_allclose(got.reshape(kernel[0], -1), np.moveaxis(expected, 1, 0).reshape(kernel[0], -1), rtol=1e-4, atol=1e-5)
    assert np.array_equal(columns.weight(columns.rows(weight)), weight) and supports(layer, weight)


@pytest.mark.parametrize(
    "op, shape, kernel, attributes",
    [
        ("Gemm", (5, 6), (6, 4), {}),
        ("Gemm", (5, 6), (4, 6), {"transB": 1}),
        ("MatMul", (5, 6), (6, 4), {}),
        ("MatMul", (2, 3, 6), (6, 4), {}),
    ],
)
def test_rows_times_columns_are_a_product(op, shape, kernel, attributes):
    x, weight = random(*shape, seed=1), random(*kernel, seed=2)
    layer, expected = product(op, x, weight, **attributes)
    columns = Columns(layer, weight)
    got = columns.rows(weight)[0] @ columns.sample(x, ALL, np.random.default_rng(0))[0]
    np.testing.assert_allclose(got, expected.reshape(-1, 4).T, rtol=1e-4, atol=1e-5)
    assert np.array_equal(columns.weight(columns.rows(weight)), weight) and supports(layer, weight)


@pytest.mark.parametrize("groups, kernel, strides", [(1, (2, 3), [2, 3]), (2, (2, 2), [2, 2]), (3, (1, 1), [1, 1])])
def test_rows_times_columns_are_a_transposed_convolution(groups, kernel, strides):
    """Kernels that do not overlap: every product is an output value."""
    x, weight = random(2, 6, 3, 4, seed=1), random(6, 4, *kernel, seed=2)
    layer, expected = product("ConvTranspose", x, weight, group=groups, strides=strides)
    columns = Columns(layer, weight)
    got = columns.rows(weight) @ columns.sample(x, ALL, np.random.default_rng(0))
    got = got.reshape(4 * groups, *kernel, 2, 3, 4).transpose(3, 0, 4, 1, 5, 2).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(columns.weight(columns.rows(weight)), weight)


def test_a_sample_is_no_larger_than_asked_for_and_of_true_positions():
    x, weight = random(2, 3, 20, 20, seed=1), random(4, 3, 3, 3)
    columns = Columns(node("Conv", "x w", "y", pads=[1] * 4), weight)
    every, some = (columns.sample(x, most, np.random.default_rng(0)) for most in (ALL, 50))
    assert every.shape == (1, 27, 800) and some.shape == (1, 27, 50)
    known = {column.tobytes() for column in every[0].T}
    assert all(column.tobytes() in known for column in some[0].T)


@pytest.mark.parametrize("groups, kernel, stride", [(1, 4, 2), (2, 4, 2), (1, 3, 1), (1, 2, 2)])
def test_an_output_of_a_transposed_convolution_is_the_sum_of_the_kernel_positions_that_reach_it(groups, kernel, stride):
    """Kernel 4, stride 2: four products in each value, and so four times their mean error."""
    x, weight = np.ones((1, 6, 12, 12), np.float32), random(6, 3, kernel, kernel, seed=2)
    layer, output = product("ConvTranspose", x, weight, strides=[stride] * 2, group=groups)
    columns = Columns(layer, weight)
    found = columns.channels(columns.rows(weight).sum(axis=2))
    np.testing.assert_allclose(found, output[0, :, 4:-4, 4:-4].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


WIDE = {  # (operator, shape of the input, of the weights, attributes), at most 12 columns each -> (groups, columns)
    "conv": (("Conv", (2, 8, 5, 5), (4, 8, 2, 2), {}), (4, 8)),
    "grouped": (("Conv", (2, 12, 5, 5), (4, 6, 1, 3), {"group": 2}), (4, 9)),
    "of a prime number": (("Conv", (1, 7, 3, 3), (4, 7, 2, 2), {}), (7, 4)),
    "gemm": (("Gemm", (5, 30), (4, 30), {"transB": 1}), (3, 10)),
    "matmul": (("MatMul", (5, 26), (26, 3), {}), (13, 2)),
    "up": (("ConvTranspose", (1, 16, 3, 4), (16, 3, 2, 2), {"strides": [2, 2]}), (2, 8)),
    "grouped up": (("ConvTranspose", (1, 48, 3, 4), (48, 3, 2, 2), {"strides": [2, 2], "group": 2}), (4, 12)),
}


@pytest.mark.parametrize("case", WIDE)
def test_wide_layers_are_sums_of_blocks(case, monkeypatch):
    monkeypatch.setattr(module, "MOST_COLUMNS", 12)
    (op, shape, kernel, attributes), expected = WIDE[case]
    x, weight = random(*shape, seed=1), random(*kernel, seed=2)
    layer, output = product(op, x, weight, **attributes)
    columns = Columns(layer, weight)
    assert (columns.groups, columns.count) == expected and supports(layer, weight)
    assert np.array_equal(columns.weight(columns.rows(weight)), weight)
    total = output.sum(axis=tuple(i for i in range(output.ndim) if i != 1)) if op != "MatMul" else output.sum(axis=0)
    found = columns.channels((columns.rows(weight) @ columns.sample(x, ALL, np.random.default_rng(0))).sum(axis=2))
    found = found * (4 if op == "ConvTranspose" else 1)  # all of the products that reach one of the four output positions of each input
    np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-4)


READ = [  # layers that read x, in pairs: whether they read the same columns
    (("Conv", {"pads": [1] * 4}, (4, 6, 3, 3)), ("Conv", {"pads": [1] * 4}, (9, 6, 3, 3)), True),
    (("Conv", {}, (4, 6, 3, 3)), ("Conv", {"pads": [1] * 4}, (4, 6, 3, 3)), False),
    (("Conv", {}, (4, 6, 3, 3)), ("Conv", {"auto_pad": "SAME_UPPER"}, (4, 6, 3, 3)), False),
    (("Conv", {"strides": [2, 1]}, (4, 6, 3, 3)), ("Conv", {"strides": [1, 2]}, (4, 6, 3, 3)), False),
    (("Conv", {}, (4, 6, 3, 3)), ("Conv", {"dilations": [2, 2]}, (4, 6, 3, 3)), False),
    (("Conv", {}, (4, 6, 1, 3)), ("Conv", {}, (4, 6, 3, 1)), False),
    (("Conv", {}, (4, 6, 1, 1)), ("Conv", {"group": 2}, (4, 3, 1, 1)), False),
    (("MatMul", {}, (6, 5)), ("MatMul", {}, (6, 9)), True),
    (("MatMul", {}, (6, 5)), ("Gemm", {"transB": 1}, (5, 6)), True),
]


@pytest.mark.parametrize("one, other, same", READ)
def test_layers_read_the_same_columns_where_they_say_so(one, other, same):
    """Only then do they share what is known of these."""
    x = random(*((2, 6, 7, 8) if one[0] == "Conv" else (10, 6)), seed=1)
    columns = [Columns(node(op, "x w", "y", "layer", **attributes), random(*shape)) for op, attributes, shape in (one, other)]
    first, second = (each.sample(x, ALL, np.random.default_rng(0)) for each in columns)
    assert (columns[0].reading == columns[1].reading) is same
    assert (first.shape == second.shape and np.array_equal(first, second)) is same


@pytest.mark.parametrize(
    "op, attributes, shape, supported",
    [
        ("Conv", {}, (4, 3, 1, MOST_COLUMNS), True),
        ("Conv", {}, (4, 3, 1, MOST_COLUMNS + 1), False),
        ("MatMul", {}, (2, 6, 4), False),
        ("MatMul", {}, (5 * MOST_COLUMNS, 2), True),
        ("Gemm", {"transA": 1}, (6, 4), False),
    ],
)
def test_what_is_not_supported(op, attributes, shape, supported):
    assert supports(node(op, "x w", "y", **attributes), np.zeros(shape, np.float32)) is supported
