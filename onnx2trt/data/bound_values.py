"""What --bind-input says, as an array of the input's type and shape."""

from __future__ import annotations

import ast
import re

import numpy as np

from onnx2trt.base.errors import ConversionError, DataError, ExitCode
from onnx2trt.base.model_info import BoundInput, TensorSpec, dims
from onnx2trt.base.words import to_type
from onnx2trt.data.arrays import load_array, typed

EXAMPLES = {"b": "true", "f": "0.5", "i": "16000", "u": "1"}  # kind of the type -> a value


def bound_input(spec: TensorSpec, text: str) -> BoundInput:
    """The value of an input that becomes a constant.

    Args:
        text: a number, true or false, a list of them (nested as the input's shape is), or the name of a .npy file.

    Raises:
        ConversionError: USAGE, where it is none of these, or does not fit the input's type or shape.
    """
    try:
        array = load_array(text) if is_file(text) else _written(text, spec)
        return BoundInput(spec, typed(_shaped(_of_kind(array, spec), spec), spec), text)
    except DataError as error:
        raise ConversionError(
            f"--bind-input {spec.name}={_short(text)} {error}",
            hint=f"{spec.name!r} is {spec.dtype} {dims(spec.shape) if spec.shape is not None else 'of any shape'}: write for example "
            f"--bind-input {to_type(spec.name, _example(spec), '=')}, or give a .npy file.",
            code=ExitCode.USAGE,
        ) from None


def _written(text: str, spec: TensorSpec) -> np.ndarray:
    """'16000', 'true', '[1, 2]', '1,2' or '[[1, 0], [0, 1]]' as an array."""
    words = re.sub(r"\b(true|false)\b", lambda found: found[0].capitalize(), text, flags=re.IGNORECASE)
    try:
        value = ast.literal_eval(words)
        array = np.array(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError, OverflowError):
        array = None
    if array is not None and array.dtype == object and all(isinstance(value, int) for value in array.flat):
        raise DataError(f"has a value that {spec.dtype} cannot hold")
    if array is None or array.dtype.kind not in "biuf":
        raise DataError("is neither a number, true or false, a list of them, nor a .npy file")
    return array


def _of_kind(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Values of the kind that the input has: no fraction for an integer, nothing but 0 and 1 for a bool."""
    wanted, given = np.dtype(spec.dtype).kind, array.dtype.kind
    if wanted == "b" and given in "iu" and np.isin(array, (0, 1)).all():
        return array.astype(np.bool_)
    fits = given == wanted or wanted == "f" and given in "iu" or {wanted, given} <= {"i", "u"}
    if not fits:
        raise DataError(f"is {'bool' if given == 'b' else array.dtype}, which {spec.dtype} does not take")
    return array


def _shaped(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """In the input's shape: a single value fills fixed sizes, a missing first axis is added."""
    shape = spec.shape
    if shape is None:
        return array
    if array.ndim == 0 and all(isinstance(dim, int) for dim in shape):
        return np.full(shape, array)
    if array.ndim == len(shape) - 1:
        array = array[None]
    if not spec.takes(array.shape):
        raise DataError(f"has shape {dims(array.shape)}; the model takes {dims(shape)}")
    return array


def _example(spec: TensorSpec) -> str:
    example = EXAMPLES[np.dtype(spec.dtype).kind]
    if not spec.shape or all(isinstance(dim, int) for dim in spec.shape):
        return example
    size = spec.shape[-1] if isinstance(spec.shape[-1], int) and spec.shape[-1] <= 4 else 2
    row = f"[{','.join([example] * size)}]"
    return "[" * (len(spec.shape) - 1) + row + "]" * (len(spec.shape) - 1)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_file(text: str) -> bool:
    """Whether a value is the name of a file that holds it."""
    return text.lower().endswith(".npy")
