"""The config.pbtxt of a model in a Triton repository, as text: a protobuf `inference.ModelConfig` (model_config.proto of Triton).

Pure, and by the standard library alone: the server is not needed to write what it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.side_files import parse_json, record_of

PLAN = "model.plan"  # the name that Triton looks for where cc_model_filenames says nothing else
TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "bf16": "TYPE_BF16",
}
HEAD = "# onnx2trt: "  # of the first line, which tells what the file was made from


@dataclass(frozen=True)
class Tensor:
    """An input or output of the engine."""

    name: str
    dtype: str  # numpy's name, or bf16
    shape: tuple[int, ...]  # as the engine has it, -1 where free
    input: bool
    batch: tuple[int, int] | None = None  # of an input: the least and the largest first dimension
    decides: bool = False  # its values, not its shape, decide about shapes
    labels: str = ""  # name of the file with a name for each value


@dataclass(frozen=True)
class Warmup:
    """One request that the server makes before others."""

    dtype: str
    shape: tuple[int, ...]  # with its batch of 1, where the model has a batch
    file: str  # in the folder 'warmup'


@dataclass(frozen=True)
class PlanFile:
    """An engine for one kind of GPU, in the folder of the version."""

    file: str
    sha256: str
    model: str  # SHA-256 of the ONNX
    interface: str  # SHA-256 of inputs and outputs


def max_batch_size(tensors: Iterable[Tensor], independent: bool) -> int:
    """Triton's max_batch_size: 0 where the first dimension is not a free batch of all inputs and outputs that begins with 1.

    Args:
        independent: the entries along the first dimension are samples that do not influence each other.
    """
    tensors = tuple(tensors)
    if not independent or any(not tensor.shape or tensor.shape[0] != -1 or tensor.decides for tensor in tensors):
        return 0
    bounds = [tensor.batch for tensor in tensors if tensor.input]
    if not bounds or any(bound is None or bound[0] > 1 for bound in bounds):
        return 0
    return min(bound[1] for bound in bounds)


def model_config(name: str, tensors: tuple[Tensor, ...], batch: int, warmup: Mapping[str, Warmup], plans: Mapping[str, PlanFile]) -> str:
    """The text.

    Args:
        name: of the model, as its folder has it.
        batch: max_batch_size.
        warmup: input -> its part of the request; empty for none.
        plans: compute capability (as 8.9) -> the engine for it.

    Raises:
        ConversionError: MACHINE, for a type or a size that Triton does not know.
    """
    lines = [f"name: {quoted(name)}", 'platform: "tensorrt_plan"', f"max_batch_size: {batch}"]
    for kind in ("input", "output"):
        lines += _listed(kind, [_tensor(tensor, batch > 0) for tensor in tensors if tensor.input == (kind == "input")])
    if batch > 1:
        lines.append("dynamic_batching { }")
    if len(plans) > 1:
        entries = [[f"key: {quoted(arch)}", f"value: {quoted(plan.file)}"] for arch, plan in sorted(plans.items())]
        lines += _listed("cc_model_filenames", entries)
    if warmup:
        lines += _listed("model_warmup", [_warmup(warmup, batch > 0)])
    return sealed("\n".join(lines) + "\n", plans)


def interface(tensors: tuple[Tensor, ...]) -> str:
    """SHA-256 of what a client sees: names, types and shapes."""
    seen = sorted((tensor.input, tensor.name, tensor.dtype, tensor.shape) for tensor in tensors)
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def sealed(text: str, plans: Mapping[str, PlanFile]) -> str:
    """The text behind a line that tells its engines, and by which a change by hand is seen."""
    head = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "plans": {arch: asdict(plan) for arch, plan in sorted(plans.items())}}
    return HEAD + json.dumps(head) + "\n" + text


def plans_in(text: str) -> dict[str, PlanFile] | None:
    """The engines of a config that this tool has written; None where it was written, or changed, by somebody else."""
    first, _, rest = text.partition("\n")
    try:
        head = parse_json(first.removeprefix(HEAD))
        if not first.startswith(HEAD) or head["sha256"] != hashlib.sha256(rest.encode()).hexdigest():
            return None
        return {arch: record_of(PlanFile, plan) for arch, plan in head["plans"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def quoted(text: str) -> str:
    """A string as protobuf's text format has it: bytes that are not printable ASCII are octal."""
    data = text.encode("utf-8", "surrogateescape")
    return '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in data) + '"'


def check_tensor(tensor: Tensor) -> None:
    """
    Raises:
        ConversionError: MACHINE, where Triton's configuration cannot describe it.
    """
    problem = "a type" if tensor.dtype not in TYPES else "a size" if 0 in tensor.shape else ""
    if problem:
        raise ConversionError(
            f"--triton-repository: {tensor.name!r} is {tensor.dtype} {list(tensor.shape)}, {problem} that Triton's configuration lacks",
            hint=f"It takes sizes above 0 and {', '.join(TYPES)}. Leave the flag out, or make the tensor another one.",
            code=ExitCode.MACHINE,
        )


def _tensor(tensor: Tensor, batched: bool) -> list[str]:
    check_tensor(tensor)
    shape = tensor.shape[batched:]
    lines = [f"name: {quoted(tensor.name)}", f"data_type: {TYPES[tensor.dtype]}", f"dims: {_dims(shape)}"]
    if not shape:  # Triton has no empty dims: a scalar is one value to the client, and given a shape of its own before the engine
        lines.append("reshape: { shape: [ ] }")
    if tensor.decides:
        lines.append("is_shape_tensor: true")
    if tensor.labels:
        lines.append(f"label_filename: {quoted(tensor.labels)}")
    return lines


def _warmup(warmup: Mapping[str, Warmup], batched: bool) -> list[str]:
    lines = ['name: "sample"', "batch_size: 1"]
    for name, part in sorted(warmup.items()):
        value = [f"data_type: {TYPES[part.dtype]}", f"dims: {_dims(part.shape[batched:])}", f"input_data_file: {quoted(part.file)}"]
        lines += ["inputs {", f"  key: {quoted(name)}", "  value {", *(f"    {line}" for line in value), "  }", "}"]
    return lines


def _dims(shape: tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, shape or (1,)))} ]"


def _listed(name: str, entries: list[list[str]]) -> list[str]:
    """A repeated field: `name [ {...}, {...} ]`."""
    inner = [f"  {{\n{''.join(f'    {line}{chr(10)}' for line in entry)}  }}" for entry in entries]
    return [f"{name} [\n" + ",\n".join(inner) + "\n]"]
