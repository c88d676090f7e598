"""Which nodes stay in FP32 for what is near zero: constants that keep denominators and logarithms off it, and sums of squares.

FP16 has no value between 0 and 6e-8, and few up to 6.1e-5. The 1e-12 of `x / max(norm, 1e-12)`, which keeps the quotient finite where x is
zero, becomes zero itself there, and the quotient NaN. So it stays in FP32 together with what reads it, up to where values are ordinary
again. BF16 has the range of FP32, but fewer digits: 1 - 1e-3 is 1, and the difference of two squares may become negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx

from onnx2trt.model.bounds import FLOAT, UNKNOWN, Interval, bounds, read
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import FP16, HalfType
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import EXACT, WIDE

FP16_MAX = FP16.largest
LARGEST_LOSS = 0.01  # accepted relative error of what is near a pole
# operator -> (operand, where there is no result); Pow has one only with a negative exponent
POLES = {
    "Div": (1, (0.0,)),
    "Mod": (1, (0.0,)),
    "Log": (0, (0.0,)),
    "Reciprocal": (0, (0.0,)),
    "Pow": (0, (0.0,)),
    "Atanh": (0, (-1.0, 1.0)),
}
WITH_EPSILON = {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"}
# These say themselves in what type mean and variance are computed (`stash_type`, FP32 unless it says otherwise), and so does TensorRT: in
# the plan of an FP16 engine of TensorRT-RTX 1.7, and in the kernels of TensorRT 10.6, casts stand around them and the epsilon.
WITH_STASH_TYPE = {"LayerNormalization", "RMSNormalization"}
DEFAULT_EPSILON = 1e-5  # of all of them, and of BatchNormalization
REDUCTIONS = {"ReduceMean", "ReduceSum", "GlobalAveragePool", "AveragePool"}
ARITHMETIC = {"Add", "Sub", "Sum", "Mean", "Max", "Min", "Mul", "Div", "Sqrt", "Pow", "Where", "Cast"}
OF_SQUARES = EXACT | REDUCTIONS | ARITHMETIC  # what is between squares and the root or the quotient


def beyond(half: HalfType) -> str:
    """How the reason of what is too large for a type ends."""
    return f"above {half.label}'s largest ({half.largest:.6g})"


def kept_near_zero(graph: Graph, types: dict[str, int], half: HalfType = FP16) -> dict[str, str]:
    """Node -> reason, in execution order.

    Args:
        graph: FP32.
        types: of all its tensors.
        half: the type that it is lowered to.
    """
    exact = bounds(graph, types)
    squares = _Squares(graph, types, exact).on_the_way(differences_alone=half.wide)
    found = {**_by_operator(graph, half), **dict.fromkeys(squares, "part of a normalisation written out in single operators")}
    found = _Guards(graph, types, exact, found, half).kept
    return {node.name: found[node.name] for node in graph.nodes if node.name in found}


def _by_operator(graph: Graph, half: HalfType) -> dict[str, str]:
    """Normalisations that are one operator, and what has squares or exponentials inside."""
    found = {}
    for node in graph.nodes:
        epsilon = attribute(node, "epsilon", DEFAULT_EPSILON)
        if node.op_type in WIDE and not half.wide:
            found[node.name] = f"squares or exponentials inside, which need more range than {half.label} has"
        elif node.op_type in WITH_EPSILON and not _in_fp32(node) and epsilon > 0 and half.of(np.array(epsilon)) == 0:
            found[node.name] = f"its epsilon of {epsilon:.2g} is zero in {half.label}"
        elif node.op_type == "BatchNormalization" and _loses_factors(node, graph.weights, half):
            found[node.name] = f"a channel's scale / sqrt(variance + epsilon) does not survive {half.label}"
    return found


def _in_fp32(node: onnx.NodeProto) -> bool:
    return node.op_type in WITH_STASH_TYPE and attribute(node, "stash_type", FLOAT) == FLOAT


def _loses_factors(node: onnx.NodeProto, weights: dict[str, np.ndarray], half: HalfType) -> bool:
    """Whether the factor of any channel is another where scale and variance are rounded first."""
    scale, variance = weights.get(node.input[1]), weights.get(node.input[4])
    if scale is None or variance is None or {scale.dtype, variance.dtype} != {np.dtype(np.float32)}:
        return False
    epsilon = attribute(node, "epsilon", DEFAULT_EPSILON)
    with np.errstate(all="ignore"):
        exact = np.abs(scale / np.sqrt(variance.astype(np.float64) + epsilon))
        rounded = np.abs(half.of(scale).astype(np.float64) / np.sqrt(half.of(variance).astype(np.float64) + epsilon))
    exact, rounded = exact[np.isfinite(exact)], rounded[np.isfinite(exact)]
    negligible = LARGEST_LOSS * exact.max(initial=0)  # beside the other channels
    return bool(np.any(np.abs(rounded - exact) > LARGEST_LOSS * np.maximum(exact, negligible)) or np.any(exact > half.largest))


class _Squares:
    """Squares and sums of them on their way to a root, a denominator or a logarithm.

    They need more range than FP16 has for values that look harmless: of 300 the square is infinite there, of 2e-4 it is zero. A variance
    as the difference of two of them, E[x^2] - E[x]^2, is lost in their rounding, and may become negative.
    """

    def __init__(self, graph: Graph, types: dict[str, int], exact: dict[str, Interval]):
        self._graph, self._types, self._exact = graph, types, exact
        self._producers, self._consumers = graph.producers(), graph.consumers()
        self._made: set[str] = set()  # tensors that are made of squares and constants alone
        self._differences: set[str] = set()  # nodes that subtract such a tensor from another

    def on_the_way(self, differences_alone: bool = False) -> set[str]:
        """Names of the nodes.

        Args:
            differences_alone: only where squares are subtracted from each other, for a type with the range that they need.
        """
        ends = []
        for node in self._graph.nodes:
            if self._types.get(node.output[0]) != FLOAT:
                continue
            end = self._ends(node)
            if end:
                ends.append(node)
            if self._is_square(node) or node.op_type == "ReduceL2" or not (end and node.op_type in POLES) and self._goes_on(node):
                self._made.add(node.output[0])
                if node.op_type == "Sub" and not any(map(self._is_constant, node.input)):
                    self._differences.add(node.name)
        found: set[str] = set()
        for node in ends:
            on_its_way: set[str] = set()
            self._upwards(node, on_its_way)
            self._downwards(node, on_its_way)
            if not differences_alone or not self._differences.isdisjoint(on_its_way):
                found |= on_its_way
        return found

    def _is_square(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Mul":
            return node.input[0] == node.input[1]
        return node.op_type == "ReduceSumSquare" or node.op_type == "Pow" and self._exact.get(node.input[1]) == (2.0, 2.0)

    def _goes_on(self, node: onnx.NodeProto) -> bool:
        operands = [name for name in node.input if self._types.get(name) == FLOAT and not self._is_constant(name)]
        return node.op_type in OF_SQUARES and bool(operands) and self._made.issuperset(operands)

    def _is_constant(self, name: str) -> bool:
        low, high = self._exact.get(name, UNKNOWN)
        return name in self._graph.weights or low == high

    def _ends(self, node: onnx.NodeProto) -> bool:
        pole = _pole(node, self._exact)
        if pole is not None:
            return node.input[pole[0]] in self._made
        return self._goes_on(node) and (node.op_type == "Sqrt" or node.op_type == "Pow" and self._exact[node.input[1]][1] < 1)

    def _upwards(self, node: onnx.NodeProto, found: set[str]) -> None:
        """The node, what of its operands is made of squares, and a mean that is squared (as that of E[x]^2)."""
        todo = [node]
        while todo:
            node = todo.pop()
            if node.name in found:
                continue
            found.add(node.name)
            pole = _pole(node, self._exact)
            for name in [node.input[pole[0]]] if pole else node.input:
                above = self._producers.get(name)
                if above is not None and (name in self._made or self._is_square(node) and above.op_type in REDUCTIONS):
                    todo.append(above)

    def _downwards(self, node: onnx.NodeProto, found: set[str]) -> None:
        """What multiplies by the inverse of a norm."""
        todo = [node] if node.op_type in ("Reciprocal", "Pow") and _pole(node, self._exact) else []
        while todo:
            for reader in self._consumers.get(todo.pop().output[0], ()):
                if reader.op_type == "Mul" or reader.op_type in EXACT:
                    found.add(reader.name)
                    todo += [reader] if reader.op_type in EXACT else []


class _Guards:
    """Constants that keep something off a pole: off zero a denominator or what a logarithm is taken of.

    The distance from the pole follows from the intervals in which tensors lie (model/bounds.py). Where it is another in 16 bits, nodes are
    kept in FP32, from the pole upwards, until it is not.
    """

    def __init__(self, graph: Graph, types: dict[str, int], exact: dict[str, Interval], kept: dict[str, str], half: HalfType):
        """
        Args:
            exact: intervals in FP32.
            kept: nodes that stay in FP32 anyway -> reason.
            half: the type of all others.

        Attributes:
            kept: with those that were found here.
        """
        self._graph, self._types, self._exact, self._half_type = graph, types, exact, half
        self._producers, self._consumers = graph.producers(), graph.consumers()
        self._near = [(node, *near) for node in graph.nodes for near in self._near_poles(node)]
        self.kept = dict(kept)
        while self._near:
            before = len(self.kept)
            self._half = bounds(graph, types, self.kept, half)
            for near in self._near:
                self._keep_distance(*near)
            if len(self.kept) == before:
                break
        for node, *_ in self._near:
            self._keep_inverse(node)

    def _near_poles(self, node: onnx.NodeProto) -> Iterator[tuple[str, float, bool]]:
        """(operand, pole, whether the operand is above it), where that is certain."""
        index, poles = _pole(node, self._exact) or (0, ())
        for pole in poles:
            name = node.input[index]
            low, high = self._exact.get(name, UNKNOWN)
            if self._types.get(name) == FLOAT and (low > pole or high < pole):
                yield name, pole, low > pole

    def _keep_distance(self, node: onnx.NodeProto, name: str, pole: float, above: bool) -> None:
        end = 0 if above else 1
        exact = self._exact[name][end] - pole
        found = read(self._half, self._types, name, None if node.name in self.kept else self._half_type)[end] - pole
        if abs(found - exact) <= LARGEST_LOSS * abs(exact) or math.isinf(exact):
            return
        reason = f"{name} is kept {abs(exact):.2g} off {pole:g}, which {self._half_type.label} does not hold"
        if node.name not in self.kept:
            self.kept[node.name] = reason
            return
        todo, seen = [name], {name}
        while todo:
            name = todo.pop()
            producer = self._producers.get(name)
            if producer is None:
                continue
            if producer.name not in self.kept:
                self.kept[producer.name] = reason
                continue
            changed = [above for above in producer.input if self._half.get(above, UNKNOWN) != self._exact.get(above, UNKNOWN)]
            todo += [above for above in changed if above not in seen]
            seen.update(changed)

    def _keep_inverse(self, node: onnx.NodeProto) -> None:
        """A constant divided by something that small is more than 16 bits hold: then it, and what reads it, stay in FP32."""
        if node.op_type == "Div" and len(set(self._exact.get(node.input[0], UNKNOWN))) > 1:
            return
        todo = [node]
        while todo:
            node = todo.pop()
            ends = self._exact.get(node.output[0], UNKNOWN)
            if not any(self._half_type.largest < abs(end) < math.inf for end in ends):
                continue
            reason = f"{node.output[0]} may reach {max(map(abs, ends)):.2g}, {beyond(self._half_type)}"
            for reader in (node, *self._consumers.get(node.output[0], ())):
                if reader.name not in self.kept:
                    self.kept[reader.name] = reason
                    todo.append(reader)


def _pole(node: onnx.NodeProto, exact: dict[str, Interval]) -> tuple[int, tuple[float, ...]] | None:
    """(operand, where there is no result) of a node; None where it has one everywhere."""
    if node.op_type == "Pow" and not exact.get(node.input[1], UNKNOWN)[1] < 0:
        return None
    return POLES.get(node.op_type)
