"""Damage to files, reproducible by seed."""

from __future__ import annotations

import struct

import numpy as np
import onnx
from onnx import TensorProto

Random = np.random.Generator
NASTY = (0, 1, 2, 127, 128, 255)
NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 2**16, 2**31 - 1, 2**31, 2**40, 2**63 - 1)


def flip_bits(data: bytes, random: Random) -> bytes:
    """One to eight bits, anywhere."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        if changed:
            changed[int(random.integers(len(changed)))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def overwrite(data: bytes, random: Random) -> bytes:
    """A few bytes with values that parsers stumble over."""
    changed = bytearray(data)
    start = int(random.integers(max(len(changed), 1)))
    for index in range(start, min(start + int(random.integers(1, 17)), len(changed))):
        changed[index] = NASTY[int(random.integers(len(NASTY)))]
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    """The end is missing, or a piece out of the middle."""
    if len(data) < 2:
        return b""
    start = int(random.integers(len(data)))
    end = len(data) if random.integers(2) else min(len(data), start + int(random.integers(1, 65)))
    return data[:start] + data[end:]


def repeat(data: bytes, random: Random) -> bytes:
    """A piece stands there twice."""
    start = int(random.integers(max(len(data), 1)))
    end = min(len(data), start + int(random.integers(1, 257)))
    return data[:end] + data[start:end] + data[end:]


BYTES = (flip_bits, overwrite, cut, repeat)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    return BYTES[int(random.integers(len(BYTES)))](data, random)


# ---- fields of protocol buffers, below the level of ONNX


def fields(data: bytes) -> list[tuple[int, int]] | None:
    """(start, end) of every field of a message; None where the bytes are no message."""
    found, position = [], 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        if tag is None or tag >> 3 == 0:
            return None
        kind = tag & 7
        if kind == 0:
            _, position = _varint(data, position)
        elif kind == 1:
            position += 8
        elif kind == 2:
            length, position = _varint(data, position)
            position = None if length is None else position + length
        elif kind == 5:
            position += 4
        else:
            return None
        if position is None or position > len(data):
            return None
        found.append((start, position))
    return found


def _varint(data: bytes, position: int):
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
        shift += 7
    return None, None


def mutate_field(data: bytes, random: Random, depth: int = 0) -> bytes:
    """One field, at any depth, is removed, doubled, moved to the end, or has its bytes damaged; lengths around it stay right."""
    parts = fields(data)
    if not parts:
        return mutate_bytes(data, random)
    start, end = parts[int(random.integers(len(parts)))]
    tag, after = _varint(data, start)
    if tag & 7 == 2 and depth < 8 and random.random() < 0.8:
        _, body = _varint(data, after)
        inner = mutate_field(data[body:end], random, depth + 1)
        return data[:start] + _field(tag, inner) + data[end:]
    action = int(random.integers(4))
    if action == 0:
        return data[:start] + data[end:]
    if action == 1:
        return data[:end] + data[start:end] + data[end:]
    if action == 2:
        return data[:start] + data[end:] + data[start:end]
    return data[:start] + mutate_bytes(data[start:end], random) + data[end:]


def _field(tag: int, body: bytes) -> bytes:
    return _encode(tag) + _encode(len(body)) + body


def _encode(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 127, value >> 7
        out.append(byte | (128 if value else 0))
        if not value:
            return bytes(out)


# ---- ONNX: valid messages with hostile content


def hostile_onnx(data: bytes, random: Random) -> bytes:
    """A model that parses, with one thing in it that should not be believed."""
    model = onnx.load_from_string(data)
    HOSTILE[int(random.integers(len(HOSTILE)))](model, random)
    return model.SerializeToString()


def _pick(items, random: Random):
    return items[int(random.integers(len(items)))] if len(items) else None


def _number(random: Random) -> int:
    return int(NUMBERS[int(random.integers(len(NUMBERS)))])


def external_entry(model: onnx.ModelProto, random: Random) -> None:
    tensor = _pick(model.graph.initializer, random)
    if tensor is None:
        return
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = ("../secret", "/etc/passwd", "weights.bin", "", ".", "a/../../b", "x" * 5000, "\0", "link")
    entries = {"location": places[int(random.integers(len(places)))], "offset": str(_number(random)), "length": str(_number(random))}
    for key, value in entries.items():
        if key == "location" or random.integers(2):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value


def huge_dims(model: onnx.ModelProto, random: Random) -> None:
    tensor = _pick(model.graph.initializer, random)
    if tensor is not None and tensor.dims:
        tensor.dims[int(random.integers(len(tensor.dims)))] = _number(random)


def input_dims(model: onnx.ModelProto, random: Random) -> None:
    value = _pick([*model.graph.input, *model.graph.output, *model.graph.value_info], random)
    dims = value.type.tensor_type.shape.dim
    if len(dims):
        dims[int(random.integers(len(dims)))].dim_value = _number(random)


def element_type(model: onnx.ModelProto, random: Random) -> None:
    target = _pick([*model.graph.initializer, *model.graph.input], random)
    kind = int(random.integers(0, 30))
    if isinstance(target, onnx.TensorProto):
        target.data_type = kind
    else:
        target.type.tensor_type.elem_type = kind


def attribute_value(model: onnx.ModelProto, random: Random) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    attribute = _pick(attributes, random)
    if attribute is None:
        return
    if attribute.ints:
        attribute.ints[int(random.integers(len(attribute.ints)))] = _number(random)
    else:
        attribute.i = _number(random)


def rewire(model: onnx.ModelProto, random: Random) -> None:
    """A node reads, or makes, another tensor: cycles, tensors made twice, missing ones."""
    node = _pick(model.graph.node, random)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + ["nobody", ""]
    slots = node.input if random.integers(2) and len(node.input) else node.output
    if len(slots):
        slots[int(random.integers(len(slots)))] = names[int(random.integers(len(names)))]


def operator(model: onnx.ModelProto, random: Random) -> None:
    node = _pick(model.graph.node, random)
    names = ("Mystery", "Conv", "MatMul", "Loop", "If", "Scan", "Reshape", "Gather", "Resize", "QuantizeLinear", "NonZero", "")
    node.op_type = names[int(random.integers(len(names)))]


def weights(model: onnx.ModelProto, random: Random) -> None:
    """Values that are no numbers, or too large for FP16."""
    tensor = _pick([tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT and tensor.raw_data], random)
    if tensor is not None:
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        if values.size:
            values[int(random.integers(values.size))] = (np.nan, np.inf, -np.inf, 1e38, 7e4, 1e-40)[int(random.integers(6))]
        tensor.raw_data = values.tobytes()


def names(model: onnx.ModelProto, random: Random) -> None:
    node = _pick(model.graph.node, random)
    node.name = ("", "\n\x1b[31m", "x" * 3000, "../../up", "<script>", "\u202e")[int(random.integers(6))]


def versions(model: onnx.ModelProto, random: Random) -> None:
    if random.integers(2):
        model.ir_version = max(min(_number(random), 2**31), 0)
    elif model.opset_import:
        model.opset_import[0].version = _number(random)


HOSTILE = (external_entry, huge_dims, input_dims, element_type, attribute_value, rewire, operator, weights, names, versions)


def mutate_onnx(data: bytes, random: Random) -> bytes:
    """One of all of these."""
    kind = int(random.integers(10))
    if kind < 5:
        return hostile_onnx(data, random)
    return mutate_field(data, random) if kind < 8 else mutate_bytes(data, random)


# ---- calibration caches


def mutate_cache(text: bytes, random: Random) -> bytes:
    lines = text.split(b"\n")
    kind = int(random.integers(6))
    index = int(random.integers(len(lines)))
    if kind == 0:
        return mutate_bytes(text, random)
    if kind == 1:
        del lines[index]
    elif kind == 2:
        lines.insert(index, lines[int(random.integers(len(lines)))])
    elif kind == 3:
        value = (np.nan, np.inf, -1.0, 0.0, 1e-45, 3e38)[int(random.integers(6))]
        name = lines[index].split(b":")[0]
        lines[index] = name + b": " + struct.pack(">f", value).hex().encode()
    elif kind == 4:
        lines[0] = (b"", b"TRT-", b"TRT-99999999-EntropyCalibration2", b"TRT-100600-LegacyCalibration", b"\xff\xfe")[
            int(random.integers(5))
        ]
    else:
        lines[index] = lines[index][: int(random.integers(len(lines[index]) + 1))]
    return b"\n".join(lines)
