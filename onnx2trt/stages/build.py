"""Stages 'parse' and 'build': the prepared model becomes a serialized engine."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from functools import partial

from onnx2trt.base.model_info import ModelInfo
from onnx2trt.base.stage_names import STARTING_STAGE
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.model.graph import INLINE_LIMIT, Graph
from onnx2trt.model.nodes import list_nodes
from onnx2trt.plan.plan import Plan, Route
from onnx2trt.report.result import to_json
from onnx2trt.rewrite import qdq
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages import timing_cache as timing
from onnx2trt.stages import unchanged
from onnx2trt.stages.int8.trt_calibrator import NativeCalibration
from onnx2trt.trt import remarks
from onnx2trt.trt.builder import BuiltEngine, Constraints, EngineBuilder
from onnx2trt.trt.memory import open_cuda
from onnx2trt.trt.network import ParserInput


def build_engine(job: Job, prepared: Prepared, run: Run) -> tuple[BuiltEngine, Prepared]:
    """Parse and build.

    Returns:
        (engine, prepared model); where TensorRT calibrated by itself, the equivalent Q/DQ model is known only now.

    Raises:
        ConversionError: MODEL, CALIBRATION or BUILD.
    """
    plan, info = job.plan, job.info
    with tempfile.TemporaryDirectory(prefix="onnx2trt-") as folder:
        with run.stage("parse", "parsing the ONNX"):
            run.channel.stage(STARTING_STAGE)
            builder = EngineBuilder(job.library, plan, run.console.debug)
            run.channel.stage("parse")
            model = prepared.graph.proto if prepared.changed else job.model
            source = replace(_source(prepared, info, folder), nodes=partial(list_nodes, model))
            builder.parse(source, job.engine_io)
        nodes = tuple((n.name, tuple(n.output)) for n in prepared.graph.nodes)
        constraints = Constraints(prepared.constraints, prepared.half_nodes, prepared.half_outputs, nodes)
        options = {
            "dynamic": any(spec.dynamic for spec in info.inputs),
            "constraints": constraints,
            "timing_cache": timing.read(plan, run),
        }
        if plan.precision == "int8" and plan.calibrator and not info.quantized:
            built, prepared = _build_calibrated(job, prepared, builder, options, run)
        else:
            with run.stage("build", "building the engine"):
                built = builder.build(job.profiles, **options)
    for line in remarks.explain(built.warnings):
        run.console.info(line)
    timing.write(builder, plan, built, options["timing_cache"], run)
    return built, prepared


def _source(prepared: Prepared, info: ModelInfo, folder: str) -> ParserInput:
    if not prepared.changed:
        return ParserInput(path=info.path)
    if prepared.graph.bytes <= INLINE_LIMIT:
        return ParserInput(data=prepared.graph.to_model().SerializeToString())
    path = os.path.join(folder, "prepared.onnx")
    prepared.graph.save(path, "prepared.data")
    return ParserInput(path=path)


def _build_calibrated(job: Job, prepared: Prepared, builder: EngineBuilder, options: dict, run: Run) -> tuple[BuiltEngine, Prepared]:
    """INT8 by TensorRT's own calibrator, fed with images or with a cache."""
    native = NativeCalibration(job, prepared, run)
    cuda = open_cuda()
    try:
        calibrator = native.calibrator(cuda)
        label = "calibrating and building the engine" if native.needs_data else "building the engine"
        started = time.monotonic()
        with run.stage("build", label):
            built = builder.build(job.profiles, calibrator=calibrator, **options)
        scales = native.finish(calibrator, time.monotonic() - started)
    finally:
        cuda.close()
    run.evidence.scales = scales
    if prepared.equivalent is None:
        bound = {**dict.fromkeys(prepared.half_nodes, "fp16"), **prepared.constraints}
        layers = tuple(layer for layer in qdq.quantizable_layers(prepared.graph) if bound.get(layer.node, "int8") == "int8")
        return built, replace(prepared, equivalent=Fit(scales).apply(prepared.graph, layers, half=False))
    return built, prepared


def write_outputs(job: Job, prepared: Prepared, built: BuiltEngine, status: str, run: Run) -> str:
    """Write engine, prepared model and side file under temporary names; the parent renames them.

    Returns:
        The status, unchanged.

    Raises:
        ConversionError: OUTPUT.
    """
    plan = job.plan
    with run.stage("write", f"writing {plan.outputs.engine}"):
        run.result["engine"] = {
            "path": plan.outputs.engine,
            "bytes": built.nbytes,
            "sha256": run.write_at_end(plan.outputs.engine, built.data),
            "gpu_archs": list(plan.gpu_archs),
            **({"weights_bytes": sum(array.nbytes for array in prepared.graph.weights.values())} if plan.route is Route.STRONG else {}),
            **run.engine_details,
        }
        if plan.outputs.save_onnx:
            run.result["saved_onnx"] = _write_onnx(prepared.equivalent or prepared.graph, plan.outputs.save_onnx, run)
        run.result["key"] = unchanged.key_of(job, run)
    run.result.update(status=status, exit_code=0)
    run.write_at_end(plan.outputs.side_file, to_json(run.result).encode())
    return status


def _write_onnx(graph: Graph, path: str, run: Run) -> dict[str, str]:
    """Suffix of the name -> SHA-256, of each file."""
    if graph.bytes <= INLINE_LIMIT:
        return {"": run.write_at_end(path, graph.to_model().SerializeToString())}
    data_path = path + ".data"
    data, arrays = graph.with_external_data(os.path.basename(data_path))
    return {".data": run.write_at_end(data_path, *arrays), "": run.write_at_end(path, data)}


def keep_rejected(plan: Plan, built: BuiltEngine, run: Run) -> None:
    """Keep an engine that failed validation under another name, where the user asked for that."""
    if plan.outputs.keep_failed:
        run.keep_rejected(plan.outputs.engine + ".rejected", built.data)
