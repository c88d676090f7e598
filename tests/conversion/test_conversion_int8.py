"""conversion/int8.py: layers that have no scale do not count."""

from dataclasses import replace

from models import conv_net

from onnx2trt.conversion.int8 import Fitted
from onnx2trt.model.graph import Graph
from onnx2trt.quant.equalize.equalization import Equalization
from onnx2trt.report.result import Calibration
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.qdq import quantizable_layers


def test_layers_without_a_scale_go_with_their_reason():
    graph = Graph.from_model(conv_net())
    layers = quantizable_layers(graph)
    silent, *others = layers
    fit = Fit({layer.activation: 0.1 for layer in others if layer.activation != silent.activation})
    about = Calibration("minmax", 1, 0, None, 0.0, 0.0)
    fitted = Fitted(Equalization(graph), graph, layers, fit, (), None, "minmax", about)
    left, reasons = fitted.without_silent()
    without = [layer for layer in layers if layer.activation == silent.activation]
    assert reasons == {layer.node: "always zero in calibration" for layer in without} and without
    assert left.layers == tuple(layer for layer in layers if layer not in without) and left.fit is fit
    by_tensorrt = replace(fitted, by_tensorrt=True)  # its own calibration has a scale for them
    assert by_tensorrt.without_silent() == (by_tensorrt, {})
