"""data/made_up.py: noise in the place of data, and inputs in which nothing is."""

import numpy as np
import pytest
from helpers import prepared

from onnx2trt.data.made_up import blank, noise

LIKE = {
    "x": np.full((2, 3), 0.5, np.float32),
    "h": np.ones((1, 4), np.float16),
    "pixels": np.full((1, 2, 2, 3), 7, np.uint8),
    "ids": np.array([[3, 5]]),
    "mask": np.ones((1, 2), np.int32),
}


def test_noise_has_types_and_shapes_and_leaves_whole_numbers_alone():
    made = noise(LIKE, None)
    assert {name: (array.shape, array.dtype) for name, array in made.items()} == {n: (a.shape, a.dtype) for n, a in LIKE.items()}
    assert made["x"].std() > 0 and made["h"].std() > 0 and made["ids"] is LIKE["ids"] and made["mask"] is LIKE["mask"]


@pytest.mark.parametrize("pre", [prepared(), prepared(1), prepared(4, layout="NHWC"), prepared(dtype="uint8", input_range=255)])
def test_noise_of_images_is_what_they_become(pre):
    made = noise({"image": np.zeros((2, *pre.shape), pre.dtype)}, pre)["image"]
    assert made.shape == (2, *pre.shape) and made.dtype == pre.dtype and made.std() > 0 and (made[0] == made[1]).all()


def test_masks_and_lengths_keep_their_values_where_nothing_is():
    (made,) = blank(LIKE, None, {"ids"})
    assert not made["x"].any() and not made["h"].any() and not made["pixels"].any() and not made["ids"].any()
    assert made["mask"].all() and LIKE["x"].all(), "and the data is not written to"


def test_there_is_nothing_to_clear_in_whole_numbers_that_are_no_indices():
    assert blank({"mask": LIKE["mask"]}, None, ()) == []


def test_a_black_image_is_another_one_where_a_mean_is_taken_off():
    like = {"image": np.ones((1, 3, 24, 32), np.float32)}
    assert len(blank(like, prepared(), ())) == 1
    zero, black = blank(like, prepared(mean=(0.5,) * 3, std=(0.25,) * 3), ())
    assert not zero["image"].any() and (black["image"] == -2).all()
