"""data/pixels.py: one documented way from decoded pixels to the tensor of a model."""

import numpy as np
import pytest
from helpers import image, prepared

from onnx2trt.base.opencv import opencv
from onnx2trt.data.pixels import displayed, image_tensor

cv2 = opencv()

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_the_tensor_is_the_plain_formula_to_the_last_bit():
    pixels = image(50, 70)
    resized = cv2.resize(pixels, (32, 24), interpolation=cv2.INTER_LINEAR)
    rgb = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.float32)
    expected = (rgb / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    tensor = image_tensor(pixels, prepared(mean=MEAN, std=STD))
    assert np.array_equal(tensor, expected.transpose(2, 0, 1))
    assert tensor.shape == (3, 24, 32) and tensor.dtype == np.float32 and tensor.flags.c_contiguous


PIXELS = image(24, 32)  # the size asked for: what is left is order, range and layout
BGR = PIXELS.astype(np.float32)
ALPHA = image(24, 32, 4)
GRAY = image(24, 32, 1)
RAW = {"input_range": 255}


@pytest.mark.parametrize(
    ("pixels", "pre", "expected"),
    [
        (PIXELS, prepared(**RAW), BGR.transpose(2, 0, 1)[::-1]),
        (PIXELS, prepared(**RAW, color="bgr"), BGR.transpose(2, 0, 1)),
        (PIXELS, prepared(**RAW, layout="NHWC"), BGR[:, :, ::-1]),
        (PIXELS, prepared(**RAW, layout="NHWC", color="bgr"), BGR),
        (PIXELS, prepared(), BGR.transpose(2, 0, 1)[::-1] / np.float32(255)),
        (PIXELS, prepared(**RAW, mean=(1.0, 2.0, 4.0), std=(2.0, 4.0, 8.0), layout="NHWC"), (BGR[:, :, ::-1] - [1, 2, 4]) / [2, 4, 8]),
        (PIXELS, prepared(**RAW, mean=(1.0, 2.0, 4.0), color="bgr", layout="NHWC"), BGR - [1, 2, 4]),
        (PIXELS, prepared(**RAW, dtype="uint8"), PIXELS.transpose(2, 0, 1)[::-1]),
        (PIXELS, prepared(**RAW, dtype="uint8", layout="NHWC"), PIXELS[:, :, ::-1]),
        (PIXELS, prepared(dtype="float16"), (BGR.transpose(2, 0, 1)[::-1] / np.float32(255)).astype(np.float16)),
        (GRAY, prepared(1, **RAW), GRAY[None].astype(np.float32)),
        (GRAY, prepared(1, **RAW, layout="NHWC"), GRAY[:, :, None].astype(np.float32)),
        (GRAY, prepared(1, mean=(0.5,), std=(0.25,)), (GRAY[None] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)),
        (ALPHA, prepared(4, **RAW), ALPHA.transpose(2, 0, 1)[[2, 1, 0, 3]].astype(np.float32)),
        (ALPHA, prepared(4, **RAW, color="bgr", layout="NHWC"), ALPHA.astype(np.float32)),
    ],
)
def test_order_range_layout_and_type(pixels, pre, expected):
    tensor = image_tensor(pixels, pre)
    assert tensor.dtype == pre.dtype and tensor.flags.c_contiguous
    assert np.array_equal(tensor, expected)


def test_letterbox_keeps_the_proportions_and_pads_with_grey_in_the_middle():
    wide, pre = image(50, 100), prepared(height=40, width=40, resize="letterbox", dtype="uint8", color="bgr", layout="NHWC")
    tensor = image_tensor(wide, pre)
    assert np.array_equal(tensor[10:30], cv2.resize(wide, (40, 20), interpolation=cv2.INTER_LINEAR))
    assert (tensor[:10] == 114).all() and (tensor[30:] == 114).all()
    tall = wide.transpose(1, 0, 2).copy()
    turned = image_tensor(tall, pre)
    assert np.array_equal(turned[:, 10:30], cv2.resize(tall, (20, 40), interpolation=cv2.INTER_LINEAR))
    assert (turned[:, :10] == 114).all() and (turned[:, 30:] == 114).all()


def test_an_odd_rest_of_letterbox_and_crop():
    letterbox = image_tensor(image(50, 100), prepared(height=41, width=40, resize="letterbox", dtype="uint8", layout="NHWC"))
    assert (letterbox[:10] == 114).all() and (letterbox[30:] == 114).all() and letterbox.shape == (41, 40, 3)
    assert image_tensor(image(50, 75), prepared(height=40, width=41, resize="crop")).shape == (3, 40, 41)


def test_crop_keeps_the_proportions_and_cuts_the_centre():
    wide, pre = image(50, 100), prepared(height=40, width=40, resize="crop", dtype="uint8", color="bgr", layout="NHWC")
    assert np.array_equal(image_tensor(wide, pre), cv2.resize(wide, (80, 40), interpolation=cv2.INTER_LINEAR)[:, 20:60])
    tall = wide.transpose(1, 0, 2).copy()
    assert np.array_equal(image_tensor(tall, pre), cv2.resize(tall, (40, 80), interpolation=cv2.INTER_LINEAR)[20:60])


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (24, 32), (7, 900), (900, 7), (1, 5000)])
def test_any_size_and_number_of_channels(resize, channels, size):
    assert image_tensor(image(*size, channels), prepared(channels, resize=resize)).shape == (channels, 24, 32)


