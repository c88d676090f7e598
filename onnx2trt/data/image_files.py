"""Whether an encoded image is whole, by its own structure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.base.errors import DataError

JPEG = b"\xff\xd8\xff"
# what a decoder reads where a scan has ended too early: of each restart interval something, so that it looks for none in vain
MORE = b"".join(bytes(range(1, 251, 3)) + bytes((0xFF, 0xD0 + number)) for number in (*range(8), *range(8)))
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)  # behind entropy-coded data
COEFFICIENTS = 64  # of a block
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)  # SOF2 and its relatives
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOFn; the others are tables


@dataclass
class _Jpeg:
    """What the segments of a JPEG tell (ITU T.81, annex B)."""

    end: int = -1  # where its end marker is; -1: nowhere
    frame: int = 0  # the marker of its frame
    scans: int = 0
    missing: dict[int, list[int]] = field(default_factory=dict)  # component -> lowest bit that is still to come, of every coefficient

    def scan(self, segment: bytes) -> None:
        """Take note of what a scan brings (B.2.3): of a progressive frame some coefficients, or one more bit of them; else all."""
        self.scans += 1
        count = segment[0] if segment else 0
        if len(segment) < 4 + 2 * count:
            return
        first, last, bits = segment[1 + 2 * count : 4 + 2 * count] if self.frame in PROGRESSIVE else (0, COEFFICIENTS, 0)
        for component in segment[1 : 1 + 2 * count : 2]:
            for place in range(first, min(last + 1, COEFFICIENTS)):
                self.missing.setdefault(component, [COEFFICIENTS] * COEFFICIENTS)[place] = bits & 15

    @property
    def complete(self) -> bool:
        """Whether its scans bring everything; each of them may still be cut off."""
        return self.end >= 0 and not any(map(any, self.missing.values()))


def check_complete(data: bytes) -> None:
    """Refuse cut-off files: OpenCV fills the missing part of a JPEG with grey and says nothing."""
    if data.startswith(JPEG) and not _jpeg(data).complete:
        raise DataError("is a JPEG without its end (truncated)")
    if data.startswith(b"\x89PNG\r\n\x1a\n") and not _png_ends(data):
        raise DataError("is a PNG without its end (truncated)")


def with_more(data: bytes, runs: list[np.ndarray]) -> bytes | None:
    """A JPEG with more in its scan than there is: a decoder that had all that it needed makes the same of both, if with a complaint of
    libjpeg's, so only where there is doubt.

    Args:
        runs: some pixels [n] or [n, channels] along both sides of each corner of what was decoded, BGR or grey. What is missing of a
            single scan of all components becomes grey to its end, with a little of its neighbours' colour where colours are interpolated.

    Returns:
        None where there can be no doubt, or where it is no JPEG of one scan. Of a progressive one, whose scans are all there, a cut of
        the last takes no more than the lowest bit of some coefficients.
    """
    if not data.startswith(JPEG) or not any(map(_grey, runs)):
        return None
    found = _jpeg(data)
    plain = found.scans == 1 and found.frame not in PROGRESSIVE and len(found.missing) in (1, 3)
    if found.end < 0 or not plain:
        return None
    return data[: found.end] + MORE + data[found.end :]


def _grey(run: np.ndarray) -> bool:
    """Whether all pixels have the luma of missing data (128; ITU-R BT.601, as JFIF has it), and at most a quarter of full colour."""
    colours = run[:, :3].astype(float) if run.ndim == 2 and run.shape[1] >= 3 else np.repeat(run.reshape(-1, 1).astype(float), 3, axis=1)
    return bool((abs(colours @ (0.114, 0.587, 0.299) - 128) <= 2).all() and np.ptp(colours, axis=1).max() <= 64)


def _jpeg(data: bytes) -> _Jpeg:
    """Walk the segments to the end marker; what stands behind it (films of phones) does not count."""
    found, position = _Jpeg(), 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xD9:
            break
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:  # fill byte, or a marker without a segment
            position += 1 if marker == 0xFF else 2
            continue
        segment = data[position + 4 : position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")]
        position += 4 + len(segment)
        if marker in FRAMES:  # B.2.2: precision, height, width, components of three bytes each
            found.frame = marker
            found.missing = {component: [COEFFICIENTS] * COEFFICIENTS for component in segment[6::3]}
        if marker == 0xDA:
            found.scan(segment)
            position = _end_of_scan(data, position)
            if position < 0:
                return found
    if data[position : position + 2] == b"\xff\xd9":
        found.end = position
    return found


def _end_of_scan(data: bytes, position: int) -> int:
    """The next marker behind entropy-coded data, in which ff is followed by 00 or by a restart marker; -1 where there is none."""
    found = MARKER.search(data, position)
    return found.start() if found else -1


def _png_ends(data: bytes) -> bool:
    """Walk the chunks (PNG specification, 5.3) to IEND."""
    position = 8
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"IEND":
            return True
        position += 12 + length
    return False
