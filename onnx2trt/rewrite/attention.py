"""Which attentions become INT8 where their layers do: those that TensorRT computes in one kernel then."""

from __future__ import annotations

from onnx2trt.base.model_info import Profile
from onnx2trt.model.attention import Attention, Shapes, find_attentions
from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import static_shapes
from onnx2trt.rewrite.number_formats import INT8, NumberFormat
from onnx2trt.rewrite.qdq import Layer

# NVIDIA's ModelOpt has the same limits: with smaller or larger heads, TensorRT has no fused kernel in 8 bits
SMALL_HEAD, MOST_HEAD = 8, 256


def attention_layers(graph: Graph, profiles: tuple[Profile, ...], number_format: NumberFormat = INT8) -> tuple[Layer, ...]:
    """The attentions that INT8 (or FP8) may compute, each as one layer, in execution order.

    Args:
        graph: FP32, folded.
        profiles: at whose opt shapes tokens and heads are counted.
    """
    shapes = static_shapes(graph, profiles)
    most = number_format.most_tokens
    found = (attention for attention in find_attentions(graph, shapes) if _fits(attention, shapes, most))
    return tuple(Layer(attention.scores, attention.queries, attention, number_format) for attention in found)


def _fits(attention: Attention, shapes: Shapes, most_tokens: int) -> bool:
    queries, keys, values = (shapes.get(name) for name in (attention.queries, attention.keys, attention.values))
    if not (queries and keys and values and len(queries) == len(keys) == len(values)) or len(queries) < 3:
        return False
    heads_fit = all(SMALL_HEAD < size <= MOST_HEAD for size in (queries[-1], values[-1]))
    return heads_fit and max(queries[-2], keys[-1]) <= most_tokens
