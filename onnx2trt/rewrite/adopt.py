"""A model as other tools write it, brought into the form that the rest of the house knows: FP32 or FP16, INT8 Q/DQ, unequal names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.external_data import all_tensors
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes, attribute
from onnx2trt.model.operators import QUANTIZERS
from onnx2trt.rewrite.element_types import BFLOAT16, DOUBLE, NAMING_A_TYPE, as_float32
from onnx2trt.rewrite.fold import raise_opset
from onnx2trt.rewrite.qlinear import form_of
from onnx2trt.rewrite.shifts import absorb_shifts
from onnx2trt.rewrite.signed import QUANTIZER_DOMAINS, signed
from onnx2trt.rewrite.steps import BITS_16

LIFTED = {BFLOAT16: "BF16", DOUBLE: "FP64"}
PER_CHANNEL_OPSET = 13  # QuantizeLinear and DequantizeLinear with an axis
MOST_NAMED = 5
# Integer arithmetic that no Q/DQ with fixed scales computes: ranges are found at run time, or the results are used as integers
DYNAMIC = frozenset(
    "ConvInteger DynamicQuantizeLSTM DynamicQuantizeLinear DynamicQuantizeMatMul MatMulInteger MatMulInteger16 MatMulIntegerToFloat "
    "MatMulNBits".split()
)


@dataclass(frozen=True)
class Adopted:
    """A model that was rewritten on reading."""

    model: onnx.ModelProto
    remarks: tuple[str, ...]  # for the user: what is different from the file


def adopt(model: onnx.ModelProto, path: str, for_tensorrt: bool = True) -> Adopted | None:
    """
    Args:
        model: with all its data in memory; not changed.
        for_tensorrt: False: only what ONNX Runtime and NumPy cannot take is changed, and quantized operators stay.

    Returns:
        None where nothing had to be changed.

    Raises:
        ConversionError: MODEL, for quantized operators that cannot be written for TensorRT.
    """
    if for_tensorrt:
        _refuse_dynamic(model, path)
    lifted, foreign = _types_to_lift(model), for_tensorrt and is_foreign(model)
    renamed = any(count > 1 for name, count in Counter(node.name for node in model.graph.node).items() if name)
    passed, remarks = _outputs_of_their_own(model)
    if not (lifted or foreign or renamed or remarks):
        return None
    graph = Graph.from_model(passed)
    if lifted:
        graph = as_float32(graph, lifted)
        names = " and ".join(LIFTED[elem_type] for elem_type in lifted)
        remarks.append(f"the model carries {names}: it is converted as if it were FP32{_io(model, lifted)}")
    if foreign:
        graph = _quantized(graph, path, remarks)
    return Adopted(graph.to_model(), tuple(remarks))


def _io(model: onnx.ModelProto, lifted: frozenset[int]) -> str:
    found = [f"{v.name!r}" for v in (*model.graph.input, *model.graph.output) if v.type.tensor_type.elem_type in lifted]
    return f", and the engine has {', '.join(found)} in FP32" if found else ""


def _types_to_lift(model: onnx.ModelProto) -> frozenset[int]:
    found = {tensor.data_type for tensor in all_tensors(model)}
    found.update(v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output) if v.type.HasField("tensor_type"))
    nodes = [*all_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    found.update(entry.i for node in nodes for entry in node.attribute if entry.name in NAMING_A_TYPE and entry.type == entry.INT)
    return frozenset(LIFTED) & found


# ---- inputs and outputs


def _outputs_of_their_own(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """(the model with each output once, and with none that is an input, too; what was changed)

    An engine knows a tensor by one name, as an input or as an output.
    """
    names = [value.name for value in model.graph.output]
    inputs = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    twice = {name for name, count in Counter(names).items() if count > 1}
    if not twice and not inputs.intersection(names):
        return model, []
    result, remarks = onnx.ModelProto(), []
    result.CopyFrom(model)
    taken = {*names, *inputs, *(name for node in all_nodes(model.graph) for name in (*node.input, *node.output))}
    seen: set[str] = set()
    del result.graph.output[:]
    for value in model.graph.output:
        if value.name in seen:
            continue
        seen.add(value.name)
        output = result.graph.output.add()
        output.CopyFrom(value)
        if value.name in inputs:
            output.name = next(name for name in (f"{value.name}__output{n or ''}" for n in range(len(taken) + 1)) if name not in taken)
            taken.add(output.name)
            result.graph.node.append(onnx.helper.make_node("Identity", [value.name], [output.name], name=f"{output.name}__node"))
            remarks.append(f"output {value.name!r} is an input, too: the engine gives it as {output.name!r}")
        if value.name in twice:
            remarks.append(f"output {value.name!r} is listed {names.count(value.name)} times: the engine has it once")
    return result, remarks


# ---- quantized by other tools


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
    zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None:  # then integers tell their type, and what is made has the default
        data = constants.get(node.input[0])
        names_type = node.op_type == "DequantizeLinear" or attribute(node, "output_dtype", 0)
        elem_type = (
            data.data_type if data is not None and node.op_type == "DequantizeLinear" else 0 if names_type else onnx.TensorProto.UINT8
        )
        return onnx.TensorProto.DataType.Name(elem_type).lower() in ("uint8", "int32", *BITS_16)
    if onnx.TensorProto.DataType.Name(zero.data_type).lower() in ("uint8", "int32", *BITS_16):
        return True
    return zero.data_type == onnx.TensorProto.INT8 and bool(onnx.numpy_helper.to_array(zero).any())


def _quantized(graph: Graph, path: str, remarks: list[str]) -> Graph:
    written = signed(graph)
    shifted = sum(node.op_type == "QuantizeLinear" and _is_shifted(written, node) for node in written.nodes)
    written = absorb_shifts(written)
    if graph.opset < PER_CHANNEL_OPSET:
        raised = raise_opset(written, PER_CHANNEL_OPSET)
        if raised is None:
            raise ConversionError(
                f"{path}: opset {graph.opset} of the quantized model cannot be raised to {PER_CHANNEL_OPSET}, which scales for each "
                "channel need",
                hint=ORIGINAL,
                code=ExitCode.MODEL,
            )
        written = raised
    _refuse_left(written, path)
    remarks.append(
        "quantized operators, UINT8 and INT32 of another tool are written as Q/DQ of INT8 and biases of FP32, with the same values"
    )
    if shifted:
        remarks.append(
            f"{shifted} activations are quantized with a zero point: its shift costs an addition at each. Symmetric INT8 "
            "(onnxruntime: QInt8 with ActivationSymmetric), or --precision int8 with the FP32 original, is faster"
        )
    return written


def _is_shifted(graph: Graph, node: onnx.NodeProto) -> bool:
    return node.input[0].endswith("__shifted") and node.input[0] not in graph.input_names


ORIGINAL = (
    "Give the FP32 model that it was made from, with --precision int8 and --calibration-dir: that quantizes it as TensorRT needs it. "
    "Where the file itself has to be quantized: static, symmetric, QInt8, as QDQ."
)


def _refuse_dynamic(model: onnx.ModelProto, path: str) -> None:
    found = Counter(node.op_type for node in all_nodes(model.graph) if node.op_type in DYNAMIC)
    if found:
        _refuse(found, path, "quantized with ranges that are found while it runs", "which TensorRT has not")


def _refuse_left(graph: Graph, path: str) -> None:
    """What signed() has left of the operators that TensorRT does not have, or would compute otherwise."""
    constants = {name: array for name, array in graph.weights.items() if array.size <= 2**16}
    tensors = {name: onnx.numpy_helper.from_array(array, name) for name, array in constants.items()}
    left = Counter(f"{node.op_type} {node.name!r}" for node in all_nodes(graph.proto.graph) if _is_foreign(node, tensors))
    if left:
        _refuse(left, path, "quantized in a form that has no symmetric INT8", "such as scales or zero points that are no constants")


def _refuse(found: Counter, path: str, how: str, why: str) -> None:
    """
    Raises:
        ConversionError: MODEL.
    """
    names = [f"{count} x {name}" if count > 1 else name for name, count in found.most_common()]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    raise ConversionError(f"{path} is {how} ({', '.join(names[:MOST_NAMED])}{more}), {why}", hint=ORIGINAL, code=ExitCode.MODEL)
