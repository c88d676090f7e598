"""What was made elsewhere, and shall be compared with the model."""

from __future__ import annotations

from dataclasses import dataclass

from onnx2trt.base.model_info import ModelInfo
from onnx2trt.model.graph import Graph


@dataclass(frozen=True)
class OnnxCandidate:
    """A prepared ONNX of whatever tool."""

    info: ModelInfo
    graph: Graph
