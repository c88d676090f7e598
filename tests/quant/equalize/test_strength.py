"""quant/equalize/strength.py: the noise of INT8 is foretold, and no layer is made worse for the sake of another."""

import numpy as np
import pytest
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.quant.equalize.relations import FIXED, Group, Place
from onnx2trt.quant.equalize.strength import MOST_OUTPUTS, STRENGTHS, TOLERATED, Reach, Read, choose_strength, reads

C = 6


def layer(op, *shape, inputs="t w", **attributes):
    """A graph of one layer that reads t, and the squared weights from each channel of t to each output, computed by itself."""
    dims = 2 if op in ("Gemm", "MatMul") else 4
    graph = Graph.from_model(
        model([node(op, inputs, "y", "layer", **attributes)], {"t": [3, C, 8, 8][:dims]}, {"y": None}, {"w": random(*shape)})
    )
    return graph


def group_of(slots=None):
    slots = np.arange(C) if slots is None else np.array(slots)
    return Group({"t": Place(slots, 1, 4)}, int(slots.max()) + 1)


def read_of(graph, reach, spread=None, slots=None):
    reach = np.asarray(reach, float)
    (found,) = reads(graph, group_of(slots), {"t": Reach(reach, reach / 3 if spread is None else np.asarray(spread, float))})
    return found


LAYERS = {
    "conv": (layer("Conv", 4, C, 3, 3), lambda w: w.reshape(4, C, 9)),
    "transposed": (layer("ConvTranspose", C, 4, 2, 2), lambda w: w.reshape(C, 4, 4).transpose(1, 0, 2)),
    "gemm": (layer("Gemm", C, 4), lambda w: w.T[:, :, None]),
    "gemm transposed": (layer("Gemm", 4, C, transB=1), lambda w: w[:, :, None]),
    "matmul": (layer("MatMul", C, 4), lambda w: w.T[:, :, None]),
    "batched": (layer("MatMul", 2, 5, C, 4), lambda w: w.reshape(10, C, 4).transpose(2, 1, 0)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_lead_from_channels_to_outputs(name):
    graph, laid_out = LAYERS[name]
    np.testing.assert_allclose(read_of(graph, np.ones(C)).weights, np.abs(laid_out(graph.weights["w"])))


@pytest.mark.parametrize("groups", [2, 3, C])
def test_groups_lead_to_their_own_outputs_alone(groups):
    graph = layer("Conv", 12, C // groups, 1, 1, group=groups)
    found = read_of(graph, np.ones(C)).weights
    for output in range(12):
        own = np.arange(C) // (C // groups) == output // (12 // groups)
        assert (found[output, own] > 0).all() and not found[output, ~own].any()


def test_of_many_outputs_some_are_looked_at():
    graph = layer("Gemm", C, 3 * MOST_OUTPUTS + 5)
    assert MOST_OUTPUTS / 2 < len(read_of(graph, np.ones(C)).weights) <= MOST_OUTPUTS


def int8_noise(weight, channels, scales, bits=127):
    """Mean squared error of each output of weight @ channels, rounded to INT8 after equalizing by `scales`."""
    x, w = channels / scales[:, None], weight * scales
    step, steps = np.abs(x).max() / bits, np.abs(w).max(axis=1, keepdims=True) / bits
    return ((np.rint(w / steps) * steps @ (np.rint(x / step) * step) - weight @ channels) ** 2).mean(axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_the_foretold_noise_is_that_of_int8(seed):
    rng = np.random.default_rng(seed)
    magnitudes = np.exp(rng.standard_normal(C) * 1.5)
    channels = rng.standard_normal((C, 20000)) * magnitudes[:, None]
    graph = layer("Gemm", 16, C, transB=1)
    weight = graph.weights["w"].astype(np.float64)
    read = read_of(graph, np.abs(channels).max(axis=1), np.sqrt((channels**2).mean(axis=1)))
    scales = np.exp(rng.standard_normal(C))
    measured = np.log(int8_noise(weight, channels, scales) / int8_noise(weight, channels, np.ones(C))).mean()
    assert read.noise(scales) == pytest.approx(measured, abs=0.25)


def test_fixed_channels_are_not_scaled():
    graph = layer("Conv", 4, C, 1, 1)
    read = read_of(graph, np.ones(C), slots=[0, 1, FIXED, FIXED, FIXED, FIXED])
    assert read.noise(np.array([1.0, 1.0])) == 0 and read.noise(np.array([2.0, 2.0])) != 0
    same = read_of(graph, np.ones(C))
    assert same.noise(np.full(C, 7.0)) == pytest.approx(0), "one factor for all channels changes nothing"


def test_channels_without_values_make_no_noise():
    read = read_of(layer("Conv", 4, C, 1, 1), [1, 1, 1, 1, 0, -np.inf], [0.3] * 4 + [0, 0])
    assert np.isfinite(read.noise(np.array([1, 2, 3, 4, 5, 6.0])))
    assert Read(Reach(np.zeros(C), np.zeros(C)), np.arange(C), np.zeros((2, C, 1))).noise(np.ones(C)) == 0


# ---- choose


REACH = np.geomspace(0.05, 1, C)


@pytest.mark.parametrize("seed", range(8))
def test_one_tensor_is_equalized_as_strongly_as_makes_least_noise(seed):
    rng = np.random.default_rng(seed)
    channels = rng.standard_normal((C, 5000)) * np.exp(rng.standard_normal((C, 1)) * rng.choice([0.3, 1.0, 2.0]))
    graph = layer("Gemm", 16, C, transB=1)
    weight, largest = graph.weights["w"].astype(np.float64), np.abs(channels).max(axis=1)
    noise = [int8_noise(weight, channels, largest**strength).mean() for strength in (0, *STRENGTHS)]
    chosen = choose_strength(largest, [read_of(graph, largest, np.sqrt((channels**2).mean(axis=1)))])
    assert int8_noise(weight, channels, largest**chosen).mean() <= 1.15 * min(noise)
    assert noise[0] > 1.15 * min(noise) or chosen < 1, "at some strengths there is something to lose"


def test_what_no_layer_reads_follows_its_scales():
    assert choose_strength(REACH, []) == 1.0


def test_tensors_with_opposite_channels_are_left_alone():
    graph = layer("Conv", 8, C, 3, 3)
    assert choose_strength(REACH, [read_of(graph, REACH), read_of(graph, REACH[::-1])]) == 0


def test_a_tensor_that_half_agrees_gets_as_much_as_it_can_bear():
    graph = layer("Conv", 8, C, 3, 3)
    found = [read_of(graph, REACH), read_of(graph, REACH**0.3)]
    strength = choose_strength(REACH, found)
    assert 0 < strength < 1
    assert max(read.noise(REACH**strength) for read in found) <= TOLERATED < max(read.noise(REACH) for read in found)
