"""data/array_files.py: what a file of arrays announces takes no memory, and what does not fit is not unpacked."""

import tracemalloc
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from onnx2trt.base.errors import DataError
from onnx2trt.base.model_info import TensorSpec
from onnx2trt.data import array_files
from onnx2trt.data.arrays import load_arrays

X = TensorSpec("x", (1, 3, 8, 8), "float32")
MILLIONS = 30


def write_zeros(path, name="x", count=MILLIONS * 10**6):
    """An .npz of some kB that unpacks to four bytes for each of `count` values."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open(f"{name}.npy", "w") as stream:
        npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (count,)})
        for _ in range(count // 10**6):
            stream.write(bytes(4 * 10**6))
    return str(path)


def peak_of(call) -> tuple[int, Exception | None]:
    """(bytes that were allocated at most, what it raised)"""
    tracemalloc.start()
    try:
        call()
        error = None
    except DataError as raised:
        error = raised
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, error


def test_an_array_that_does_not_fit_is_refused_by_its_header(tmp_path):
    path = write_zeros(tmp_path / "a.npz")
    peak, error = peak_of(lambda: load_arrays(path, (X,)))
    assert "has shape 30000000" in str(error) and peak < 10**6


def test_an_array_that_nobody_asked_for_is_not_unpacked(tmp_path):
    path = write_zeros(tmp_path / "a.npz", "other")
    with zipfile.ZipFile(path, "a") as archive, archive.open("x.npy", "w") as stream:
        npy.write_array(stream, np.ones((1, 3, 8, 8), np.float32))
    peak, error = peak_of(lambda: load_arrays(path, (X,)))
    assert error is None and peak < 10**6


def test_a_refusal_keeps_nothing_of_what_was_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.full((1, 3, 8, 8), np.nan, np.float32))
    (error,) = load_arrays(str(tmp_path / "a.npz"), (X,))
    assert isinstance(error, DataError) and error.__traceback__ is None
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-40])
    with pytest.raises(DataError) as caught:
        load_arrays(str(tmp_path / "b.npz"), (X,))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
def test_what_is_announced_is_what_is_read(tmp_path, dtype, fortran):
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (3, 4, 5)), dtype, order="F" if fortran else "C")
    np.savez_compressed(tmp_path / "a.npz", x=array, y=array[0])
    np.save(tmp_path / "a.npy", array)
    for path, only, names in (("a.npz", None, {"x", "y"}), ("a.npy", "x", {"x"})):
        told = array_files.announced(str(tmp_path / path), only)
        found = array_files.read(str(tmp_path / path), only, names)
        assert told.keys() == found.keys() == names
        assert all((told[name].shape, told[name].dtype) == (found[name].shape, found[name].dtype) for name in names)
        np.testing.assert_array_equal(found["x"], array)
