"""A layer's product as a matrix of its weights times columns of its inputs, whatever operator it is."""

from __future__ import annotations

import math

import numpy as np
import onnx

from onnx2trt.model.nodes import attribute
from onnx2trt.rewrite.qdq import weight_axis

# Inputs of one output value that are fitted together; time and memory are in proportion to it. With all of up to 2304 together the fit of
# nudenet took 44 s of CPU time, with 256 it takes 11 and comes as near to the model: 35.5 dB instead of 35.2 on samples that were left out.
MOST_COLUMNS = 256


class Columns:
    """A layer's product seen as rows [G, O, K] (groups, outputs, inputs of one output value) times columns [G, K].

    Where an output value has more than MOST_COLUMNS inputs, a group is a block of them, of whole channels, and the output is the sum of
    several rows.
    """

    def __init__(self, node: onnx.NodeProto, weight: np.ndarray):
        """
        Args:
            node: Conv, ConvTranspose, Gemm or MatMul with constant weights; see `supports`.
            weight: float32, as ONNX lays it out for the operator.
        """
        self._node, self._shape, self._op = node, weight.shape, node.op_type
        self._transposed = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
        groups = attribute(node, "group", 1) if node.op_type in ("Conv", "ConvTranspose") else 1
        if self._op == "Conv":
            channels, kernel = weight.shape[1], math.prod(weight.shape[2:])
        else:
            channels, kernel = weight.shape[1 if self._transposed else 0] // groups, 1
        least = -(-channels * kernel // MOST_COLUMNS)
        self._blocks = next((number for number in range(least, channels) if channels % number == 0), channels) or 1
        self.groups, self.count = groups * self._blocks, channels * kernel // self._blocks

    @property
    def reading(self) -> tuple:
        """Equal for layers that read the same columns of one tensor."""
        if self._op != "Conv":
            return ("positions", self.groups, self.count)
        attributes = (attribute(self._node, name, ()) for name in ("strides", "dilations", "pads", "auto_pad"))
        return (self.groups, self._shape[1:], *(value if isinstance(value, bytes) else tuple(value) for value in attributes))

    def rows(self, weight: np.ndarray) -> np.ndarray:
        """Weights (or anything of their shape) as [G, O, K]."""
        if self._op == "Conv" or self._transposed:
            outputs = weight.reshape(self.groups // self._blocks, -1, self._blocks, self.count)
            return outputs.transpose(0, 2, 1, 3).reshape(self.groups, -1, self.count)
        # each output value of ConvTranspose is a product with one kernel position at a time
        return weight.reshape(self.groups, self.count, -1).transpose(0, 2, 1)

    def weight(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `rows`."""
        if self._op == "Conv" or self._transposed:
            blocks = rows.reshape(self.groups // self._blocks, self._blocks, -1, self.count)
            return blocks.transpose(0, 2, 1, 3).reshape(self._shape)
        return rows.transpose(0, 2, 1).reshape(self._shape)

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
        outputs = self.summed(outputs)
        if self._op == "ConvTranspose":
            strides = attribute(self._node, "strides", [1] * (len(self._shape) - 2))
            return outputs.reshape(len(outputs) * self._shape[1], -1).sum(axis=1) / math.prod(strides)
        return outputs.reshape(-1)

    def summed(self, outputs: np.ndarray) -> np.ndarray:
        """Over the blocks of columns, of values for each row [..., G, O]."""
        return outputs.reshape(*outputs.shape[:-2], -1, self._blocks, outputs.shape[-1]).sum(axis=-2)

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
    """Whether Columns describes this layer: anything but batched or transposed products and unusually large kernels."""
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
