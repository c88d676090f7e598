"""Types and shapes as onnx infers them."""

from __future__ import annotations

import onnx
import onnx.shape_inference

from onnx2trt.base.errors import ConversionError, ExitCode

LONGEST_SHAPE = 2**16  # values of a vector that are followed


def infer_shapes(model: onnx.ModelProto, values: bool = False) -> onnx.ModelProto:
    """The model with the types and shapes that onnx can infer.

    Args:
        values: shapes that are computed in the graph are followed, too.

    Raises:
        ConversionError: MODEL, where a node cannot be what it says; onnx gives up, though it was not asked to be strict.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False)
        if not values or _has_long_vectors(inferred.graph):
            return inferred
        return onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ConversionError(
            f"types and shapes of the model cannot be inferred: {error}",
            hint="A node has the wrong number or kind of inputs: check the file with onnx.checker, and export it again.",
            code=ExitCode.MODEL,
        ) from error


def _has_long_vectors(graph: onnx.GraphProto) -> bool:
    """Whether following values could take a long time and much memory: onnx keeps one by one those of all vectors, which shapes may be."""
    shapes = (value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.output))
    return any(len(dims) == 1 and dims[0].dim_value > LONGEST_SHAPE for dims in shapes)
