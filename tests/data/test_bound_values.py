"""data/bound_values.py: what --bind-input says, in the type and shape of the input."""

import shlex

import numpy as np
import pytest
from helpers import refused

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import TensorSpec
from onnx2trt.data.bound_values import bound_input


def value(text, shape, dtype):
    return bound_input(TensorSpec("v", shape, dtype), text).value


@pytest.mark.parametrize(
    "text, shape, dtype, expected",
    [
        ("16000", (), "int64", np.array(16000)),
        ("16000", (1,), "int32", np.array([16000], np.int32)),
        ("-1", (), "int64", np.array(-1)),
        ("2", (), "float32", np.array(2, np.float32)),
        (".5", (), "float16", np.array(0.5, np.float16)),
        ("1e-3", (2, 2), "float32", np.full((2, 2), 1e-3, np.float32)),
        ("true", (), "bool", np.array(True)),
        ("False", (), "bool", np.array(False)),
        ("1", (), "bool", np.array(True)),
        ("[true,false]", ("n",), "bool", np.array([True, False])),
        ("1,2", (2,), "int64", np.array([1, 2])),
        ("[1, 2]", (1, 2), "int64", np.array([[1, 2]])),
        ("[[1,0],[0,1]]", (2, "n"), "float32", np.eye(2, dtype=np.float32)),
        ("[[1]]", None, "uint8", np.array([[1]], np.uint8)),
    ],
)
def test_values(text, shape, dtype, expected):
    found = value(text, shape, dtype)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "text, shape, dtype, fragment",
    [
        ("16000.5", (), "int64", "float64"),
        ("true", (), "int64", "bool"),
        ("2", (), "bool", "int64"),
        ("300", (), "uint8", "cannot hold"),
        ("-1", (), "uint8", "cannot hold"),
        ("1e6", (), "float16", "infinite"),
        ("99999999999999999999", (), "int64", "cannot hold"),
        ("abc", (), "int64", "neither a number"),
        ("[1,[2]]", (2,), "int64", "neither a number"),
        ("__import__('os')", (), "int64", "neither a number"),
        ("'x'", (), "int64", "neither a number"),
        ("nan", (), "float32", "neither a number"),
        ("[1,2]", (), "int64", "shape"),
        ("[1,2]", (3,), "int64", "shape"),
        ("5", ("n",), "int64", None),
        ("[[1]]", ("n",), "int64", "shape"),
        ("none.npy", (), "int64", "does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(text, shape, dtype, fragment):
    if fragment is None:  # one value of a free first axis
        np.testing.assert_array_equal(value(text, shape, dtype), [5])
        return
    with pytest.raises(ConversionError) as caught:
        value(text, shape, dtype)
    assert caught.value.code is ExitCode.USAGE and f"--bind-input v={text}" in caught.value.message and fragment in caught.value.message
    typed = caught.value.hint.split("write for example ")[1].removesuffix(", or give a .npy file.")
    flag, example = shlex.split(typed)  # what a shell makes of it
    assert flag == "--bind-input" and value(example.removeprefix("v="), shape, dtype).dtype == np.dtype(dtype)


def test_a_file(tmp_path):
    path = str(tmp_path / "table.npy")
    np.save(path, np.arange(6, dtype=np.int32).reshape(2, 3))
    found = value(path, (2, "n"), "int64")
    assert found.dtype == np.int64 and found.tolist() == [[0, 1, 2], [3, 4, 5]]
    with refused(ExitCode.USAGE, "2x3", hint="3x3"):
        value(path, (3, 3), "int64")


def test_objects_in_a_file_are_not_unpickled(tmp_path):
    path = str(tmp_path / "evil.npy")
    np.save(path, np.array([{}], object), allow_pickle=True)
    with refused(ExitCode.USAGE, "not unpickled"):
        value(path, (1,), "int64")
