"""rewrite/for_tensorrt8.py: the form of Q/DQ that TensorRT 8.6 takes."""

import numpy as np
import onnx
import pytest
from models import model, node, outputs_of, random
from random_networks import random_network

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.rewrite.for_tensorrt8 import for_tensorrt8
from onnx2trt.rewrite.prepare import working_graph
from onnx2trt.rewrite.qdq import insert, int8_layers, quantizable_layers


@pytest.mark.parametrize("seed", range(12))
def test_the_values_are_the_same_and_no_weight_is_int8_in_the_file(seed):
    made = random_network(seed)
    graph, feed = working_graph(Graph.from_model(made.model), quantize=True, fp16_scales=False), made.feed(0)
    layers = quantizable_layers(graph)
    quantized = insert(graph, dict.fromkeys((layer.activation for layer in layers), 0.05), layers, half=False)
    before, written = quantized.to_model().SerializeToString(), for_tensorrt8(quantized)
    assert quantized.to_model().SerializeToString() == before and int8_layers(written) == int8_layers(quantized) != set()
    for expected, found in zip(outputs_of(quantized, feed), outputs_of(written, feed), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(np.abs(expected).max(), 1e-6))
    makers = written.producers()
    for one in written.nodes:
        if one.op_type == "DequantizeLinear":
            assert makers[one.input[0]].op_type == "QuantizeLinear"
        if one.op_type in ("Conv", "ConvTranspose") and one.name in int8_layers(written):
            assert len(attribute(one, "kernel_shape")) in (1, 2, 3)


def test_integers_come_back_as_they_were():
    random_weights = np.random.default_rng(0).integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    scales = (10.0 ** np.random.default_rng(1).uniform(-6, 6, 8)).astype(np.float32)
    nodes = [node("DequantizeLinear", "w s", "d", axis=0), node("Conv", "x d", "y", "c", pads=[1] * 4)]
    graph = Graph.from_model(model(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 8, 4, 4]}, {"w": random_weights, "s": scales}))
    written = for_tensorrt8(graph)
    quantize = next(one for one in written.nodes if one.op_type == "QuantizeLinear")
    shown = written.copy()
    shown.proto.graph.output.append(onnx.helper.make_tensor_value_info(quantize.output[0], onnx.TensorProto.INT8, None))
    np.testing.assert_array_equal(outputs_of(shown, {"x": random(1, 3, 4, 4)})[1], random_weights)
    assert list(attribute(next(one for one in written.nodes if one.op_type == "Conv"), "kernel_shape")) == [3, 3]


def test_a_kernel_behind_fp32_weights_is_named_too_and_what_has_no_int8_is_left_alone():
    nodes = [node("QuantizeLinear", "w s z", "q"), node("DequantizeLinear", "q s z", "d"), node("Conv", "x d", "y", "c")]
    weights = {"w": random(4, 3, 1, 1), "s": np.float32(0.01), "z": np.int8(0)}
    written = for_tensorrt8(Graph.from_model(model(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]}, weights)))
    assert [one.op_type for one in written.nodes] == ["QuantizeLinear", "DequantizeLinear", "Conv"]
    assert list(attribute(written.nodes[2], "kernel_shape")) == [1, 1]
    plain = Graph.from_model(model([node("Relu", "x", "y")], {"x": [1, 4]}, {"y": [1, 4]}))
    assert for_tensorrt8(plain) is plain
