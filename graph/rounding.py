"""INT8 weights that make up for the errors of INT8: fitted to the inputs that a layer really sees, layer by layer.

A layer computes y = W x. In INT8 it gets x' (rounded and clipped) instead of x, and needs weights W' = scale * integers. Rounding each
weight to the nearest integer ignores both that x' is wrong and that the columns of x' depend on one another. Instead:

1. W* = argmin E|W x - W* x'|^2 + ridge |W - W*|^2, the linear part of what clipping and rounding of x lost.
2. Integers for W* column by column, the error of each spread over the columns still free in the metric E[x' x'^T]
   (GPTQ: Frantar et al., "GPTQ: Accurate Post-Training Quantization", 2022; the order is by falling energy of the column).
3. The mean of what is left over goes into the bias (bias correction: Nagel et al., "Data-Free Quantization", 2019).

Everything needs only sums over the data: E[x' x'^T], E[x x'^T], E[x], E[x'].
"""

from __future__ import annotations

import numpy as np
import onnx

from graph.nodes import attribute
from graph.qdq import INT8_MAX, Layer, Rounded, quantize_weights

MOST_COLUMNS = 2304  # inputs of one output value; the sums for more (85 MB at 4608) and their solution cost more than they bring
RIDGE = 0.01  # of the mean energy of a column
BLOCK = 128  # columns rounded before their errors are applied to all later ones
ROWS_PER_COLUMN, FEWEST_ROWS, MOST_ROWS = 8, 2048, 8192  # sampled positions of all data together


