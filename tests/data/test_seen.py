"""data/seen.py: samples that are measured on, and were calibrated on."""

import os
import shutil

import numpy as np
import pytest

from onnx2trt.base.errors import ExitCode
from onnx2trt.data.rows import row_name
from onnx2trt.data.samples import Dataset
from onnx2trt.data.seen import count_seen


def dataset(*samples) -> Dataset:
    return Dataset("arrays", "origin", tuple(map(str, samples)), ExitCode.VALIDATION)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six files of the same size and different content."""
    monkeypatch.chdir(tmp_path)
    for index in range(6):
        np.save(f"{index}.npy", np.full((1, 4), index, np.float32))


def test_the_same_file_by_whatever_name(folder, tmp_path):
    os.symlink("0.npy", "link.npy")
    calibration = dataset("0.npy", "1.npy", "2.npy")
    assert count_seen(dataset(tmp_path / "1.npy"), calibration) == 1
    assert count_seen(dataset("./0.npy", "link.npy"), calibration) == 2
    assert count_seen(dataset("3.npy", "4.npy", "5.npy"), calibration) == 0


def test_the_same_content_under_another_name(folder):
    shutil.copy("2.npy", "copy.npy")
    assert count_seen(dataset("copy.npy", "5.npy"), dataset("0.npy", "2.npy")) == 1
    np.save("longer.npy", np.zeros((2, 4), np.float32))
    assert count_seen(dataset("longer.npy"), dataset("0.npy", "2.npy")) == 0


def test_rows_of_one_file_are_samples_of_their_own(folder):
    np.save("rows.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    shutil.copy("rows.npy", "twin.npy")
    calibration = dataset(row_name("rows.npy", 0), row_name("rows.npy", 2))
    assert count_seen(dataset(row_name("rows.npy", 1)), calibration) == 0
    assert count_seen(dataset(row_name("rows.npy", 2), row_name("rows.npy", 1)), calibration) == 1
    assert count_seen(dataset(*(row_name("twin.npy", row) for row in range(3))), calibration) == 2


def test_what_is_gone_or_would_block_is_no_sample_of_anybody(folder):
    os.mkfifo("pipe.npy")
    assert count_seen(dataset("gone.npy", "pipe.npy"), dataset("0.npy", "other-pipe.npy")) == 0
    assert count_seen(Dataset("synthetic", "synthetic", (), ExitCode.VALIDATION), dataset("0.npy")) == 0
