"""Q/DQ with FP16 scales, written so that ONNX Runtime loads the model and computes it, with the optimizations that are its default.

- It makes one QLinearConcat of DQ, Concat and Q, and has that operator for FP32 scales alone: with FP16 ones it refuses the whole model
  ("Type 'tensor(float16)' of input parameter ... of operator (QLinearConcat)"; 1.19 to 1.32). INT8 is what stands on both sides, so FP32
  between them changes no value, and TensorRT-RTX 1.7 makes the same kernels of it, which move the same bytes (PP-OCRv4 det, a YOLOv8n).
- It writes a bias of what stands between DQ and Q as integers, which it computes in FP16 where the scales are FP16: beyond 65504 steps they
  are infinite (1.32; PP-OCRv4 det had 12 instead of 28 dB). TensorRT-RTX adds what stands behind the layer in the same kernel.

What else it fuses with Q/DQ, it leaves alone where scales are FP16.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, reads, rename_reads
from onnx2trt.rewrite.near_zero import FP16_MAX

BIASED = ("Conv", "ConvTranspose", "Gemm")
MOST_STEPS = FP16_MAX / 2  # of a bias that stays in its layer
# ONNX Runtime moves Q and DQ across these, one input to one output
MOVING = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool", "Slice"))


def with_biases_behind(graph: Graph) -> Graph:
    """The graph in which constant biases of INT8 layers are added behind them, where they are too many steps of the products.

    Args:
        graph: FP32 with Q/DQ; not changed.
    """
    result, nodes = graph.copy(), []
    producers = result.producers()
    for node in result.nodes:
        nodes.append(node)
        sources = [producers.get(name) for name in node.input[:2]]
        if node.op_type not in BIASED or len(node.input) < 3 or not all(one and one.op_type == "DequantizeLinear" for one in sources):
            continue
        bias, integers = result.weights.get(node.input[2]), result.weights.get(sources[1].input[0])
        if bias is None or integers is None or _steps(result, bias, sources) <= MOST_STEPS:
            continue
        summand, output = result.unique(f"{node.name}__summand"), node.output[0]
        factor, behind = np.float32(attribute(node, "beta", 1.0)), (1,) * (integers.ndim - 2)
        result.weights[summand] = factor * bias if node.op_type == "Gemm" else bias.reshape(-1, *behind)
        del node.input[2:]
        node.output[0] = result.unique(f"{output}__sums")
        nodes.append(onnx.helper.make_node("Add", [node.output[0], summand], [output], name=result.unique(f"{node.name}__add")))
    result.replace_nodes(nodes)
    result.prune()
    return result


def _steps(graph: Graph, bias: np.ndarray, sources: list[onnx.NodeProto]) -> float:
    """The largest of a bias, in products of the scales of two DQ; 0 where these are no constants."""
    step, scales = (graph.weights.get(source.input[1]) for source in sources)
    if step is None or scales is None:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num(np.abs(bias / (step.astype(np.float64) * scales)), posinf=np.inf).max(initial=0.0))


def with_float_concats(graph: Graph) -> tuple[Graph, frozenset[str]]:
    """The graph, and the nodes to keep in FP32: Concats that read DQ alone and are read by Q alone, with those Q and DQ and what moves
    values between them.

    Args:
        graph: FP32 with Q/DQ; not changed. A DQ that is read by others, too, stands twice in the graph returned.
    """
    producers, readers, outputs = graph.producers(), graph.consumers(), set(graph.output_names)
    kept: set[str] = set()
    for node in graph.nodes:
        if node.op_type != "Concat" or node.domain not in STANDARD_DOMAINS:
            continue
        before, after = _before(node, producers), _after(node.output[0], readers, outputs)
        if before is not None and after is not None:
            kept.update(one.name for one in (node, *before, *after))
    return _with_own_dequantize(graph, kept) if kept else (graph, frozenset())


def _before(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto] | None:
    """The DQ that a Concat reads, and what stands between; None where it reads anything else."""
    found = []
    for name in node.input:
        source = producers.get(name)
        while source is not None and source.op_type in MOVING:
            found.append(source)
            source = producers.get(source.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            return None
        found.append(source)
    return found


def _after(name: str, readers: dict[str, list[onnx.NodeProto]], outputs: set[str]) -> list[onnx.NodeProto] | None:
    """The Q that read a tensor, and what stands between; None where it is an output, or anything else reads it."""
    if name in outputs or not readers.get(name):
        return None
    found = []
    for reader in readers[name]:
        if name not in reads(reader)[:1]:
            return None
        if reader.op_type in MOVING:
            further = _after(reader.output[0], readers, outputs)
            if further is None:
                return None
            found += further
        elif reader.op_type != "QuantizeLinear":
            return None
        found.append(reader)
    return found


def _with_own_dequantize(graph: Graph, kept: set[str]) -> tuple[Graph, frozenset[str]]:
    """The graph in which DQ that are kept are read by nodes that are kept alone, and what is kept of it."""
    result, nodes, names = graph.copy(), [], set(kept)
    readers, outputs = result.consumers(), set(result.output_names)
    for node in result.nodes:
        nodes.append(node)
        if node.op_type != "DequantizeLinear" or node.name not in kept:
            continue
        name = node.output[0]
        mine = [reader for reader in readers.get(name, []) if reader.name in kept]
        if name in outputs or len(mine) < len(readers[name]):
            own = onnx.NodeProto()
            own.CopyFrom(node)
            own.name, own.output[0] = result.unique(f"{node.name}__for_concat"), result.unique(f"{name}__for_concat")
            for reader in mine:
                rename_reads(reader, name, own.output[0])
            names.symmetric_difference_update((node.name, own.name))
            nodes.append(own)
    result.replace_nodes(nodes)
    return result, frozenset(names)
