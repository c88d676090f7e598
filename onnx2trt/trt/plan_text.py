"""What an engine of TensorRT-RTX moves through memory, read from the plan that it carries as text.

The text is undocumented: whatever is not as in TensorRT-RTX 1.7 makes it "not readable" (None), never an error. Bytes are an estimate of
the traffic, not a time: what stays in a cache, and what arithmetic takes, is not in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

BYTES = {"float": 4, "half": 2, "bfloat16": 2, "fp8": 1, "fp8_e4m3": 1, "int8": 1, "int32": 4, "int64": 8, "bool": 1}
MAIN = "\nmain {"
NEXT = re.compile(r"^\w+ \{\s*$", re.MULTILINE)  # what follows: shape_main
TEXT = frozenset(range(32, 127)) | frozenset(b"\n\r\t\x1e\x1f")  # separators stand between names of layers
TENSOR = re.compile(r"(?:sub_)?tensor=\{ (.*?)\}\s*$", re.MULTILINE)
STEP = re.compile(r"^\s+([a-z_]+)=\{ (name=.*)$", re.MULTILINE)
FUSED = ("function", "runtime_fusion")  # kernels whose operands are called arguments
ATTENTION = re.compile(r'name="?\w*_mha')  # as _gemm_mha_v2
KINDS = (*FUSED, "corrltn", "maxpool", "pool", "mha", "gemm", "matmul", "convolution", "fully_connected")


@dataclass(frozen=True)
class Traffic:
    """Of one inference at the shapes of the plan."""

    kernels: int
    moved_bytes: int  # read and written by them
    attentions: int = 0  # of the kernels, those that compute a whole attention


def traffic_of(backend: str | None, engine: bytes | memoryview) -> Traffic | None:
    """The same for an engine of this library; engines of TensorRT carry no plan as text."""
    return read_traffic(engine) if backend == "tensorrt-rtx" else None


def read_traffic(engine: bytes | memoryview) -> Traffic | None:
    """Kernels and bytes of an engine; None where its plan cannot be read, or has sizes that are free.

    Args:
        engine: a serialized engine, of whatever library.
    """
    try:
        text = _plan_of(memoryview(engine).cast("B"))  # that of TensorRT is of characters
        return _count(text) if text else None
    except (ValueError, KeyError, IndexError):
        return None


def _plan_of(data: memoryview) -> str | None:
    """The text around the first "main {"; only that is copied."""
    found = re.search(re.escape(MAIN.encode()), data)
    if found is None:
        return None
    first = last = found.start()
    while first > 0 and data[first - 1] in TEXT:
        first -= 1
    while last < len(data) and data[last] in TEXT:
        last += 1
    return bytes(data[first:last]).decode("ascii")


def _count(text: str) -> Traffic | None:
    sizes = {name: size for name, size in map(_tensor, TENSOR.findall(text)) if name}
    body = text[text.index(MAIN) + len(MAIN) :]
    end = NEXT.search(body)
    body, kernels, moved, attentions = body[: end.start() if end else None], 0, 0, 0
    for kind, step in STEP.findall(body):
        if kind in KINDS:
            read, written = ("input_args", "output_args") if kind in FUSED else ("input", "output")
            names = {name for part in (read, written) for name in _names(part, step)}
            if any(sizes.get(name) is None for name in names if name in sizes):
                return None  # an expression stands for a size
            kernels, moved = kernels + 1, moved + sum(sizes.get(name, 0) for name in names)
            attentions += kind == "mha" or ATTENTION.match(step) is not None
    return Traffic(kernels, moved, attentions) if kernels and moved else None


def _tensor(text: str) -> tuple[str, int | None]:
    """(name, bytes; 0 for scratch memory, None where a size is free)"""
    name, kind, dims = (re.search(pattern, text) for pattern in (r'name="([^"]*)"', r"type=(\w+)", r"dims=\{ ([^}]*)\}"))
    if not (name and kind and dims):
        return "", None
    if "scratch" in text:
        return name[1], 0
    parts = dims[1].split()
    if not all(part.isdigit() for part in parts):
        return name[1], None
    return name[1], prod(map(int, parts)) * BYTES[kind[1]]


def _names(part: str, step: str) -> list[str]:
    found = re.search(rf"\b{part}=\{{([^}}]*)\}}", step)
    return re.findall(r'"([^"]*)"', found[1]) if found else []
