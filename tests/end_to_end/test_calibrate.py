"""calibration.py: the cache that a conversion would write, on any machine."""

import json
import signal
import subprocess
import sys

import cv2
import numpy as np
import onnx
import pytest
from command import ROOT, check_schema, onnx2trt, run
from helpers import wait_until
from models import conv_net, model, node

from onnx2trt.quant.calibration_cache import read
from onnx2trt.quant.histograms import METHODS

DATA = ("--calibration-dir", "images", "--max-accuracy-drop", "20")
FILES = ("c.cache", "c.cache.json", "c.cache.fit.npz")


def calibrate(folder, *arguments, **how):
    return run("calibration.py", folder, "--onnx", "net.onnx", "--calibration-cache", "c.cache", *arguments, **how)


@pytest.fixture
def folder(tmp_path):
    onnx.save(conv_net(), tmp_path / "net.onnx")
    (tmp_path / "images").mkdir()
    random_pixels = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), random_pixels.integers(0, 256, (20, 24, 3), np.uint8))
    return tmp_path


# ---- the files

WAYS = {
    "as by default": (),
    "one method, fast": ("--calibration-method", "entropy", "--quantization-effort", "fast"),
    "nothing measured": ("--no-validate", "--calibration-method", "minmax"),
    "other shapes, images and layers": ("--max-batch-size", "2", "--mean", "0.5", "--color", "bgr", "--layer-precisions", "head:fp16"),
}


@pytest.mark.parametrize("flags", WAYS.values(), ids=WAYS)
def test_the_cache_is_the_one_that_a_conversion_writes(folder, flags):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    whole = ("--onnx", "net.onnx", "--precision", "int8", "--calibration-cache", "whole.cache", *DATA, *flags)
    assert onnx2trt(folder, *whole).code == 0
    done = calibrate(folder, *DATA, *flags)
    assert done.code == 0, done.stderr
    for name in FILES:
        assert (folder / name).read_bytes() == (folder / name.replace("c.cache", "whole.cache")).read_bytes(), name


def test_the_result_says_what_was_found(folder):
    done = calibrate(folder, *DATA, "--json", "r.json")
    result, cache = done.json("r.json"), read(str(folder / "c.cache"))
    assert done.code == 0 and result["status"] == "calibrated" and result["exit_code"] == 0
    assert result["engine"] is None and result["environment"]["backend"] is None and result["plan"]["backend"] is None
    about = result["calibration"]
    assert about["scales"] == len(cache.scales) >= 5 and {about["method"], cache.identity.chosen} <= set(METHODS)
    assert about["samples_used"] == 6 and about["seconds"] > 0 and about["cache"] == "c.cache" and about["fit_file"] == "c.cache.fit.npz"
    for words in ("calibrated", f"{len(cache.scales)} scales", "6 samples", *FILES):
        assert words in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == sorted(["images", "net.onnx", "r.json", *FILES]), "and no engine"


def test_no_library_is_loaded(folder, tmp_path_factory):
    """Those that are found first end the process."""
    trap = tmp_path_factory.mktemp("trap")
    for name in ("tensorrt", "tensorrt_rtx", "pycuda", "cuda"):
        (trap / f"{name}.py").write_text("import os\nos._exit(99)\n")
    done = calibrate(folder, *DATA, environment={"PYTHONPATH": str(trap)})
    assert done.code == 0 and all((folder / name).exists() for name in FILES), done.stderr


def test_a_build_elsewhere_needs_no_images(folder):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    assert calibrate(folder, *DATA).code == 0
    (folder / "images" / "0.png").rename(folder / "test.png")
    build = ("--onnx", "net.onnx", "--precision", "int8", "--calibration-cache", "c.cache", "--max-accuracy-drop", "20")
    done = onnx2trt(folder, *build, "--test-image", "test.png", "--json", "r.json")
    assert done.code == 0 and "fitted weights and the choice of layers come from c.cache.fit.npz" in done.stderr
    assert done.json("r.json")["calibration"]["samples_used"] is None


def test_an_older_cache_is_replaced(folder):
    for name in FILES:
        (folder / name).write_text("of somebody else")
    done = calibrate(folder, *DATA)
    assert done.code == 0 and read(str(folder / "c.cache")).identity is not None
    assert (folder / "c.cache.fit.npz").read_bytes()[:2] == b"PK"


