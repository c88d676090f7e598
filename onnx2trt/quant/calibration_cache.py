"""TensorRT's calibration cache text, and the side file that ties one of ours to what it was made from.

TRT-100600-EntropyCalibration2
image: 3c010a14            <- big-endian float32 scale in hexadecimal

A cache of FP8 scales is of the same form; its header ends with FP8, so that no program takes it for one of INT8.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import stat
import struct
from dataclasses import asdict, dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.files import feed
from onnx2trt.base.locks import folder_locked
from onnx2trt.base.side_files import read_json, record_of

# TensorRT reads caches of its own major version; 10 is the last with a calibrator, so ours name it.
DEFAULT_VERSION = "100600"
ALGORITHMS = {"minmax": "MinMaxCalibration"}  # every other method is handed over as entropy, which TensorRT takes as given
FP8_ALGORITHM = "FP8"
HEADER = re.compile(r"TRT-(\d+)-(\w+)")
LARGEST_FILE = 2**26  # bytes; a cache has one short line for each tensor


@dataclass(frozen=True)
class Identity:
    """What a cache was made from; stands in the side file `<cache>.json`."""

    model_sha256: str
    data_sha256: str | None  # over names and contents of the files, in order; None where none were given
    samples: int | None
    preprocessing: dict | None
    method: str  # as asked for
    chosen: str | None = None  # the method that made the scales, where "auto" was asked for
    silent: tuple[str, ...] = ()  # tensors that were always zero: they have no scale, and that is not a fault
    fit_sha256: str | None = None  # of the fit file that belongs to these scales; None: there is none


@dataclass(frozen=True)
class Cache:
    """A cache as read."""

    path: str
    version: str
    algorithm: str
    scales: dict[str, float]
    identity: Identity | None  # None: no side file, so it is not one of ours
    fits: bool = False  # one of ours, and all that is known of this run is as it was when it was made

    @property
    def number_format(self) -> str:
        """What its scales are for: int8 or fp8."""
        return "fp8" if self.algorithm == FP8_ALGORITHM else "int8"


def side_file(path: str) -> str:
    return path + ".json"


def fit_file(path: str) -> str:
    """What else the run found that made the cache; see quant.fit_file."""
    return path + ".fit.npz"


def to_text(scales: dict[str, float], method: str, version: str = DEFAULT_VERSION, number_format: str = "int8") -> str:
    """Scales -> cache text, in the order given.

    Args:
        number_format: that the scales are for, int8 or fp8.

    Raises:
        ValueError: a scale is not a positive float32, or a name holds a line break.
    """
    algorithm = FP8_ALGORITHM if number_format == "fp8" else ALGORITHMS.get(method, "EntropyCalibration2")
    lines = [f"TRT-{version}-{algorithm}"]
    for name, scale in scales.items():
        try:
            packed = struct.pack(">f", scale)
        except OverflowError:
            packed = b""
        if not name or "\n" in name or "\r" in name or not packed or not 0 < struct.unpack(">f", packed)[0] < math.inf:
            raise ValueError(f"scale {scale} of tensor {name!r}")
        lines.append(f"{name}: {packed.hex()}")
    return "\n".join(lines) + "\n"


def side_text(text: str, identity: Identity) -> str:
    """Content of the side file of a cache with this text."""
    record = {"schema_version": 1, "cache_sha256": _sha256(text), **asdict(identity)}
    return json.dumps(record, indent=2) + "\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read(path: str) -> Cache:
    """Read and check a cache and its side file.

    Raises:
        ConversionError: CALIBRATION, naming the line at fault.
    """
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST_FILE:
            raise ConversionError(f"calibration cache {path} is not a regular file of sensible size", code=ExitCode.CALIBRATION)
        with folder_locked(path), open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            text = stream.read()
            identity = _read_side_file(path, text)
    except OSError as error:
        raise ConversionError(f"calibration cache {path} cannot be read: {error.strerror}", code=ExitCode.CALIBRATION) from None
    version, algorithm, scales = parse(text, path)
    return Cache(path, version, algorithm, scales, identity)


def parse(text: str, path: str) -> tuple[str, str, dict[str, float]]:
    """Cache text -> (version, algorithm, tensor -> scale).

    Args:
        path: named in messages.

    Raises:
        ConversionError: CALIBRATION, naming the line at fault.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    header = HEADER.fullmatch(lines[0].strip())
    if header is None:
        raise _damaged(path, 1, f"{lines[0][:60]!r} is no header such as TRT-100600-EntropyCalibration2")
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        name, separator, digits = line.rpartition(": ")
        if not separator or not name or not re.fullmatch(r"[0-9a-fA-F]{8}", digits):
            raise _damaged(path, number, f"{line[:80]!r} is not 'tensor: 8 hexadecimal digits'")
        scale = struct.unpack(">f", bytes.fromhex(digits))[0]
        if not math.isfinite(scale) or scale <= 0:
            raise _damaged(path, number, f"the scale of {name!r} is {scale}; it must be above 0 and finite")
        if name in scales:
            raise _damaged(path, number, f"tensor {name!r} has a scale already")
        scales[name] = scale
    if not scales:
        raise _damaged(path, 1, "there are no scales below the header")
    return header[1], header[2], scales


