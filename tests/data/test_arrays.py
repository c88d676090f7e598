"""data/arrays.py: .npz and .npy files and made-up arrays, in exactly the form that the model takes."""

import os
import pickle
import zipfile

import numpy as np
import pytest
from helpers import ends_within, pipe_at

from onnx2trt.base.errors import DataError
from onnx2trt.base.model_info import BoundInput, Profile, TensorSpec
from onnx2trt.data import array_files
from onnx2trt.data.arrays import load_arrays, synthetic_arrays
from onnx2trt.data.rows import WHOLE_FILE, Rows

X = TensorSpec("x", (None, 3), "float32")
IDS = TensorSpec("ids", ("N", 2), "int64")


def samples_of(path: str, inputs, rows: Rows = WHOLE_FILE) -> list:
    """All samples of a file; raises what is wrong with one of them."""
    found = load_arrays(path, inputs, rows)
    for sample in found:
        if isinstance(sample, DataError):
            raise sample
    return found


def npz(tmp_path, name: str = "a.npz", **arrays) -> str:
    np.savez(tmp_path / name, **arrays)
    return str(tmp_path / name)


def npy(tmp_path, array, name: str = "a.npy") -> str:
    np.save(tmp_path / name, array)
    return str(tmp_path / name)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def test_npz_gives_each_input_its_array(tmp_path):
    path = npz(tmp_path, ids=np.array([[5, 6]]), x=np.array([[1, 2, 3]], np.float32), label=np.array(7))
    (sample,) = samples_of(path, (X, IDS))
    assert list(sample) == ["x", "ids"]  # in the model's order, without what the model does not take
    assert np.array_equal(sample["x"], [[1, 2, 3]]) and sample["x"].dtype == np.float32
    assert np.array_equal(sample["ids"], [[5, 6]]) and sample["ids"].dtype == np.int64


@pytest.mark.parametrize("name", ["a.npy", "a.NPY"])
def test_npy_is_the_one_input(tmp_path, name):
    with open(tmp_path / name, "wb") as stream:
        np.save(stream, ones(1, 3))
    assert np.array_equal(samples_of(str(tmp_path / name), (X,))[0]["x"], ones(1, 3))


def test_upper_case_npz(tmp_path):
    os.rename(npz(tmp_path, x=ones(1, 3)), tmp_path / "a.NPZ")
    assert np.array_equal(samples_of(str(tmp_path / "a.NPZ"), (X,))[0]["x"], ones(1, 3))


def test_a_missing_batch_axis_is_added(tmp_path):
    (sample,) = samples_of(npz(tmp_path, x=np.array([1, 2, 3], np.float32)), (X,))
    assert sample["x"].shape == (1, 3)


def test_several_samples_in_one_file(tmp_path):
    path = npz(tmp_path, x=np.arange(6, dtype=np.float32).reshape(2, 3), ids=np.array([[1, 2], [3, 4]]))
    first, second = samples_of(path, (X, IDS), Rows())
    assert np.array_equal(first["x"], [[0, 1, 2]]) and np.array_equal(first["ids"], [[1, 2]])
    assert np.array_equal(second["x"], [[3, 4, 5]]) and np.array_equal(second["ids"], [[3, 4]])


def test_a_fixed_batch_is_one_sample(tmp_path):
    (sample,) = samples_of(npz(tmp_path, x=ones(4, 3)), (TensorSpec("x", (4, 3), "float32"),))
    assert sample["x"].shape == (4, 3)


@pytest.mark.parametrize("rows", [Rows(0), Rows()])
def test_inputs_of_different_length_are_one_sample(tmp_path, rows):
    (sample,) = samples_of(npz(tmp_path, x=ones(2, 3), ids=ones(5, 2, dtype="int64")), (X, IDS), rows)
    assert sample["x"].shape == (2, 3) and sample["ids"].shape == (5, 2)


