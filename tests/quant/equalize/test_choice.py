"""quant/equalize/choice.py: every channel fills the range of INT8 by itself, within limits."""

import numpy as np

from onnx2trt.quant.equalize.choice import choose_scales, choose_shifts


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
