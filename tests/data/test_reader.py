"""data/reader.py and data/image_files.py: from an image file to pixels, whole or not at all; batches are in test_reader_batches.py."""

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
from onnx2trt.data.pixels import image_tensor
from onnx2trt.data.reader import decode, load_image, read_image

cv2 = opencv()


def put(tmp_path, data: bytes, name: str = "a.png") -> str:
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


PIXELS, ALPHA, GRAY = image(24, 32), image(24, 32, 4), image(24, 32, 1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_file_and_array_give_the_same_tensor(tmp_path, suffix):
    data = encode(suffix, image(50, 70))
    pre = prepared(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(load_image(put(tmp_path, data, f"a{suffix}"), pre), image_tensor(decoded, pre))


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
def test_an_image_is_turned_as_its_exif_data_says(channels, number, turn):
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


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix, dtype", [(".tiff", np.float32), (".tiff", np.int16), (".pfm", np.float32)])
def test_pixels_that_are_no_integers_of_8_or_16_bits(suffix, dtype, channels):
    """OpenCV makes 8 bits of some of them: a black or a white image."""
    with pytest.raises(DataError, match=f"damaged|{np.dtype(dtype).name} pixels"):
        decode(encode(suffix, image(5, 5).astype(dtype)), channels)


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


def test_a_link_to_an_image_is_an_image(tmp_path):
    (tmp_path / "link").symlink_to(put(tmp_path, PNG))
    assert np.array_equal(load_image(str(tmp_path / "link"), prepared()), load_image(str(tmp_path / "a.png"), prepared()))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_small_file_that_claims_a_giant_image(channels):
    with pytest.raises(DataError, match="has more than 100000000 pixels"):
        decode(png_claiming(100_000, 100_000), channels)


def test_the_limit_is_ours_and_set_before_opencv_is_loaded():
    """OpenCV's own limit is ten times as large, and read once; hence a process of its own."""
    program = "import sys; from onnx2trt.data import reader; reader.decode(sys.stdin.buffer.read(), 3)"
    environment = {key: text for key, text in os.environ.items() if not key.startswith("OPENCV")}
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, input=png_claiming(10_001, 10_001), cwd=ROOT, env=environment, capture_output=True, timeout=30)
    assert b"DataError: has more than 100000000 pixels" in told.stderr


FAULTS = """
import resource, sys
from onnx2trt.data import reader
data, faults = sys.stdin.buffer.read(), []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    reader.decode(data, 3)
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


@pytest.mark.parametrize("suffix, channels", [(".png", 3), (".tiff", 1), (".png", 4)])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_images_of_sixteen_bits_that_use_a_part_of_them_are_noted(tmp_path, suffix, channels, bits):
    deep = image(9, 7, 3).astype(np.uint16) * 257 >> (16 - bits)
    dark: dict[str, int] = {}
    path = put(tmp_path, encode(suffix, deep), f"deep{suffix}")
    load_image(path, prepared(channels), dark=dark)
    assert list(dark) == ([path] if bits < 16 else [])
    assert all(most.bit_length() == bits for most in dark.values())
    load_image(put(tmp_path, encode(suffix, (deep >> (bits - 8)).astype(np.uint8)), f"plain{suffix}"), prepared(channels), dark=dark)
    load_image(put(tmp_path, encode(suffix, deep * 0), f"black{suffix}"), prepared(channels), dark=dark)
    assert len(dark) == (bits < 16), "neither 8 bits nor black, which is said elsewhere"