def test_a_scalar_input(tmp_path):
    (sample,) = samples_of(npz(tmp_path, k=np.float32(2)), (TensorSpec("k", (), "float32"),))
    assert sample["k"].shape == () and sample["k"] == 2


def test_an_input_of_unknown_rank_takes_any_shape(tmp_path):
    (sample,) = samples_of(npz(tmp_path, x=ones(2, 3, 4)), (TensorSpec("x", None, "float32"),))
    assert sample["x"].shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("float64", "float32"),
        ("float32", "float16"),
        ("uint8", "float32"),
        ("int64", "float32"),
        ("int64", "int32"),
        ("uint8", "int64"),
        (">f4", "float32"),
    ],
)
def test_types_of_one_kind_are_converted(tmp_path, given, taken):
    (sample,) = samples_of(npz(tmp_path, x=np.array([[1, 2, 3]], given)), (TensorSpec("x", (None, 3), taken),))
    assert sample["x"].dtype == taken and sample["x"].dtype.isnative and sample["x"].flags.c_contiguous
    assert np.array_equal(sample["x"], [[1, 2, 3]])


def test_fortran_order_becomes_c_order(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    (sample,) = samples_of(npy(tmp_path, array), (TensorSpec("x", (2, 3), "float32"),))
    assert sample["x"].flags.c_contiguous and np.array_equal(sample["x"], array)


REFUSED = [  # arrays of the file, inputs, fragments
    ({"y": ones(1, 3)}, (X,), ["no array 'x'", "holds 'y'"]),
    ({"x": ones(1, 3)}, (X, IDS), ["no array 'ids'", "holds 'x'"]),
    ({}, (X,), ["no array 'x'", "holds nothing"]),
    ({"x": ones(1, 3).astype(complex)}, (X,), ["complex128 in 'x'", "takes float32"]),
    ({"ids": ones(1, 2)}, (IDS,), ["float32 in 'ids'", "takes int64"]),
    ({"x": ones(1, 3)}, (TensorSpec("x", (None, 3), "uint8"),), ["float32 in 'x'", "takes uint8"]),
    ({"x": np.array([["a", "b", "c"]])}, (X,), ["in 'x'", "takes float32"]),
    ({"x": ones(1, 4)}, (X,), ["shape 1x4 in 'x'", "takes ?x3"]),
    ({"x": ones(1, 1, 1, 3)}, (X,), ["shape 1x1x1x3"]),
    ({"x": ones(2, 3)}, (TensorSpec("x", (1, 3), "float32"),), ["shape 2x3", "takes 1x3"]),
    ({"x": np.float32(1)}, (X,), ["shape scalar"]),
    ({"x": ones(0, 3)}, (X,), ["shape 0x3"]),
    ({"x": np.array([[1, np.nan, 2]], "float32")}, (X,), ["NaN or infinite values in 'x'"]),
    ({"x": np.array([[1, np.inf, 2]], "float64")}, (X,), ["NaN or infinite values in 'x'"]),
]


@pytest.mark.parametrize(("arrays", "inputs", "fragments"), REFUSED)
def test_what_does_not_fit_is_named(tmp_path, arrays, inputs, fragments):
    with pytest.raises(DataError) as caught:
        samples_of(npz(tmp_path, **arrays), inputs)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_npy_needs_a_model_with_one_input(tmp_path):
    with pytest.raises(DataError, match="holds one array, but the model has 2 inputs: use .npz"):
        samples_of(npy(tmp_path, ones(1, 3)), (X, IDS))


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["npz", "npy", "pickle"])
def test_python_objects_are_never_unpickled(tmp_path, form):
    hostile = np.array([Bomb(str(tmp_path / "hurt"))], dtype=object)
    path = npz(tmp_path, x=hostile) if form == "npz" else npy(tmp_path, hostile)
    if form == "pickle":
        (tmp_path / "a.npy").write_bytes(pickle.dumps(hostile))
    with pytest.raises(DataError, match="Python objects, which are not unpickled"):
        samples_of(path, (X,))
    assert not (tmp_path / "hurt").exists()


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def flipped(data: bytes) -> bytes:
    """A checksum that does not hold."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.mark.parametrize("suffix", ["npz", "npy"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"hello", cut], ids=["empty", "text", "cut"])
def test_damaged_files(tmp_path, suffix, damage):
    path = tmp_path / f"a.{suffix}"
    (npz if suffix == "npz" else npy)(tmp_path, **({"x": ones(50, 3)} if suffix == "npz" else {"array": ones(50, 3)}))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="no readable array file|Python objects"):
        samples_of(str(path), (X,))


def test_a_bit_flip_in_a_stored_npz(tmp_path):
    path = tmp_path / "a.npz"
    npz(tmp_path, x=ones(500, 3))
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(DataError, match="no readable array file"):
        samples_of(str(path), (X,))


def test_a_missing_file(tmp_path):
    for name in ("no.npz", "no.npy"):
        with pytest.raises(DataError, match="no readable array file"):
            samples_of(str(tmp_path / name), (X,))


def test_a_header_that_claims_far_more_than_is_there(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000, 3), }".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="no readable array file"):
        samples_of(str(tmp_path / "a.npy"), (X,))


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_size_is_bounded_as_unpacked(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(array_files, "MAX_ARRAY_BYTES", 10_000)
    zeros = np.zeros((1000, 3), np.float32)
    np.savez_compressed(tmp_path / "a.npz", x=zeros)
    npy(tmp_path, zeros)
    assert os.path.getsize(tmp_path / "a.npz") < 1000
    with pytest.raises(DataError, match="10000"):
        samples_of(str(tmp_path / f"a.{suffix}"), (X,))


@pytest.mark.parametrize(("big", "given", "taken"), [(1e300, "float64", "float32"), (1e6, "float32", "float16"), (2**40, "int64", "int32")])
def test_values_that_the_models_type_cannot_hold_are_refused(tmp_path, big, given, taken):
    with pytest.raises(DataError), np.errstate(over="ignore"):
        samples_of(npz(tmp_path, x=np.full((1, 3), big, given)), (TensorSpec("x", (None, 3), taken),))


def compressed_and_damaged(tmp_path) -> str:
    np.savez_compressed(tmp_path / "a.npz", x=ones(1000, 3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    name, extra = (int.from_bytes(data[at : at + 2], "little") for at in (26, 28))
    data[30 + name + extra] = 0x07  # the first deflate block: a type that there is not
    (tmp_path / "a.npz").write_bytes(data)
    return str(tmp_path / "a.npz")  # zlib.error


def npz_called_npy(tmp_path) -> str:
    os.rename(npz(tmp_path, x=ones(1, 3)), tmp_path / "a.npy")
    return str(tmp_path / "a.npy")  # AttributeError


def npz_with_text(tmp_path) -> str:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", "hello")
    return str(tmp_path / "a.npz")  # AttributeError


def broken_header(tmp_path) -> str:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,3,".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return str(tmp_path / "a.npy")  # tokenize.TokenError


@pytest.mark.parametrize("make", [compressed_and_damaged, npz_called_npy, npz_with_text, broken_header], ids=lambda make: make.__name__)
def test_damage_that_numpy_reports_in_other_ways(tmp_path, make):
    with pytest.raises(DataError):
        samples_of(make(tmp_path), (X,))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_pipe_does_not_block(tmp_path, name):
    with pipe_at(tmp_path / name) as path:
        assert ends_within(1, lambda: samples_of(path, (X,)))


DTYPES = ["float32", "float16", "uint8", "int8", "int32", "int64", "bool"]


def made_up() -> dict[str, np.ndarray]:
    inputs = tuple(TensorSpec(dtype, ("N", 50, 20), dtype) for dtype in DTYPES)
    return synthetic_arrays(inputs, tuple(Profile(dtype, (1, 50, 20), (2, 50, 20), (4, 50, 20)) for dtype in DTYPES))


def test_synthetic_arrays_have_name_type_and_opt_shape():
    arrays = made_up()
    assert list(arrays) == DTYPES
    for name, array in arrays.items():
        assert array.dtype == name and array.shape == (2, 50, 20)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("float32", 0, 1), ("float16", 0, 1), ("uint8", 0, 255), ("int8", 0, 127), ("int32", 0, 1), ("int64", 0, 1), ("bool", 0, 1)],
)
def test_range_of_synthetic_arrays(dtype, low, high):
    array = made_up()[dtype].astype(np.float64)
    assert low <= array.min() <= low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) <= array.max() <= high


def test_synthetic_arrays_are_the_same_every_time():
    first, second = made_up(), made_up()
    assert all(np.array_equal(first[name], second[name]) for name in DTYPES)


CACHE = TensorSpec("x", (1, 2, "past", 4), "float32")


def test_a_free_size_may_be_zero_a_fixed_one_and_no_rows_at_all_may_not(tmp_path):
    assert samples_of(npz(tmp_path, x=ones(1, 2, 0, 4)), (CACHE,))[0]["x"].shape == (1, 2, 0, 4)
    for shape in ((0, 3), (3, 0)):  # unless the model says so
        assert samples_of(npz(tmp_path, x=ones(*shape)), (TensorSpec("x", shape, "float32"),))[0]["x"].shape == shape
    for shape, spec in (((0, 3), X), ((1, 0, 3, 4), CACHE)):
        with pytest.raises(DataError, match="has shape"):
            samples_of(npz(tmp_path, x=np.zeros(shape, np.float32)), (spec,))


@pytest.mark.parametrize("array", [np.array(2, np.float32), ones(1), ones(1, 1)])
def test_a_scalar_is_one_value_of_whatever_rank(tmp_path, array):
    (sample,) = samples_of(npz(tmp_path, x=ones(1, 3), s=array), (X, TensorSpec("s", (), "float32")))
    assert sample["s"].shape == ()


def test_several_values_are_no_scalar(tmp_path):
    with pytest.raises(DataError, match="scalar"):
        samples_of(npz(tmp_path, s=ones(2)), (TensorSpec("s", (), "float32"),))


def test_made_up_values_that_decide_about_shapes_are_the_usual_ones():
    profile = Profile("n", (2,), (2,), (2,), ((1, 2), (5, 6), (9, 9)))
    assert synthetic_arrays((TensorSpec("n", (2,), "int32"),), (profile,))["n"].tolist() == [5, 6]
    scalar = Profile("n", (), (), (), ((1,), (5,), (9,)))
    assert synthetic_arrays((TensorSpec("n", (), "int64"),), (scalar,))["n"] == 5


SR = BoundInput(TensorSpec("sr", (), "int64"), np.array(16000), "16000")


@pytest.mark.parametrize("found, fits", [(np.array(16000), True), (np.array([[16000], [16000]]), True), (np.array([16000, 8000]), False)])
def test_an_input_that_is_bound_may_stand_in_a_file_with_its_value(tmp_path, found, fits):
    path = npz(tmp_path, x=ones(1, 3), sr=found)
    if fits:
        assert list(load_arrays(path, (X,), bound=(SR,))[0]) == ["x"]
    else:
        with pytest.raises(DataError, match="another 'sr' than --bind-input sr=16000"):
            load_arrays(path, (X,), bound=(SR,))


def test_shapes_that_cannot_be_the_bound_value(tmp_path):
    bound = BoundInput(TensorSpec("sr", (3,), "int64"), np.array([1, 2, 3]), "1,2,3")
    with pytest.raises(DataError, match="another 'sr'"):
        load_arrays(npz(tmp_path, x=ones(1, 3), sr=np.array([1, 2])), (X,), bound=(bound,))
