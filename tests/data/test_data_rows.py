"""data/rows.py: what a sample is in a file of arrays."""

import os
import zipfile
from functools import partial

import numpy as np
import pytest

from onnx2trt.base.errors import ConversionError, DataError, ExitCode
from onnx2trt.base.model_info import Profile, TensorSpec
from onnx2trt.data import samples
from onnx2trt.data.array_files import announced, read
from onnx2trt.data.reader import Reader
from onnx2trt.data.rows import Rows, file_and_row, row_name, rows_of
from onnx2trt.data.samples import find

ROWS = 23


def spec(name: str, *shape) -> TensorSpec:
    return TensorSpec(name, shape, "float32")


def profiles(inputs, least: int = 1, most: int = 1) -> tuple[Profile, ...]:
    def filled(shape, size):
        return tuple(dim if isinstance(dim, int) else size for dim in shape or ())

    return tuple(Profile(one.name, filled(one.shape, least), filled(one.shape, most), filled(one.shape, most)) for one in inputs)


@pytest.mark.parametrize(
    "inputs, most, independent, expected",
    [
        ([spec("x", "N", 3)], 1, True, Rows()),
        ([spec("x", "N", 3)], 8, True, Rows()),
        ([spec("x", "N", 3)], 1, False, Rows()),  # nothing else fits the profile
        ([spec("x", "N", 3)], 8, False, Rows(0, separate=False)),
        ([spec("x", 1, 3)], 1, True, Rows()),
        ([spec("x", 4, 3)], 4, True, Rows(1, 4, 4)),
        ([spec("x", 0, 3)], 1, True, Rows(0)),  # no rows at all
        ([spec("x", 4, 3)], 4, False, Rows(4, images=4, separate=False)),
        ([spec("x", "N", 3), spec("y", None, 2)], 1, True, Rows()),
        ([spec("x", "N", 3), spec("rate")], 1, True, Rows(shared=frozenset(["rate"]))),
        ([spec("x", "N", 3), spec("anchors", 5, 4)], 1, True, Rows(shared=frozenset(["anchors"]))),
        ([spec("x", 20, "N", 3), spec("h", 1, 1, 8)], 1, True, Rows(0)),  # the first axis is not the same thing in both
        ([spec("x", 20, "N", 3), spec("length", "N")], 1, True, Rows(0)),
        ([spec("x", 4, 3), spec("state", 2, 4, 8)], 4, True, Rows(0)),
        ([TensorSpec("x", None, "float32")], 1, True, Rows(0)),
        ([spec("rate")], 1, True, Rows(0)),
    ],
)
def test_what_a_sample_is(inputs, most, independent, expected):
    assert rows_of(tuple(inputs), profiles(inputs, most=most), independent) == expected


def test_batches_are_at_least_as_large_as_the_profile_asks():
    inputs = (spec("x", "N", 3),)
    assert rows_of(inputs, profiles(inputs, 4, 8)) == Rows(1, 4, 4)


@pytest.mark.parametrize("path", ["a.npz", "dir/b.NPY", "odd[3].npy", "line\nbreak.npz"])
def test_names_of_samples_and_back(path):
    assert file_and_row(row_name(path, 12)) == (path, 12) and file_and_row(path) == (path, None)


