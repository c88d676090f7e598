"""Inputs that become constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper


def bind(model: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with weights in the place of these inputs; an output that is such an input is made by an Identity.

    Args:
        model: with all its data in memory; left as it is where nothing is bound.
        constants: input -> value, of its type and shape.
    """
    if not constants:
        return model
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    graph = bound.graph
    kept = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)
    returned = {value.name for value in graph.output}
    for name, array in constants.items():
        source = name
        if name in returned:
            source = f"{name}__bound"
            graph.node.add(op_type="Identity", input=[source], output=[name], name=f"{name}__identity")
        graph.initializer.append(numpy_helper.from_array(array, source))
    return bound
