"""trt/kernels.py: layers that the parser takes and the library cannot build. Real TensorRT-RTX networks."""

import pytest
from helpers import refused

from onnx2trt.base.errors import ExitCode
from onnx2trt.trt import kernels
from onnx2trt.trt.kernels import DOUBTED, refuse_missing_kernels
from onnx2trt.trt.library import Library

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
RTX = Library("tensorrt-rtx", trt)


@pytest.fixture(scope="module")
def builder():
    return trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))


def network_of(builder, kind: str, count=1):
    network = builder.create_network(0)
    for index in range(count):
        if kind == "RELU":
            layer = network.add_activation(network.add_input(f"x{index}", trt.float32, (2, 2)), trt.ActivationType.RELU)
        elif kind == "NMS":
            boxes, scores = network.add_input(f"b{index}", trt.float32, (1, 3, 4)), network.add_input(f"s{index}", trt.float32, (1, 3, 1))
            layer = network.add_nms(boxes, scores, network.add_input(f"m{index}", trt.int32, ()))
        else:
            layer = network.add_non_zero(network.add_input(f"x{index}", trt.float32, (2, 2)), trt.int64)
        layer.name = f"{kind}{index}"
        network.mark_output(layer.get_output(0))
    return network


@pytest.mark.parametrize("kind", DOUBTED)
def test_what_tensorrt_rtx_lacks_is_named_with_what_to_do(builder, kind):
    with refused(ExitCode.BUILD, "TensorRT-RTX reads these layers", f"{kind}: '{kind}0'", hint="--backend tensorrt"):
        refuse_missing_kernels(RTX, builder, network_of(builder, kind))


def test_many_layers_are_not_all_listed(builder):
    with refused(ExitCode.BUILD, "'NON_ZERO5' and 2 more"):
        refuse_missing_kernels(RTX, builder, network_of(builder, "NON_ZERO", count=8))


def test_other_networks_are_not_tried(builder, monkeypatch):
    monkeypatch.setattr(kernels, "_builds", lambda *_: pytest.fail("built"))
    refuse_missing_kernels(RTX, builder, network_of(builder, "RELU"))


def test_a_release_that_has_the_kernel_takes_it(builder, monkeypatch):
    monkeypatch.setattr(kernels, "_builds", lambda *_: True)
    refuse_missing_kernels(RTX, builder, network_of(builder, "NMS"))


def test_the_full_tensorrt_is_not_asked(builder, monkeypatch):
    """It would time the kernels that it has."""
    monkeypatch.setattr(kernels, "_builds", lambda *_: pytest.fail("built"))
    refuse_missing_kernels(Library("tensorrt", trt), builder, network_of(builder, "NMS"))
