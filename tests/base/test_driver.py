"""base/driver.py, and a TensorRT that does not start: machines that cannot be had here, each in one sentence."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import LIBRARIES, parse, refused

from onnx2trt.base import driver
from onnx2trt.base.driver import Driver, probe_driver
from onnx2trt.base.errors import ExitCode
from onnx2trt.plan.plan import make_plan
from onnx2trt.trt.builder import EngineBuilder
from onnx2trt.trt.library import Library


class Cuda:
    """libcuda as far as it is asked; `answers`: function -> its CUresult, where that is not 0."""

    def __init__(self, version=13000, devices=1, **answers):
        self.version, self.devices, self.answers = version, devices, answers

    def __getattr__(self, name):
        def function(target=None, *arguments):
            value = {"cuDriverGetVersion": self.version, "cuDeviceGetCount": self.devices, "cuDeviceGetAttribute": 9}.get(name)
            if value is not None:
                target._obj.value = value
            if name == "cuDeviceGetName":
                target.value = b"NVIDIA H200"
            return self.answers.get(name, 0)

        return function


def probed(monkeypatch, cuda) -> Driver:
    def load(name):
        if cuda is None:
            raise OSError(f"{name}: cannot open shared object file")
        return cuda

    monkeypatch.setattr(driver.ctypes, "CDLL", load)
    return probe_driver()


def test_a_gpu_that_answers(monkeypatch):
    assert probed(monkeypatch, Cuda()) == Driver("", "13.0", "NVIDIA H200", "9.9")


@pytest.mark.parametrize(
    "cuda, words",
    [
        (None, "no NVIDIA driver is installed (libcuda.so.1 cannot be loaded)"),
        (Cuda(cuInit=100), "finds no GPU"),
        (Cuda(cuInit=803), "different versions (reboot)"),
        (Cuda(cuInit=999), "does not start (cuInit error 999)"),
        (Cuda(devices=0), "CUDA_VISIBLE_DEVICES"),
        (Cuda(cuDeviceGetCount=1), "shows no GPU"),
        (Cuda(cuDeviceGet=101), "no rights to its device file"),
        (Cuda(cuDeviceGetName=101), "no rights to its device file"),
    ],
)
def test_a_machine_without_a_usable_gpu_is_refused_in_one_sentence(monkeypatch, cuda, words):
    found = probed(monkeypatch, cuda)
    assert words in found.problem and not found.gpu and found.version == ("" if cuda is None else "13.0")
    caps = replace(LIBRARIES["weak"], driver_problem=found.problem, gpu="", gpu_arch="")
    with refused(ExitCode.MACHINE, "TensorRT 10.16.0.72 needs a GPU", words, hint="--backend tensorrt-rtx"):
        make_plan(parse(), caps)


class Logger:
    Severity = SimpleNamespace(ERROR=SimpleNamespace(name="ERROR"), INTERNAL_ERROR=0, WARNING=2)


def test_a_driver_that_is_too_old_for_tensorrt_is_no_defect_of_ours(monkeypatch):
    """Its Builder raises TypeError where it gets nothing from CUDA (error 35)."""
    probed(monkeypatch, Cuda(version=11040))

    def builder(logger):
        logger.log(Logger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt = SimpleNamespace(__version__="10.16.0.72", ILogger=Logger, Builder=builder)
    with refused(ExitCode.MACHINE, "TensorRT 10.16.0.72 does not start", "CUDA 11.4", "nullptr", "error: 35", hint="Update the driver"):
        EngineBuilder(Library("tensorrt", trt), make_plan(parse(), LIBRARIES["weak"]), print)
