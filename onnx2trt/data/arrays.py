"""Data that is no image: .npz and .npy files, and made-up arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from onnx2trt.base.errors import DataError
from onnx2trt.base.model_info import BoundInput, Profile, TensorSpec, dims
from onnx2trt.data import array_files
from onnx2trt.data.rows import WHOLE_FILE, Rows


def load_arrays(
    path: str,
    inputs: tuple[TensorSpec, ...],
    rows: Rows = WHOLE_FILE,
    picked: Iterable[int] | None = None,
    bound: tuple[BoundInput, ...] = (),
) -> list[dict[str, np.ndarray] | DataError]:
    """Samples of an .npz (keys are input names) or .npy file (models of one input), never unpickled.

    Args:
        rows: how the file divides into samples; a missing first axis is added.
        picked: which of its samples; all where None.
        bound: inputs that are constants; a file need not hold them, but nothing else under their names.

    Returns:
        For each sample picked, its arrays, or what is wrong with the values of this one.

    Raises:
        DataError: names, types or shapes do not fit the model.
    """
    only = inputs[0].name if len(inputs) == 1 else None
    if only is None and not array_files.is_archive(path):
        raise DataError(f"holds one array, but the model has {len(inputs)} inputs: use .npz")
    announced = array_files.announced(path, only)
    missing = [spec.name for spec in inputs if spec.name not in announced]
    if missing:
        raise DataError(f"has no array {', '.join(map(repr, missing))}; it holds {', '.join(map(repr, announced)) or 'nothing'}")
    blocks = {spec.name: 0 if spec.name in rows.shared else rows.block for spec in inputs}
    for spec in inputs:  # what does not fit is not even unpacked
        _formed(announced[spec.name], spec, blocks[spec.name])
    arrays = array_files.read(path, only, {*blocks, *(entry.spec.name for entry in bound)})
    _check_bound(arrays, bound)
    formed = {spec.name: _formed(arrays[spec.name], spec, blocks[spec.name]) for spec in inputs}
    own = [array for name, array in formed.items() if name not in rows.shared and array.ndim]
    counts = {len(array) // rows.block for array in own} if rows.block else {1}
    if len(counts) != 1 or not rows.block:  # first axes that have nothing to do with each other
        return [_sample({spec.name: _formed(formed[spec.name], spec, 0) for spec in inputs}, inputs)]
    count, found = counts.pop(), []
    for index in range(count) if picked is None else picked:
        if index >= count:
            raise DataError(f"holds {count} samples now, and held more when they were counted")
        part = slice(index * rows.block, (index + 1) * rows.block)
        found.append(_sample({name: array if name in rows.shared else array[part] for name, array in formed.items()}, inputs))
    return found


def _sample(arrays: dict[str, np.ndarray], inputs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray] | DataError:
    """In the types of the model; what is wrong with the values, where they do not fit."""
    try:
        return {spec.name: typed(arrays[spec.name], spec) for spec in inputs}
    except DataError as error:
        return error.with_traceback(None)  # whose frames would keep the arrays as long as the error


def _check_bound(arrays: dict[str, np.ndarray], bound: tuple[BoundInput, ...]) -> None:
    """A sample of another setting than the one that was fixed says nothing about it.

    Raises:
        DataError
    """
    for entry in bound:
        found = arrays.get(entry.spec.name)
        if found is not None and not same_values(entry.value, found):
            raise DataError(f"has another {entry.spec.name!r} than --bind-input {entry.spec.name}={entry.text}")


def same_values(value: np.ndarray, found: np.ndarray) -> bool:
    """Whether an array of a data file is what an input was bound to, once or for each row."""
    try:
        shape = np.broadcast_shapes(value.shape, found.shape)
    except ValueError:
        return False
    return bool((np.broadcast_to(value, shape) == np.broadcast_to(found, shape)).all())


def load_array(path: str) -> np.ndarray:
    """A .npy file, never unpickled.

    Raises:
        DataError: it is none, or cannot be read.
    """
    if not os.path.isfile(path):
        raise DataError("is not a file" if os.path.exists(path) else "does not exist")
    array_files.announced(path, "")
    return array_files.read(path, "", ("",))[""]


def _formed(array: np.ndarray, spec: TensorSpec, block: int) -> np.ndarray:
    """The array in the input's rank.

    Args:
        block: entries along the first axis that make a sample, of which there may be several; 0: the array is one sample.
    """
    if array.dtype != spec.dtype and not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise DataError(f"has {array.dtype} in {spec.name!r}; the model takes {spec.dtype}")
    if spec.shape is None:
        return array
    if array.ndim == len(spec.shape) - 1:
        array = array[None]
    elif spec.shape == () and array.size == 1:
        array = array.reshape(())
    fits = array.ndim == len(spec.shape) and all(
        size % block == 0 if block and not axis else not isinstance(dim, int) or dim == size
        for axis, (dim, size) in enumerate(zip(spec.shape, array.shape))
    )
    empty = array.size == 0 and not len(array) and spec.shape[0] != 0
    if not fits or empty:
        raise DataError(f"has shape {dims(array.shape)} in {spec.name!r}; the model takes {dims(spec.shape)}")
    return array


def typed(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The array in the input's type."""
    with np.errstate(over="ignore"):
        typed = np.asarray(array, dtype=spec.dtype, order="C")
    if typed.dtype.kind == "f" and not np.isfinite(typed).all():
        raise DataError(f"has NaN or infinite values in {spec.name!r} (as {spec.dtype})")
    if typed.dtype.kind in "iu" and not np.array_equal(typed, array):
        raise DataError(f"has values in {spec.name!r} that {spec.dtype} cannot hold")
    return typed


def synthetic_arrays(inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...], seed: int = 0) -> dict[str, np.ndarray]:
    """Fixed-seed inputs at the opt shapes: floats in [0, 1), bytes over their range, other integers 0 or 1 (valid as indices).

    Inputs whose values decide about shapes get the usual ones of their profile.
    """
    random = np.random.default_rng(seed)
    arrays = {}
    for spec, profile in zip(inputs, profiles):
        if profile.values is not None:
            values = np.reshape(profile.values[1], profile.opt)
        elif spec.dtype.startswith("float"):
            values = random.random(profile.opt, np.float32)
        elif spec.dtype in ("uint8", "int8"):
            values = random.integers(0, 128 if spec.dtype == "int8" else 256, profile.opt)
        else:
            values = random.integers(0, 2, profile.opt)
        arrays[spec.name] = np.asarray(values, dtype=spec.dtype)
    return arrays
