"""Make the channels of activations fit one INT8 scale: divide, or shift, them and put the inverse into the constants around.

With one scale for a tensor, a channel a hundred times smaller than the largest has one or two levels left. Dividing channel c
by s_c costs nothing at run time: what makes the tensor is divided, what reads it is multiplied. The network computes the
same, with the same nodes and the same tensor names. Which tensors allow it is found by quant/equalize/groups.py.

The equivalence is that of cross-layer equalization (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019), with a shift beside the scale (Wei et al., "Outlier Suppression+", EMNLP 2023). By how much is chosen in
quant/equalize/choice.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, reads
from onnx2trt.model.operators import TERMS
from onnx2trt.quant.equalize.relations import Group


def equalize(graph: Graph, groups: Sequence[Group], scales: Sequence[np.ndarray]) -> Graph:
    """Divide the channels of each group's tensors.

    Args:
        graph: the one that the groups were found in; not changed.
        groups: from groups.scale_groups.
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
        groups: from groups.shift_groups.
        shifts: for each group a vector [size] of finite values.

    Returns:
        A new graph with equal outputs, equal nodes and tensor names, and other constants; a bias is added where one was missing.

    Raises:
        ValueError: a vector has another length, or a value that is not finite.
    """
    if not all(np.isfinite(vector).all() for vector in shifts):
        raise ValueError("shifts have to be finite")
    return _Rewriter(graph, groups, shifts, 0.0).rewrite(SHIFT_WRITERS)


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
        self._copies: dict[str, list[str]] = {}  # constant -> itself and what its readers got instead
        self._unchanged: set[str] = set()  # constants that a reader keeps, although it may change them

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
        """Give a node another constant input; other readers of the old one keep it, and those that get the same values share them."""
        old = node.input[index] if len(node.input) > index else ""
        node.input.extend([""] * (index + 1 - len(node.input)))
        array, weights = np.ascontiguousarray(array, np.float32), self.graph.weights
        copies = self._copies.setdefault(old, [old]) if old else []
        same = next((name for name in copies if np.array_equal(weights[name], array)), None)
        if same == old and old:
            self._unchanged.add(old)
            return
        last = bool(old) and self._readings[old] == 1 and old not in self._unchanged
        self._readings[old] -= 1
        if same is None:
            same = old if last else self.graph.unique(f"{old or node.name + '_bias'}_equalized")
            weights[same] = array
            copies.append(same)
        node.input[index] = same

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
    weight = rewriter.constant(node, 1)  # [C, M, ...]; with groups, nothing around it is scaled (rules.py)
    inside, outside = rewriter.of(node.input[0], weight.shape[0]), rewriter.of(node.output[0], weight.shape[1])
    rewriter.put(node, 1, weight * _column(inside[:, None] / outside, weight.ndim - 2))
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
