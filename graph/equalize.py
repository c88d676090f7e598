"""Make the channels of activations fit one INT8 scale: divide, or shift, them and put the inverse into the constants around.

With one scale for a tensor, a channel a hundred times smaller than the largest has one or two levels left. Dividing channel c
by s_c costs nothing at run time: what makes the tensor is divided, what reads it is multiplied. The network computes the
same, with the same nodes and the same tensor names. Which tensors allow it is found by graph/channels.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from graph.channel_rules import TERMS
from graph.channels import Group
from graph.graph import Graph
from graph.nodes import attribute, reads
from graph.qdq import WEIGHTED

LIMIT = 64.0  # scales stay within this factor of their mean: beyond it, weights would leave what FP16 resolves


def equalize(graph: Graph, groups: Sequence[Group], scales: Sequence[np.ndarray]) -> Graph:
    """Divide the channels of each group's tensors.

    Args:
        graph: the one that the groups were found in; not changed.
        groups: from channels.scale_groups.
        scales: for each group a vector [size] of finite values above 0.

    Returns:
        A new graph with equal outputs, equal nodes and tensor names, and other constants.

    Raises:
        ValueError: a vector has another length, or a value that cannot be divided by.
    """
    for vector in scales:
        if not (np.isfinite(vector).all() and (np.asarray(vector) > 0).all()):
            raise ValueError("scales have to be finite and above 0")
    return _Rewriter(graph, groups, scales, 1.0).rewrite(SCALE_WRITERS)


def shift(graph: Graph, groups: Sequence[Group], shifts: Sequence[np.ndarray]) -> Graph:
    """Subtract from the channels of each group's tensors.

    Args:
        graph: the one that the groups were found in; not changed.
        groups: from channels.shift_groups.
        shifts: for each group a vector [size] of finite values.

    Returns:
        A new graph with equal outputs, equal nodes and tensor names, and other constants; a bias is added where one was missing.

    Raises:
        ValueError: a vector has another length, or a value that is not finite.
    """
    if not all(np.isfinite(vector).all() for vector in shifts):
        raise ValueError("shifts have to be finite")
    return _Rewriter(graph, groups, shifts, 0.0).rewrite(SHIFT_WRITERS)


# ---- which scales and shifts


def choose_scales(
    maxima: np.ndarray, weights: np.ndarray | None = None, alpha: float = 0.5, anchor: float = 0.0, limit: float = LIMIT
) -> np.ndarray:
    """s = a**alpha / w**(1 - alpha), between activations that fit one scale (alpha 1) and weights that do (alpha 0).

    Args:
        maxima: [size], the largest |x| of each channel, or a percentile; 0 or not finite for channels without values.
        weights: [size], how much the weights that read the channel weigh (consumer_weights); 0, or None for all, where
            nothing speaks against alpha 1.
        alpha: 0..1 (SmoothQuant's migration strength).
        anchor: the largest |x| among channels of the same tensors that cannot be scaled (Group.anchor); 0 if there are
            none. The scaled channels get that maximum; without an anchor their scales have mean 1.
        limit: scales stay between mean / limit and mean * limit (geometric mean).

    Returns:
        [size], float64, above 0; 1 for channels without values, or times the common factor that an anchor asks for.
    """
    maxima = np.asarray(maxima, np.float64)
    sizes, live = _centred_logs(maxima)
    burdens, weighed = _centred_logs(np.zeros_like(maxima) if weights is None else np.asarray(weights, np.float64))
    logs = np.where(weighed & live, alpha * sizes - (1 - alpha) * burdens, sizes)
    logs[live] -= logs[live].mean() if live.any() else 0.0
    scales = np.exp(np.clip(logs, -np.log(limit), np.log(limit)))
    return scales * (maxima[live] / scales[live]).max() / anchor if anchor > 0 and live.any() else scales


def _centred_logs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log of values above 0 less their mean, 0 elsewhere; and where they are above 0 (and finite)."""
    usable = np.isfinite(values) & (values > 0)
    logs = np.zeros_like(values)
    if usable.any():
        logs[usable] = np.log(values[usable])
        logs[usable] -= logs[usable].mean()
    return logs, usable


def choose_shifts(minima: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """The middle of each channel's range, [size]; 0 for channels without values (not finite)."""
    with np.errstate(invalid="ignore"):  # no values: minimum inf, maximum -inf
        middle = (np.asarray(minima, np.float64) + np.asarray(maxima, np.float64)) / 2
    return np.where(np.isfinite(middle), middle, 0.0)


def consumer_weights(graph: Graph, group: Group) -> np.ndarray:
    """How much the weights that read each entry of the group weigh against their neighbours, [size], 0 where it does not matter.

    Weights have a scale for each output channel, so what counts is |w| relative to the largest |w| of that channel; the
    root mean square over output channels. Depthwise convolutions do not count: their only input channel has the scale to itself.
    """
    found = {}
    for node in graph.nodes:
        if node.op_type in WEIGHTED and node.input[0] in group.places and node.input[1] in graph.weights:
            shares = _input_shares(node, graph.weights[node.input[1]], len(group.places[node.input[0]].slots))
            found[node.input[0]] = np.maximum(found.get(node.input[0], 0.0), shares)
    return np.maximum(group.largest(found), 0.0)


def _input_shares(node: onnx.NodeProto, weight: np.ndarray, count: int) -> np.ndarray:
    """[C]: for each input channel, its weights in units of the largest of each output channel, root mean square."""
    groups = attribute(node, "group", 1)
    if node.op_type == "Conv":
        blocks = np.abs(weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)).max(axis=3)  # [g, M/g, C/g]
    elif node.op_type == "ConvTranspose":
        blocks = np.abs(weight.reshape(groups, count // groups, weight.shape[1], -1)).max(axis=3).transpose(0, 2, 1)
    else:
        matrix = weight if node.op_type == "Gemm" and attribute(node, "transB", 0) else np.swapaxes(weight, -1, -2)
        blocks = np.abs(matrix).reshape(-1, matrix.shape[-1])[None]
    if blocks.shape[2] == 1:
        return np.zeros(count)
    shares = blocks / np.maximum(blocks.max(axis=2, keepdims=True), np.finfo(np.float32).tiny)
    return np.sqrt(np.square(shares, dtype=np.float64).mean(axis=1)).reshape(-1)


# ---- rewriting


class _Rewriter:
    """A copy of a graph, the value of each channel, and how to write constants that others may read, too."""

    def __init__(self, graph: Graph, groups: Sequence[Group], vectors: Sequence[np.ndarray], neutral: float):
        if [np.shape(vector) for vector in vectors] != [(group.size,) for group in groups]:
            raise ValueError(f"sizes {[np.shape(vector) for vector in vectors]} for groups of {[group.size for group in groups]}")
        self.graph = graph.copy()
        self.neutral = neutral
        self.places = {name: place for group in groups for name, place in group.places.items()}
        self.values = {name: group.expand(name, vector, neutral) for group, vector in zip(groups, vectors) for name in group.places}
        self._readings = Counter(name for node in graph.nodes for name in reads(node)) + Counter(graph.output_names)

    def rewrite(self, writers: dict[str, Callable[[_Rewriter, onnx.NodeProto], None]]) -> Graph:
        for node in self.graph.nodes:
            if node.op_type in writers and any(name in self.values for name in (*node.input, *node.output)):
                writers[node.op_type](self, node)
        self.graph.prune()
        return self.graph

    def of(self, name: str, count: int) -> np.ndarray:
        """[count]: the value of each channel of a tensor."""
        return self.values[name] if name in self.values else np.full(count, self.neutral)

    def aligned(self, name: str) -> np.ndarray | float:
        """The same so that it broadcasts against the tensor, [C, 1, ...]; a number where the tensor stays as it is."""
        if name not in self.values:
            return self.neutral
        place = self.places[name]
        return self.values[name].reshape(-1, *[1] * (place.rank - place.axis - 1))

    def constant(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """Input `index` of a node in float64; None where it has none."""
        if len(node.input) <= index or not node.input[index]:
            return None
        return self.graph.weights[node.input[index]].astype(np.float64)

    def put(self, node: onnx.NodeProto, index: int, array: np.ndarray) -> None:
        """Give a node another constant input; other readers of the old one keep it."""
        old = node.input[index] if len(node.input) > index else ""
        node.input.extend([""] * (index + 1 - len(node.input)))
        if old and self._readings[old] == 1:
            node.input[index] = old
        else:
            self._readings[old] -= 1
            node.input[index] = self.graph.unique(f"{old or node.name + '_bias'}_equalized")
        self.graph.weights[node.input[index]] = np.ascontiguousarray(array, np.float32)

    def put_if_there(self, node: onnx.NodeProto, index: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
        old = self.constant(node, index)
        if old is not None:
            self.put(node, index, change(old))


def _column(values: np.ndarray, dims: int) -> np.ndarray:
    return values.reshape(*values.shape, *[1] * dims)


def _scale_conv(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    weight, groups = rewriter.constant(node, 1), attribute(node, "group", 1)  # [M, C / groups, ...]
    outside = rewriter.of(node.output[0], weight.shape[0])
    inside = rewriter.of(node.input[0], weight.shape[1] * groups).reshape(groups, -1).repeat(weight.shape[0] // groups, axis=0)
    rewriter.put(node, 1, weight * _column(inside / outside[:, None], weight.ndim - 2))
    rewriter.put_if_there(node, 2, lambda bias: bias / outside)


def _scale_conv_transpose(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    weight, groups = rewriter.constant(node, 1), attribute(node, "group", 1)  # [C, M / groups, ...]
    inside = rewriter.of(node.input[0], weight.shape[0])
    outside = rewriter.of(node.output[0], weight.shape[1] * groups)
    divisors = outside.reshape(groups, -1).repeat(weight.shape[0] // groups, axis=0)
    rewriter.put(node, 1, weight * _column(inside[:, None] / divisors, weight.ndim - 2))
    rewriter.put_if_there(node, 2, lambda bias: bias / outside)


def _scale_product(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    """Gemm and MatMul: [..., K, N], or [N, K] with transB."""
    weight, transposed = rewriter.constant(node, 1), node.op_type == "Gemm" and attribute(node, "transB", 0)
    inner, outer = weight.shape[-2:][::-1] if transposed else weight.shape[-2:]
    inside, outside = rewriter.of(node.input[0], inner), rewriter.of(node.output[0], outer)
    factors = inside[:, None] / outside
    rewriter.put(node, 1, weight * (factors.T if transposed else factors))
    rewriter.put_if_there(node, 2, lambda bias: bias / outside)


def _scale_norm(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    """Scale, bias and, of a batch normalisation, mean; the variance keeps its epsilon."""
    count = rewriter.constant(node, 1).size
    inside, outside = rewriter.of(node.input[0], count), rewriter.of(node.output[0], count)
    batch = node.op_type == "BatchNormalization"
    rewriter.put_if_there(node, 1, lambda scale: scale * (inside if batch else 1.0) / outside)
    rewriter.put_if_there(node, 2, lambda bias: bias / outside)
    rewriter.put_if_there(node, 3, lambda mean: mean / inside)


def _scale_factor(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    for index, name in enumerate(node.input):
        if name in rewriter.graph.weights:
            ratio = rewriter.aligned(node.input[1 - index]) / rewriter.aligned(node.output[0])
            rewriter.put(node, index, rewriter.constant(node, index) * (ratio if node.op_type == "Mul" else 1 / ratio))


def _scale_terms(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    for index, name in enumerate(node.input):
        if name in rewriter.graph.weights:
            rewriter.put(node, index, rewriter.constant(node, index) / rewriter.aligned(node.output[0]))


def _shift_bias(rewriter: _Rewriter, node: onnx.NodeProto, change: np.ndarray) -> None:
    bias = rewriter.constant(node, 2)
    rewriter.put(node, 2, change if bias is None else bias + change)


def _shift_conv(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    weight, groups = rewriter.constant(node, 1), attribute(node, "group", 1)
    inside = rewriter.of(node.input[0], weight.shape[1] * groups).reshape(groups, -1).repeat(weight.shape[0] // groups, axis=0)
    taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    _shift_bias(rewriter, node, (taps * inside).sum(axis=1) - rewriter.of(node.output[0], weight.shape[0]))


def _shift_conv_transpose(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    count = rewriter.constant(node, 1).shape[1] * attribute(node, "group", 1)
    _shift_bias(rewriter, node, -rewriter.of(node.output[0], count))


def _shift_gemm(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    weight = rewriter.constant(node, 1)
    weight = weight.T if attribute(node, "transB", 0) else weight  # [K, N]
    inside, outside = rewriter.of(node.input[0], weight.shape[0]), rewriter.of(node.output[0], weight.shape[1])
    _shift_bias(rewriter, node, (attribute(node, "alpha", 1.0) * (inside @ weight) - outside) / attribute(node, "beta", 1.0))


def _shift_norm(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    count = rewriter.constant(node, 1).size
    rewriter.put_if_there(node, 2, lambda bias: bias - rewriter.of(node.output[0], count))
    rewriter.put_if_there(node, 3, lambda mean: mean - rewriter.of(node.input[0], count))


def _shift_terms(rewriter: _Rewriter, node: onnx.NodeProto) -> None:
    """x + k, x - k or k - x; of two variables, one carries the shift and nothing is left to do."""
    constant = next((index for index, name in enumerate(node.input) if name in rewriter.graph.weights), None)
    if constant is not None:
        inside, outside = rewriter.aligned(node.input[1 - constant]), rewriter.aligned(node.output[0])
        negative = node.op_type == "Sub"
        change = -inside - outside if negative and constant == 0 else outside - inside if negative else inside - outside
        rewriter.put(node, constant, rewriter.constant(node, constant) + change)


SCALE_WRITERS = {
    **dict.fromkeys(TERMS, _scale_terms),
    **dict.fromkeys(["Gemm", "MatMul"], _scale_product),
    **dict.fromkeys(["BatchNormalization", "InstanceNormalization", "LayerNormalization"], _scale_norm),
    **dict.fromkeys(["Mul", "Div"], _scale_factor),
    "Conv": _scale_conv,
    "ConvTranspose": _scale_conv_transpose,
}
SHIFT_WRITERS = {
    **dict.fromkeys(["BatchNormalization", "InstanceNormalization", "LayerNormalization"], _shift_norm),
    **dict.fromkeys(["Add", "Sub"], _shift_terms),
    "Conv": _shift_conv,
    "ConvTranspose": _shift_conv_transpose,
    "Gemm": _shift_gemm,
}
