"""Files that another tool has quantized: whether they are such, how they are written for TensorRT, and which of them cannot be."""

from __future__ import annotations

from collections import Counter

import onnx

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.base.words import listed
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes, attribute
from onnx2trt.model.operators import DYNAMIC, QUANTIZERS
from onnx2trt.rewrite.opset import raise_opset
from onnx2trt.rewrite.qlinear import form_of
from onnx2trt.rewrite.shifts import absorb_shifts
from onnx2trt.rewrite.signed import QUANTIZER_DOMAINS, signed
from onnx2trt.rewrite.steps import BITS_16

PER_CHANNEL_OPSET = 13  # QuantizeLinear and DequantizeLinear with an axis
MOST_NAMED = 5  # operators in one message
FOREIGN_TYPES = ("uint8", "int32", *BITS_16)
ORIGINAL = (
    "Give the FP32 model that it was made from, with --precision int8 and --calibration-dir: that quantizes it as TensorRT needs it. "
    "Where the file itself has to be quantized: static, symmetric, QInt8, as QDQ."
)


def is_foreign(model: onnx.ModelProto) -> bool:
    """Whether the model holds quantized operators, or Q/DQ other than those of INT8 with zero point 0."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return any(_is_foreign(node, constants) for node in all_nodes(model.graph))


def _is_foreign(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type not in QUANTIZERS or node.domain not in QUANTIZER_DOMAINS:
        return form_of(node) is not None
    if node.domain not in STANDARD_DOMAINS:
        return True
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None:
        return _dtype_without_zero(node, constants) in FOREIGN_TYPES
    dtype = onnx.TensorProto.DataType.Name(zero.data_type).lower()
    return dtype in FOREIGN_TYPES or dtype == "int8" and bool(onnx.numpy_helper.to_array(zero).any())


def _dtype_without_zero(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str:
    """Constants that are read tell their type, and what is made is UINT8; empty where it is not known."""
    if node.op_type == "DequantizeLinear":
        data = constants.get(node.input[0])
        return "" if data is None else onnx.TensorProto.DataType.Name(data.data_type).lower()
    return "uint8" if len(node.input) < 3 and not attribute(node, "output_dtype", 0) else ""


def with_int8(graph: Graph, path: str, remarks: list[str]) -> Graph:
    """The graph with Q/DQ of INT8 that TensorRT takes, and nothing quantized besides.

    Args:
        graph: not changed; is_foreign.
        remarks: takes what is said to the user.

    Raises:
        ConversionError: MODEL, where there is no such form.
    """
    found = signed(graph)
    written = absorb_shifts(found.graph)
    if written.opset < PER_CHANNEL_OPSET:
        raised = raise_opset(written, PER_CHANNEL_OPSET)
        if raised is None:
            raise ConversionError(
                f"{path}: opset {graph.opset} of the quantized model cannot be raised to {PER_CHANNEL_OPSET}, which it needs",
                hint=ORIGINAL,
                code=ExitCode.MODEL,
            )
        written = raised
    _refuse_left(written, path)
    remarks.append("quantized by another tool: written as Q/DQ of INT8 with zero point 0 and biases of FP32, with the same values")
    if found.unfit:
        remarks.append(
            f"{found.unfit} constants are quantized with zero points that INT8 cannot do without: they are FP32 with the same values, and "
            "their layers are not INT8. Weights that are quantized symmetrically, or the FP32 original with --precision int8, make them so"
        )
    if found.shifted:
        remarks.append(
            f"{found.shifted} activations are quantized with a zero point, which costs an addition at each. Quantized symmetrically "
            "(onnxruntime: QInt8 with ActivationSymmetric), or from the FP32 original with --precision int8, the engine is faster"
        )
    return written


def refuse_dynamic(model: onnx.ModelProto, path: str) -> None:
    """
    Raises:
        ConversionError: MODEL, for what onnxruntime's quantize_dynamic makes.
    """
    found = Counter(node.op_type for node in all_nodes(model.graph) if node.op_type in DYNAMIC)
    if found:
        raise _refused(found, path, "quantized dynamically, with ranges that are found while it runs", "TensorRT has no such INT8")


def _refuse_left(graph: Graph, path: str) -> None:
    """What signed() has left of the operators that TensorRT does not have, or would compute otherwise."""
    small = {name: onnx.numpy_helper.from_array(array, name) for name, array in graph.weights.items() if array.size <= 2**16}
    left = Counter(
        node.op_type
        for node in all_nodes(graph.proto.graph)
        if _is_foreign(node, small) or node.domain == "com.microsoft" and node.op_type.startswith("Q")
    )
    if left:
        raise _refused(left, path, "quantized in a form that TensorRT does not take", "scales or zero points that are no constants, say")


def _refused(found: Counter, path: str, how: str, why: str) -> ConversionError:
    names = [f"{count} {name}" for name, count in found.most_common()]
    return ConversionError(f"{path} is {how} ({listed(names, MOST_NAMED)}): {why}", hint=ORIGINAL, code=ExitCode.MODEL)
