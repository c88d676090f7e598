"""quant/equalize/choice.py: every channel fills the range of INT8 by itself, within limits."""

import numpy as np

from onnx2trt.quant.equalize.choice import believed, choose_scales, choose_shifts


def test_every_channel_reaches_equally_far():
    maxima = np.array([1.0, 10.0, 0.5, 3.0])
    scales = choose_scales(maxima)
    np.testing.assert_allclose(maxima / scales, (maxima / scales)[0])
    np.testing.assert_allclose(np.log(scales).mean(), 0, atol=1e-12)


def test_scales_stay_within_their_limit_and_spare_dead_channels():
    scales = choose_scales(np.array([1e-12, 1.0, 1e12, 0.0, -np.inf, np.nan]), limit=8.0)
    np.testing.assert_allclose(scales, [1 / 8, 1, 8, 1, 1, 1])
    np.testing.assert_array_equal(choose_scales(np.zeros(3)), np.ones(3))


def test_an_anchor_brings_channels_to_the_size_of_fixed_neighbours():
    maxima = np.array([1.0, 10.0, 0.5])
    np.testing.assert_allclose(maxima / choose_scales(maxima, anchor=4.0), 4.0)
    scales = choose_scales(maxima, anchor=1e9, limit=8.0)
    np.testing.assert_allclose(np.log(scales).mean(), np.log(1 / 8), err_msg="no further than the limit")


def test_shifts_are_the_middle():
    np.testing.assert_array_equal(choose_shifts(np.array([-1.0, 2.0, np.inf]), np.array([3.0, 4.0, -np.inf])), [1, 3, 0])


def test_of_many_values_reaches_are_believed():
    reach, spread = np.array([1.0, 40.0, 0.1]), np.array([0.2, 9.0, 0.05])
    np.testing.assert_allclose(believed(reach, spread, np.full(3, 10**6)), reach, rtol=1e-3)


def test_of_few_values_channels_are_taken_to_be_more_alike():
    """The largest of a dozen values is chance; their spread is not quite."""
    spread = np.array([1.0, 10.0])
    found = believed(np.array([1.2, 40.0]), spread, np.array([12, 12]))
    assert 1 < found[1] / found[0] < 10 < 40 / 1.2
    assert (
        believed(np.array([1.2, 40.0]), spread, np.array([500, 500]))[1] / believed(np.array([1.2, 40.0]), spread, np.array([500, 500]))[0]
        > 10
    )
    alone = believed(np.array([5.0, 5.0, 0.01]), np.array([1.0, 1.0, 0.003]), np.array([10**6, 10**6, 1]))
    assert alone[2] > 0.1 and np.allclose(alone[:2], 5.0, rtol=0.01), "a channel that was seen once has no say"


def test_channels_without_values_stay_as_they_are():
    reach = np.array([0.0, -np.inf, 2.0])
    np.testing.assert_allclose(believed(reach, np.array([0.0, 0.0, 1.0]), np.array([0, 0, 100])), reach)
    np.testing.assert_array_equal(believed(np.zeros(2), np.zeros(2), np.zeros(2, int)), np.zeros(2))
