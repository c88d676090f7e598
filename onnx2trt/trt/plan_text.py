"""What an engine of TensorRT-RTX moves through memory, read from the plan that it carries as text.

The text is undocumented: whatever is not as in TensorRT-RTX 1.7 makes it "not readable" (None), never an error. Bytes are an estimate of
the traffic, not a time: what stays in a cache, and what arithmetic takes, is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from onnx2trt.trt.constraints import METADATA

BYTES = {"float": 4, "half": 2, "bf16": 2, "fp8": 1, "fp8_e4m3": 1, "int8": 1, "int32": 4, "int64": 8, "bool": 1}
MAIN = "\nmain {"
NEXT = re.compile(r"^\w+ \{\s*$", re.MULTILINE)  # what follows: shape_main
TEXT = frozenset(range(32, 127)) | frozenset(b"\n\r\t\x1e\x1f")  # separators stand between names of layers
TENSOR = re.compile(r"(?:sub_)?tensor=\{ (.*?)\}\s*$", re.MULTILINE)
STEP = re.compile(r"^\s+([a-z_]+)=\{ (name=.*)$", re.MULTILINE)
POINTWISE = "function"
FUSED = (POINTWISE, "runtime_fusion")  # kernels whose operands are called arguments
ATTENTION = re.compile(r'name="?\w*_mha')  # a whole attention is a function, too: _gemm_mha_v2
KINDS = (*FUSED, "corrltn", "maxpool", "pool", "mha", "gemm", "matmul", "convolution", "fully_connected")


@dataclass(frozen=True)
class Kernel:
    """Of one inference at the shapes of the plan."""

    nodes: tuple[str, ...]  # ONNX nodes that it computes, or takes part in computing
    multiplies: bool  # it is where the products of convolutions and matrix products are made
    reads: str | None  # type of the first tensor that it reads, one of BYTES
    moved_bytes: int  # read and written
    attention: bool = False  # it computes a whole one


@dataclass(frozen=True)
class Traffic:
    """The same in numbers."""

    kernels: int
    moved_bytes: int
    attentions: int = 0  # of the kernels, those that compute a whole attention


def kernels_of(backend: str | None, engine: bytes | memoryview) -> tuple[Kernel, ...]:
    """The same for an engine of this library; engines of TensorRT carry no plan as text."""
    return read_kernels(engine) if backend == "tensorrt-rtx" else ()


def traffic_of(kernels: Sequence[Kernel]) -> Traffic | None:
    """What kernels move together; None where there is nothing to say."""
    moved = sum(kernel.moved_bytes for kernel in kernels)
    return Traffic(len(kernels), moved, sum(kernel.attention for kernel in kernels)) if moved else None


def read_kernels(engine: bytes | memoryview) -> tuple[Kernel, ...]:
    """The kernels of an engine; none where its plan cannot be read, or has sizes that are free.

    Args:
        engine: a serialized engine, of whatever library.
    """
    try:
        text = _plan_of(memoryview(engine).cast("B"))  # that of TensorRT is of characters
        return _kernels(text) if text else ()
    except (ValueError, KeyError, IndexError):
        return ()


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


def _kernels(text: str) -> tuple[Kernel, ...]:
    known = {name: (size, kind) for name, size, kind in map(_tensor, TENSOR.findall(text)) if name}
    body = text[text.index(MAIN) + len(MAIN) :]
    end = NEXT.search(body)
    body, found = body[: end.start() if end else None], []
    steps = list(STEP.finditer(body))
    for step, following in zip(steps, [*steps[1:], None]):
        if step[1] in KINDS:
            read, written = ("input_args", "output_args") if step[1] in FUSED else ("input", "output")
            operands = {name: known[name] for part in (read, written) for name in _names(part, step[2]) if name in known}
            sizes, types = zip(*operands.values()) if operands else ((), (None,))
            if None in sizes:
                return ()  # an expression stands for a size
            nodes = METADATA.findall(body[step.start() : following.start() if following else None])  # they stand on lines of their own
            attention = step[1] == "mha" or ATTENTION.match(step[2]) is not None
            multiplies = step[1] != POINTWISE or attention
            found.append(Kernel(tuple(dict.fromkeys(nodes)), multiplies, types[0], sum(sizes), attention))
    return tuple(found) if any(kernel.moved_bytes for kernel in found) else ()


def _tensor(text: str) -> tuple[str, int | None, str]:
    """(name, bytes; 0 for scratch memory, None where a size is free; type)"""
    name, kind, dims = (re.search(pattern, text) for pattern in (r'name="([^"]*)"', r"type=(\w+)", r"dims=\{ ([^}]*)\}"))
    if not (name and kind and dims):
        return "", None, ""
    if "scratch" in text:
        return name[1], 0, kind[1]
    parts = dims[1].split()
    if not all(part.isdigit() for part in parts):
        return name[1], None, kind[1]
    return name[1], prod(map(int, parts)) * BYTES[kind[1]], kind[1]


def _names(part: str, step: str) -> list[str]:
    found = re.search(rf"\b{part}=\{{([^}}]*)\}}", step)
    return re.findall(r'"([^"]*)"', found[1]) if found else []
