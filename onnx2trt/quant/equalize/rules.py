"""What each operator demands of scales and shifts of its channels (the rules of quant/equalize/groups.py).

A rule ties, or fixes, channels and answers with the tensors that it has dealt with; all others that the node touches are
fixed. Answering with none therefore always is right: nothing around the node may change then.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import TERMS, WEIGHTED
from onnx2trt.quant.equalize import move_rules as moves
from onnx2trt.quant.equalize.relations import Relations
from onnx2trt.rewrite.qdq import weight_axis, weight_layout

# ---- sums and products


def _terms(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """Sums, largest and smallest: every term has the scale of the result; constants are scaled along."""
    y = node.output[0]
    if y not in relations.unknowns:
        return ()
    variables = [name for name in node.input if name not in relations.graph.weights]
    channels = [relations.channels(name, y) for name in variables]
    if any(found is None for found in channels):
        return ()
    for found in channels:
        relations.tie(found, relations.unknowns[y])
    return *variables, y


def _factor(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """A constant factor or divisor takes in the scales of both sides."""
    constants = [name in relations.graph.weights for name in node.input]
    if node.op_type == "Div" and not constants[1]:
        return _quotient(relations, node)
    if all(constants):  # left by what could not be folded
        return ()
    x, y = node.input[constants.index(False)], node.output[0]
    return (x, y) if relations.alike(x, y) else ()


def _quotient(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """Variable divisors stay as they are."""
    (x, divisor), y = node.input, node.output[0]
    if x == divisor or y not in relations.unknowns or (channels := relations.channels(x, y)) is None:
        return ()
    relations.tie(channels, relations.unknowns[y])
    return x, y


def product(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """Product of two variables: one stays as it is, the other has the scale of the result.

    That is the larger one (the smaller is a gate), unless it is fixed already. To be entered after everything else.
    """
    y = node.output[0]
    if node.input[0] == node.input[1] or y not in relations.unknowns:
        return ()
    gate, x = sorted(node.input, key=lambda name: math.prod(relations.shapes.get(name, ())))
    gates, channels, result = relations.channels(gate, y), relations.channels(x, y), relations.unknowns[y]
    if gates is None or channels is None:
        return ()
    by_gate = relations.is_fixed(channels) & ~relations.is_fixed(gates)
    relations.tie(gates[by_gate], result[by_gate])
    relations.fix(gates[~by_gate])
    relations.tie(channels[~by_gate], result[~by_gate])
    return gate, x, y


def _terms_shift(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """A constant term takes in everything; of variable terms one carries the whole shift, if nothing else reads it."""
    y, weights = node.output[0], relations.graph.weights
    variables = [name for name in node.input if name not in weights]
    if len(node.input) == 2 and len(variables) == 1:
        return (variables[0], y) if relations.alike(variables[0], y) else ()
    if node.op_type == "Sub" or len(variables) < len(node.input):
        return ()
    carriers = [name for name in variables if relations.readings[name] == 1 and relations.alike(name, y)]
    if not carriers:
        return ()
    relations.tie(relations.unknowns[carriers[-1]], relations.unknowns[y])
    return carriers[-1], y


# ---- operators with weights


def _constant_or_absent(relations: Relations, node: onnx.NodeProto, index: int) -> bool:
    return len(node.input) <= index or not node.input[index] or node.input[index] in relations.graph.weights


def _known(relations: Relations, axis: int | None, *names: str) -> tuple[str, ...]:
    """Those of the names whose channels are where they have to be: at `axis`, or at the end where it is None."""
    return tuple(
        name
        for name in names
        if name in relations.unknowns and relations.axes[name] == (len(relations.shapes[name]) - 1 if axis is None else axis)
    )


def _own_scales(relations: Relations, node: onnx.NodeProto) -> bool:
    """Whether its weights are constant, with an INT8 scale for each output channel.

    Where one scale serves all, channels that are made larger take the levels away from all others.
    """
    weight = relations.graph.weights.get(node.input[1])
    return weight is not None and weight_axis(node, weight.ndim) is not None


def _convolution(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    if not _own_scales(relations, node):
        return ()
    outputs = node.output[:1] if _constant_or_absent(relations, node, 2) else ()
    return _known(relations, 1, node.input[0], *outputs)


def _convolution_shift(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """The bias takes in a shift of the input where every output sees all taps of the kernel."""
    if node.input[1] not in relations.graph.weights or not _constant_or_absent(relations, node, 2):
        return ()
    inputs = () if node.op_type == "ConvTranspose" or moves.is_padded(node) else node.input[:1]
    return _known(relations, 1, *inputs, node.output[0])


def _gemm(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    if attribute(node, "transA", 0):
        return ()
    return _convolution(relations, node)


def _gemm_shift(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    if not attribute(node, "beta", 1.0) or attribute(node, "transA", 0):
        return ()
    if node.input[1] not in relations.graph.weights or not _constant_or_absent(relations, node, 2):
        return ()
    return _known(relations, 1, node.input[0], node.output[0])


def _matmul(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    return _known(relations, None, node.input[0], node.output[0]) if _own_scales(relations, node) else ()


def _batch_norm(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    if not all(name in relations.graph.weights for name in node.input[1:]) or attribute(node, "training_mode", 0):
        return ()
    return _known(relations, 1, node.input[0], node.output[0])


def _norm(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """Normalisation over what it reads: the input stays (epsilon), scale and bias take in the output's change."""
    layer = node.op_type == "LayerNormalization"
    x = node.input[0]
    if len(node.input) != 3 or not all(name in relations.graph.weights for name in node.input[1:]) or x not in relations.shapes:
        return ()
    if layer and attribute(node, "axis", -1) % len(relations.shapes[x]) != len(relations.shapes[x]) - 1:
        return ()
    return _known(relations, None if layer else 1, node.output[0])


