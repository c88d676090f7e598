"""Stage 'write': engine, prepared model and side file under temporary names; the parent renames them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import INLINE_LIMIT, Graph
from onnx2trt.report.built import EngineFile
from onnx2trt.report.result import Result, to_json
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.trt.builder import BuiltEngine
from onnx2trt.trt.plan_text import Traffic

PROBED = 256  # values that tell most weights apart


def write_engine(job: Job, prepared: Prepared, built: BuiltEngine, traffic: Traffic | None, run: Run) -> EngineFile:
    """
    Args:
        traffic: of the engine, where its plan tells it.

    Raises:
        ConversionError: OUTPUT.
    """
    path = job.plan.outputs.engine
    weights = distinct_bytes(prepared.graph.weights.values()) if job.strong else None
    moved = (
        {"kernels": traffic.kernels, "moved_bytes": traffic.moved_bytes, "fused_attentions": traffic.attentions or None} if traffic else {}
    )
    return EngineFile(path, built.nbytes, run.write_at_end(path, built.data), list(job.plan.gpu_archs), weights, **moved)


def distinct_bytes(arrays: Iterable[np.ndarray]) -> int:
    """Of weights, of which TensorRT stores equal ones once."""
    found: dict[tuple, list[np.ndarray]] = {}
    for array in arrays:
        flat = array.reshape(-1)
        alike = found.setdefault((array.dtype, array.shape, flat[:: max(flat.size // PROBED, 1)].tobytes()), [])
        if not any(np.array_equal(flat, other) for other in alike):
            alike.append(flat)
    return sum(array.nbytes for alike in found.values() for array in alike)


def write_onnx(job: Job, prepared: Prepared, run: Run) -> dict[str, str] | None:
    """What --save-onnx asks for.

    Returns:
        Suffix of the name -> SHA-256, of each file; None where it was not asked for.

    Raises:
        ConversionError: OUTPUT.
    """
    path = job.plan.outputs.save_onnx
    if path is None:
        return None
    graph: Graph = prepared.equivalent or prepared.graph
    if graph.bytes <= INLINE_LIMIT:
        return {"": run.write_at_end(path, graph.to_model().SerializeToString())}
    data_path = path + ".data"
    data, arrays = graph.with_external_data(os.path.basename(data_path))
    return {".data": run.write_at_end(data_path, *arrays.values()), "": run.write_at_end(path, data)}


def write_side_file(job: Job, result: Result, run: Run) -> None:
    """The result beside the engine; after everything else, for it holds all of that.

    Raises:
        ConversionError: OUTPUT.
    """
    result.seal()
    run.write_at_end(job.plan.outputs.side_file, to_json(result).encode())


def keep_rejected(job: Job, built: BuiltEngine, run: Run) -> None:
    """Keep an engine that failed validation under another name, where the user asked for that."""
    if job.plan.outputs.keep_failed:
        run.keep_rejected(job.plan.outputs.engine + ".rejected", built.data)
