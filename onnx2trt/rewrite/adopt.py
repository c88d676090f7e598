"""A model as other tools write it, brought into the form that the rest of the house knows: FP32 or FP16, INT8 Q/DQ, unequal names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.base.words import listed
from onnx2trt.model.external_data import all_tensors
from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.nodes import all_nodes, all_subgraphs, attribute, equal_names
from onnx2trt.rewrite.contrib import is_fused, with_onnx_operators
from onnx2trt.rewrite.einsum import has_capitals, in_small_letters
from onnx2trt.rewrite.element_types import BFLOAT16, DOUBLE, HALF, NAMING_A_TYPE, TYPED_DOMAINS, as_float32
from onnx2trt.rewrite.fold import fold_constants
from onnx2trt.rewrite.foreign import MOST_NAMED, is_foreign, refuse_dynamic, with_int8
from onnx2trt.rewrite.fp8_io import fp8_io, with_fp32_io

RATIO = 1  # the place of the ratio among the inputs of Dropout; behind it stands whether the model is being trained
LIFTED = {BFLOAT16: "BF16", DOUBLE: "FP64"}


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
        refuse_dynamic(model, path)
    fused = for_tensorrt and is_fused(model)
    lifted, foreign = _types_to_lift(model), for_tensorrt and is_foreign(model)
    renamed = any(map(equal_names, (model.graph, *(inner for node in model.graph.node for inner in all_subgraphs(node)))))
    passed, remarks = _outputs_of_their_own(model)
    fp8, idle, endless = fp8_io(model), _idle_dropouts(model), for_tensorrt and any(map(_is_unconditional, all_nodes(model.graph)))
    capital = for_tensorrt and any(map(has_capitals, all_nodes(model.graph)))
    if not (lifted or foreign or renamed or remarks or fp8 or idle or fused or endless or capital):
        return None
    graph = Graph.from_model(passed)
    if endless:
        graph = _with_conditions(graph)
    if capital:
        in_small_letters(graph)
    if fused:
        graph, written = with_onnx_operators(graph)
        if written:
            names = listed([f"{count} {name}" for name, count in written.most_common()], MOST_NAMED)
            remarks.append(f"operators of ONNX Runtime's optimizer are written as those of ONNX, with the same values: {names}")
    if idle:
        graph = _without_training(graph, idle)
        remarks.append("Dropout was exported for training, with a ratio of 0: it does nothing, and is written as for inference")
    if DOUBLE in lifted:
        graph = fold_constants(graph)  # sizes that are computed in FP64 stay what they are
    if lifted:
        graph = as_float32(graph, lifted)
        names = " and ".join(LIFTED[elem_type] for elem_type in sorted(lifted))
        remarks.append(f"the model carries {names}: it is converted as if it were FP32{_io(model, lifted)}")
    if fp8:
        graph = with_fp32_io(graph)
        remarks.append(f"the engine has {', '.join(map(repr, fp8))} in FP32 instead of FP8, with the same values")
    if foreign:  # with scales of FP16, perhaps
        graph = as_float32(graph, (HALF,), same_io=True) if HALF in graph.types().values() else graph
        graph = with_int8(graph, path, remarks)
    return Adopted(graph.to_model(), tuple(remarks))


def _io(model: onnx.ModelProto, lifted: frozenset[int]) -> str:
    found = [f"{v.name!r}" for v in (*model.graph.input, *model.graph.output) if v.type.tensor_type.elem_type in lifted]
    return f", and the engine has {', '.join(found)} in FP32" if found else ""


def _types_to_lift(model: onnx.ModelProto) -> frozenset[int]:
    found = {tensor.data_type for tensor in all_tensors(model)}
    found.update(v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output) if v.type.HasField("tensor_type"))
    nodes = [*all_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    typed = (entry for node in nodes if node.domain in TYPED_DOMAINS for entry in node.attribute)
    found.update(entry.i for entry in typed if entry.name in NAMING_A_TYPE and entry.type == entry.INT)
    return frozenset(LIFTED) & found


# ---- Loop


def _is_unconditional(node: onnx.NodeProto) -> bool:
    """Whether it is a Loop that makes all its steps, which ONNX writes without a condition; TensorRT's parser asks for one."""
    return node.op_type == "Loop" and node.domain in STANDARD_DOMAINS and len(node.input) > 1 and not node.input[1]


def _with_conditions(graph: Graph) -> Graph:
    true = graph.unique("loop__condition")
    graph.weights[true] = np.array(True)
    for node in filter(_is_unconditional, all_nodes(graph.proto.graph)):
        node.input[1] = true
    return graph


# ---- Dropout


def _idle_dropouts(model: onnx.ModelProto) -> set[str]:
    """The outputs of Dropouts that are told whether the model is being trained, and never drop a value either way."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = list(all_nodes(model.graph))
    constants |= {node.output[0]: attribute(node, "value") for node in nodes if node.op_type == "Constant" and attribute(node, "value")}
    told = [node for node in nodes if node.op_type == "Dropout" and node.domain in STANDARD_DOMAINS and len(node.input) > RATIO + 1]
    return {node.output[0] for node in told if node.input[RATIO] in constants and not array_of(constants[node.input[RATIO]]).any()}


def _without_training(graph: Graph, idle: set[str]) -> Graph:
    """What TensorRT takes: Dropout of inference, which passes its input on, as training with a ratio of 0 does."""
    for node in all_nodes(graph.proto.graph):
        if node.op_type == "Dropout" and node.output[0] in idle:
            del node.input[1:]
    graph.prune()
    return graph


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
