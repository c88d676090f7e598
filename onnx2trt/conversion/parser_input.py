"""What TensorRT's parser, and its refitter, read of a prepared model."""

from __future__ import annotations

import os
from functools import partial

from onnx2trt.base.model_info import ModelInfo
from onnx2trt.model.graph import INLINE_LIMIT
from onnx2trt.model.nodes import list_nodes
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.trt.network import ParserInput


def parser_input(prepared: Prepared, info: ModelInfo, folder: str, model, beside: bool = False) -> ParserInput:
    """
    Args:
        folder: for a file that is too large to be handed over in memory.
        model: whose nodes the parser's errors name.
        beside: weights are handed over as they lie in memory, not copied into the model's bytes (and by the parser once more).
    """
    nodes = partial(list_nodes, model)
    if not prepared.changed:
        return ParserInput(path=info.path, nodes=nodes)
    if beside:
        data, weights = prepared.graph.with_external_data("weights")
        return ParserInput(data=data, weights=weights, nodes=nodes)
    if prepared.graph.bytes <= INLINE_LIMIT:
        return ParserInput(data=prepared.graph.to_model().SerializeToString(), nodes=nodes)
    path = os.path.join(folder, "prepared.onnx")
    prepared.graph.save(path, "prepared.data")
    return ParserInput(path=path, nodes=nodes)
