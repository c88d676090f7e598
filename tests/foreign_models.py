"""Small models as other tools quantize them, with ONNX Runtime's outputs of the model as it stands."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from models import model
from onnx import TensorProto, helper

ELEM = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "uint16": TensorProto.UINT16, "int16": TensorProto.INT16}
SHAPE = [1, 4, 6, 6]


def quantized_input(dtype: str, zero: int, scale: float = 0.037):
    """(QuantizeLinear of x as xq, its constants)"""
    return (
        [helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="q")],
        {"xs": np.float32(scale), "xz": np.array(zero, dtype)},
    )


def around(nodes, weights, dtype: str, zero: int, output_scale: float = 0.05, shape=None, output_zero=None) -> onnx.ModelProto:
    """x -> QuantizeLinear -> nodes from xq to yq -> DequantizeLinear -> y; quantized operators of ONNX Runtime are allowed."""
    first, constants = quantized_input(dtype, zero)
    output_zero = zero if output_zero is None else output_zero
    constants |= {"ys": np.float32(output_scale), "yz": np.array(output_zero, dtype), **weights}
    last = helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"], name="dq")
    return microsoft(model([*first, *nodes, last], {"x": shape or SHAPE}, {"y": None}, constants))


def microsoft(source: onnx.ModelProto) -> onnx.ModelProto:
    source.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return source


def qlinear(operator: str, inputs: str, output: str = "yq", domain: str = "com.microsoft", **attributes) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], name=operator, domain=domain, **attributes)


def truth(source: onnx.ModelProto, feed: dict) -> list[np.ndarray]:
    """What ONNX Runtime computes of the model as it stands, each operator by itself."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def assert_same_steps(found: np.ndarray, expected: np.ndarray, step: float) -> None:
    """Equal, but for ties of rounding, which may fall to the other side: one step."""
    assert found.shape == expected.shape
    error = np.abs(found.astype(np.float64) - expected)
    assert error.max() <= 1.001 * step
    assert (error > 1e-5 * max(np.abs(expected).max(), 1)).sum() <= max(1, 0.01 * error.size)
    assert np.ptp(expected) > 10 * step, "the data use the steps"
