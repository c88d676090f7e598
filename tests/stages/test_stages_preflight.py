"""stages/preflight.py: what is refused before any work is done."""

import os

import numpy as np
import onnx
import pytest
from helpers import LIBRARIES, encode, image, parse, quiet_run, refused
from models import conv_net

from onnx2trt.base.errors import ExitCode
from onnx2trt.plan.plan import make_plan
from onnx2trt.stages.preflight import preflight


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "model.onnx")
    onnx.save(conv_net(), "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    for name in ("cal", "val"):
        os.mkdir(name)
        for index in range(3):
            (tmp_path / name / f"{index}.png").write_bytes(encode(".png", image(16, 16, 3, index)))
    os.symlink("cal/1.png", "link.engine")
    np.save("test.npy", np.zeros((1, 3, 16, 16), np.float32))
    return tmp_path


def looked_at(*flags: str):
    return preflight(None, make_plan(parse(*flags), LIBRARIES["rtx"]), quiet_run())


@pytest.mark.parametrize(
    "flags, said",
    [
        (("--onnx", "net.onnx", "-o", "net.data"), "net.data would be written over, and holds data of net.onnx"),
        (("--onnx", "net.onnx", "--report", "./cal/../net.data"), "holds data of net.onnx"),
        (
            ("--calibration-dir", "cal", "--precision", "int8", "-o", "cal/2.png"),
            "cal/2.png would be written over, and is one of the samples",
        ),
        (("--calibration-dir", "cal", "--calibration-samples", "1", "--precision", "int8", "-o", "cal/2.png"), "one of the samples of cal"),
        (("--calibration-dir", "cal", "--precision", "int8", "-o", "link.engine"), "one of the samples of cal"),
        (("--calibration-dir", "cal", "--precision", "int8", "--calibration-cache", "cal/0.png"), "one of the samples of cal"),
        (("--validation-dir", "val", "--save-onnx", "val/0.png"), "one of the samples of val"),
        (("--validation-dir", "val", "--json", "val/1.png"), "one of the samples of val"),
    ],
)
def test_nothing_that_is_read_is_written_over(folder, flags, said):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with refused(ExitCode.USAGE, said, hint="another name"):
        looked_at(*flags)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_outputs_may_lie_beside_what_is_read(folder):
    assert looked_at("--calibration-dir", "cal", "--precision", "int8", "-o", "cal/new.engine").data.calibration.samples