class Columns:
    """A layer's product seen as rows [G, O, K] (groups, outputs, inputs of one output value) times columns [G, K]."""

    def __init__(self, node: onnx.NodeProto, weight: np.ndarray):
        """
        Args:
            node: Conv, ConvTranspose, Gemm or MatMul with constant weights; see `supports`.
            weight: float32, as ONNX lays it out for the operator.
        """
        self._node, self._shape, self._op = node, weight.shape, node.op_type
        self._transposed = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
        self.groups = attribute(node, "group", 1) if node.op_type in ("Conv", "ConvTranspose") else 1
        self.count = self.rows(weight).shape[2]

    def rows(self, weight: np.ndarray) -> np.ndarray:
        """Weights (or anything of their shape) as [G, O, K]."""
        if self._op == "Conv":
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        if self._op == "ConvTranspose":  # each output value is a product with one kernel position at a time
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1).transpose(0, 2, 1)
        return weight[None] if self._transposed else weight.T[None]

    def weight(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `rows`."""
        if self._op == "Conv":
            return rows.reshape(self._shape)
        if self._op == "ConvTranspose":
            return rows.transpose(0, 2, 1).reshape(self._shape)
        return np.ascontiguousarray(rows[0] if self._transposed else rows[0].T)

    def channels(self, outputs: np.ndarray) -> np.ndarray:
        """A value for each row [G, O] as a value for each output channel; kernel positions of ConvTranspose are averaged."""
        if self._op == "ConvTranspose":
            return outputs.reshape(self.groups * self._shape[1], -1).mean(axis=1)
        return outputs.reshape(-1)

    def sample(self, values: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
        """Columns of randomly chosen output positions of one inference.

        Args:
            values: float32, the layer's activation input.

        Returns:
            float32 [G, K, n], n <= most
        """
        if self._op == "Conv":
            return self._patches(values, most, random)
        if self._op == "ConvTranspose":
            flat = values.reshape(values.shape[0], values.shape[1], -1).transpose(1, 0, 2).reshape(values.shape[1], -1)
        else:
            flat = values.reshape(-1, values.shape[-1]).T
        chosen = _positions(flat.shape[1], most, random)
        return np.ascontiguousarray(flat[:, chosen]).reshape(self.groups, self.count, -1)

    def _patches(self, values: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
        kernel, axes = self._shape[2:], len(self._shape) - 2
        strides = attribute(self._node, "strides", [1] * axes)
        dilations = attribute(self._node, "dilations", [1] * axes)
        before, after = _pads(self._node, values.shape[2:], kernel, strides, dilations)
        sizes = [
            (size + a + b - d * (k - 1) - 1) // s + 1
            for size, a, b, d, k, s in zip(values.shape[2:], before, after, dilations, kernel, strides)
        ]
        chosen = np.unravel_index(_positions(values.shape[0] * int(np.prod(sizes)), most, random), (values.shape[0], *sizes))
        index, inside = [], True
        for axis in range(axes):
            offsets = np.arange(kernel[axis]) * dilations[axis]
            at = (chosen[1 + axis] * strides[axis] - before[axis])[:, None] + offsets
            at = at.reshape(len(at), *(kernel[axis] if i == axis else 1 for i in range(axes)))
            inside = inside & (at >= 0) & (at < values.shape[2 + axis])
            index.append(np.clip(at, 0, values.shape[2 + axis] - 1))
        rows = chosen[0].reshape(-1, *[1] * axes)
        patches = values.transpose(1, 0, *range(2, values.ndim))[(slice(None), rows, *index)] * inside  # [C, n, *kernel]
        return np.ascontiguousarray(np.moveaxis(patches, 1, -1), np.float32).reshape(self.groups, self.count, -1)


def supports(node: onnx.NodeProto, weight: np.ndarray) -> bool:
    """Whether Columns describes this layer: anything but batched or transposed products and unusually wide ones."""
    if node.op_type in ("MatMul", "Gemm") and (weight.ndim != 2 or attribute(node, "transA", 0)):
        return False
    return Columns(node, weight).count <= MOST_COLUMNS


def _positions(available: int, most: int, random: np.random.Generator) -> np.ndarray:
    return np.arange(available) if available <= most else random.integers(0, available, most)


def _pads(node: onnx.NodeProto, sizes, kernel, strides, dilations) -> tuple[list[int], list[int]]:
    """Zeros before and after each spatial axis."""
    auto = attribute(node, "auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        total = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, s, d, k in zip(sizes, strides, dilations, kernel)]
        less, more = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
        return (less, more) if auto == b"SAME_UPPER" else (more, less)
    pads = attribute(node, "pads", [0] * 2 * len(sizes)) if auto == b"NOTSET" else [0] * 2 * len(sizes)
    return list(pads[: len(sizes)]), list(pads[len(sizes) :])


class Sums:
    """What `solve` needs to know about a layer's inputs; adds up over samples and over parts of the data."""

    def __init__(self, columns: Columns):
        shape = (columns.groups, columns.count)
        self.number = 0
        self.gram = np.zeros((*shape, columns.count), np.float32)  # of x' x'^T
        self.cross = np.zeros((*shape, columns.count), np.float32)  # of x x'^T
        self.exact, self.quantized = np.zeros(shape), np.zeros(shape)  # of x, of x'

    def add(self, sample: np.ndarray, scale: float) -> None:
        """
        Args:
            sample: float32 [G, K, n] as Columns.sample gives it.
            scale: of the activation.
        """
        rounded = np.clip(np.rint(sample / np.float32(scale)), -INT8_MAX - 1, INT8_MAX) * np.float32(scale)
        self.number += sample.shape[2]
        transposed = rounded.transpose(0, 2, 1)
        self.gram += rounded @ transposed
        self.cross += sample @ transposed
        self.exact += sample.sum(axis=2)
        self.quantized += rounded.sum(axis=2)

    def merge(self, other: Sums) -> None:
        self.number += other.number
        for name in ("gram", "cross", "exact", "quantized"):
            getattr(self, name).__iadd__(getattr(other, name))


def rows_wanted(columns: Columns) -> int:
    """Sampled positions, of all data together."""
    return int(np.clip(ROWS_PER_COLUMN * columns.count, FEWEST_ROWS, MOST_ROWS))


def solve(columns: Columns, layer: Layer, weight: np.ndarray, sums: Sums, half: bool, ridge: float = RIDGE) -> Rounded:
    """Integer weights and a bias for one layer; the weights' scales are those of qdq.quantize_weights.

    Args:
        weight: float32.
        sums: of at least one sample.
        half: as for qdq.quantize_weights.
    """
    nearest, scales = quantize_weights(weight, layer.axis, half)
    shape = [1] * weight.ndim
    if layer.axis is not None:
        shape[layer.axis] = -1
    step = columns.rows(np.broadcast_to(scales.reshape(shape), weight.shape))[:, :, :1].astype(np.float64)
    rows = columns.rows(weight).astype(np.float64)
    gram, cross = sums.gram / np.float64(sums.number), sums.cross / np.float64(sums.number)
    energy = np.einsum("gkk->gk", gram).mean(axis=1)
    if not (energy > 0).all():  # a group that never saw anything but zeros
        return Rounded(nearest, None)
    damping = np.eye(columns.count) * (ridge * energy)[:, None, None]
    inverse = np.linalg.inv(gram + damping)
    target = rows @ (cross + damping) @ inverse
    integers = _round(target / step, gram + damping, inverse)
    left = np.einsum("gok,gk->go", rows, sums.exact) - np.einsum("gok,gk->go", integers * step, sums.quantized)
    return Rounded(columns.weight(integers).astype(np.int8), columns.channels(left / sums.number).astype(np.float32))


def _round(target: np.ndarray, metric: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Integers in -127..127 with a small (target - q) metric (target - q)^T.

    Args:
        target: [G, O, K], in steps.
        metric, inverse: [G, K, K], and its inverse.
    """
    order = np.argsort(-np.einsum("gkk->gk", metric), axis=1)
    sorted_inverse = np.take_along_axis(np.take_along_axis(inverse, order[:, :, None], 1), order[:, None, :], 2)
    upper = np.linalg.cholesky((sorted_inverse + sorted_inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)
    free = np.take_along_axis(target, order[:, None, :], 2).copy()
    integers = np.zeros_like(free)
    count = free.shape[2]
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        errors = np.zeros((*free.shape[:2], end - start))
        for column in range(start, end):
            integers[:, :, column] = np.clip(np.rint(free[:, :, column]), -INT8_MAX, INT8_MAX)
            error = (free[:, :, column] - integers[:, :, column]) / upper[:, column, column][:, None]
            errors[:, :, column - start] = error
            free[:, :, column + 1 : end] -= error[:, :, None] * upper[:, column, column + 1 : end][:, None, :]
        free[:, :, end:] -= errors @ upper[:, start:end, end:]
    return np.take_along_axis(integers, np.argsort(order, axis=1)[:, None, :], 2)
