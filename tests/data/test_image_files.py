"""data/image_files.py: files that end too early, also where somebody has put an end marker behind what is left."""

import cv2
import numpy as np
import pytest

from onnx2trt.base.errors import DataError
from onnx2trt.data import image_files
from onnx2trt.data.reader import decode

END = b"\xff\xd9"
SETTINGS = {
    "plain": (),
    "fine colours": (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "restart intervals": (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "optimized": (cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_QUALITY, 30),
}


def encoded(setting: str, seed: int, grey=False) -> bytes:
    random = np.random.default_rng(seed)
    size = tuple(int(side) for side in random.integers(40, 90, 2))
    pixels = cv2.resize(random.integers(0, 256, (6, 7) if grey else (6, 7, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels, SETTINGS[setting])[1].tobytes()


def read(data: bytes, channels: int) -> np.ndarray:
    image_files.check_complete(data)
    return decode(data, channels)


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_jpeg_cut_anywhere_and_closed_is_refused(setting, grey):
    random = np.random.default_rng(len(setting))
    for seed in range(4):
        data = encoded(setting, seed, grey)
        body = data.index(b"\xff\xda") + 30
        whole = read(data, 3)
        for cut in random.integers(body, len(data) - 2, 12):
            cut = int(cut) - (data[cut - 1] == 0xFF)  # not in the middle of a marker
            try:
                found = read(data[:cut] + END, 3)
            except DataError as error:
                assert "JPEG" in str(error)
                continue
            changed = (found != whole).any(axis=2)  # a few pixels of the last block, which no decoder can tell from what was meant
            slightly = setting == "progressive" and abs(found.astype(int) - whole).mean() < 2
            assert changed.sum() <= 16 * 16 or slightly, f"{setting} of {len(data)} bytes, cut at {cut}"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_jpeg_whose_corner_is_grey_is_no_cut_one(channels):
    """Only what is grey to its end is looked at twice."""
    for setting in SETTINGS:
        pixels = np.full((64, 64, 3), 128, np.uint8)
        pixels[:40, :30] = np.random.default_rng(0).integers(0, 256, (40, 30, 3))
        data = cv2.imencode(".jpg", pixels, SETTINGS[setting])[1].tobytes()
        assert read(data, channels).shape[:2] == (64, 64)
        assert read(data + b"a film of a phone", channels).shape[:2] == (64, 64)


def test_scans_of_a_progressive_jpeg_that_are_missing_altogether():
    data = encoded("progressive", 0)
    places = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    assert len(places) > 3
    for place in places[1:]:
        with pytest.raises(DataError, match="without its end"):
            read(data[:place] + END, 3)


def test_what_is_no_jpeg_has_nothing_to_be_looked_at_twice():
    assert image_files.with_more(cv2.imencode(".png", np.full((8, 8, 3), 128, np.uint8))[1].tobytes(), [np.full((8, 3), 128)]) is None
    assert image_files.with_more(encoded("plain", 0), [np.zeros((8, 3))]) is None


@pytest.mark.parametrize("garbage", range(30))
def test_damaged_segments_are_refused_in_words_or_read(garbage):
    random = np.random.default_rng(garbage)
    data = bytearray(encoded(sorted(SETTINGS)[garbage % len(SETTINGS)], garbage))
    for place in random.integers(2, len(data), 6):
        data[place] = random.integers(256)
    try:
        read(bytes(data), 3)
    except DataError as error:
        assert str(error)
