"""What kind of file a candidate is, by its content."""

from __future__ import annotations

import os

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.words import base_name
from onnx2trt.conversion.run import Run
from onnx2trt.model.preflight import check_file
from onnx2trt.trt.header import Header, read_header, what_else

LOOKED_AT = 2**20 + 4  # bytes; as many as the metadata may be that others write before an engine
ONNX_BEGINS = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72")  # field and wire type of what an ONNX file may begin with


def recognise(path: str, run: Run) -> Header | None:
    """The header of an engine; None for an ONNX model, which may be damaged.

    Raises:
        ConversionError: MODEL, where it cannot be read, is an engine that was cut off, or is neither of both.
    """
    with run.stage("preflight", f"reading {base_name(path)}"):
        head, size = _beginning(path)
        header = read_header(head)
        if header is None:
            check_file(path)
            what = what_else(head)
            if head[0] not in ONNX_BEGINS or what == "it is text":
                raise ConversionError(
                    f"{path} is neither an engine that is known here nor an ONNX model: {what}",
                    hint="Engines of TensorRT 8.6 and newer and of TensorRT-RTX are known by their first bytes.",
                    code=ExitCode.MODEL,
                )
        elif header.size not in (None, size):
            raise ConversionError(
                f"{path} is damaged: its header says {header.size} bytes, the file has {size}",
                hint="It was not copied whole: copy it again.",
                code=ExitCode.MODEL,
            )
    return header


def _beginning(path: str) -> tuple[bytes, int]:
    """(the first bytes, the size)"""
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
            raise ConversionError(f"{path} is {'a folder' if os.path.isdir(path) else 'not a regular file'}", code=ExitCode.MODEL)
        with open(path, "rb") as stream:
            head = stream.read(LOOKED_AT)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}", code=ExitCode.MODEL) from None
    if not head:
        raise ConversionError(f"{path} is empty", code=ExitCode.MODEL)
    return head, size
