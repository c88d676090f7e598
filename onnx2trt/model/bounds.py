"""Between which values the tensors of a graph lie whatever it is fed with: interval arithmetic by what the operators and constants say.

In a type of 16 bits the ends of the intervals are rounded like the values themselves: where they become others, it loses constants that
matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import FP16, HalfType
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import EXACT

Interval = tuple[float, float]  # smallest and largest value
UNKNOWN: Interval = (-math.inf, math.inf)
BOOLEAN: Interval = (0.0, 1.0)
FLOAT = onnx.TensorProto.FLOAT
FLOATS = (FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
SMALL_SUMMAND = 1e-2  # up to here a constant that is added is taken for one that keeps the sum off zero


def bounds(graph: Graph, types: dict[str, int], in_fp32: Collection[str] | None = None, half_type: HalfType = FP16) -> dict[str, Interval]:
    """Tensor -> interval, for those of which something is known.

    A small constant that is added (`x + epsilon`), or chosen where something holds (`where(x == 0, epsilon, x)`), says that its author
    takes the other values for at least zero (at most zero, where it is negative), and so they are taken here.

    Args:
        types: of all tensors, as of graph.types().
        in_fp32: the nodes that compute in FP32, all others in `half_type`; None: all compute in FP32.
    """
    found = {name: _of_constant(array) for name, array in graph.weights.items()}
    for node in graph.nodes:
        half = None if in_fp32 is None or node.name in in_fp32 else half_type
        rule = RULES.get(node.op_type)
        operands = [read(found, types, name, half) for name in node.input]
        interval = rule(node, operands) if rule else UNKNOWN
        for name in node.output if node.op_type == "Split" else node.output[:1]:
            made = in_half(interval, half) if half and types.get(name) == FLOAT else interval
            if made != UNKNOWN and made[0] <= made[1]:
                found[name] = made
    return found


def read(found: dict[str, Interval], types: dict[str, int], name: str, half: HalfType | None) -> Interval:
    """The interval of a tensor as a node finds it that computes in `half`, or in FP32 (None)."""
    interval = found.get(name, UNKNOWN)
    return in_half(interval, half) if half and types.get(name) == FLOAT else interval


def in_half(interval: Interval, half: HalfType = FP16) -> Interval:
    """With both ends rounded."""
    low, high = half.of(np.array(interval))
    return float(low), float(high)


def _of_constant(array: np.ndarray) -> Interval:
    if array.dtype.kind not in "fiub" or not array.size:
        return UNKNOWN
    low, high = float(array.min()), float(array.max())
    return UNKNOWN if math.isnan(low) or math.isnan(high) else (low, high)


# ---- operators


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _product(a: Interval, b: Interval) -> Interval:
    ends = [_times(x, y) for x in a for y in b]
    return min(ends), max(ends)


def _square(a: Interval) -> Interval:
    low, high = _absolute(a)
    return low * low, high * high


def _absolute(a: Interval) -> Interval:
    low, high = sorted((abs(a[0]), abs(a[1])))
    return (0.0, high) if a[0] <= 0 <= a[1] else (low, high)


def _inverse(a: Interval) -> Interval:
    if a[0] > 0 or a[1] < 0:
        return 1 / a[1], 1 / a[0]
    return (1 / a[1] if a[1] else math.inf, math.inf) if a[0] == 0 else UNKNOWN


def _union(intervals: list[Interval]) -> Interval:
    return (min(low for low, _ in intervals), max(high for _, high in intervals)) if intervals else UNKNOWN


def _beside(guard: Interval, other: Interval) -> Interval:
    """`other`, by what its author thinks of it who puts a small constant beside it."""
    if guard[0] > 0 and guard[1] <= SMALL_SUMMAND:
        return max(other[0], 0.0), max(other[1], 0.0)
    if guard[0] >= -SMALL_SUMMAND and guard[1] < 0:
        return min(other[0], 0.0), min(other[1], 0.0)
    if guard[0] == 0 < guard[1] <= SMALL_SUMMAND and other[0] <= 0 <= other[1]:  # epsilon times a mask: there where the other is zero
        return guard[1], math.inf
    return other


def _add(a: Interval, b: Interval) -> Interval:
    a, b = _beside(b, a), _beside(a, b)
    return a[0] + b[0], a[1] + b[1]


def _sum(_, operands: list[Interval]) -> Interval:
    total = operands[0]
    for operand in operands[1:]:
        total = _add(total, operand)
    return total


def _mul(node: onnx.NodeProto, operands: list[Interval]) -> Interval:
    return _square(operands[0]) if node.input[0] == node.input[1] else _product(*operands)


def _pow(_, operands: list[Interval]) -> Interval:
    base, (low, high) = operands
    if low == high and low == int(low if math.isfinite(low) else 0.5) and low % 2 == 0 and low > 0:
        base = _absolute(base)
    if base[0] < 0 or low != high:
        return (0.0, math.inf) if base[0] >= 0 else UNKNOWN
    ends = [_power(value, low) for value in base]
    return min(ends), max(ends)


def _power(base: float, exponent: float) -> float:
    try:
        return base**exponent
    except ZeroDivisionError:
        return math.inf
    except OverflowError:
        return math.inf


def _clip(node: onnx.NodeProto, operands: list[Interval]) -> Interval:
    low, high = attribute(node, "min", -math.inf), attribute(node, "max", math.inf)
    if len(operands) > 1 and node.input[1]:
        low = operands[1][0]
    if len(operands) > 2 and node.input[2]:
        high = operands[2][1]
    data = operands[0]
    return min(max(data[0], low), high), min(max(data[1], low), high)


def _where(_, operands: list[Interval]) -> Interval:
    a, b = operands[1], operands[2]
    for guard, other in ((a, b), (b, a)):
        if guard[0] > 0 and guard[1] <= SMALL_SUMMAND:
            return guard[0], max(guard[1], other[1])
        if guard[0] >= -SMALL_SUMMAND and guard[1] < 0:
            return min(guard[0], other[0]), guard[1]
    return _union([a, b])


def _reduced_sum(a: Interval) -> Interval:
    """Of one value or more."""
    return a[0] if a[0] >= 0 else -math.inf, a[1] if a[1] <= 0 else math.inf


def _root(a: Interval) -> Interval:
    return math.sqrt(max(a[0], 0.0)), math.sqrt(max(a[1], 0.0))


def _with_padding(node: onnx.NodeProto, operands: list[Interval]) -> Interval:
    padded = any(attribute(node, "pads", ())) or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET" or attribute(node, "ceil_mode", 0)
    return _union([operands[0], (0.0, 0.0)]) if padded else operands[0]


def _padded(node: onnx.NodeProto, operands: list[Interval]) -> Interval:
    if attribute(node, "mode", b"constant") != b"constant":
        return operands[0]
    value = operands[2] if len(operands) > 2 and node.input[2] else (attribute(node, "value", 0.0),) * 2
    return _union([operands[0], value])


def _resized(node: onnx.NodeProto, operands: list[Interval]) -> Interval:
    cubic = attribute(node, "mode", b"nearest") == b"cubic"
    return UNKNOWN if cubic or attribute(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize" else operands[0]


def _filled(node: onnx.NodeProto, _) -> Interval:
    value = attribute(node, "value")
    return (0.0, 0.0) if value is None else _of_constant(onnx.numpy_helper.to_array(value))


def _matmul(_, operands: list[Interval]) -> Interval:
    return (0.0, math.inf) if operands[0][0] >= 0 and operands[1][0] >= 0 else UNKNOWN


def _increasing(function: Callable[[float], float], low: float = -math.inf, high: float = math.inf) -> Callable:
    """Of a function that never decreases, with its limits at both infinities, and 'inf' where it overflows."""

    def at(value: float) -> float:
        if math.isinf(value):
            return low if value < 0 else high
        try:
            return function(value)
        except OverflowError:
            return high

    return lambda _, operands: (at(operands[0][0]), at(operands[0][1]))


def _logarithm(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


def _cast(node: onnx.NodeProto, operands: list[Interval]) -> Interval:
    to = attribute(node, "to")
    if to == onnx.TensorProto.BOOL:
        return BOOLEAN
    return operands[0] if to in FLOATS else UNKNOWN


def _first(_, operands: list[Interval]) -> Interval:
    return operands[0]


Rule = Callable[[onnx.NodeProto, list[Interval]], Interval]
LOGICAL = "And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor"
RULES: dict[str, Rule] = {
    **dict.fromkeys(EXACT | {"Compress", "GlobalAveragePool", "ReduceMean", "TopK", "Upsample"}, _first),
    **dict.fromkeys(LOGICAL.split(), lambda *_: BOOLEAN),
    "Abs": lambda _, x: _absolute(x[0]),
    "Add": _sum,
    "AveragePool": _with_padding,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda _, x: _union(x),
    "ConstantOfShape": _filled,
    "Div": lambda _, x: _product(x[0], _inverse(x[1])) if _inverse(x[1]) != UNKNOWN else UNKNOWN,
    "Erf": _increasing(math.erf, -1.0, 1.0),
    "Exp": _increasing(math.exp, 0.0),
    "HardSigmoid": lambda *_: (0.0, 1.0),
    "Log": _increasing(_logarithm),
    "MatMul": _matmul,
    "Max": lambda _, x: (max(low for low, _ in x), max(high for _, high in x)),
    "Mean": lambda _, x: (sum(low for low, _ in x) / len(x), sum(high for _, high in x) / len(x)),
    "Min": lambda _, x: (min(low for low, _ in x), min(high for _, high in x)),
    "Mul": _mul,
    "Neg": lambda _, x: (-x[0][1], -x[0][0]),
    "Pad": _padded,
    "Pow": _pow,
    "Reciprocal": lambda _, x: _inverse(x[0]),
    "ReduceL1": lambda _, x: _reduced_sum(_absolute(x[0])),
    "ReduceL2": lambda _, x: _root(_reduced_sum(_square(x[0]))),
    "ReduceLogSumExp": lambda _, x: (x[0][0], math.inf),
    "ReduceSum": lambda _, x: _reduced_sum(x[0]),
    "ReduceSumSquare": lambda _, x: _reduced_sum(_square(x[0])),
    "Relu": _increasing(lambda value: max(value, 0.0), 0.0),
    "Resize": _resized,
    "Sigmoid": _increasing(_sigmoid, 0.0, 1.0),
    "Softmax": lambda *_: (0.0, 1.0),
    "Softplus": _increasing(lambda value: math.log1p(math.exp(value)), 0.0),
    "Sqrt": lambda _, x: _root(x[0]),
    "Sub": lambda _, x: _add(x[0], (-x[1][1], -x[1][0])),
    "Sum": _sum,
    "Tanh": _increasing(math.tanh, -1.0, 1.0),
    "Where": _where,
}
