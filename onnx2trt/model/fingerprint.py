"""What of a model stays the same when it is only trained further, and which of its weights have other values then."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS, dims
from onnx2trt.base.side_files import fits
from onnx2trt.model.graph import Graph, array_of

MOST_BYTES = 2**28  # of the lines; those of a network of 20 000 nodes have some 5 MB
DIGEST_BYTES = 8
SHOWN = 160  # characters of a line in a message


@dataclass(frozen=True)
class Fingerprint:
    """The structure of a graph as lines of text, in order, and a digest of each weight whose values may change."""

    lines: tuple[str, ...]
    values: dict[str, str]  # weight of a floating-point type -> digest

    def pack(self) -> dict:
        """As JSON has it; the lines are compressed, since many of them are much alike."""
        text = "\n".join(self.lines).encode("utf-8", "surrogateescape")
        return {"lines": base64.b64encode(zlib.compress(text, 9)).decode(), "values": self.values}

    @classmethod
    def unpack(cls, packed: dict) -> Fingerprint:
        """The inverse of pack.

        Raises:
            ValueError: it is none, or larger than any network's.
        """
        try:
            inflated = zlib.decompressobj()
            text = inflated.decompress(base64.b64decode(packed["lines"], validate=True), MOST_BYTES)  # some kB can stand for gigabytes
            if not inflated.eof:
                raise ValueError(f"no fingerprint: it is cut, or has more than {MOST_BYTES} bytes")
            if not fits(packed["values"], dict[str, str]):
                raise ValueError("no fingerprint: its values are none")
            return cls(tuple(text.decode("utf-8", "surrogateescape").split("\n")), packed["values"])
        except (KeyError, TypeError, UnicodeError, zlib.error, binascii.Error) as error:
            raise ValueError(f"no fingerprint ({type(error).__name__}: {error})") from None

    def first_difference(self, other: Fingerprint) -> str:
        """Where another structure leaves this one, in words; empty where they are the same."""
        for own, its in zip(self.lines, other.lines):
            if own != its:
                return f"{_short(its)}, which was {_short(own)}"
        longer, what = (other, "new") if len(other.lines) > len(self.lines) else (self, "gone")
        more = longer.lines[min(len(self.lines), len(other.lines)) :]
        return f"{_short(more[0])} is {what}" if more else ""

    def changed(self, other: Fingerprint) -> frozenset[str]:
        """The weights that have other values there."""
        return frozenset(name for name, digest in self.values.items() if other.values.get(name) != digest)


def fingerprint(graph: Graph) -> Fingerprint:
    """Of a graph in its working form.

    Integer and Boolean constants are shapes, axes, indices: their values are part of the structure. So are all constants inside the
    bodies of control flow, and those in attributes.
    """
    structure, values = [], {}
    for entry in sorted(graph.proto.opset_import, key=lambda entry: entry.domain):
        domain = "ai.onnx" if entry.domain in STANDARD_DOMAINS else entry.domain
        structure.append(f"opset {domain} {entry.version}")
    structure += [f"input {_declared(value)}" for value in graph.proto.graph.input]
    structure += [f"output {_declared(value)}" for value in graph.proto.graph.output]
    nodes = [line for node in graph.nodes for line in _node(node)]
    weights = []
    for name, array in sorted(graph.weights.items()):
        if _trainable(array):
            values[name] = _digest(array)
            weights.append(f"weight {name!r} {array.dtype.name} {dims(array.shape)}")
        else:
            weights.append(f"constant {name!r} {_constant(array)}")
    return Fingerprint((*structure, *nodes, *weights), values)


def _trainable(array: np.ndarray) -> bool:
    """Floating point, those types included that numpy knows by name alone (bfloat16, float8)."""
    return array.dtype.kind == "f" or "float" in array.dtype.name


def _declared(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim]
    shape = dims(sizes) if kind.HasField("shape") else "of any rank"
    return f"{value.name!r} {onnx.TensorProto.DataType.Name(kind.elem_type).lower()} {shape}"


def _node(node: onnx.NodeProto, inside: str = "") -> Iterator[str]:
    """A line for the node, and one for each node and constant in its bodies."""
    domain = "" if node.domain in STANDARD_DOMAINS else f"{node.domain}."
    plain, bodies = [], []
    for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
        graphs = [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)
        bodies += [(f"{node.name}.{attribute.name}", body) for body in graphs]
        if not graphs:
            plain.append(f"{attribute.name}={_value(attribute)}")
    where = f" in {inside!r}" if inside else ""
    what = f" with {', '.join(plain)}" if plain else ""
    yield f"node {node.name!r}{where} ({domain}{node.op_type}) {list(node.input)} -> {list(node.output)}{what}"
    for name, body in bodies:
        yield from (f"input {_declared(value)} of {name!r}" for value in body.input)
        yield from (f"constant {tensor.name!r} of {name!r} {_constant(array_of(tensor))}" for tensor in body.initializer)
        for inner in body.node:
            yield from _node(inner, name)
        yield from (f"output {value.name!r} of {name!r}" for value in body.output)


def _value(attribute: onnx.AttributeProto) -> str:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _constant(array_of(attribute.t))
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, int | float | bytes | str):
        return repr(value)
    if all(isinstance(one, int | float | bytes | str) for one in value):
        return repr(list(value))
    return hashlib.blake2b(attribute.SerializeToString(deterministic=True), digest_size=DIGEST_BYTES).hexdigest()


def _constant(array: np.ndarray) -> str:
    shown = array.reshape(-1).tolist() if array.size <= DIGEST_BYTES and array.dtype.kind in "iub" else _digest(array)
    return f"{array.dtype.name} {dims(array.shape)} {shown}"


def _digest(array: np.ndarray) -> str:
    flat = np.ascontiguousarray(array)
    contents = repr(flat.tolist()).encode() if flat.dtype.kind == "O" else flat.reshape(-1).view(np.uint8)
    return hashlib.blake2b(contents, digest_size=DIGEST_BYTES).hexdigest()


def _short(line: str) -> str:
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."
