"""rewrite/shares.py: the work of a graph, and who does it."""

import numpy as np
import pytest
from attention_forms import Form
from models import node
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.shares import is_transformer, operator_share


def with_convolution(channels: int):
    """An attention, and a convolution of 3x3 behind it."""
    form = Form()
    network = form.network()
    shape = np.int64([form.batch, 1, form.tokens, form.width])
    weights = np.zeros((channels, 1, 3, 3), np.float32)
    network.graph.initializer.extend([numpy_helper.from_array(shape, "image"), numpy_helper.from_array(weights, "w")])
    network.graph.node.extend([node("Reshape", "y image", "as_image", "as_image"), node("Conv", "as_image w", "z", "conv", pads=[1] * 4)])
    network.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, [form.batch, channels, form.tokens, form.width]))
    return Graph.from_model(network)


@pytest.mark.parametrize("channels, expected", [(2, True), (32, False)])
def test_a_transformer_has_attention_and_hardly_any_convolutions(channels, expected):
    graph, form = with_convolution(channels), Form()
    conv = channels * 9 * form.tokens * form.width
    attention = 4 * form.tokens * form.width**2 + 2 * form.tokens**2 * form.width
    assert operator_share(graph, (), ["Conv"]) == pytest.approx(conv / (conv + attention))
    assert is_transformer(graph, ()) is expected
    (softmax,) = (one for one in graph.nodes if one.op_type == "Softmax")
    softmax.op_type = "Sigmoid"
    del softmax.attribute[:]
    assert not is_transformer(graph, ())