def without_zeros(text: str) -> tuple[str, tuple[str, ...]]:
    """A cache as TensorRT wrote it, without the lines of tensors that were always zero: nobody can use their scale of 0.

    Returns:
        (text, tensors left out)
    """
    lines, dropped = [], []
    for line in text.split("\n"):
        name, separator, digits = line.rpartition(": ")
        if separator and digits.strip("0") == "" and len(digits) == 8:
            dropped.append(name)
        else:
            lines.append(line)
    return "\n".join(lines), tuple(dropped)


def _damaged(path: str, line: int, what: str) -> ConversionError:
    return ConversionError(
        f"calibration cache {path}, line {line}: {what}",
        hint="The file is damaged or no TensorRT calibration cache: delete it, and calibrate again with --calibration-dir.",
        code=ExitCode.CALIBRATION,
    )


def _read_side_file(path: str, text: str) -> Identity | None:
    """The identity beside a cache; None where there is none, or where it belongs to other contents."""
    try:
        record = read_json(side_file(path))
        if record.get("schema_version") != 1 or record.get("cache_sha256") != _sha256(text):
            return None
        known = {key: record[key] for key in Identity.__dataclass_fields__ if key in record}
        return record_of(Identity, known)
    except (OSError, ValueError, AttributeError):
        return None


def check_identity(cache: Cache, now: Identity, accept_stale: bool) -> str:
    """Whether a cache may be used for this model and data.

    Returns:
        A warning to show where staleness was accepted; empty where all fits.

    Raises:
        ConversionError: CALIBRATION, naming what has changed.
    """
    if cache.identity is None:
        if now.data_sha256 is None:
            return f"{cache.path} has no side file: that it belongs to this model is known from its tensor names alone"
        reason = f"{cache.path} has no (valid) side file {side_file(cache.path)}, so it is not known to be made from --calibration-dir"
    else:
        changed = _changes(cache.identity, now)
        if not changed:
            return ""
        reason = f"{cache.path} is stale: it was made from {' and '.join(changed)}"
    if accept_stale:
        return reason + "; used because of --accept-stale-cache"
    raise ConversionError(
        reason,
        hint="Delete it to calibrate again, leave out --calibration-dir, or use it as it is with --accept-stale-cache.",
        code=ExitCode.CALIBRATION,
    )


def _changes(then: Identity, now: Identity) -> list[str]:
    changed = []
    if then.model_sha256 != now.model_sha256:
        changed.append("another model")
    if now.data_sha256 is not None and then.data_sha256 != now.data_sha256:
        changed.append("other calibration files")
    if now.preprocessing is not None and then.preprocessing is not None and then.preprocessing != now.preprocessing:
        changed.append("another preprocessing")
    if now.method not in ("auto", then.method, then.chosen):
        changed.append(f"method {then.chosen or then.method}")
    return changed


def hash_files(paths: tuple[str, ...], root: str) -> str:
    """SHA-256 over relative names and contents; of files that cannot be read (or would block, as a pipe does), over the names."""
    looks = tuple((path, *_looks(path)) for path in paths)
    return _hash_files(looks, root)


def _looks(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns, stat.S_ISREG(status.st_mode)
    except OSError:
        return 0, 0, False


@functools.lru_cache(maxsize=8)  # a run asks twice: for its own key, and for the cache's side file
def _hash_files(looks: tuple[tuple, ...], root: str) -> str:
    digest = hashlib.sha256()
    for path, _, _, regular in looks:
        digest.update(os.path.relpath(path, root).encode("utf-8", "surrogateescape") + b"\0")
        if regular:
            with contextlib.suppress(OSError):
                feed(digest, path)
        digest.update(b"\0")
    return digest.hexdigest()
