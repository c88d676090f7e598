"""Scales and shifts through operators that move, select, average or clip values: rules of quant/equalize/rules.py."""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnx2trt.model.nodes import attribute, clip_bounds
from onnx2trt.quant.equalize.relations import Relations

UNBOUNDED = 3.4e38  # exporters write the ends of float32 where they mean no bound


def is_padded(node: onnx.NodeProto) -> bool:
    """Whether a convolution or pooling reads beyond the border."""
    return attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or any(attribute(node, "pads", ()))


def same(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """Output like input, channel by channel."""
    x, y = node.input[0], node.output[0]
    if not relations.alike(x, y):
        return ()
    relations.tie(relations.unknowns[x], relations.unknowns[y])
    return x, y


def dropout(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """As long as it is not told to drop anything (the third input, training_mode)."""
    return () if node.input[2:] else same(relations, node)


def prelu(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    return same(relations, node) if node.input[1] in relations.graph.weights else ()


def clip(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """A bound of 0 scales with everything else; any other does not."""
    bounds = clip_bounds(node, relations.graph.weights)
    return same(relations, node) if all(bound is None or bound == 0 or abs(bound) >= UNBOUNDED for bound in bounds) else ()


def resize(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    outside = attribute(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize"
    return () if outside else same(relations, node)


def pad(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    weights, constant = relations.graph.weights, attribute(node, "mode", b"constant") == b"constant"
    if not relations.alike(node.input[0], node.output[0]) or len(node.input) < 2 or node.input[1] not in weights or node.input[3:]:
        return ()
    if constant and node.input[2:] and node.input[2] and np.any(weights.get(node.input[2], math.nan) != 0):
        return ()
    axis = relations.axes[node.input[0]]
    return () if weights[node.input[1]].reshape(2, -1)[:, axis].any() else same(relations, node)


def pad_shift(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    return () if attribute(node, "mode", b"constant") == b"constant" else pad(relations, node)


def average_pool_shift(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """Only where no zeros of the border come into the average."""
    border = is_padded(node) or attribute(node, "ceil_mode", 0)
    return () if attribute(node, "count_include_pad", 0) and border else same(relations, node)


def slice_(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    x, y = node.input[0], node.output[0]
    values = [relations.graph.weights.get(name) for name in node.input[1:] if name]
    if x not in relations.unknowns or y not in relations.unknowns or len(values) < 2 or any(value is None for value in values):
        return ()
    if relations.axes[x] != relations.axes[y] or len(values) != len(node.input) - 1:
        return ()
    starts, ends = (value.tolist() for value in values[:2])
    axes = values[2].tolist() if len(values) > 2 else range(len(starts))
    steps = values[3].tolist() if len(values) > 3 else [1] * len(starts)
    kept = relations.unknowns[x]
    for start, end, axis, step in zip(starts, ends, axes, steps):
        if axis % len(relations.shapes[x]) == relations.axes[x]:
            kept = kept[start:end:step] if step > 0 else kept[:0]  # backwards: not worth its rules
    if len(kept) != len(relations.unknowns[y]):
        return ()
    relations.tie(kept, relations.unknowns[y])
    return x, y


def split(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    x, outputs = node.input[0], tuple(name for name in node.output if name)
    if not all(name in relations.unknowns and relations.axes[name] == relations.axes.get(x) for name in (x, *outputs)):
        return ()
    whole, rank = relations.unknowns[x], len(relations.shapes[x])
    parts = [whole] * len(outputs)
    if attribute(node, "axis", 0) % rank == relations.axes[x]:
        if len(outputs) != len(node.output):
            return ()
        parts = np.split(whole, np.cumsum([len(relations.unknowns[name]) for name in outputs])[:-1])
    for name, part in zip(outputs, parts):
        relations.tie(part, relations.unknowns[name])
    return x, *outputs


def concat(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    y = node.output[0]
    if y not in relations.unknowns:
        return ()
    axis, rank, whole, offset = relations.axes[y], len(relations.shapes[y]), relations.unknowns[y], 0
    by_channel = attribute(node, "axis") % rank == axis
    for name in node.input:
        constant = relations.graph.weights.get(name)
        known = name in relations.unknowns and relations.axes[name] == axis
        if constant is None and not known:
            return ()
        count = constant.shape[axis] if constant is not None else len(relations.unknowns[name])
        part = whole[offset : offset + count] if by_channel else whole
        offset += count
        if constant is not None:
            relations.fix(part)
        else:
            relations.tie(part, relations.unknowns[name])
    return *node.input, y


def reduce(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    x, y = node.input[0], node.output[0]
    given = relations.graph.weights.get(node.input[1]) if len(node.input) > 1 and node.input[1] else attribute(node, "axes")
    if given is None or x not in relations.unknowns or y not in relations.unknowns:
        return ()
    reduced = {int(axis) % len(relations.shapes[x]) for axis in given}
    axis = relations.axes[x]
    expected = axis if attribute(node, "keepdims", 1) else axis - sum(other < axis for other in reduced)
    if not reduced or axis in reduced or relations.axes[y] != expected:
        return ()
    relations.tie(relations.unknowns[x], relations.unknowns[y])
    return x, y


def transpose(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    x, y = node.input[0], node.output[0]
    if x not in relations.unknowns or y not in relations.unknowns:
        return ()
    perm = list(attribute(node, "perm", ()) or reversed(range(len(relations.shapes[x]))))
    if perm[relations.axes[y]] != relations.axes[x]:
        return ()
    relations.tie(relations.unknowns[x], relations.unknowns[y])
    return x, y


def flatten(relations: Relations, node: onnx.NodeProto) -> tuple[str, ...]:
    """[N, C, ...] -> [N, C * ...]: each channel becomes as many as it had values."""
    x, y = node.input[0], node.output[0]
    if x not in relations.unknowns or y not in relations.unknowns or relations.axes[x] != 1:
        return ()
    inner, flat = relations.shapes[x], relations.shapes[y]
    if flat != (inner[0], math.prod(inner[1:])):
        return ()
    relations.tie(np.repeat(relations.unknowns[x], math.prod(inner[2:])), relations.unknowns[y])
    return x, y
