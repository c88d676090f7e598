"""quant/weight_solver.py: fitted weights lose less, and what is shared is what each would have found alone."""

import numpy as np
import pytest
from models import correlated, node, random

from onnx2trt.quant.columns import Columns
from onnx2trt.quant.weight_solver import RIDGE, RIDGE_PER_SCARCITY, Sums, inverse, learn, solve
from onnx2trt.rewrite.qdq import along, quantize_weights


def fitted(columns, weight, sums, units, biased=True):
    return solve(columns, weight, [learn(sums, not (biased and columns.single))], units, biased)[0]


def empty(columns, layers=1):
    return Sums(columns.groups, columns.count, layers)


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
    sums = empty(columns)
    for part in np.split(x, 6, axis=1):
        sums.add(part.reshape(columns.groups, columns.count, -1), scale)
    (fit,) = fitted(columns, weight, sums, [scale], biased)
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


@pytest.mark.parametrize("kind", ["conv", "grouped", "gemm"])
def test_few_positions_are_not_fitted_so_closely_that_others_suffer(kind):
    """As behind a global pooling: one position an image."""
    op, attributes, shape, axis = KINDS[kind]
    weight = random(*shape, seed=1)
    columns = Columns(node(op, "x w", "y", "layer", **attributes), weight)
    values = np.random.default_rng(3).standard_normal((columns.groups, columns.count, 1016)).astype(np.float32)
    seen, fresh = values[:, :, :16], values[:, :, 16:]
    (fit,) = fitted(columns, weight, sums_of(columns, seen, scale=0.3), [0.3])
    expected, found = columns.rows(weight) @ fresh, quantized(fresh, np.float32(0.3))
    nearest = columns.rows(weight) @ found - expected
    error = columns.rows(fit.weights * along(fit.scales, axis, weight.ndim)) @ found + fit.bias.reshape(columns.groups, -1, 1) - expected
    assert (error**2).mean() < 1.25 * (nearest**2).mean()


def sums_of(columns, *samples, scale=0.1):
    sums = empty(columns)
    for sample in samples:
        sums.add(sample, scale)
    return sums


def test_inputs_that_never_change_keep_the_nearest_weights():
    weight = random(4, 6)
    columns = Columns(node("MatMul", "x w", "y"), weight.T.copy())
    nearest, scales = quantize_weights(weight.T, 1, half=True)
    for constant in (0.0, 0.314):
        (fit,) = fitted(columns, weight.T.copy(), sums_of(columns, np.full((1, 6, 50), constant, np.float32)), [0.1])
        assert np.array_equal(fit.weights, nearest) and np.array_equal(fit.scales, scales)
        error = scales * (nearest.T @ np.full(6, quantized(constant, 0.1))) - weight @ np.full(6, constant)
        np.testing.assert_allclose(fit.bias, -error, atol=1e-5)


def test_one_dead_channel_does_not_stop_the_fit_of_the_others():
    weight = random(3, 1, 3, 3)
    columns = Columns(node("Conv", "x w", "y", group=3), weight)
    sample = correlated(27, 500, 0).reshape(3, 9, 500)
    sample[1] = 0
    (fit,) = fitted(columns, weight, sums_of(columns, sample), [0.1])
    nearest, _ = quantize_weights(weight, 0, half=True)
    assert np.array_equal(fit.weights[1], nearest[1]) and fit.bias[1] == 0
    assert not np.array_equal(fit.weights, nearest)


