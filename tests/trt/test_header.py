"""trt/header.py: what the first bytes of an engine file tell; headers of real engines are read in tests/stages/test_inspect.py."""

import json
import struct

import pytest
from fake_engines import header_bytes

from onnx2trt.trt.header import Header, read_header, what_else


@pytest.mark.parametrize(
    "data, expected",
    [
        (header_bytes(b"ftrt", (10, 6, 0, 26)), Header("tensorrt", "10.6.0.26", None, None)),
        (header_bytes(b"vtrt", (1, 4, 0, 76), 0b1, 7), Header("tensorrt-rtx", "1.4.0.76", ("7.5",), 7)),
        (header_bytes(b"vtrt", (1, 7, 1, 116), 0x7E), Header("tensorrt-rtx", "1.7.1.116", (), 64)),
        (header_bytes(b"ftrt", (10, 6, 0, 26))[:63], None),
        (header_bytes(b"xtrt", (10, 6, 0, 26)), None),
        (b"ftrt\1" + bytes(100), None),  # another layout
        (b"", None),
    ],
)
def test_headers(data, expected):
    assert read_header(data) == expected


def test_whom_an_engine_is_for_in_words():
    assert Header("tensorrt", "10.6.0.26", None, None).targets == ""
    assert Header("tensorrt-rtx", "1.7", ("8.6", "8.9"), 1).targets == "for compute capability 8.6, 8.9"
    assert Header("tensorrt-rtx", "1.7", (), 1).targets.startswith("portable")


META = json.dumps({"stride": 32}).encode()


@pytest.mark.parametrize(
    "data, words",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (struct.pack("<I", len(META)) + META + b"ftrt", f"{4 + len(META)} bytes of metadata"),
        (b"\x08\x08\x12\x07pytorch", "ONNX"),
        (b"{'not': 'an engine'} and so on", "text"),
        (bytes(range(200, 220)), "it begins with c8 c9"),
        (b"a", "text"),
    ],
)
def test_what_else_it_looks_like(data, words):
    assert words in what_else(data)
