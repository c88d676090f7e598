"""ONNX Runtime on the GPU, where its package is one for GPUs: scales are those of the CPU, and the result says where they were made."""

import onnx
import pytest
from command import run
from test_gpu import convert, wide_net, write_images

from onnx2trt.base.computed_on import COMPUTED_ON
from onnx2trt.model.on_gpu import CUDA, GPU, ort
from onnx2trt.quant.calibration_cache import read

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="no onnxruntime-gpu is installed")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    onnx.save(wide_net(), tmp_path / "net.onnx")
    write_images(tmp_path / "images", seed=0)
    return tmp_path


def calibrate(folder, name, *flags):
    flags = ("--calibration-dir", "images", "--calibration-cache", name, *flags)
    done = run("calibration.py", folder, "--onnx", "net.onnx", *flags, "--json", "c.json")
    assert done.code == 0, done.stderr
    return done.json("c.json"), read(str(folder / name)).scales


def test_the_gpu_works():
    assert GPU.works, COMPUTED_ON.remarks


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_scales_are_those_of_the_cpu(folder, method, monkeypatch):
    on_gpu, scales = calibrate(folder, "gpu.cache", "--calibration-method", method, "--quantization-effort", "fast")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    on_cpu, expected = calibrate(folder, "cpu.cache", "--calibration-method", method, "--quantization-effort", "fast")
    assert (on_gpu["inferences_on"], on_cpu["inferences_on"]) == ("GPU", "CPU") and not on_gpu["warnings"]
    assert scales == pytest.approx(expected, rel=0.01) and scales.keys() == expected.keys()


def test_a_whole_conversion_is_measured_against_it(folder):
    _, result = convert(folder, "--precision", "int8", "--calibration-dir", "images", "--max-accuracy-drop", "20")
    assert result["inferences_on"] == "GPU" and result["status"] == "validated" and result["accuracy"][0]["executed_on"] == "gpu"
