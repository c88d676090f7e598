"""INT8 weights that make up for what INT8 does to activations, fitted to the inputs that a layer really sees.

A layer computes y = W x + b. In INT8 it gets x' (rounded and clipped) instead of x. Part of what is lost can be had back from x' itself,
since the columns of x depend on one another: W' and b' are the affine least squares fit

    W', b' = argmin E|W x - W' x' - (b' - b)|^2 + ridge |W - W'|^2

so W' = W (Cov[x, x'] + ridge) (Cov[x', x'] + ridge)^-1, and b' - b = W E[x] - W' E[x'], which is bias correction [1]. Keeping the
layer's own output is the layer-wise reconstruction of AdaRound [2], OBQ [3] and GPTQ [4]; they choose by it how W is rounded, while
here a better W' is sought before anything is rounded.

Where no bias can take the difference of the means, E[x x'^T] stands for the covariances. W' is then rounded with scales of its own:
with those of W its largest weights would be cut, or fall short of 127. Any other W' + D costs D (Cov[x', x'] + ridge) D^T more, and
quant.rounding looks for the integers that cost least: once the channels of activations are equalized, the nearest ones would lose as
much as INT8 activations do. Here x' is the layer's own FP32 input, quantised. Fitting to what comes out of INT8 layers was worse.

[1] Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
[2] Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020
[3] Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022 (OBQ)
[4] Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnx2trt.model.nodes import attribute
from onnx2trt.quant.rounding import settle
from onnx2trt.rewrite.qdq import INT8_MAX, Layer, Rounded, along, quantize_weights

MOST_COLUMNS = 2304  # inputs of one output value; the sums for more (85 MB at 4608) and their solution cost more than they bring
# Of the mean variance of a column. With a constant ridge, layers that see few positions are fitted to these alone and lose up to 8 dB
# on others (PP-OCR cls); where there are thousands of positions, anything from 0.1 to 3 does about as well.
RIDGE, RIDGE_PER_SCARCITY = 0.1, 10.0  # the latter times columns / rows
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

    @property
    def single(self) -> bool:
        """Whether an output value is one product, not a sum of those of several kernel positions (ConvTranspose)."""
        return self._op != "ConvTranspose" or math.prod(self._shape[2:]) == 1

    def channels(self, outputs: np.ndarray) -> np.ndarray:
        """A value for each row [G, O] as the mean value of each output channel: an output value of ConvTranspose is the sum of the
        rows of as many kernel positions as reach it."""
        if self._op == "ConvTranspose":
            strides = attribute(self._node, "strides", [1] * (len(self._shape) - 2))
            return outputs.reshape(self.groups * self._shape[1], -1).sum(axis=1) / math.prod(strides)
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
    """What `solve` needs to know about a layer's inputs; adds up over samples and over parts of the data.

    Products are summed around the means: in float32, nothing would be left of a variance far below the square of its mean.
    """

    def __init__(self, columns: Columns):
        shape = (columns.groups, columns.count)
        self.number = 0
        self.mean, self.quantized_mean = np.zeros(shape), np.zeros(shape)  # of x, of x'
        self.within = np.zeros((*shape, columns.count), np.float32)  # sum of (x' - its mean) (x' - its mean)^T
        self.between = np.zeros((*shape, columns.count), np.float32)  # sum of (x - its mean) (x' - its mean)^T

    def add(self, sample: np.ndarray, scale: float) -> None:
        """
        Args:
            sample: float32 [G, K, n] as Columns.sample gives it.
            scale: of the activation.
        """
        rounded = np.clip(np.rint(sample / np.float32(scale)), -INT8_MAX - 1, INT8_MAX) * np.float32(scale)
        mean, quantized_mean = (values.mean(axis=2, dtype=np.float64) for values in (sample, rounded))
        exact, rounded = (
            (values - middle[:, :, None]).astype(np.float32) for values, middle in ((sample, mean), (rounded, quantized_mean))
        )
        transposed = rounded.transpose(0, 2, 1)
        self._join(sample.shape[2], mean, quantized_mean, rounded @ transposed, exact @ transposed)

    def merge(self, other: Sums) -> None:
        self._join(other.number, other.mean, other.quantized_mean, other.within, other.between)

    def _join(self, number: int, mean: np.ndarray, quantized_mean: np.ndarray, within: np.ndarray, between: np.ndarray) -> None:
        """Around the common means (Chan, Golub and LeVeque, "Updating Formulae", 1979)."""
        if not number:
            return
        share = number / (self.number + number)
        apart, quantized_apart = mean - self.mean, quantized_mean - self.quantized_mean
        root = np.sqrt(self.number * share)
        rows, quantized_rows = ((root * difference).astype(np.float32) for difference in (apart, quantized_apart))
        self.within += within + quantized_rows[:, :, None] * quantized_rows[:, None, :]
        self.between += between + rows[:, :, None] * quantized_rows[:, None, :]
        self.mean += share * apart
        self.quantized_mean += share * quantized_apart
        self.number += number


def rows_wanted(columns: Columns) -> int:
    """Sampled positions, of all data together."""
    return int(np.clip(ROWS_PER_COLUMN * columns.count, FEWEST_ROWS, MOST_ROWS))


def solve(columns: Columns, layer: Layer, weight: np.ndarray, sums: Sums, biased: bool = True) -> Rounded:
    """Integer weights, their scales and a bias for one layer.

    The scales are such that FP16 can hold, whether they will be stored in it or not: so one fit serves both routes.

    Args:
        weight: float32.
        sums: of at least one sample.
        biased: the layer can take a bias (qdq.takes_bias).
    """
    rows = columns.rows(weight).astype(np.float64)
    gram, cross = sums.within / np.float64(sums.number), sums.between / np.float64(sums.number)
    strength = (RIDGE + RIDGE_PER_SCARCITY * columns.count / sums.number) * np.einsum("gkk->gk", gram).mean(axis=1)
    if not (biased and columns.single):  # the means have to be right by the weights alone
        gram += sums.quantized_mean[:, :, None] * sums.quantized_mean[:, None, :]
        cross += sums.mean[:, :, None] * sums.quantized_mean[:, None, :]
    ridge = np.eye(columns.count) * np.where(strength > 0, strength, 1.0)[:, None, None]  # a group that never changes keeps its weights
    target = np.linalg.solve(gram + ridge, (rows @ (cross + ridge)).transpose(0, 2, 1)).transpose(0, 2, 1)
    integers, scales = quantize_weights(columns.weight(target).astype(np.float32), layer.axis, half=True)
    each = columns.rows(np.broadcast_to(along(scales, layer.axis, weight.ndim), weight.shape))
    settled = settle(columns.rows(integers), each, target, gram + ridge)
    integers, fitted = columns.weight(settled).astype(np.int8), (settled * each).astype(np.float64)
    left = np.einsum("gok,gk->go", rows, sums.mean) - np.einsum("gok,gk->go", fitted, sums.quantized_mean)
    return Rounded(integers, scales, columns.channels(left).astype(np.float32) if biased else None)
