"""Whether an encoded image is whole, by its own structure."""

from __future__ import annotations

from onnx2trt.base.errors import DataError


def check_complete(data: bytes) -> None:
    """Refuse cut-off files: OpenCV fills the missing part of a JPEG with grey and says nothing."""
    if data.startswith(b"\xff\xd8\xff") and not _jpeg_ends(data):
        raise DataError("is a JPEG without its end (truncated)")
    if data.startswith(b"\x89PNG\r\n\x1a\n") and not _png_ends(data):
        raise DataError("is a PNG without its end (truncated)")


def _jpeg_ends(data: bytes) -> bool:
    """Walk the segments (ITU T.81, B.1) to the end marker; what stands behind it (films of phones) does not count."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill byte, or a marker without a segment
            position += 1 if marker == 0xFF else 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # entropy-coded data: in it, ff is followed by 00 or by a restart marker
            position = data.find(b"\xff", position)
            while 0 <= position < len(data) - 1 and (data[position + 1] == 0 or 0xD0 <= data[position + 1] <= 0xD7):
                position = data.find(b"\xff", position + 2)
            if position < 0:
                return False
    return data[position : position + 2] == b"\xff\xd9"


def _png_ends(data: bytes) -> bool:
    """Walk the chunks (PNG specification, 5.3) to IEND."""
    position = 8
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"IEND":
            return True
        position += 12 + length
    return False
