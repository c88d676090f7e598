"""Files of arrays (.npz, .npy): what they announce, before any of it takes memory, and what they hold; never unpickled."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Container

import numpy as np
from numpy.lib import format as npy

from onnx2trt.base.errors import DataError

MAX_ARRAY_BYTES = 2**31  # of one file, unpacked
SUFFIX = ".npy"  # of the members of an .npz
PICKLE = b"\x80"


def announced(path: str, only: str | None) -> dict[str, np.ndarray]:
    """The arrays of a file by their headers alone: of the shapes and types that they will have, without memory of their own.

    Args:
        only: name of the array of an .npy file; None where it cannot stand for one.

    Raises:
        DataError: it is no regular file (a pipe would be waited for) or none of arrays, or an .npy file larger than MAX_ARRAY_BYTES.
    """
    return _guarded(path, lambda: _of_archive(path) if is_archive(path) else {_single(path, only): _header_of_file(path)})


def read(path: str, only: str | None, wanted: Container[str]) -> dict[str, np.ndarray]:
    """The arrays with these names; others are not unpacked.

    Raises:
        DataError: they cannot be read, or unpack to more than MAX_ARRAY_BYTES.
    """
    return _guarded(path, lambda: _members(path, wanted) if is_archive(path) else {_single(path, only): np.load(path, allow_pickle=False)})


def is_archive(path: str) -> bool:
    """Whether it holds arrays by name, by its suffix."""
    return path.lower().endswith(".npz")


def _single(path: str, only: str | None) -> str:
    if only is None:
        raise DataError("holds one array, but the model has several inputs: use .npz")
    return only


def _guarded(path: str, look: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError("is not a regular file")
    try:
        return look()
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile, zlib and tokenize raise eight classes of their own for damaged files
        reason = "holds Python objects, which are not unpickled" if "allow_pickle" in str(error) else f"is no readable array file: {error}"
    raise DataError(reason)  # outside, so that it does not keep what was read so far in the frames of the first


def _of_archive(path: str) -> dict[str, np.ndarray]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(SUFFIX)
            if name == entry.filename:
                raise DataError(f"holds {name!r}, which is no array")
            with archive.open(entry) as stream:
                found[name] = _header(stream, entry.file_size)
    return found


def _header_of_file(path: str) -> np.ndarray:
    size = os.path.getsize(path)
    if size > MAX_ARRAY_BYTES:
        raise DataError(f"is larger than {MAX_ARRAY_BYTES} bytes")
    with open(path, "rb") as stream:
        begin = stream.read(2)
        if begin == b"PK":
            raise DataError("is no .npy file: is it an .npz?")
        if begin[:1] == PICKLE:
            raise DataError("holds Python objects, which are not unpickled")
        stream.seek(0)
        return _header(stream, size)


def _header(stream, size: int) -> np.ndarray:
    """What an .npy file of so many bytes begins with, as an array without memory of its own."""
    version = npy.read_magic(stream)
    shape, _, dtype = npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)
    if dtype.hasobject:
        raise DataError("holds Python objects, which are not unpickled")
    if np.prod(shape, dtype=object) * dtype.itemsize > size:
        raise DataError(f"is no readable array file: an array of {'x'.join(map(str, shape))} {dtype} does not fit into its {size} bytes")
    return np.broadcast_to(np.zeros((), dtype), shape)


def _members(path: str, wanted: Container[str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist() if entry.filename.removesuffix(SUFFIX) in wanted)
    if size > MAX_ARRAY_BYTES:
        raise DataError(f"unpacks to {size} bytes, more than {MAX_ARRAY_BYTES}")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if name in wanted}
