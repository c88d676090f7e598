"""conversion/candidate.py: a prepared ONNX is computed, whatever types and names another tool has given it."""

import numpy as np
import onnx
import pytest
from helpers import refused, save
from models import conv_net, model, node, outputs_of, random
from onnx import TensorProto, helper

from onnx2trt.base.errors import ExitCode
from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.data.reader import Batch
from onnx2trt.model.graph import Graph
from onnx2trt.model.preflight import preflight


def outputs(folder, candidate: onnx.ModelProto, feed: dict) -> np.ndarray:
    """What the candidate gives in the place of conv_net()."""
    model_info = preflight(save(conv_net(), folder / "model.onnx"))[1]
    proto, info = preflight(save(candidate, folder / "candidate.onnx"))
    run, _ = OnnxCandidate(info, Graph.from_model(proto)).runner(model_info)
    return run(Batch(feed, 0, 0, ("it",)))["y"]


def retyped(elem_type: int) -> onnx.ModelProto:
    source = conv_net()
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    del source.graph.initializer[:]
    for name, array in arrays.items():
        source.graph.initializer.append(helper.make_tensor(name, elem_type, array.shape, array.ravel().tolist()))
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.elem_type = elem_type
    return source


@pytest.mark.parametrize("elem_type, least, most", [(TensorProto.DOUBLE, 0, 1e-5), (TensorProto.BFLOAT16, 1e-4, 0.1)])
def test_fp64_is_fp32_and_bf16_is_rounded(tmp_path, elem_type, least, most):
    """ONNX Runtime has convolutions in neither."""
    feed = {"x": random(1, 3, 16, 16)}
    expected = outputs_of(Graph.from_model(conv_net()), feed)[0]
    found = outputs(tmp_path, retyped(elem_type), feed)
    assert found.dtype == np.float32 and least <= np.abs(found - expected).max() <= most * np.abs(expected).max()


def test_nodes_of_one_name_are_no_hindrance(tmp_path):
    feed, candidate = {"x": random(1, 3, 16, 16)}, conv_net()
    for made in candidate.graph.node:
        made.name = "same"
    np.testing.assert_allclose(outputs(tmp_path, candidate, feed), outputs_of(Graph.from_model(conv_net()), feed)[0], atol=1e-5)


def test_what_cannot_be_computed_is_refused_with_the_words_about_the_file(tmp_path):
    unknown = node("QAttention", "x", "y")
    unknown.domain = "com.microsoft"
    candidate = model([unknown], {"x": [1, 3, 16, 16]}, {"y": [1, 4, 16, 16]})
    candidate.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with refused(ExitCode.MODEL, "candidate.onnx"):
        outputs(tmp_path, candidate, {"x": random(1, 3, 16, 16)})
