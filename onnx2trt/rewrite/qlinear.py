"""What the quantized operators of ONNX Runtime's tools compute: a floating-point operator on dequantized operands.

QLinearConv and QLinearMatMul are ONNX's own; the others are of com.microsoft:
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx2trt.model.nodes import attribute


@dataclass(frozen=True)
class Operand:
    """Names of a quantized tensor, of its scale and of its zero point; "" where there is none."""

    tensor: str
    scale: str
    zero: str
    axis: int | None = None  # of the scales, where there is one for each channel


@dataclass(frozen=True)
class Form:
    """A quantized node as an operator of ONNX.

    Args:
        operands: what is dequantized; a string is read as it is.
        scale: of the result; "": the result is not quantized.
        bias: an INT32 constant in units of the product of the first two operands' scales; "": none.
    """

    operator: str
    operands: tuple[Operand | str, ...]
    scale: str
    zero: str
    attributes: dict
    bias: str = ""


def form_of(node: onnx.NodeProto) -> Form | None:
    """None for what is no quantized operator with fixed scales, or has a form that nothing of ONNX computes."""
    make = FORMS.get(node.op_type)
    if make is None or attribute(node, "channels_last", 0):
        return None
    names = [*node.input, *[""] * 9]
    own = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    own.pop("channels_last", None)
    return make(names, own)


def _conv(names, own) -> Form:
    x, w = Operand(*names[0:3]), Operand(*names[3:6], axis=0)
    return Form("Conv", (x, w), names[6], names[7], own, names[8])


def _matmul(names, own) -> Form:
    return Form("MatMul", (Operand(*names[0:3]), Operand(*names[3:6], axis=-1)), names[6], names[7], own)


def _gemm(names, own) -> Form:
    b = Operand(*names[3:6], axis=0 if own.get("transB", 0) else 1)
    return Form("Gemm", (Operand(*names[0:3]), b), names[7], names[8], own, names[6])


def _binary(operator):
    return lambda names, own: Form(operator, (Operand(*names[0:3]), Operand(*names[3:6])), names[6], names[7], own)


def _unary(operator):
    def make(names, own) -> Form:
        own.pop("opset", None)  # of Softmax: the default domain's, which the model has, too
        return Form(operator, (Operand(*names[0:3]),), names[3], names[4], own)

    return make


def _concat(names, own) -> Form:
    parts = [name for name in names if name]
    return Form("Concat", tuple(Operand(*parts[i : i + 3]) for i in range(2, len(parts), 3)), names[0], names[1], own)


def _where(names, own) -> Form:
    return Form("Where", (names[0], Operand(*names[1:4]), Operand(*names[4:7])), names[7], names[8], own)


FORMS = {
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearMatMul": _matmul,
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _unary("Softmax"),
    "QLinearWhere": _where,
}