@pytest.mark.parametrize("path", ["a[3].jpg", "b.npz[x].png", "npy[3]"])
def test_names_that_only_look_like_a_row(path):
    assert file_and_row(path) == (path, None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_are_counted_by_the_headers(tmp_path, save):
    inputs = (spec("x", "N", 3), spec("deep/name", "N"))
    path = str(tmp_path / "a.npz")
    save(path, **{"x": np.ones((7, 3), np.float32), "deep/name": np.ones(7, np.float32), "label": np.ones(2)})
    assert Rows().count(path, inputs) == 7
    assert Rows(7).count(path, inputs) == 1 and Rows(0).count(path, inputs) == 1
    assert Rows(shared=frozenset(["deep/name"])).count(path, inputs) == 7


@pytest.mark.parametrize(
    "arrays", [{"x": (2, 3), "y": (5, 3)}, {"x": (3,), "y": (1, 3)}, {"y": (4, 3)}, {"x": (0, 3), "y": (0, 3)}, {"x": (), "y": ()}], ids=str
)
def test_what_is_not_several_samples_is_one_which_reading_explains(tmp_path, arrays):
    path = str(tmp_path / "a.npz")
    np.savez(path, **{name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    assert Rows().count(path, (spec("x", "N", 3), spec("y", "N", 3))) == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_damaged_files_count_as_one(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    assert Rows().count(str(tmp_path / name), (spec("x", "N", 3),)) == 1


# ---- the same samples in other files


def write(folder, values: np.ndarray, sizes) -> None:
    folder.mkdir()
    for number, part in enumerate(np.split(values, np.cumsum(sizes)[:-1])):
        np.savez(folder / f"{number:03}.npz", x=part[0] if len(part) == 1 and number % 2 else part)


@pytest.mark.parametrize("batch", [1, 4, "N"])
@pytest.mark.parametrize("most", [500, 9])
@pytest.mark.parametrize("bad", [(), (3, 17)], ids=["whole", "damaged"])
def test_the_samples_do_not_depend_on_the_files_that_hold_them(tmp_path, batch, most, bad):
    inputs = (spec("x", batch, 2),)
    bounds = profiles(inputs)
    rows = rows_of(inputs, bounds)
    values = np.arange(2 * ROWS, dtype=np.float32).reshape(ROWS, 2)
    values[list(bad), 1] = np.nan
    found = {}
    for name, sizes in {"one": [ROWS], "each": [1] * ROWS, "mixed": [1, 5, 1, 1, 12, 3]}.items():
        write(tmp_path / name, values, sizes)
        data = find(str(tmp_path / name), "--calibration-dir", most, ExitCode.CALIBRATION, lambda path: rows.count(path, inputs))
        skipped: list = []
        batches = list(Reader(inputs, bounds, None, rows).batches(data, skipped))
        read = np.concatenate([one.arrays["x"][: one.real_rows] for one in batches])
        found[name] = (len(data.samples), len(data.unused), len(skipped), read.tolist(), [one.real_rows for one in batches])
    assert found["one"] == found["each"] == found["mixed"]
    count, unused, lost, read, _ = found["one"]
    assert count == min(most, ROWS) and unused == ROWS - count and len(read) + lost == count


def told(path, shape, dtype="<f4"):
    """An .npy file of some bytes that says so of itself."""
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
        stream.write(bytes(64))
    return str(path)


def taken(path):
    """One sample, so that reading the file says what is wrong, or a refusal that says how many there are."""
    count = partial(Rows().count, inputs=(spec("x", "N", 3),))
    try:
        return len(samples.single(path, "--test-image", ExitCode.VALIDATION, count).samples) == 1
    except ConversionError as error:
        return f"one file may hold {samples.MOST_ROWS}" in error.message and error.code is ExitCode.VALIDATION


def test_a_file_of_too_many_rows_is_refused_in_a_sentence(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((samples.MOST_ROWS + 1, 1), np.int8))
    with pytest.raises(ConversionError, match="x.npy holds 1048577 samples; one file may hold 1048576"):
        samples.find(str(tmp_path), "--calibration-dir", 10, ExitCode.CALIBRATION, lambda path: Rows().count(path, (spec("x", "N", 1),)))


@pytest.mark.parametrize(
    "shape, dtype", [((2**62, 3), "<f4"), ((-1, 3), "<f4"), ((2**40, 3), "|V0"), ((2**40, 0), "<f4"), ((2**64, 3), "<f4")]
)
def test_what_a_header_says_is_not_believed(tmp_path, shape, dtype):
    assert taken(told(tmp_path / "x.npy", shape, dtype))


def test_a_member_that_says_that_it_is_large_has_a_bounded_number_of_rows(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32))
    told(tmp_path / "x.npy", (2**50, 3))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
        archive.filelist[0].file_size = 2**60
    assert taken(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert Rows().count(str(tmp_path / name), (spec("x", "N", 3),)) == 1
    for look in (lambda path: announced(path, "x"), lambda path: read(path, "x", ("x",))):
        with pytest.raises(DataError, match="not a regular file"):
            look(str(tmp_path / name))