def same_weights(relations: Relations) -> None:
    """Layers that read one constant in the same way are scaled alike, so that it stays one: it may have many readers, and be most of the
    model. To be entered after all single nodes.
    """
    readers: dict[tuple, list[onnx.NodeProto]] = {}
    for node in relations.graph.nodes:
        if node.op_type in WEIGHTED and node.domain in STANDARD_DOMAINS and node.input[1] in relations.graph.weights:
            readers.setdefault(weight_layout(node), []).append(node)
    for nodes in readers.values():
        for names in ([node.input[0] for node in nodes], [node.output[0] for node in nodes]):
            known = [relations.unknowns[name] for name in names if name in relations.unknowns]
            alike = len(known) == len(names) and len({len(unknowns) for unknowns in known}) == 1
            for unknowns in known:
                if alike:
                    relations.tie(known[0], unknowns)
                else:
                    relations.fix(unknowns)


Rule = Callable[["Relations", onnx.NodeProto], tuple[str, ...]]

_BOTH: dict[str, Rule] = {
    **dict.fromkeys(["Identity", "Upsample", "MaxPool", "GlobalMaxPool", "GlobalAveragePool"], moves.same),
    **dict.fromkeys(["ReduceMean", "ReduceMax", "ReduceMin"], moves.reduce),
    **dict.fromkeys(["Flatten", "Reshape", "Squeeze"], moves.flatten),
    "Dropout": moves.dropout,
    "Slice": moves.slice_,
    "Split": moves.split,
    "Concat": moves.concat,
    "Transpose": moves.transpose,
    "Resize": moves.resize,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _norm,
    "InstanceNormalization": _norm,
}
SCALE_RULES: dict[str, Rule] = {
    **_BOTH,
    **dict.fromkeys(["Relu", "LeakyRelu", "Abs", "Neg", "AveragePool"], moves.same),
    **dict.fromkeys(TERMS, _terms),
    **dict.fromkeys(["Mul", "Div"], _factor),
    **dict.fromkeys(["Conv", "ConvTranspose"], _convolution),
    "ReduceSum": moves.reduce,
    "PRelu": moves.prelu,
    "Clip": moves.clip,
    "Pad": moves.pad,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
SHIFT_RULES: dict[str, Rule] = {
    **_BOTH,
    **dict.fromkeys(["Add", "Sub"], _terms_shift),
    **dict.fromkeys(["Conv", "ConvTranspose"], _convolution_shift),
    "AveragePool": moves.average_pool_shift,
    "Pad": moves.pad_shift,
    "Gemm": _gemm_shift,
}
