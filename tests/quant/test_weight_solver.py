"""quant/weight_solver.py: columns are what ONNX Runtime computes with, and fitted weights lose less."""

import numpy as np
import pytest
from models import correlated, model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.quant.weight_solver import MOST_COLUMNS, Columns, Sums, lost, solve, supports
from onnx2trt.rewrite.qdq import Rounded, along, quantize_weights

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


@pytest.mark.parametrize(
    "op, attributes, shape, supported",
    [
        ("Conv", {}, (4, MOST_COLUMNS // 9, 3, 3), True),
        ("Conv", {}, (4, MOST_COLUMNS // 9 + 1, 3, 3), False),
        ("MatMul", {}, (2, 6, 4), False),
        ("MatMul", {}, (MOST_COLUMNS + 1, 2), False),
        ("MatMul", {}, (2, MOST_COLUMNS + 1), True),
        ("Gemm", {"transA": 1}, (6, 4), False),
        ("Gemm", {"transB": 1}, (MOST_COLUMNS + 1, 2), False),
    ],
)
def test_what_is_not_supported(op, attributes, shape, supported):
    if attributes.get("transB"):
        shape = shape[::-1]
    assert supports(node(op, "x w", "y", **attributes), np.zeros(shape, np.float32)) is supported


# ---- solve


def quantized(x, scale):
    return np.clip(np.rint(x / scale), -128, 127) * scale


KINDS = {  # (operator, attributes, shape of the weights, axis, whether there is a bias)
    "conv": ("Conv", {}, (12, 24, 1, 1), 0),
    "grouped": ("Conv", {"group": 2}, (12, 12, 1, 1), 0),
    "gemm": ("Gemm", {"transB": 1}, (12, 24), 0),
    "matmul": ("MatMul", {}, (24, 12), 1),
    "up": ("ConvTranspose", {"strides": [2, 2]}, (24, 12, 2, 2), 1),
    "one scale": ("ConvTranspose", {"group": 2, "strides": [2, 2]}, (24, 6, 2, 2), None),
}


def errors(kind, seed, mean=0.0):
    """Mean squared error of the rows' products: (nearest, fitted), and the mean error of each output with the fitted ones."""
    op, attributes, shape, axis = KINDS[kind]
    weight = random(*shape, seed=seed)
    columns, biased = Columns(node(op, "x w", "y", "layer", **attributes), weight), op != "MatMul"
    x = correlated(24, 3000, seed, mean)
    scale = np.float32(np.abs(x).max() / 5)  # as coarse as for the small values of a tensor with outliers
    sums = Sums(columns)
    for part in np.split(x, 6, axis=1):
        sums.add(part.reshape(columns.groups, columns.count, -1), scale)
    (fit,) = solve(columns, weight, sums, [scale], biased)
    assert columns.axis == axis
    assert fit.weights.dtype == np.int8 and fit.weights.shape == weight.shape and (fit.bias is not None) is biased
    largest = np.abs(fit.weights.astype(int)).max(axis=None if axis is None else tuple(i for i in range(len(shape)) if i != axis))
    assert (largest == 127).all(), "who computes the scales anew gets the same ones"
    assert np.array_equal(fit.scales.astype(np.float16).astype(np.float32), fit.scales), "on either route, FP16 can hold them"
    fresh = x.reshape(columns.groups, columns.count, -1)
    expected = columns.rows(weight).astype(np.float64) @ fresh
    nearest, scales = quantize_weights(weight, axis, half=True)
    found = []
    for integers, steps, bias in ((nearest, scales, None), (fit.weights, fit.scales, fit.bias)):
        rows = columns.rows(integers * along(steps, axis, weight.ndim)).astype(np.float64)
        error = rows @ quantized(fresh, scale) - expected
        if bias is not None:
            error += np.repeat(bias, error.shape[0] * error.shape[1] // len(bias)).reshape(*error.shape[:2], 1)
        found.append(error)
    return (found[0] ** 2).mean(), (found[1] ** 2).mean(), found[1].reshape(len(fit.bias), -1).mean(axis=1) if biased else None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_fitted_weights_lose_less_than_the_nearest(kind, seed):
    nearest, fitted, _ = errors(kind, seed)
    assert fitted < 0.75 * nearest


@pytest.mark.parametrize("mean", [3.0, 30.0, 1000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_means_far_from_zero_do_not_spoil_the_fit(kind, mean):
    """Without a bias, weights that are right but for a mean would be wrong by that mean."""
    nearest, fitted, left = errors(kind, 1, mean)
    assert fitted < 1.05 * nearest
    if left is not None:
        assert np.abs(left).max() < 1e-5 * max(mean, 1), "the bias takes what the means differ by"


@pytest.mark.parametrize("groups, kernel, stride", [(1, 4, 2), (2, 4, 2), (1, 3, 1), (1, 2, 2)])
def test_an_output_of_a_transposed_convolution_is_the_sum_of_the_kernel_positions_that_reach_it(groups, kernel, stride):
    """Kernel 4, stride 2: four products in each value, and so four times their mean error."""
    x, weight = np.ones((1, 6, 12, 12), np.float32), random(6, 3, kernel, kernel, seed=2)
    layer, output = product("ConvTranspose", x, weight, strides=[stride] * 2, group=groups)
    columns = Columns(layer, weight)
    found = columns.channels(columns.rows(weight) @ np.ones((groups, 6 // groups, 1), np.float32))
    np.testing.assert_allclose(found, output[0, :, 4:-4, 4:-4].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv", "grouped", "gemm"])
def test_few_positions_are_not_fitted_so_closely_that_others_suffer(kind):
    """As behind a global pooling: one position an image."""
    op, attributes, shape, axis = KINDS[kind]
    weight = random(*shape, seed=1)
    columns = Columns(node(op, "x w", "y", "layer", **attributes), weight)
    values = np.random.default_rng(3).standard_normal((columns.groups, columns.count, 1016)).astype(np.float32)
    seen, fresh = values[:, :, :16], values[:, :, 16:]
    (fit,) = solve(columns, weight, sums_of(columns, seen, scale=0.3), [0.3])
    expected, found = columns.rows(weight) @ fresh, quantized(fresh, np.float32(0.3))
    nearest = columns.rows(weight) @ found - expected
    error = columns.rows(fit.weights * along(fit.scales, axis, weight.ndim)) @ found + fit.bias.reshape(columns.groups, -1, 1) - expected
    assert (error**2).mean() < 1.25 * (nearest**2).mean()


def sums_of(columns, *samples, scale=0.1):
    sums = Sums(columns)
    for sample in samples:
        sums.add(sample, scale)
    return sums


def test_inputs_that_never_change_keep_the_nearest_weights():
    weight = random(4, 6)
    columns = Columns(node("MatMul", "x w", "y"), weight.T.copy())
    nearest, scales = quantize_weights(weight.T, 1, half=True)
    for constant in (0.0, 0.314):
        (fit,) = solve(columns, weight.T.copy(), sums_of(columns, np.full((1, 6, 50), constant, np.float32)), [0.1])
        assert np.array_equal(fit.weights, nearest) and np.array_equal(fit.scales, scales)
        error = scales * (nearest.T @ np.full(6, quantized(constant, 0.1))) - weight @ np.full(6, constant)
        np.testing.assert_allclose(fit.bias, -error, atol=1e-5)


def test_one_dead_channel_does_not_stop_the_fit_of_the_others():
    weight = random(3, 1, 3, 3)
    columns = Columns(node("Conv", "x w", "y", group=3), weight)
    sample = correlated(27, 500, 0).reshape(3, 9, 500)
    sample[1] = 0
    (fit,) = solve(columns, weight, sums_of(columns, sample), [0.1])
    nearest, _ = quantize_weights(weight, 0, half=True)
    assert np.array_equal(fit.weights[1], nearest[1]) and fit.bias[1] == 0
    assert not np.array_equal(fit.weights, nearest)


@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_sums_of_parts_merge_to_sums_of_everything(mean):
    columns = Columns(node("Conv", "x w", "y", group=2), random(4, 3, 1, 1))
    samples = [correlated(6, count, seed, mean * seed).reshape(2, 3, count) for seed, count in enumerate((10, 300, 1, 77))]
    direct = sums_of(columns, np.concatenate(samples, axis=2), scale=0.05)
    merged = Sums(columns)
    for sample in samples:
        merged.merge(sums_of(columns, sample, scale=0.05))
    merged.merge(Sums(columns))
    assert merged.number == direct.number == 388
    for name in ("mean", "quantized_mean", "within", "between"):
        expected = getattr(direct, name)
        np.testing.assert_allclose(getattr(merged, name), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# ---- layers that read one weight


def two_readers():
    """(columns, weight, inputs of each of two layers, their scales): the second sees a hundred times larger values with other means."""
    weight = random(8, 12, 1, 1, seed=3)
    inputs = [correlated(12, 2000, 1).reshape(1, 12, -1), (100 * correlated(12, 2000, 2, 1.0)).reshape(1, 12, -1)]
    return Columns(node("Conv", "x w", "y"), weight), weight, inputs, [float(np.abs(x).max() / 9) for x in inputs]


def joint(columns, inputs, scales):
    sums = Sums(columns, len(inputs))
    for number, (x, scale) in enumerate(zip(inputs, scales)):
        sums.add(x, scale, number)
    return sums


def test_layers_that_share_weights_differ_in_the_bias_alone():
    columns, weight, inputs, scales = two_readers()
    fits = solve(columns, weight, joint(columns, inputs, scales), scales)
    assert fits[0].weights is fits[1].weights and fits[0].scales is fits[1].scales
    nearest, steps = quantize_weights(weight, 0, half=True)
    for fit, x, scale in zip(fits, inputs, scales):
        exact, found = columns.rows(weight).astype(np.float64) @ x, quantized(x, np.float32(scale))
        error = columns.rows(fit.weights * along(fit.scales, 0, 4)) @ found + fit.bias[None, :, None] - exact
        plain = columns.rows(nearest * along(steps, 0, 4)) @ found - exact
        assert (error**2).mean() < 0.9 * (plain**2).mean(), "neither is fitted at the cost of the other"
        assert np.abs(error.mean(axis=2)).max() < 1e-3 * np.abs(exact).max(), "each has its own means"


def test_one_reader_twice_is_that_reader():
    columns, weight, (x, _), (scale, _) = two_readers()
    (alone,) = solve(columns, weight, joint(columns, [x], [scale]), [scale])
    exact, found = columns.rows(weight).astype(np.float64) @ x, quantized(x, np.float32(scale))

    def error(fit):
        return np.square(columns.rows(fit.weights * along(fit.scales, 0, 4)) @ found + fit.bias[None, :, None] - exact).mean()

    for fit in solve(columns, weight, joint(columns, [x, x], [scale, scale]), [scale, scale]):
        assert error(fit) == pytest.approx(error(alone), rel=0.15)  # a smaller ridge, and rounding falls out otherwise


def test_sums_of_several_layers_merge():
    columns, _, inputs, scales = two_readers()
    whole, merged = joint(columns, inputs, scales), Sums(columns, 2)
    for part in (slice(0, 700), slice(700, 2000)):
        merged.merge(joint(columns, [x[:, :, part] for x in inputs], scales))
    assert np.array_equal(merged.numbers, whole.numbers)
    for name in ("mean", "quantized_mean", "within", "between"):
        expected = getattr(whole, name)
        np.testing.assert_allclose(getattr(merged, name), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# ---- what is lost


@pytest.mark.parametrize("mean", [0.0, 5.0])
@pytest.mark.parametrize("kind", ["conv", "grouped", "gemm", "matmul"])
def test_what_is_lost_is_the_squared_error_but_for_what_no_weights_change(kind, mean):
    op, attributes, shape, axis = KINDS[kind]
    weight = random(*shape, seed=7)
    columns, biased = Columns(node(op, "x w", "y", "layer", **attributes), weight), op != "MatMul"
    inputs = [correlated(24, 500, seed, mean).reshape(columns.groups, columns.count, -1) for seed in (1, 2)]
    units = [np.float32(np.abs(x).max() / reach) for x, reach in zip(inputs, (5, 100))]
    sums = joint(columns, inputs, units)
    candidates = {
        "nearest": [Rounded(*quantize_weights(weight, axis, half=True), bias=None)] * 2,
        "fitted": solve(columns, weight, sums, units, biased),
    }
    measured, told = {}, {}
    for name, fits in candidates.items():
        told[name], measured[name] = lost(columns, weight, sums, units, fits), 0.0
        for x, unit, fit in zip(inputs, units, fits):
            found = columns.rows(fit.weights * along(fit.scales, axis, weight.ndim)).astype(np.float64) @ quantized(x, unit)
            found += 0 if fit.bias is None else fit.bias.reshape(columns.groups, -1, 1)
            measured[name] += np.square((found - columns.rows(weight).astype(np.float64) @ x) / unit).sum()
    assert told["nearest"] - told["fitted"] == pytest.approx(measured["nearest"] - measured["fitted"], rel=0.02)