@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_sums_of_parts_merge_to_sums_of_everything(mean):
    columns = Columns(node("Conv", "x w", "y", group=2), random(4, 3, 1, 1))
    samples = [correlated(6, count, seed, mean * seed).reshape(2, 3, count) for seed, count in enumerate((10, 300, 1, 77))]
    direct = sums_of(columns, np.concatenate(samples, axis=2), scale=0.05)
    merged = Sums.of([*(sums_of(columns, sample, scale=0.05) for sample in samples), empty(columns)])
    assert merged.number == direct.number == 388
    for name in ("mean", "quantized_mean", "within", "left"):
        expected = getattr(direct, name)
        np.testing.assert_allclose(getattr(merged, name), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# ---- layers that read one weight


def two_readers():
    """(columns, weight, inputs of each of two layers, their scales): the second sees a hundred times larger values with other means."""
    weight = random(8, 12, 1, 1, seed=3)
    inputs = [correlated(12, 2000, 1).reshape(1, 12, -1), (100 * correlated(12, 2000, 2, 1.0)).reshape(1, 12, -1)]
    return Columns(node("Conv", "x w", "y"), weight), weight, inputs, [float(np.abs(x).max() / 9) for x in inputs]


def joint(columns, inputs, scales):
    sums = empty(columns, len(inputs))
    for number, (x, scale) in enumerate(zip(inputs, scales)):
        sums.add(x, scale, number)
    return sums


def test_layers_that_share_weights_differ_in_the_bias_alone():
    columns, weight, inputs, scales = two_readers()
    fits = fitted(columns, weight, joint(columns, inputs, scales), scales)
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
    (alone,) = fitted(columns, weight, joint(columns, [x], [scale]), [scale])
    exact, found = columns.rows(weight).astype(np.float64) @ x, quantized(x, np.float32(scale))

    def error(fit):
        return np.square(columns.rows(fit.weights * along(fit.scales, 0, 4)) @ found + fit.bias[None, :, None] - exact).mean()

    for fit in fitted(columns, weight, joint(columns, [x, x], [scale, scale]), [scale, scale]):
        assert error(fit) == pytest.approx(error(alone), rel=0.15)  # a smaller ridge, and rounding falls out otherwise


def test_sums_of_several_layers_merge():
    columns, _, inputs, scales = two_readers()
    whole = joint(columns, inputs, scales)
    merged = Sums.of([joint(columns, [x[:, :, part] for x in inputs], scales) for part in (slice(0, 700), slice(700, 2000))])
    assert np.array_equal(merged.numbers, whole.numbers)
    for name in ("mean", "quantized_mean", "within", "left"):
        expected = getattr(whole, name)
        np.testing.assert_allclose(getattr(merged, name), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# ---- the solution


def reference(columns, weight, samples, scale, means):
    """W (Cov[x, x'] + ridge) (Cov[x', x'] + ridge)^-1 of all columns [G, K, n], in float64; with `means` of E[x x'^T] and E[x' x'^T]."""
    exact = (samples / np.float32(scale)).astype(np.float64)
    rounded = np.clip(np.rint(exact), -128, 127)
    x, q = (values - values.mean(axis=2, keepdims=True) for values in (exact, rounded))
    gram, cross = (left @ q.transpose(0, 2, 1) / q.shape[2] for left in (q, x))
    strength = (RIDGE + RIDGE_PER_SCARCITY * columns.count / q.shape[2]) * np.einsum("gkk->g", gram) / columns.count
    ridge = np.eye(columns.count) * np.where(strength > 0, strength, 1.0)[:, None, None]
    if means:
        gram, cross = (left @ rounded.transpose(0, 2, 1) / q.shape[2] for left in (rounded, exact))
    return columns.rows(weight) @ (cross + ridge) @ np.linalg.inv(gram + ridge)


@pytest.mark.parametrize("mean", [0.0, 3.0, 300.0])
@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("groups, count, number", [(1, 96, 3000), (1, 200, 150), (4, 9, 800)])
def test_the_best_weights_are_those_of_the_formula(groups, count, number, means, mean):
    """In float32, and whatever the means are: a MatMul behind a normalisation sees some far above their variance."""
    weight = random(8 * groups, count, 1, 1, seed=1)
    columns = Columns(node("Conv", "x w", "y", group=groups), weight)
    samples = correlated(groups * count, number, 2, mean).reshape(groups, count, number)
    scale = float(np.abs(samples).max() / 20)
    expected = reference(columns, weight, samples, scale, means)
    rows = columns.rows(weight)
    found = rows + rows @ learn(sums_of(columns, *np.array_split(samples, 7, axis=2), scale=scale), means).change
    change = np.abs(expected - rows).max()
    assert change > 1e-3 * np.abs(rows).max(), "there is something to find"
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * change)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("biased", [True, False])
def test_several_fits_at_once_are_what_each_is_alone(kind, biased):
    op, attributes, shape, _ = KINDS[kind]
    weight = random(*shape, seed=3)
    columns = Columns(node(op, "x w", "y", **attributes), weight)
    sets = []
    for seed in range(3):
        sums = empty(columns)
        sums.add(random(columns.groups, columns.count, 200, seed=seed), 0.05)
        sets.append(learn(sums, not (biased and columns.single)))
    together = solve(columns, weight, sets, [0.05], biased)
    for inputs, found in zip(sets, together, strict=True):
        (alone,) = solve(columns, weight, [inputs], [0.05], biased)
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one.weights, other.weights)
            np.testing.assert_array_equal(one.scales, other.scales)
            assert (one.bias is None) == (other.bias is None) and (one.bias is None or np.array_equal(one.bias, other.bias))


@pytest.mark.parametrize("size", [1, 2, 31, 33, 100, 256])
@pytest.mark.parametrize("seed", range(3))
def test_inverse_matrices_are_those_of_numpy_for_what_the_ridge_leaves(size, seed):
    """Inputs that are nearly one another's multiples, whose reach differs a thousand times: the ridge bounds the condition."""
    values = correlated(size, 3 * size, seed)[None] * np.geomspace(1e-3, 1, size)[None, :, None]
    gram = values @ values.transpose(0, 2, 1)
    gram[:, np.arange(size), np.arange(size)] += RIDGE * np.einsum("gkk->gk", gram).mean()
    gram = np.concatenate([gram, np.eye(size)[None]]).astype(np.float32)
    expected = np.linalg.inv(gram.astype(np.float64))
    found = inverse(gram)
    assert found.dtype == np.float32 and np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
