"""Which of the samples that accuracy is measured on are those that INT8 scales were chosen on: such figures are no evidence for others."""

from __future__ import annotations

import hashlib
import os

from onnx2trt.base.files import feed
from onnx2trt.data.rows import file_and_row
from onnx2trt.data.samples import Dataset, files_of


def count_seen(measured: Dataset, calibration: Dataset) -> int:
    """How many of the samples of `measured` are among those of `calibration`: the same file, or one of the same content, and its row."""
    known = {_place(sample) for sample in calibration.samples}
    sizes = {_size(path) for path in files_of(calibration.samples)}
    twins = {path: _digest(path) for path in files_of(measured.samples) if _size(path) in sizes}
    if twins:  # only then the files are read
        wanted = {_size(path) for path in twins}
        digests = {path: _digest(path) for path in files_of(calibration.samples) if _size(path) in wanted}
        known |= {(digests[path], row) for path, row in map(file_and_row, calibration.samples) if digests.get(path)}

    def is_known(sample: str) -> bool:
        path, row = file_and_row(sample)
        return _place(sample) in known or bool(twins.get(path)) and (twins[path], row) in known

    return sum(map(is_known, measured.samples))


def _place(sample: str) -> tuple[str, int | None]:
    path, row = file_and_row(sample)
    return os.path.realpath(path), row


def _size(path: str) -> int:
    """In bytes; -1 where there is no regular file any more, which others say."""
    return os.path.getsize(path) if os.path.isfile(path) else -1


def _digest(path: str) -> str:
    """SHA-256 of the content; empty where it cannot be read."""
    digest = hashlib.sha256()
    try:
        if _size(path) >= 0:
            feed(digest, path)
            return digest.hexdigest()
    except OSError:
        pass
    return ""
