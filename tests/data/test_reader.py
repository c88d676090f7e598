"""preprocess.py: one documented way from an image to the tensor of a model; its batches are in test_preprocess_batches.py."""

import os
import platform
import subprocess
import sys
import zlib

import numpy as np
import pytest
from helpers import (
    ROOT,
    encode,
    ends_within,
    image,
    jpeg_with_app1,
    orientation,
    pipe_at,
    png_chunk,
    png_claiming,
    prepared,
)

from onnx2trt.base.errors import DataError
from onnx2trt.base.opencv import opencv
from onnx2trt.data.pixels import displayed
from onnx2trt.data.reader import decode, image_tensor, load_image, read_image

cv2 = opencv()


def put(tmp_path, data: bytes, name: str = "a.png") -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


# ---- from pixels to the tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_the_tensor_is_the_plain_formula_to_the_last_bit():
    pixels = image(50, 70)
    resized = cv2.resize(pixels, (32, 24), interpolation=cv2.INTER_LINEAR)
    rgb = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.float32)
    expected = (rgb / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    tensor = image_tensor(pixels, prepared(mean=MEAN, std=STD))
    assert np.array_equal(tensor, expected.transpose(2, 0, 1))
    assert tensor.shape == (3, 24, 32) and tensor.dtype == np.float32 and tensor.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_file_and_array_give_the_same_tensor(tmp_path, suffix):
    data = encode(suffix, image(50, 70))
    pre = prepared(mean=MEAN, std=STD)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(load_image(put(tmp_path, data, f"a{suffix}"), pre), image_tensor(decoded, pre))


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


# ---- decoding


def test_a_gray_jpeg_for_a_colour_model_and_the_other_way_round(tmp_path):
    gray = put(tmp_path, encode(".jpg", image(24, 32, 1)), "gray.jpg")
    planes = load_image(gray, prepared())
    assert np.array_equal(planes[0], planes[1]) and np.array_equal(planes[1], planes[2])
    colour = encode(".png", PIXELS)
    assert np.array_equal(decode(colour, 1), cv2.imdecode(np.frombuffer(colour, np.uint8), cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_become_eight(channels):
    deep = image(9, 7, 3).astype(np.uint16) * 257
    decoded = decode(encode(".png", deep), channels)
    assert decoded.dtype == np.uint8
    if channels > 1:
        assert np.array_equal(decoded[:, :, :3], deep // 257)


def test_alpha_comes_last_is_full_where_there_is_none_and_gray_is_spread():
    assert np.array_equal(decode(encode(".png", ALPHA), 4), ALPHA)
    assert np.array_equal(decode(encode(".png", PIXELS), 4), np.dstack([PIXELS, np.full((24, 32), 255, np.uint8)]))
    assert np.array_equal(decode(encode(".png", GRAY), 4)[0, 0], [*[GRAY[0, 0]] * 3, 255])
    assert np.array_equal(decode(encode(".png", ALPHA), 3), ALPHA[:, :, :3])


def test_gray_and_alpha_in_png_become_four_channels():
    """Two channels are a PNG form of their own (colour type 4)."""
    rows = b"".join(b"\0" + bytes([100, 50] * 4) for _ in range(3))
    header = (4).to_bytes(4, "big") + (3).to_bytes(4, "big") + bytes([8, 4, 0, 0, 0])
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    assert decode(b"\x89PNG\r\n\x1a\n" + chunks, 4)[0, 0].tolist() == [100, 100, 100, 50]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("number", "turn"), [(1, lambda p: p), (3, lambda p: np.rot90(p, 2)), (6, lambda p: np.rot90(p, -1)), (8, np.rot90)]
)
def test_a_image_is_turned_as_its_exif_data_says(channels, number, turn):
    jpeg = encode(".jpg", image(24, 32))
    assert np.array_equal(decode(jpeg_with_app1(jpeg, orientation(number)), channels), turn(decode(jpeg, channels)))


# ---- files that are no images

JPEG = encode(".jpg", image(40, 60))
PNG = encode(".png", image(40, 60))
JPEGS = {
    "plain": JPEG,
    "progressive": encode(".jpg", image(40, 60), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "with a thumbnail": jpeg_with_app1(JPEG, encode(".jpg", image(8, 8))),  # holds a whole JPEG before its own data
}


@pytest.mark.parametrize("title", JPEGS)
def test_a_jpeg_is_used_whole_or_not_at_all(tmp_path, title):
    whole = JPEGS[title]
    assert decode(read_image(put(tmp_path, whole)), 3).shape == (40, 60, 3)
    assert read_image(put(tmp_path, whole + bytes(10))) == whole + bytes(10)  # padding behind the end
    for size in {*range(1, len(whole), 23), len(whole) - 1, len(whole) - 2, whole.rfind(b"\xff\xda") + 20}:
        with pytest.raises(DataError, match="truncated|damaged"):
            load_image(put(tmp_path, whole[:size]), prepared())
    with pytest.raises(DataError, match=r"JPEG without its end \(truncated\)"):
        load_image(put(tmp_path, whole[:-50]), prepared())


def test_a_png_is_used_whole_or_not_at_all(tmp_path):
    for size in {*range(1, len(PNG), 97), len(PNG) - 9}:
        with pytest.raises(DataError, match="truncated|damaged"):
            load_image(put(tmp_path, PNG[:size]), prepared())
    with pytest.raises(DataError, match=r"PNG without its end \(truncated\)"):
        load_image(put(tmp_path, PNG[: len(PNG) // 2]), prepared())


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".tiff", ".webp"])
def test_other_formats_that_are_cut_off(tmp_path, suffix):
    data = encode(suffix, image(40, 60))
    for share in (0.2, 0.6, 0.95):
        with pytest.raises(DataError, match="damaged"):
            load_image(put(tmp_path, data[: int(len(data) * share)]), prepared())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"no image", "is damaged, or no image of a known format"),
        (bytes(1000), "is damaged"),
        (PNG[:60] + b"?" + PNG[61:], "is damaged"),
    ],
    ids=["empty", "text", "zeros", "wrong checksum"],
)
def test_a_file_that_is_no_image(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        load_image(put(tmp_path, data), prepared())


def test_pixels_that_are_no_integers():
    for channels in (1, 3, 4):
        with pytest.raises(DataError, match="damaged|float32 pixels"):
            decode(encode(".tiff", image(5, 5).astype(np.float32)), channels)


def test_a_folder_a_dangling_link_and_a_missing_file(tmp_path):
    (tmp_path / "link.jpg").symlink_to("nowhere")
    for path in (tmp_path, tmp_path / "link.jpg", tmp_path / "no.jpg"):
        with pytest.raises(DataError, match="is not a regular file"):
            read_image(str(path))


def test_a_pipe_does_not_block(tmp_path):
    with pipe_at(tmp_path / "a.jpg") as path:
        assert ends_within(2, lambda: read_image(path))
        with pytest.raises(DataError, match="is not a regular file"):
            read_image(path)


@pytest.mark.parametrize("name", ["图片 ü.png", os.fsdecode(b"\xff\xfe.png"), "a'\"\n$(x).png", "no suffix"])
def test_any_file_name(tmp_path, name):
    assert np.array_equal(load_image(put(tmp_path, PNG, name), prepared()), load_image(put(tmp_path, PNG), prepared()))


def test_a_link_to_a_image_is_a_image(tmp_path):
    (tmp_path / "link").symlink_to(put(tmp_path, PNG))
    assert np.array_equal(load_image(str(tmp_path / "link"), prepared()), load_image(str(tmp_path / "a.png"), prepared()))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_small_file_that_claims_a_giant_image(channels):
    with pytest.raises(DataError, match="has more than 100000000 pixels"):
        decode(png_claiming(100_000, 100_000), channels)


def test_the_limit_is_ours_and_set_before_opencv_is_loaded():
    """OpenCV's own limit is ten times as large, and read once; hence a process of its own."""
    program = "import sys; import preprocess; preprocess.decode(sys.stdin.buffer.read(), 3)"
    environment = {key: text for key, text in os.environ.items() if not key.startswith("OPENCV")}
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, input=png_claiming(10_001, 10_001), cwd=ROOT, env=environment, capture_output=True, timeout=30)
    assert b"DataError: has more than 100000000 pixels" in told.stderr


FAULTS = """
import resource, sys
from onnx2trt.data import reader as preprocess
data, faults = sys.stdin.buffer.read(), []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    preprocess.decode(data, 3)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be told")
def test_the_memory_of_one_image_is_kept_for_the_next():
    """Else each is mapped in page by page: some 3000 of them here, which takes as long as decoding."""
    environment = {key: text for key, text in os.environ.items() if not key.startswith(("MALLOC", "GLIBC_TUNABLES"))}
    data = encode(".jpg", image(1080, 1920))
    told = subprocess.run([sys.executable, "-c", FAULTS], input=data, cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert int(told.stdout) < 100, told.stderr


@pytest.mark.parametrize("data", [JPEG + b"film \xff\xda film", PNG + bytes(100)], ids=["jpeg", "png"])
def test_a_whole_image_with_something_behind_it(tmp_path, data):
    assert load_image(put(tmp_path, data), prepared()).shape == (3, 24, 32)


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
