"""Which nodes stay in FP32: by the ranges of the data, by their weights, by layer precision overrides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase

import numpy as np
import onnx

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.model.bodies import inner_graphs, is_plain
from onnx2trt.model.graph import Graph
from onnx2trt.model.half_types import FP16, HalfType
from onnx2trt.model.nodes import is_bounded, reads, standard_schema, subgraphs
from onnx2trt.rewrite.near_zero import FP16_MAX, beyond, kept_near_zero

FLOAT = onnx.TensorProto.FLOAT
KEPT_FP32_ABOVE = FP16_MAX / 2  # a factor of two for data that was not measured
WEIGHT_ERROR = 0.01  # largest accepted ||w16 - w|| / ||w||
PROPORTIONAL = frozenset(("Mul", "Identity", "Neg", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Slice"))
RECURRENT, SEQUENCE_LENS = frozenset(("LSTM", "GRU", "RNN")), 4  # the input that gives the lengths
PART = 2**18  # weights looked at together


def choose_kept_fp32(
    graph: Graph,
    maxima: dict[str, float],
    overrides: tuple[tuple[str, str], ...],
    half: HalfType | None = FP16,
    structural: bool = True,
    made_up: bool = False,
) -> dict[str, str]:
    """The nodes that stay in FP32; in BF16, which holds what FP32 holds, none for its range.

    Args:
        graph: FP32.
        maxima: tensor -> max |x| over the data.
        overrides: (pattern, "fp32" | "fp16" | "bf16") of the user; the last that matches a node decides about it.
        half: the type of all others, whose range and digits are looked at; None: nothing is kept for these (--disable-strict-types).
        structural: keep what `convert` cannot convert; False where TensorRT chooses the types itself (weak typing).
        made_up: the maxima are those of synthetic data.

    Returns:
        Node name -> reason, in words.

    Raises:
        ConversionError: USAGE, for a pattern that matches no node.
    """
    inside = list(inner_graphs(graph)) if structural else []
    unconvertible = unconvertible_nodes(graph) if structural else {}
    for inner in inside:
        unconvertible |= unconvertible_nodes(inner)
    kept_fp32 = dict(unconvertible)
    if half:
        for around, largest in ((graph, maxima), *((inner, {}) for inner in inside)):  # nobody has measured what is inside
            kept_fp32 = {**_kept_by_values(around, largest, made_up and around is graph, half), **kept_fp32}
    for pattern, precision in overrides:
        names = [node.name for around in (graph, *inside) for node in around.nodes]
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            some = ", ".join(repr(node.name) for node in graph.nodes[:5])
            raise ConversionError(
                f"--layer-precisions {pattern}:{precision} matches no node of the model",
                hint=f"Patterns are matched with the ONNX node names (* ? []), for example {some}.",
                code=ExitCode.USAGE,
            )
        for name in matched:
            if precision == "fp32":
                kept_fp32[name] = f"--layer-precisions {pattern}:fp32"
            elif name not in unconvertible:
                kept_fp32.pop(name, None)
    return kept_fp32


def _kept_by_values(graph: Graph, maxima: dict[str, float], made_up: bool, half: HalfType) -> dict[str, str]:
    """What the range and the digits of the type cannot hold; node -> reason."""
    types = graph.types()
    kept_fp32 = kept_near_zero(graph, types, half)
    if half.wide:
        return kept_fp32
    sizes = {name: _largest(array) for name, array in graph.weights.items() if types.get(name) == FLOAT}
    negligible = negligible_tensors(graph, maxima)
    for node in graph.nodes:
        reason = _range_reason(node, graph, maxima, types, sizes, negligible)
        if reason:
            kept_fp32.setdefault(node.name, reason)
    if made_up:
        kept_fp32 = {**_behind_huge_factors(graph, {name for name, size in sizes.items() if size > FP16_MAX}, types), **kept_fp32}
    return kept_fp32


def unconvertible_nodes(graph: Graph) -> dict[str, str]:
    """Nodes that cannot be converted: operators without a schema or with a body (but for If, Loop and Scan, whose bodies are converted
    node by node), recurrent layers that are told lengths, and TensorScatter.

    For recurrent layers, TensorRT's parser chooses between the state and zeros of FP32, whatever the type of the layer.
    """
    kept_fp32 = {}
    for node in graph.nodes:
        if is_plain(node):
            continue
        if subgraphs(node):
            kept_fp32[node.name] = f"operator {node.op_type}, whose body is not converted"
        elif node.op_type in RECURRENT and len(node.input) > SEQUENCE_LENS and node.input[SEQUENCE_LENS]:
            kept_fp32[node.name] = "a recurrent layer with sequence_lens, which TensorRT's parser reads in FP32 alone"
        elif node.op_type == "TensorScatter":
            kept_fp32[node.name] = "TensorRT takes it for inputs of the model alone, and no Cast may stand before it"
        elif standard_schema(node, graph.opset) is None:
            kept_fp32[node.name] = f"operator {node.domain + '.' if node.domain else ''}{node.op_type} is not known to ONNX"
    return kept_fp32


def negligible_tensors(graph: Graph, maxima: dict[str, float]) -> frozenset[str]:
    """Tensors that FP16 may lose altogether: all that is made of them is added to what is so much larger that FP16's rounding of the sum
    loses as much (a layer scale of 1e-6 behind a branch of ConvNeXt).

    Args:
        maxima: tensor -> max |x| over the data.
    """
    readers, outputs, found = graph.consumers(), frozenset(graph.output_names), set()
    for node in reversed(graph.nodes):
        for name in node.output:
            largest, reading = maxima.get(name, math.inf), readers.get(name, [])
            if reading and name not in outputs and all(_loses(one, name, largest, maxima, found) for one in reading):
                found.add(name)
    return frozenset(found)


def _loses(node: onnx.NodeProto, name: str, largest: float, maxima: dict[str, float], negligible: set[str]) -> bool:
    """Whether it makes no difference for what this node makes of a tensor that FP16 loses it."""
    if name not in node.input:  # a body reads it
        return False
    if node.op_type in ("Add", "Sub"):
        return largest <= FP16.rounding * maxima.get(node.output[0], 0.0)
    return node.op_type in PROPORTIONAL and node.output[0] in negligible


def _range_reason(
    node: onnx.NodeProto,
    graph: Graph,
    maxima: dict[str, float],
    types: dict[str, int],
    sizes: dict[str, float],
    negligible: frozenset[str] = frozenset(),
) -> str:
    carried = node.op_type in PROPORTIONAL and node.output[0] in negligible
    read = node.input if is_plain(node) else reads(node)  # what is captured is judged where it is read
    for name in dict.fromkeys((*read, *node.output)):
        if types.get(name) != FLOAT:
            continue
        if name in graph.weights:
            largest_result = maxima.get(node.output[0], 0.0) if _is_summand(node, name) else 0.0
            lost = math.inf if carried else largest_result * FP16.rounding
            reason = _weight_reason(name, graph.weights[name], sizes[name], lost)
            if reason:
                return reason
            continue
        largest = maxima.get(name, 0.0)
        if math.isnan(largest):
            return f"{name} is NaN throughout in the FP32 model, so its range is not known"
        if largest > KEPT_FP32_ABOVE:
            return f"{name} reaches {largest:.3g}, above {KEPT_FP32_ABOVE:.0f} (half of FP16's largest)"
        if 0 < largest < FP16.smallest_normal and name not in negligible:
            return f"{name} stays within {largest:.1e}, below FP16's normal range (6.1e-05)"
    return ""


def _behind_huge_factors(graph: Graph, huge: set[str], types: dict[str, int]) -> dict[str, str]:
    """What computes with results of factors above FP16's largest: synthetic data may be zero just there."""
    source: dict[str, str] = {}  # tensor -> the weights that let it have any size
    found = {}
    for node in graph.nodes if huge else ():
        behind = next((source[name] for name in reads(node) if name in source), "")
        if behind:
            found[node.name] = f"behind weights {behind}, {beyond(FP16)}, and synthetic data does not tell its range"
        factor = next((name for name in reads(node) if name in huge and not _is_summand(node, name)), "")
        if (behind or factor) and not is_bounded(node, graph.weights, KEPT_FP32_ABOVE):
            source.update((name, behind or factor) for name in node.output if types.get(name) == FLOAT)
    return found


