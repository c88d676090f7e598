"""What the model makes of an input in which nothing is: a black image, silence, padding. FP16 may have lost what keeps that finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from onnx2trt.base.errors import ConversionError
from onnx2trt.conversion.job import Job
from onnx2trt.data.feeds import batches_to_compare
from onnx2trt.data.made_up import blank
from onnx2trt.data.reader import Arrays, Batch
from onnx2trt.model.nodes import index_inputs


def blank_inputs(job: Job, run_model: Callable[[Arrays], Arrays]) -> Iterator[tuple[Batch, Arrays]]:
    """(input, the model's outputs), where the model takes it and any of its outputs is finite; none where it has no input to clear.

    Args:
        run_model: the model as it came, or its FP32 graph.
    """
    dataset = job.data.to_compare()[0].at_most(1)
    sample = next(batches_to_compare(job.data, [dataset]), None)
    if sample is None:
        return
    whole = any(array.dtype.kind in "iu" for array in sample.arrays.values())
    indices = index_inputs(job.graph().nodes) if whole else ()
    for arrays in blank(sample.arrays, job.data.reader.preprocessing, indices):
        try:
            outputs = run_model(arrays)
        except ConversionError:  # zero is not for every model a valid length, or number of channels
            continue
        if any(np.isfinite(array).any() for array in outputs.values() if array.dtype.kind == "f"):
            yield Batch(arrays, sample.rows, sample.real_rows, ("blank",)), outputs


def lost(expected: Arrays, found: Arrays) -> dict[str, int]:
    """Output -> values that are NaN or infinite where the expected ones are finite; outputs of another shape are not looked at."""
    counts = {}
    for name, array in expected.items():
        if array.dtype.kind == "f" and found[name].shape == array.shape:
            counts[name] = int((np.isfinite(array) & ~np.isfinite(found[name])).sum())
    return {name: count for name, count in counts.items() if count}
