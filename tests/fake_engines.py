"""What engines say of themselves, made up: headers of files, and layers as the inspector tells them."""

from __future__ import annotations

import struct

from onnx2trt.trt.inspector import EngineLayer


def header_bytes(mark: bytes, version: tuple[int, ...], targets: int = 0, size: int = 64) -> bytes:
    """The 64 bytes that an engine file begins with; targets: a bit for each kind of GPU, of TensorRT-RTX."""
    return struct.pack("<4sIQQ4B4sI28x", mark, 0, 2, size, *version, mark, targets)


def layer(name: str, *nodes: str, precision: str = "int8", reads=(), writes=()) -> EngineLayer:
    """A layer that computes these ONNX nodes; none: a conversion of formats."""
    return EngineLayer(name, "CaskConvolution", precision, precision, precision, nodes, "", reads, writes)