def _is_summand(node: onnx.NodeProto, name: str) -> bool:
    """The weight is only added, so what it loses is lost once, not multiplied."""
    if node.op_type in ("Add", "Sub"):
        return True
    return node.op_type in ("Conv", "ConvTranspose", "Gemm") and list(node.input).index(name) == 2


def _weight_reason(name: str, values: np.ndarray, largest: float, negligible: float) -> str:
    """Why FP16 cannot hold these weights; an absolute error up to `negligible` does not count."""
    if largest > FP16_MAX:
        return f"weights {name} reach {largest:.3g}, {beyond(FP16)}"
    energy = lost_energy = largest_loss = 0.0
    for part in _finite_parts(values):
        lost = np.abs(part.astype(np.float16).astype(np.float32) - part)
        energy += float(np.dot(part, part))
        lost_energy += float(np.dot(lost, lost))
        largest_loss = max(largest_loss, float(lost.max()))
    norm, error = math.sqrt(energy), math.sqrt(lost_energy)
    if error > WEIGHT_ERROR * norm and largest_loss > negligible:
        return f"weights {name} (up to {largest:.1e}) lose {error / norm:.0%} in FP16"
    return ""


def _largest(values: np.ndarray) -> float:
    return max((float(np.abs(part).max()) for part in _finite_parts(values)), default=0.0)


def _finite_parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """The finite values in parts that stay in the cache; whole copies of large weights would take many times as long."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, PART):
        part = flat[start : start + PART]
        finite = part[np.isfinite(part)]
        if finite.size:
            yield finite
