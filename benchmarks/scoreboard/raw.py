"""The bare library on the untouched model: parse and build, nothing else. What it refuses here, nobody can convert as it is."""

from __future__ import annotations

import os

import numpy as np
import onnx

from .case import Case

MESSAGE = 600  # characters
COMPUTED = {"FLOAT", "FLOAT16", "BFLOAT16", "INT8", "INT32", "INT64", "BOOL", "UNDEFINED"}
WORKSPACE = 4 << 30  # bytes, as the command's default


def take(case: Case) -> dict:
    """Parse and build.

    Returns:
        taken, and where it is not: message (the library's), refused_at (parse, profile or build), operators (that the parser names),
        types (in the model, that TensorRT does not compute with).
    """
    from onnx2trt.trt.library import load_library

    trt = load_library("auto").trt
    said: list[str] = []
    logger = _logger(trt, said)
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(os.fspath(case.path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        named = [error.node_operator() for error in errors if hasattr(error, "node_operator")]  # since TensorRT 10
        refusal = _refusal("parse", [error.desc().strip() for error in errors] or said)
        return refusal | {"operators": sorted({*filter(None, named)}), "types": lacking_types(onnx.load(case.path))}
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    problem = _add_profile(builder, config, network, case)
    if problem:
        return _refusal("profile", [problem, *said])
    engine = builder.build_serialized_network(network, config)
    if engine is not None and engine.nbytes:
        return {"taken": True}
    return _refusal("build", said) | {"types": lacking_types(onnx.load(case.path))}


def lacking_types(model: onnx.ModelProto) -> list[str]:
    """Types of inputs, outputs and weights that TensorRT has not, or takes only next to a quantizer, and structures that are no tensors."""
    found = set()
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        kind = value.type.WhichOneof("value")
        found.add(onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type) if kind == "tensor_type" else kind.removesuffix("_type"))
    found |= {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer}
    return sorted(found - COMPUTED)


def _refusal(where: str, errors: list[str]) -> dict:
    return {"taken": False, "refused_at": where, "message": "\n".join(dict.fromkeys(errors))[:MESSAGE]}


def _logger(trt, said: list[str]):
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, level, text: str) -> None:
            if level in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                said.append(text)

    return Logger()


def _add_profile(builder, config, network, case: Case) -> str:
    """A profile for what is free and for inputs that hold shapes, by the arrays of the case; why it is not accepted, else empty."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if not any(tensor.is_shape_tensor or -1 in tuple(tensor.shape) for tensor in inputs):
        return ""
    feed, profile = case.feed(), builder.create_optimization_profile()
    for tensor in inputs:
        if tensor.name not in feed:
            return f"nothing is known of input {tensor.name!r}"
        if tensor.is_shape_tensor:
            values = np.atleast_1d(feed[tensor.name]).ravel().tolist()
            profile.set_shape_input(tensor.name, values, values, values)
        else:
            shape = feed[tensor.name].shape
            profile.set_shape(tensor.name, shape, shape, shape)
    return "" if config.add_optimization_profile(profile) >= 0 else "the profile was not accepted"
