"""What TensorRT's parser, and its refitter, read of a prepared model."""

from __future__ import annotations

import os
from functools import partial

from onnx2trt.base.model_info import ModelInfo
from onnx2trt.model.graph import INLINE_LIMIT
from onnx2trt.model.nodes import list_nodes
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.trt.network import ParserInput


def parser_input(prepared: Prepared, info: ModelInfo, folder: str, model) -> ParserInput:
    """
    Args:
        folder: for a file that is too large to be handed over in memory.
        model: whose nodes the parser's errors name.
    """
    nodes = partial(list_nodes, model)
    if not prepared.changed:
        return ParserInput(path=info.path, nodes=nodes)
    if prepared.graph.bytes <= INLINE_LIMIT:
        return ParserInput(data=prepared.graph.to_model().SerializeToString(), nodes=nodes)
    path = os.path.join(folder, "prepared.onnx")
    prepared.graph.save(path, "prepared.data")
    return ParserInput(path=path, nodes=nodes)
