"""Checks of tensors and of the external data files that they name, before any library reads them.

TensorRT's parser accepts truncated external data (it reads zeros, or dies with SIGBUS) and follows symbolic links; onnx checks
at loading, but stops at the first fault and does not say what to do.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator

import onnx

from onnx2trt.base.errors import ConversionError, ExitCode

# bits of one element where a raw byte string holds it; TensorProto.DataType -> bits
ELEMENT_BITS = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT16: 16,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.COMPLEX64: 64,
    onnx.TensorProto.COMPLEX128: 128,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.FLOAT8E4M3FN: 8,
    onnx.TensorProto.FLOAT8E4M3FNUZ: 8,
    onnx.TensorProto.FLOAT8E5M2: 8,
    onnx.TensorProto.FLOAT8E5M2FNUZ: 8,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
}
MOST_DIMS = 32  # numpy's limit before version 2; TensorRT takes 8
MOST_VALUES = 2**60
DATA_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model: initializers and attributes, of the graph, its subgraphs and the local functions."""
    yield from (tensor for _, tensor in named_tensors(model))


def named_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """(where it stands, tensor) of every tensor; an attribute's tensor rarely has a name, so its node is named."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield f"{tensor.name!r}", tensor
    for sparse in graph.sparse_initializer:
        yield from _sparse_tensors(f"{sparse.values.name!r}", sparse)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in nodes:
        where = f"of node {node.name or (node.output[0] if node.output else '')!r} ({node.op_type})"
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield where, attribute.t
            yield from ((where, tensor) for tensor in attribute.tensors)
            if attribute.HasField("sparse_tensor"):
                yield from _sparse_tensors(where, attribute.sparse_tensor)
            for sparse in attribute.sparse_tensors:
                yield from _sparse_tensors(where, sparse)
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _sparse_tensors(where: str, sparse: onnx.SparseTensorProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield where, sparse.values
    yield where, sparse.indices


def check_tensors(model: onnx.ModelProto, path: str) -> tuple[str, ...]:
    """Check that every tensor has the data that its shape asks for, and that external data is there and inside the folder.

    Args:
        model: loaded without its external data.
        path: where the model was read from.

    Returns:
        Paths of the external data files, sorted.

    Raises:
        ConversionError: MODEL, listing every fault found.
    """
    folder = os.path.dirname(os.path.abspath(path))
    faults, files = [], {}
    for where, tensor in named_tensors(model):
        try:
            if tensor.data_type not in DATA_TYPES:
                raise _Fault(f"its element type {tensor.data_type} is unknown to ONNX {onnx.__version__}")
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                location = _check_external(tensor, folder, files)
                files.setdefault(location, os.stat(location).st_size)
            else:
                _check_inline(tensor)
        except _Fault as fault:
            faults.append(f"tensor {where}: {fault}")
    if faults:
        hint = "Export or copy the model again, complete."
        if any("not a path inside" in fault for fault in faults):
            hint = "Save the model with its data beside it: onnx.save_model(model, path, save_as_external_data=True)"
        elif any("does not exist" in fault for fault in faults):
            hint = "Copy the external data files beside the model, complete."
        raise ConversionError(
            f"{path}: {len(faults)} tensor{'s' * (len(faults) > 1)} cannot be read:\n  " + "\n  ".join(_shorten(faults)),
            hint=hint,
            code=ExitCode.MODEL,
        )
    return tuple(sorted(files))


class _Fault(Exception):
    """What is wrong with one tensor."""


def _shorten(lines: list[str], most: int = 10) -> list[str]:
    unique = list(dict.fromkeys(lines))
    return unique if len(unique) <= most else [*unique[:most], f"... and {len(unique) - most} more"]


def _element_count(tensor: onnx.TensorProto) -> int:
    dims = list(tensor.dims)
    if len(dims) > MOST_DIMS:
        raise _Fault(f"has {len(dims)} dimensions; {MOST_DIMS} are taken")
    if any(dim < 0 for dim in dims):
        raise _Fault(f"negative dimension in {dims}")
    if math.prod(dim for dim in dims if dim) >= MOST_VALUES:  # also where there are none: no array has such a shape
        raise _Fault(f"has the shape {dims}, which no array can have")
    return math.prod(dims)


def byte_count(tensor: onnx.TensorProto) -> int | None:
    """Bytes of raw data that the shape asks for; None for texts, and for types newer than this tool."""
    bits = ELEMENT_BITS.get(tensor.data_type)
    return None if bits is None else (_element_count(tensor) * bits + 7) // 8


def _check_inline(tensor: onnx.TensorProto) -> None:
    if tensor.HasField("segment"):
        raise _Fault("is a segmented tensor, which no runtime supports")
    expected, count = byte_count(tensor), _element_count(tensor)
    if tensor.data_type == onnx.TensorProto.STRING and len(tensor.string_data) != count:
        raise _Fault(f"shape {list(tensor.dims)} needs {count} texts, {len(tensor.string_data)} are there")
    if expected is None:
        return  # texts, or a type newer than this tool: the parser decides
    if not tensor.HasField("raw_data"):
        stored = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type)))
        needed = {4: (count + 1) // 2, 64: count, 128: 2 * count}.get(ELEMENT_BITS[tensor.data_type], count)
        if tensor.data_type == onnx.TensorProto.COMPLEX64:
            needed = 2 * count
        if stored != needed:
            raise _Fault(f"shape {list(tensor.dims)} needs {needed} values, {stored} are there")
        return
    if len(tensor.raw_data) != expected:
        raise _Fault(f"shape {list(tensor.dims)} needs {expected} bytes, {len(tensor.raw_data)} are there")


def _check_external(tensor: onnx.TensorProto, folder: str, known: dict[str, int]) -> str:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    target = _inside(location, folder)
    size = known.get(target)
    if size is None:
        size = _regular_size(target, folder, location)
    offset, length = (_number(entries, key) for key in ("offset", "length"))
    expected = byte_count(tensor)
    offset = offset or 0
    if length is None:
        length = expected if expected is not None else size - offset
    if expected is not None and length != expected:
        raise _Fault(f"shape {list(tensor.dims)} needs {expected} bytes, its external data has length {length}")
    if offset + length > size:
        raise _Fault(f"external data {location!r} has {size} bytes, but bytes {offset} to {offset + length} are needed: truncated?")
    return target


def _number(entries: dict[str, str], key: str) -> int | None:
    if key not in entries:
        return None
    if not entries[key].isascii() or not entries[key].isdigit():
        raise _Fault(f"external data {key} is {entries[key]!r}, not a whole number from 0 up")
    return int(entries[key])


def _inside(location: str, folder: str) -> str:
    """The path of an external data file; it has to lie in the model's folder (CVE-2022-25882, CVE-2024-27318)."""
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or os.path.isabs(location) or location[:1] in "/\\" or location[1:2] == ":" or ".." in parts:
        raise _Fault(f"external data location {location!r} is not a path inside the model's folder; it is not followed")
    return os.path.join(folder, location)


def _regular_size(target: str, folder: str, location: str) -> int:
    """Size of a regular file reached through no symbolic link and held by no second hard link (CVE-2026-27489)."""
    path = folder
    for part in os.path.relpath(target, folder).split(os.sep):
        path = os.path.join(path, part)
        try:
            status = os.lstat(path)
        except OSError as error:
            reason = "does not exist" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else f"cannot be read: {error.strerror}"
            raise _Fault(f"external data file {location!r} {reason}") from None
        if stat.S_ISLNK(status.st_mode):
            raise _Fault(f"external data {location!r} goes through a symbolic link; links are not followed: copy the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise _Fault(f"external data {location!r} is not a regular file")
    if status.st_nlink > 1:
        raise _Fault(f"external data {location!r} has {status.st_nlink} hard links; it is not read: copy the file itself")
    return status.st_size
