"""Files of other tools, by the command: what comes out is what ONNX Runtime computes of the file, or one sentence says what to do."""

import numpy as np
import onnx
import pytest
from command import onnx2trt
from foreign_models import around, qlinear
from models import conv_net, model, node, random
from onnx import TensorProto, helper

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.fp16 import convert

BFLOAT16, DOUBLE = TensorProto.BFLOAT16, TensorProto.DOUBLE


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    for index in range(4):
        np.savez(tmp_path / "data" / f"{index}.npz", x=random(1, 4, 8, 8, seed=index))
    return tmp_path


def quantized():
    """Two convolutions as onnxruntime's quantize_static leaves them: UINT8 with zero points, biases of INT32."""
    weights = {}
    for name, shape in (("w", (16, 4, 3, 3)), ("v", (8, 16, 3, 3))):
        integers = np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)
        weights |= {name: integers, f"{name}s": np.full(shape[0], 0.004, np.float32), f"{name}z": np.zeros(shape[0], np.int8)}
        weights[f"{name}b"] = np.arange(shape[0], dtype=np.int32) * 50
    nodes = [
        qlinear("QLinearConv", "xq xs xz w ws wz ms mz wb", "mq", domain="", pads=[1] * 4),
        qlinear("QLinearConv", "mq ms mz v vs vz ys yz vb", "yq", domain="", pads=[1] * 4),
    ]
    return around(nodes, weights | {"ms": np.float32(0.03), "mz": np.uint8(0)}, "uint8", 119, 0.04, [1, 4, 8, 8])


def typed(elem_type: int):
    """Convolutions computed in another type, with such inputs and outputs."""
    graph = conv_net()
    graph.graph.input[0].type.tensor_type.elem_type = graph.graph.output[0].type.tensor_type.elem_type = elem_type
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    weights = [helper.make_tensor(name, elem_type, array.shape, array.ravel().tolist()) for name, array in arrays.items()]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(weights)
    return graph


def convert_it(folder, source, *flags):
    onnx.save(source, folder / "net.onnx")
    return onnx2trt(folder, "--onnx", "net.onnx", "--validation-dir", "data", "--json", "result.json", *flags)


@pytest.mark.real
def test_a_quantized_file_keeps_its_int8(data):
    done = convert_it(data, quantized(), "--precision", "int8")
    assert done.code == 0, done.error
    row = done.json("result.json")["accuracy"][0]
    assert done.json("result.json")["precision"]["delivered"] == "int8" and done.json("result.json")["precision"]["int8_mac_share"] == 1.0
    assert row["sqnr_db"] > 35 and "quantized by another tool" in done.error


@pytest.mark.real
@pytest.mark.parametrize("elem_type, precision", [(BFLOAT16, "int8"), (BFLOAT16, "fp32"), (DOUBLE, "fp16"), (TensorProto.FLOAT16, "int8")])
def test_models_of_other_types_convert(tmp_path, elem_type, precision):
    (tmp_path / "data").mkdir()
    for index in range(4):
        np.savez(tmp_path / "data" / f"{index}.npz", x=random(1, 3, 16, 16, seed=index))
    source = typed(elem_type)
    if elem_type == TensorProto.FLOAT16:
        source = convert(Graph.from_model(conv_net()), {}).to_model()
    done = convert_it(tmp_path, source, "--precision", precision, *(("--calibration-dir", "data") if precision == "int8" else ()))
    assert done.code == 0, done.error
    assert done.json("result.json")["precision"]["delivered"] == precision
    assert done.json("result.json")["accuracy"][0]["sqnr_db"] > 25
    assert {spec["dtype"] for spec in done.json("result.json")["model"]["inputs"]} == {"float32"}


@pytest.mark.real
def test_a_wrong_rank_and_outputs_that_are_inputs_are_said(data):
    source = model([node("Conv", "x w", "y")], {"x": [1, 4, 8, 8]}, {"y": [1, 4], "x": [1, 4, 8, 8]}, {"w": random(4, 4, 3, 3)})
    source.graph.output.append(source.graph.output[0])
    done = convert_it(data, source, "--precision", "fp16")
    assert done.code == 0, done.error
    for said in ("declares output 'y' as 1x4, which is wrong", "the engine gives it as 'x__output'", "listed 2 times"):
        assert said in done.error
    assert {row["output"] for row in done.json("result.json")["accuracy"]} == {"y", "x__output"}


def test_a_dynamically_quantized_file_is_refused_in_one_sentence(data):
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("ConvInteger", "q w z", "i"),
        node("Cast", "i", "f", to=TensorProto.FLOAT),
        node("Mul", "f s", "y"),
    ]
    source = model(nodes, {"x": [1, 4, 8, 8]}, {"y": None}, {"w": np.ones((4, 4, 3, 3), np.int8)})
    done = convert_it(data, source, "--precision", "int8", "--calibration-dir", "data")
    assert done.code == 3 and "quantized dynamically" in done.error and "1 ConvInteger" in done.error
    assert "Give the FP32 model that it was made from, with --precision int8" in done.error
