"""ONNX -> TensorRT network, checked against what the model declares."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.model_info import ModelInfo, NodeInfo, dims

FLOAT_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "FP8": "fp8"}
NO_WORK = ("CONSTANT", "QUANTIZE", "DEQUANTIZE", "CAST", "IDENTITY", "SHAPE", "SHUFFLE", "ASSERTION")
# TensorRT's name of a type -> numpy's, for inputs and outputs of a network
IO_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool", "UINT8": "uint8"}


@dataclass(frozen=True)
class ParserInput:
    """What the parser reads: a file (external data beside it), or the model's bytes, with arrays beside them or all in them."""

    path: str | None = None
    data: bytes | None = None
    weights: dict[str, np.ndarray] = field(default_factory=dict)  # of the external tensors in `data`; C-contiguous
    nodes: Callable[[], Iterable[NodeInfo]] = tuple  # of the model in there, to name those at fault


def parse(trt: ModuleType, network, logger, source: ParserInput):
    """Read the ONNX into the network.

    Returns:
        (parser, whether it could read all of it); weights of the network may point into it and into `source.weights`, so these have to
        outlive the build.

    Raises:
        ConversionError: BUILD, where there is no parser.
    """
    parser = trt.OnnxParser(network, logger)
    if parser is None:
        raise ConversionError("TensorRT's OnnxParser gave nothing", code=ExitCode.BUILD)
    if source.path is not None:
        parsed = _parse_file(parser, source.path)
    else:
        parsed = _parse_beside(parser, source) if source.weights else parser.parse(source.data)
    return parser, parsed and not parser.num_errors


def set_io_types(trt: ModuleType, network, io_types: dict[str, str]) -> None:
    """
    Args:
        io_types: input or output -> fp32 | fp16, to set on a weakly typed network.
    """
    for tensor in _io(network):
        if tensor.name in io_types:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated with weak typing
                tensor.dtype = {"fp32": trt.float32, "fp16": trt.float16}[io_types[tensor.name]]


def _io(network) -> list:
    return [network.get_input(i) for i in range(network.num_inputs)] + [network.get_output(i) for i in range(network.num_outputs)]


def takes_weights(trt: ModuleType) -> bool:
    """Whether the parser takes arrays as they lie in memory (10.13 and newer)."""
    return hasattr(trt.OnnxParser, "load_initializer")


def _parse_beside(parser, source: ParserInput) -> bool:
    loaded = parser.load_model_proto(source.data)
    loaded = loaded and all(parser.load_initializer(name, array.ctypes.data, array.nbytes) for name, array in source.weights.items())
    return loaded and parser.parse_model_proto()


def _parse_file(parser, path: str) -> bool:
    """By file name, or by content where TensorRT cannot take the name (bytes that are not UTF-8)."""
    try:
        path.encode()
        return parser.parse_from_file(path)
    except UnicodeEncodeError:
        with open(path, "rb") as stream:
            return parser.parse(stream.read(), "model.onnx")


def check_io(network, model: ModelInfo) -> dict[str, int]:
    """Hold inputs and outputs against the model's: the parser turns DOUBLE into FLOAT and an unknown rank into a scalar, and says nothing.

    Args:
        model: with inputs and outputs as the engine shall have them.

    Returns:
        Output -> rank, of those whose rank is not the declared one: one of the two is wrong.

    Raises:
        ConversionError: MODEL.
    """
    found = {
        "input": [network.get_input(i) for i in range(network.num_inputs)],
        "output": [network.get_output(i) for i in range(network.num_outputs)],
    }
    ranks: dict[str, int] = {}
    for role, specs in (("input", model.inputs), ("output", model.outputs)):
        have = {tensor.name: tensor for tensor in found[role]}
        if set(have) != {spec.name for spec in specs}:
            raise ConversionError(
                f"TensorRT's parser found the {role}s {sorted(have)}, the model declares {sorted(s.name for s in specs)}",
                hint="An unused input is often left by an export: simplify the model, or export it again.",
                code=ExitCode.MODEL,
            )
        for spec in specs:
            dtype = IO_TYPES.get(have[spec.name].dtype.name, have[spec.name].dtype.name)
            rank = len(have[spec.name].shape)
            other_rank = spec.shape is not None and rank != len(spec.shape)
            if role == "output" and other_rank and dtype == spec.dtype:
                ranks[spec.name] = rank
            elif dtype != spec.dtype or other_rank:
                declared = f"{spec.dtype} {dims(spec.shape)}" if spec.shape is not None else spec.dtype
                raise ConversionError(
                    f"TensorRT's parser made {role} {spec.name!r} {dtype} of rank {rank}; the model declares {declared}",
                    code=ExitCode.MODEL,
                )
    return ranks


def typed_layers(network) -> dict[str, int]:
    """Layers of a strongly typed network by precision: INT8 or FP8 where an operand is dequantised, else the type of the output."""
    made_by, counts = {}, {"int8": 0, "fp16": 0, "fp32": 0}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for output in range(layer.num_outputs):
            made_by[layer.get_output(output).name] = layer
        if layer.type.name in NO_WORK or not layer.num_outputs:
            continue
        precision = FLOAT_TYPES.get(layer.get_output(0).dtype.name)
        inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
        makers = [made_by[tensor.name] for tensor in inputs if tensor is not None and tensor.name in made_by]
        read = next((maker.get_input(0).dtype.name for maker in makers if maker.type.name == "DEQUANTIZE"), None)
        if read:
            precision = FLOAT_TYPES.get(read, "int8")
        if precision:
            counts[precision] = counts.get(precision, 0) + 1
    return counts
