"""INT8 weights that make up for what INT8 does to activations, fitted to the inputs that a layer really sees.

A layer computes y = W x + b. In INT8 it gets x' (rounded and clipped) instead of x. Part of what is lost can be had back from x' itself,
since the columns of x depend on one another: W' and b' are the affine least squares fit

    W', b' = argmin E|W x - W' x' - (b' - b)|^2 + ridge |W - W'|^2

so W' = W (Cov[x, x'] + D) (Cov[x', x'] + D)^-1 and b' - b = W E[x] - W' E[x'] (which includes bias correction: Nagel et al.,
"Data-Free Quantization", 2019). W' is then rounded to the nearest integers. Rounding column by column (GPTQ) brought nothing on top,
since weights with a scale for each channel lose far less than activations do; fitting to what comes out of INT8 layers was worse.
"""

from __future__ import annotations

import numpy as np
import onnx

from graph.nodes import attribute
from graph.qdq import INT8_MAX, Layer, Rounded, along, quantize_weights

MOST_COLUMNS = 2304  # inputs of one output value; the sums for more (85 MB at 4608) and their solution cost more than they bring
RIDGE = 0.1  # of the mean variance of a column; anything from 0.001 to 0.3 does about as well
ROWS_PER_COLUMN, FEWEST_ROWS, MOST_ROWS = 32, 2048, 32768  # sampled positions of all data together; with 8 they are fitted too closely


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


def solve(columns: Columns, layer: Layer, weight: np.ndarray, sums: Sums, half: bool) -> Rounded:
    """Integer weights and a bias for one layer; the weights' scales are those of qdq.quantize_weights.

    Args:
        weight: float32.
        sums: of at least one sample.
        half: as for qdq.quantize_weights.
    """
    nearest, scales = quantize_weights(weight, layer.axis, half)
    step = columns.rows(np.broadcast_to(along(scales, layer.axis, weight.ndim), weight.shape))[:, :, :1].astype(np.float64)
    rows = columns.rows(weight).astype(np.float64)
    gram, cross = sums.gram / np.float64(sums.number), sums.cross / np.float64(sums.number)
    mean, quantized_mean = sums.exact / sums.number, sums.quantized / sums.number
    within = gram - quantized_mean[:, :, None] * quantized_mean[:, None, :]
    between = cross - mean[:, :, None] * quantized_mean[:, None, :]
    variance = np.einsum("gkk->gk", within).mean(axis=1)
    if not (variance > 0).all():  # a group that never saw anything but one value
        return Rounded(nearest, None)
    ridge = np.eye(columns.count) * (RIDGE * variance)[:, None, None]
    target = np.linalg.solve(within + ridge, (rows @ (between + ridge)).transpose(0, 2, 1)).transpose(0, 2, 1)
    integers = columns.rows(_reach_the_end(columns.weight(np.clip(np.rint(target / step), -INT8_MAX, INT8_MAX)), weight, layer.axis))
    left = np.einsum("gok,gk->go", rows, mean) - np.einsum("gok,gk->go", integers * step, quantized_mean)
    return Rounded(columns.weight(integers).astype(np.int8), columns.channels(left).astype(np.float32))


def _reach_the_end(integers: np.ndarray, weight: np.ndarray, axis: int | None) -> np.ndarray:
    """The largest weight of each channel is 127 again: who computes the scales anew from these weights gets the same ones."""
    flat, largest = (
        np.moveaxis(array, axis or 0, 0).reshape(array.shape[axis or 0] if axis is not None else 1, -1) for array in (integers, weight)
    )
    flat = flat.copy()
    rows, where = np.arange(len(flat)), np.abs(largest).argmax(axis=1)
    short = np.abs(flat).max(axis=1) < INT8_MAX
    flat[rows[short], where[short]] = np.copysign(INT8_MAX, largest[rows[short], where[short]])
    shape = np.moveaxis(integers, axis or 0, 0).shape
    return np.moveaxis(flat.reshape(shape), 0, axis or 0)
