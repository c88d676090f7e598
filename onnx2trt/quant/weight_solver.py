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
from collections.abc import Sequence

import numpy as np
import onnx

from onnx2trt.model.nodes import attribute
from onnx2trt.quant.rounding import settle
from onnx2trt.rewrite.qdq import INT8_MAX, Rounded, along, quantize_weights, weight_axis

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
    def axis(self) -> int | None:
        """Of the output channels in the weights, as of qdq.weight_axis."""
        return weight_axis(self._node, len(self._shape))

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
    """What `solve` needs to know about the inputs of the layers that read one weight; adds up over samples and over parts of the data.

    Inputs are counted in units of their INT8 scale, so that x' are integers, and layers weigh by what INT8 resolves of their inputs.
    Products are summed around the means, of each layer by itself: in float32, nothing would be left of a variance far below the square of
    its mean.
    """

    def __init__(self, columns: Columns, layers: int = 1):
        shape = (columns.groups, columns.count)
        self.numbers = np.zeros(layers)
        self.mean, self.quantized_mean = np.zeros((layers, *shape)), np.zeros((layers, *shape))  # of x, of x'
        self.within = np.zeros((*shape, columns.count), np.float32)  # sum of (x' - its mean) (x' - its mean)^T
        self.between = np.zeros((*shape, columns.count), np.float32)  # sum of (x - its mean) (x' - its mean)^T

    @property
    def number(self) -> float:
        return float(self.numbers.sum())

    def add(self, sample: np.ndarray, scale: float, layer: int = 0) -> None:
        """
        Args:
            sample: float32 [G, K, n] as Columns.sample gives it.
            scale: of the activation.
            layer: which of the layers reads it.
        """
        exact = sample / np.float32(scale)
        rounded = np.clip(np.rint(exact), -INT8_MAX - 1, INT8_MAX)
        mean, quantized_mean = (values.mean(axis=2, dtype=np.float64) for values in (exact, rounded))
        exact, rounded = ((values - middle[:, :, None]).astype(np.float32) for values, middle in ((exact, mean), (rounded, quantized_mean)))
        transposed = rounded.transpose(0, 2, 1)
        self.within += rounded @ transposed
        self.between += exact @ transposed
        self._join(layer, sample.shape[2], mean, quantized_mean)

    def merge(self, other: Sums) -> None:
        self.within += other.within
        self.between += other.between
        for layer, number in enumerate(other.numbers):
            self._join(layer, number, other.mean[layer], other.quantized_mean[layer])

    def _join(self, layer: int, number: float, mean: np.ndarray, quantized_mean: np.ndarray) -> None:
        """Around the common means (Chan, Golub and LeVeque, "Updating Formulae", 1979)."""
        if not number:
            return
        share = number / (self.numbers[layer] + number)
        apart, quantized_apart = mean - self.mean[layer], quantized_mean - self.quantized_mean[layer]
        root = np.sqrt(self.numbers[layer] * share)
        rows, quantized_rows = ((root * difference).astype(np.float32) for difference in (apart, quantized_apart))
        self.within += quantized_rows[:, :, None] * quantized_rows[:, None, :]
        self.between += rows[:, :, None] * quantized_rows[:, None, :]
        self.mean[layer] += share * apart
        self.quantized_mean[layer] += share * quantized_apart
        self.numbers[layer] += number

    def products(self, means: bool) -> tuple[np.ndarray, np.ndarray]:
        """(Cov[x', x'], Cov[x, x']), [G, K, K]; with `means` E[x' x'^T] and E[x x'^T] instead."""
        gram, cross = self.within / np.float64(self.number), self.between / np.float64(self.number)
        if means:
            shares = self.numbers / self.number
            gram += np.einsum("l,lgk,lgj->gkj", shares, self.quantized_mean, self.quantized_mean)
            cross += np.einsum("l,lgk,lgj->gkj", shares, self.mean, self.quantized_mean)
        return gram, cross


def rows_wanted(columns: Columns) -> int:
    """Sampled positions, of all data together."""
    return int(np.clip(ROWS_PER_COLUMN * columns.count, FEWEST_ROWS, MOST_ROWS))


def solve(columns: Columns, weight: np.ndarray, sums: Sums, units: Sequence[float], biased: bool = True) -> list[Rounded]:
    """Integer weights, their scales and a bias for each of the layers that read one weight; they differ in the bias alone.

    The scales are such that FP16 can hold, whether they will be stored in it or not: so one fit serves both routes.

    Args:
        weight: float32.
        sums: of at least one sample.
        units: the INT8 scale of each layer's inputs.
        biased: the layers can take a bias (qdq.takes_bias).
    """
    rows = columns.rows(weight).astype(np.float64)
    gram, cross = sums.products(means=not (biased and columns.single))  # without a bias, the weights alone have to get the means right
    spread = np.einsum("gkk->gk", sums.within).mean(axis=1) / np.float64(sums.number)
    strength = (RIDGE + RIDGE_PER_SCARCITY * columns.count / sums.number) * spread
    ridge = np.eye(columns.count) * np.where(strength > 0, strength, 1.0)[:, None, None]  # a group that never changes keeps its weights
    target = np.linalg.solve(gram + ridge, (rows @ (cross + ridge)).transpose(0, 2, 1)).transpose(0, 2, 1)
    integers, scales = quantize_weights(columns.weight(target).astype(np.float32), columns.axis, half=True)
    each = columns.rows(np.broadcast_to(along(scales, columns.axis, weight.ndim), weight.shape))
    settled = settle(columns.rows(integers), each, target, gram + ridge)
    integers, fitted = columns.weight(settled).astype(np.int8), (settled * each).astype(np.float64)
    left = np.einsum("gok,lgk->lgo", rows, sums.mean) - np.einsum("gok,lgk->lgo", fitted, sums.quantized_mean)
    biases = [columns.channels(own * unit).astype(np.float32) if biased else None for own, unit in zip(left, units)]
    return [Rounded(integers, scales, bias) for bias in biases]


def lost(columns: Columns, weight: np.ndarray, sums: Sums, units: Sequence[float], rounded: Sequence[Rounded]) -> float:
    """The squared error that INT8 weights make of these inputs, summed over the outputs of all layers that read one weight.

    It is that of W' x' + b' against W x, without the energy of W x itself, which no weights change. What weights were not fitted to tells
    whether they are better than others.

    Args:
        weight: W, float32.
        units: the INT8 scale of each layer's inputs.
        rounded: W' and b' of each layer.
    """
    exact, own = columns.rows(weight).astype(np.float64), rounded[0]
    found = columns.rows(own.weights * along(own.scales, columns.axis, weight.ndim)).astype(np.float64)
    around = np.einsum("gok,gkj,goj->", found, sums.within, found) - 2 * np.einsum("gok,gkj,goj->", exact, sums.between, found)
    apart = np.einsum("gok,lgk->lgo", found, sums.quantized_mean) - np.einsum("gok,lgk->lgo", exact, sums.mean)
    if columns.single:  # of others, a row is a part of an output value, and has no bias of its own
        apart += [
            np.zeros(apart.shape[1:]) if one.bias is None else one.bias.reshape(apart.shape[1:]) / unit for one, unit in zip(rounded, units)
        ]
    return float(around + (sums.numbers[:, None, None] * np.square(apart)).sum())
