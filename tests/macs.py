"""Multiply-accumulates counted from an ONNX file alone, with none of the product's code, to check what the product says."""

from __future__ import annotations

import math

import onnx

RECURRENT = ("RNN", "GRU", "LSTM")
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)


def int8_share(path, **shapes) -> float:
    """Share of the multiply-accumulates of LAYERS that those do whose activation and weights are INT8.

    Args:
        path: the model that --save-onnx wrote.
        shapes: input -> shape.
    """
    model = onnx.load(path)
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name]):
            dim.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = {t.name: list(t.dims) for t in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        sizes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    types = {t.name: t.data_type for t in inferred.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
    makers = {name: node for node in inferred.node for name in node.output}

    def is_int8(name: str) -> bool:
        node = makers.get(name)
        return node is not None and node.op_type == "DequantizeLinear" and types[node.input[0]] == onnx.TensorProto.INT8

    total = quantized = 0
    for node in inferred.node:
        if node.op_type not in LAYERS:
            continue
        work = _work(node, sizes)
        total += work
        quantized += work if is_int8(node.input[0]) and is_int8(node.input[1]) else 0
    return quantized / total


def _work(node, sizes) -> int:
    first, second, out = (sizes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type in RECURRENT:  # each step multiplies with W and R
        return first[0] * first[1] * (math.prod(second) + math.prod(sizes[node.input[2]]))
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    return math.prod(out) * first[-1]
