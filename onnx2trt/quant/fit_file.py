"""The file beside a calibration cache that holds what a run found beyond plain scales, and under what conditions.

An uncompressed .npz of one JSON text and plain arrays, nothing pickled. Whoever can write the cache can write this file, too, so it
is read like any foreign file: no size is believed before it has been compared with what is there and with what the graph expects.

safetensors is not used: it carries all of this and refuses what is damaged, but would replace 20 lines (the two functions at the end), and
files of before would have to be found again.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnx2trt.base.side_files import parse_json
from onnx2trt.model.graph import Graph
from onnx2trt.quant.columns import Columns, supports
from onnx2trt.rewrite.body_layers import body_layers
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.number_formats import INT8, NumberFormat
from onnx2trt.rewrite.qdq import Rounded, quantizable_layers, scale_axis, weight_layout

FORMAT = 9  # raise it when equalizing, fitting or the choice of layers changes: then what older files hold is found again
MOST_TEXT = 2**26  # bytes of names, conditions and reasons
TYPES = ("uint8", "int8", "float32", "float64")
WRONG_TYPE = (KeyError, TypeError, AttributeError)  # what a JSON text raises whose values are of another type than expected


@dataclass(frozen=True)
class Found:
    """What a run found. Of tensors that are equalized together, the first one stands for all."""

    method: str  # of calibration
    fit: Fit  # without scales: those of the cache go with it
    shifts: dict[str, np.ndarray] = field(default_factory=dict)  # tensor -> float64 [channels]
    factors: dict[str, np.ndarray] = field(default_factory=dict)  # tensor -> float64 [channels], above 0
    kept_fp32: dict[str, str] = field(default_factory=dict)  # nodes in FP32 -> reason
    fp16_fallback: dict[str, str] = field(default_factory=dict)  # nodes that INT8 does not suit -> reason
    held_out: dict[str, float] = field(default_factory=dict)  # output -> drop in % on samples that INT8 was made without
    # Scales of the tensors that nothing reads as INT8, where channels are equalized, so that those of the cache do not fit
    others: dict[str, float] = field(default_factory=dict)


def pack(found: Found, conditions: dict) -> memoryview:
    """Content of the file.

    Args:
        conditions: what `found` depends on, as JSON can hold it.
    """
    fit, stored = found.fit, {}  # id of weights -> their number: layers that share theirs refer to the same
    for own in fit.rounded.values():
        stored.setdefault(id(own.weights), len(stored))
    about = {
        "format": FORMAT,
        "conditions": conditions,
        "method": found.method,
        "scales": list(fit.scales),
        "others": list(found.others),
        "shifts": list(found.shifts),
        "factors": list(found.factors),
        "fitted": {node: [stored[id(own.weights)], own.bias is not None] for node, own in fit.rounded.items()},
        "holds": found.kept_fp32,  # this name and the next are those of FORMAT 4
        "given_up": found.fp16_fallback,
        "held_out": found.held_out,
    }
    arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    arrays |= {name: np.array(list(own.values()), np.float64) for name, own in (("scales", fit.scales), ("others", found.others))}
    for kind, vectors in (("shift", found.shifts), ("factor", found.factors)):
        arrays |= {f"{kind}_{number}": np.asarray(vector, np.float64) for number, vector in enumerate(vectors.values())}
    for number, own in enumerate(fit.rounded.values()):
        weights = own.weights if own.weights.dtype == np.int8 else own.weights.view(np.uint8)  # the bits of FP8
        arrays[f"weights_{stored[id(own.weights)]}"] = np.array(weights, order="C")
        arrays[f"weight_scales_{stored[id(own.weights)]}"] = np.array(own.scales, np.float32)
        if own.bias is not None:
            arrays[f"bias_{number}"] = np.array(own.bias, np.float32)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getbuffer()


def most_bytes(graph: Graph) -> int:
    """More than a file for this graph can have: an integer and two vectors at most for each of its weights, and some text for each node."""
    return 2 * graph.bytes + 2**12 * len(graph.nodes) + 2**20


class Packed:
    """A file's content, so far only known to be an .npz of ours."""

    def __init__(self, data: bytes):
        """
        Raises:
            ValueError: it is not.
        """
        try:
            self._arrays = _arrays(data)
            self._about = parse_json(self._arrays.pop("about").tobytes(), MOST_TEXT)
            self.format, self.conditions = self._about["format"], dict(self._about["conditions"])
        except Exception as error:  # zipfile, numpy, tokenize and json raise about ten classes of their own for damaged files
            raise ValueError(f"it is damaged ({error})") from None

    def unpack(self, graph: Graph, number_format: NumberFormat = INT8) -> Found:
        """
        Args:
            graph: folded, FP32.
            number_format: of the weights; that of the cache that the file belongs to.

        Raises:
            ValueError: the content does not fit the graph.
        """
        about, layers = self._about, {layer.node: layer for layer in quantizable_layers(graph, number_format)}
        nodes, inner = {node.name: node for node in graph.nodes}, body_layers(graph, number_format)
        try:
            scales, others = self._scales("scales"), self._scales("others")
            known = {*graph.float_tensors(), *(layer.activation for layer in inner)}
            _require(scales.keys() <= known, "it has scales of unknown tensors")
            rounded, stored = {}, {}  # number of weights -> (layout of the layers that share them, weights, scales)
            for number, (node, (own, biased)) in enumerate(about["fitted"].items()):
                _require(node in layers, f"{node!r} is no layer that {number_format.label} can compute")
                layout, weight = weight_layout(nodes[node]), graph.weights[nodes[node].input[1]]
                if own not in stored:
                    stored[own] = layout, *self._weights(own, nodes[node], weight, number_format)
                _require(stored[own][0] == layout, f"{node!r} has the weights of another layer")
                rounded[node] = Rounded(*stored[own][1:], self._bias(number, nodes[node], weight) if biased else None)
            found = Found(
                str(about["method"]),
                Fit(scales, rounded),
                self._vectors("shift", about["shifts"]),
                self._vectors("factor", about["factors"]),
                _reasons(about["holds"]),
                _reasons(about["given_up"]),
                dict(about["held_out"]),
                others,
            )
            finite = all(isinstance(drop, float) and 0 <= drop < math.inf for drop in found.held_out.values())
            _require(finite, "a drop is no finite number")
        except (*WRONG_TYPE, ValueError) as error:
            raise ValueError(f"it does not fit the model ({error})") from None
        unknown = found.fp16_fallback.keys() - nodes.keys() - {layer.node for layer in inner}
        if self._arrays or unknown:
            raise ValueError(f"it does not fit the model (unknown: {[*self._arrays, *sorted(unknown)][:3]})")
        return found

    def _take(self, name: str, dtype: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        array = self._arrays.pop(name)
        _require(array.dtype == dtype and (shape is None or array.shape == shape), f"{name} is {array.dtype} {list(array.shape)}")
        return array

    def _scales(self, name: str) -> dict[str, float]:
        tensors = self._about[name]
        scales = self._take(name, "float64", (len(tensors),))
        _require(_positive(scales), "a scale is not above 0 and finite")
        return dict(zip(tensors, scales.tolist()))

    def _vectors(self, kind: str, tensors: list[str]) -> dict[str, np.ndarray]:
        return {str(tensor): self._take(f"{kind}_{number}", "float64") for number, tensor in enumerate(tensors)}

    def _weights(self, number: int, node: onnx.NodeProto, weight: np.ndarray, number_format: NumberFormat) -> tuple[np.ndarray, np.ndarray]:
        """(weights in the format, scales)"""
        _require(supports(node, weight), f"weights of {node.name!r} are not fitted")
        integers, axis = number_format is INT8, scale_axis(node, weight.ndim, number_format)
        weights = self._take(f"weights_{number}", "int8" if integers else "uint8", weight.shape)
        weights = weights if integers else weights.view(number_format.dtype)
        _require(integers or bool(np.isfinite(weights.astype(np.float32)).all()), f"a weight of {node.name!r} is not finite")
        scales = self._take(f"weight_scales_{number}", "float32", () if axis is None else (weight.shape[axis],))
        _require(_positive(scales), f"a weight scale of {node.name!r} is not above 0 and finite")
        return weights, scales

    def _bias(self, number: int, node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
        columns = Columns(node, weight)
        bias = self._take(f"bias_{number}", "float32", columns.channels(np.zeros(columns.rows(weight).shape[:2])).shape)
        _require(bool(np.isfinite(bias).all()), f"the bias of {node.name!r} is not finite")
        return bias


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _positive(scales: np.ndarray) -> bool:
    """Above 0 and finite, as the float32 that they will be."""
    with np.errstate(over="ignore"):
        stored = scales.astype(np.float32)
    return bool((np.isfinite(stored) & (stored > 0)).all())


def _reasons(texts: dict) -> dict[str, str]:
    return {str(node): str(reason) for node, reason in texts.items()}


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Name -> array of every member; none can be larger than the file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        _require(all(entry.compress_type == zipfile.ZIP_STORED for entry in entries), "compressed")
        _require(sum(entry.file_size for entry in entries) <= len(data), "members overlap")
        found = {entry.filename.removesuffix(".npy"): _array(archive.read(entry)) for entry in entries}
    _require(len(found) == len(entries), "two members of one name")
    return found


def _array(data: bytes) -> np.ndarray:
    """The array in a .npy; numpy.load would take the memory for the declared shape before it looks at the data."""
    stream = io.BytesIO(data)
    _require(np.lib.format.read_magic(stream) == (1, 0), "another version of .npy")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    _require(dtype.name in TYPES and dtype.isnative and not fortran, f"an array of {dtype}")
    _require(min(shape, default=1) >= 0 and math.prod(shape) * dtype.itemsize == len(data) - stream.tell(), f"an array of shape {shape}")
    return np.ndarray(shape, dtype, data, stream.tell())