def test_a_limit_that_cannot_be_met_costs_the_fit_file_only(folder):
    done = calibrate(folder, "--calibration-dir", "images", "--metric", "noise", "--max-accuracy-drop", "0", "--json", "r.json")
    assert done.code == 0 and "c.cache.fit.npz is not written" in done.stderr and "--max-accuracy-drop" in done.stderr
    result = done.json("r.json")
    assert result["status"] == "calibrated" and "fit_file" not in result["calibration"] and result["calibration"]["tried"]
    assert read(str(folder / "c.cache")).scales and not (folder / "c.cache.fit.npz").exists()
    assert any("c.cache.fit.npz" in warning for warning in result["warnings"]) and "fit.npz" not in done.stdout


def test_stdout_carries_nothing_but_the_json(folder):
    done = calibrate(folder, *DATA, "--quantization-effort", "fast", "--json", "-")
    check_schema(json.loads(done.stdout))
    assert json.loads(done.stdout)["status"] == "calibrated" and "scales" in done.stderr


def test_quiet_says_nothing_of_a_success(folder):
    done = calibrate(folder, *DATA, "--quantization-effort", "fast", "-q")
    assert done.code == 0 and done.stderr == done.stdout == "" and (folder / "c.cache").exists()


def test_it_works_as_a_word_of_the_installed_command(folder):
    flags = ("--onnx", "net.onnx", "--calibration-cache", "c.cache", *DATA, "--quantization-effort", "fast")
    done = run("onnx2trt/__main__.py", folder, "calibrate", *flags)
    assert done.code == 0 and all((folder / name).exists() for name in FILES), done.stderr


# ---- faults


def quantized(folder):
    nodes = [node("QuantizeLinear", "x s", "q"), node("DequantizeLinear", "q s", "y")]
    onnx.save(model(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 3, 16, 16]}, {"s": np.float32(0.1)}), folder / "net.onnx")


def without_layers(folder):
    onnx.save(model([node("Relu", "x", "y")], {"x": [1, 3, 16, 16]}, {"y": [1, 3, 16, 16]}), folder / "net.onnx")


def empty(folder):
    for path in (folder / "images").iterdir():
        path.unlink()


def damaged(folder):
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:100])


FAULTS = {
    "a flag of builds only": (None, ("--precision", "fp16"), 2, "unrecognized arguments: --precision fp16"),
    "a cache over the model": (None, ("--calibration-cache", "net.onnx"), 2, "--calibration-cache name the same file"),
    "a wrong number": (None, ("--std", "0"), 2, "--std must be above 0"),
    "no such model": (lambda folder: (folder / "net.onnx").unlink(), (), 3, "cannot read net.onnx"),
    "a model that carries Q/DQ": (quantized, (), 3, "carries Q/DQ already"),
    "a model without layers for INT8": (without_layers, (), 3, "no convolution or matrix product"),
    "no such folder": (None, ("--calibration-dir", "nowhere"), 5, "--calibration-dir nowhere does not exist"),
    "a folder without images": (empty, (), 5, "holds no image"),
    "damaged images": (damaged, (), 5, "only 0 of 6 samples"),
    "no such folder to write to": (None, ("--calibration-cache", "nowhere/c.cache"), 8, "cannot write nowhere/c.cache"),
}


@pytest.mark.parametrize("make, flags, code, words", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(folder, make, flags, code, words):
    if make:
        make(folder)
    before = sorted(path.name for path in folder.iterdir())
    done = calibrate(folder, *DATA, *flags)
    assert done.code == code and words in done.error, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before, "nothing was written"


@pytest.mark.parametrize("missing", ["--onnx", "--calibration-dir", "--calibration-cache"])
def test_model_data_and_cache_have_to_be_named(folder, missing):
    given = {"--onnx": "net.onnx", "--calibration-dir": "images", "--calibration-cache": "c.cache"}
    done = run("calibration.py", folder, *(word for flag, value in given.items() if flag != missing for word in (flag, value)))
    assert done.code == 2 and f"the following arguments are required: {missing}" in done.error


def test_a_signal_ends_it_at_once_and_leaves_the_old_cache(folder):
    for index in range(6, 300):
        cv2.imwrite(str(folder / "images" / f"{index}.png"), np.random.default_rng(index).integers(0, 256, (200, 240, 3), np.uint8))
    (folder / "c.cache").write_text("the old one")
    command = [sys.executable, str(ROOT / "calibration.py"), "--onnx", "net.onnx", "--calibration-cache", "c.cache", *DATA]
    with open(folder / "stderr", "wb") as stderr:
        child = subprocess.Popen(command, cwd=folder, stderr=stderr, stdout=subprocess.DEVNULL)
        assert wait_until(lambda: "measuring ranges" in (folder / "stderr").read_text(), 60), "calibration begins"
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 143
    assert "error: interrupted by SIGTERM during stage" in (folder / "stderr").read_text()
    assert (folder / "c.cache").read_text() == "the old one" and not list(folder.glob(".*.tmp"))
