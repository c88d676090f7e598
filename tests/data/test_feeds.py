"""data/feeds.py: passes over data sets."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import Profile, TensorSpec
from onnx2trt.data.datasets import Data
from onnx2trt.data.feeds import Feeds, range_feeds, warn_of_dark
from onnx2trt.data.reader import Reader
from onnx2trt.data.samples import Dataset


class Console(SimpleNamespace):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(warnings=[])

    def track(self, items, total, label):
        return items

    def warn(self, text):
        self.warnings.append(text)


def written(folder, *arrays, shape) -> tuple[Reader, Dataset]:
    paths = []
    for index, array in enumerate(arrays):
        paths.append(str(folder / f"{index}.npy"))
        np.save(paths[-1], np.full(shape, array, np.float32) if np.ndim(array) == 0 else np.float32(array))
    reader = Reader((TensorSpec("x", shape, "float32"),), (Profile("x", shape, shape, shape),), None)
    return reader, Dataset("arrays", "data", tuple(paths), ExitCode.CALIBRATION)


def test_samples_of_one_constant_value_are_no_calibration_data(tmp_path):
    with refused(ExitCode.CALIBRATION, "every sample of data is one constant value"):
        list(Feeds(*written(tmp_path, 0.0, 0.5, shape=(1, 4)), Console(), "", must_vary=True)())


def test_ranges_are_then_measured_with_noise_beside_them(tmp_path):
    reader, dataset = written(tmp_path, 0.0, 0.0, shape=(1, 64))
    console = Console()
    made = list(range_feeds(Data(reader, None, dataset, None), console)())
    assert len(made) == 3 and not made[0]["x"].any() and made[2]["x"].std() > 0.2
    assert console.warnings == ["2 of 2 samples of data are one constant value: the ranges are those of random values, too"]


def test_some_of_them_are_only_said(tmp_path):
    reader, dataset = written(tmp_path, 0.0, [[1, 2]], shape=(1, 2))
    for feeds in (Feeds(reader, dataset, Console(), ""), range_feeds(Data(reader, dataset, None, None), Console())):
        assert len(list(feeds())) == 2
    console = Console()
    list(Feeds(reader, dataset, console, "")())
    assert console.warnings == ["1 of 2 samples of data are one constant value"]


@pytest.mark.parametrize("shape", [(1, 1), ()])
def test_an_array_of_one_element_cannot_be_anything_but_one_value(tmp_path, shape):
    console = Console()
    assert len(list(Feeds(*written(tmp_path, 0.1, 0.2, shape=shape), console, "")())) == 2 and console.warnings == []


def test_dark_images_are_spoken_of_once(tmp_path):
    reader, _ = written(tmp_path, 1.0, shape=(1, 2))
    console = Console()
    warn_of_dark(reader, console)
    reader.dark.update({"b.png": 4000, "a.png": 1000})
    warn_of_dark(reader, console)
    warn_of_dark(reader, console)
    reader.dark.setdefault("a.png", 1000)  # as the next pass has it
    warn_of_dark(reader, console)
    (warning,) = console.warnings
    assert warning.startswith("a.png and 1 more: ") and "none above 1000" in warning and "10 bits" in warning and "by 64" in warning