def plainly(pixels: np.ndarray, pre) -> np.ndarray:
    """What image_tensor has to give, for `stretch`, in plain numpy."""
    resized = cv2.resize(pixels, (pre.width, pre.height), interpolation=cv2.INTER_LINEAR).reshape(pre.height, pre.width, pre.channels)
    if pre.color == "rgb":
        resized = resized[:, :, [2, 1, 0, 3][: pre.channels]]
    if pre.dtype != "uint8":
        values = resized.astype(np.float32)
        values = values / np.float32(255) if pre.input_range == 1 else values
        resized = (values - np.float32(pre.mean)) / np.float32(pre.std)
    return (resized if pre.layout == "NHWC" else resized.transpose(2, 0, 1)).astype(pre.dtype)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize(("channels", "color"), [(1, "gray"), (3, "rgb"), (3, "bgr"), (4, "rgb"), (4, "bgr")])
def test_every_variant_is_the_plain_formula_also_in_given_memory(layout, dtype, channels, color):
    pixels, numbers = (
        image(50, 70, channels),
        {"mean": (0.485, 0.456, 0.406, 0.5)[:channels], "std": (0.229, 0.224, 0.225, 2.0)[:channels]},
    )
    for changes in ({}, {"input_range": 255}, numbers, {**numbers, "input_range": 255}):
        for size in ({}, {"height": 1, "width": 1}, {"height": 1}, {"width": 1}):
            pre = prepared(channels, layout=layout, dtype=dtype, color=color, **({} if dtype == "uint8" else changes), **size)
            expected = plainly(pixels, pre)
            batch = np.zeros((3, *pre.shape), dtype)
            given = image_tensor(pixels, pre, batch[1])
            assert np.shares_memory(given, batch) and batch[1].tobytes() == expected.tobytes() and not batch[::2].any()
            fresh = image_tensor(pixels, pre)
            assert fresh.tobytes() == expected.tobytes() and fresh.shape == expected.shape == pre.shape and fresh.dtype == dtype


@pytest.mark.parametrize(
    "pre",
    [
        prepared(),
        prepared(color="bgr", layout="NHWC", input_range=255, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)),
        prepared(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), dtype="float16"),
        prepared(dtype="uint8", input_range=255),
        prepared(channels=1, layout="NHWC"),
        prepared(channels=4),
    ],
    ids=["rgb", "bgr-nhwc-255", "half", "uint8", "gray", "alpha"],
)
def test_what_a_tensor_shows_is_the_image_that_it_was_made_of(pre):
    pixels = image(24, 32, pre.channels)
    shown = displayed(image_tensor(pixels, pre), pre).astype(int)
    expected = np.repeat(pixels[..., None], 3, 2) if pre.channels == 1 else pixels[..., :3]
    assert shown.shape == (24, 32, 3) and np.abs(shown - expected).max() <= 1
