"""The data of a model's initializers, taken out of its protobuf, so that all graphs that are made of it share them."""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.graph import array_of

SMALL = 2**10  # bytes; up to here a tensor stays in the protobuf


def apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """(a model without the data of its large initializers, these data: name -> array), so that graphs of it share them.

    Protobuf keeps the memory of a field that is cleared, and gives a new copy of the data whenever it is asked for them.

    Args:
        model: left as it is.
    """
    light, weights = onnx.ModelProto(), {}
    _merge(model, light, "graph")
    _merge(model.graph, light.graph, "initializer")
    for tensor in model.graph.initializer:
        kept = light.graph.initializer.add()
        if tensor.ByteSize() <= SMALL:
            kept.CopyFrom(tensor)
        else:
            weights[tensor.name] = array_of(tensor)
            kept.name, kept.data_type = tensor.name, tensor.data_type
            kept.dims.extend(tensor.dims)
    return light, weights


def _merge(source, into, without: str) -> None:
    """All fields of a message but one."""
    for field, value in source.ListFields():
        if field.name != without and hasattr(value, "MergeFrom"):
            getattr(into, field.name).MergeFrom(value)
        elif field.name != without and hasattr(value, "CopyFrom"):
            getattr(into, field.name).CopyFrom(value)
        elif field.name != without:
            setattr(into, field.name, value)
