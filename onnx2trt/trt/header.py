"""What the first bytes of an engine file tell without loading it, on a machine that could not.

TensorRT 8.6 and newer: NVIDIA's trtexec reads the version there (--getPlanVersionOnly). TensorRT-RTX: measured on engines of
version 1.7 built for each target; its runtime checks the same size and version.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from onnx2trt.base.side_files import parse_json

BYTES = 64
MARKS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
VERSION_AT = 24  # four bytes: major, minor, patch, build
SIZE_AT = 16  # TensorRT-RTX: bytes of the whole file
TARGETS_AT = 32  # TensorRT-RTX: a bit for each compute capability
TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # from the lowest bit on; a portable engine has a bit above these, too


@dataclass(frozen=True)
class Header:
    """The beginning of an engine file."""

    backend: str  # tensorrt | tensorrt-rtx
    version: str  # of the library that made it, as 10.6.0.26
    gpu_archs: tuple[str, ...] | None  # compute capabilities that it was made for, () where portable; None: not in the header
    size: int | None  # bytes that the file must have; None: not in the header

    @property
    def targets(self) -> str:
        """For whom it was made, in words; empty where the header does not say."""
        if self.gpu_archs is None:
            return ""
        return f"for compute capability {', '.join(self.gpu_archs)}" if self.gpu_archs else "portable (compute capability 8.0 and newer)"


def read_header(data: bytes) -> Header | None:
    """None where this is no engine of TensorRT 8.6 or newer, nor of TensorRT-RTX.

    Args:
        data: the file, or its first BYTES.
    """
    backend = MARKS.get(bytes(data[:4]))
    if backend is None or len(data) < BYTES or data[4:8] != bytes(4):  # another layout would have another number there
        return None
    version = ".".join(map(str, data[VERSION_AT : VERSION_AT + 4]))
    if backend == "tensorrt":
        return Header(backend, version, None, None)
    (size,) = struct.unpack_from("<Q", data, SIZE_AT)
    (targets,) = struct.unpack_from("<I", data, TARGETS_AT)
    portable = targets >> len(TARGETS)
    archs = () if portable else tuple(arch for bit, arch in enumerate(TARGETS) if targets >> bit & 1)
    return Header(backend, version, archs, size)


def what_else(data: bytes) -> str:
    """What a file without such a header looks like, in words."""
    if data[:7] == b"version" and b"git-lfs" in data[:64]:
        return "it is a Git LFS pointer (git lfs pull fetches the engine)"
    (length,) = struct.unpack_from("<I", bytes(data[:4]).ljust(4, b"\0"))
    if 2 < length < 2**20 and data[4:5] == b"{":  # Ultralytics writes the length of its metadata, the metadata, the engine
        try:
            parse_json(bytes(data[4 : 4 + length]))
        except ValueError:
            pass
        else:
            return f"{4 + length} bytes of metadata stand before the engine, as Ultralytics writes it: cut them off (tail -c +{5 + length})"
    if data[:1] == b"\x08" and data[2:3] in (b"\x12", b"\x3a"):  # protobuf: ir_version, then the producer or the graph
        return "it looks like an ONNX model, which goes with --onnx"
    if all(byte in range(32, 127) or byte in b"\t\r\n" for byte in data[:16]):
        return "it is text"
    return "it begins with " + bytes(data[:8]).hex(" ")
