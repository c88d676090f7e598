"""Stages 'parse' and 'build': the prepared model becomes a serialized engine."""

from __future__ import annotations

import hashlib
import os
import tempfile

from core.errors import ConversionError, ExitCode
from core.model_info import ModelInfo, Profile
from core.plan import Plan
from graph.graph import INLINE_LIMIT
from graph.prepare import Prepared
from report.result import to_json
from stages.run import Run
from trt.builder import BuiltEngine, EngineBuilder, ParserInput
from trt.library import Library

LEAST_SHARE = 0.10  # of the layers (FP16) or multiply-accumulates (INT8) for a precision to count as delivered


def build_engine(library: Library, plan: Plan, info: ModelInfo, profiles: tuple[Profile, ...], prepared: Prepared, run: Run) -> BuiltEngine:
    """Parse and build, and check that the asked precision is there.

    Raises:
        ConversionError: MODEL, BUILD, or VALIDATION where the engine is not what was asked for.
    """
    with tempfile.TemporaryDirectory(prefix="onnx2trt-") as folder:
        with run.stage("parse", "parsing the ONNX"):
            builder = EngineBuilder(library, plan, run.console.debug)
            builder.parse(_source(prepared, info, folder), info)
        with run.stage("build", "building the engine"):
            built = builder.build(profiles, dynamic=any(spec.dynamic for spec in info.inputs))
    if built.warnings:
        count = len(built.warnings)
        run.console.info(f"TensorRT gave {count} warning{'s' * (count > 1)}; --verbose shows {'them' if count > 1 else 'it'}")
    run.result["precision"] = describe_precision(plan, prepared, built)
    return built


def _source(prepared: Prepared, info: ModelInfo, folder: str) -> ParserInput:
    if not prepared.changed:
        return ParserInput(path=info.path)
    if prepared.graph.bytes <= INLINE_LIMIT:
        return ParserInput(data=prepared.graph.to_model().SerializeToString())
    path = os.path.join(folder, "prepared.onnx")
    prepared.graph.save(path, "prepared.data")
    return ParserInput(path=path)


def describe_precision(plan: Plan, prepared: Prepared, built: BuiltEngine) -> dict:
    """The result's `precision` object, with what was really delivered.

    Raises:
        ConversionError: VALIDATION, where that is less than what was asked for.
    """
    layers = built.layers
    total = sum(layers.values())
    delivered = "fp32"
    if prepared.int8_mac_share is not None and prepared.int8_mac_share >= LEAST_SHARE:
        delivered = "int8"
    elif total and layers["fp16"] >= LEAST_SHARE * total:
        delivered = "fp16"
    precision = {
        "requested": plan.precision,
        "delivered": delivered,
        "int8_mac_share": prepared.int8_mac_share,
        "layers": layers,
        "layers_source": built.layers_source,
        "kept_high": [{"name": name, "precision": kept, "reason": reason} for name, kept, reason in prepared.kept_high],
    }
    order = ("fp32", "fp16", "int8")
    if order.index(delivered) < order.index(plan.precision):
        counts = ", ".join(f"{count} {name.upper()}" for name, count in layers.items())
        share = "" if prepared.int8_mac_share is None else f", INT8 share of the multiply-accumulates {prepared.int8_mac_share:.1%}"
        raise ConversionError(
            f"{plan.precision} was asked for, but the engine is {delivered}: layers {counts}{share}",
            hint="The reasons stand under kept_high in --json; ask for a higher precision, or allow more with --layer-precisions.",
            code=ExitCode.VALIDATION,
        )
    return precision


def write_outputs(plan: Plan, prepared: Prepared, built: BuiltEngine, status: str, run: Run) -> str:
    """Write engine, prepared model and side file under temporary names; the parent renames them.

    Returns:
        The status, unchanged.

    Raises:
        ConversionError: OUTPUT.
    """
    with run.stage("write", f"writing {plan.outputs.engine}"):
        run.result["engine"] = {
            "path": plan.outputs.engine,
            "bytes": built.nbytes,
            "sha256": hashlib.sha256(built.data).hexdigest(),
            "gpu_archs": list(plan.gpu_archs),
        }
        run.write_at_end(plan.outputs.engine, built.data)
        if plan.outputs.save_onnx:
            _write_onnx(prepared, plan.outputs.save_onnx, run)
    run.result.update(status=status, exit_code=0)
    run.write_at_end(plan.outputs.side_file, to_json(run.result).encode())
    return status


def _write_onnx(prepared: Prepared, path: str, run: Run) -> None:
    if prepared.graph.bytes <= INLINE_LIMIT:
        run.write_at_end(path, prepared.graph.to_model().SerializeToString())
        return
    data_path = path + ".data"
    data, arrays = prepared.graph.with_external_data(os.path.basename(data_path))
    run.write_at_end(data_path, *arrays)
    run.write_at_end(path, data)


def keep_rejected(plan: Plan, built: BuiltEngine, run: Run) -> None:
    """Keep an engine that failed validation under another name, where the user asked for that."""
    if plan.outputs.keep_failed:
        run.keep_rejected(plan.outputs.engine + ".rejected", built.data)
        run.console.info(f"the engine is kept as {plan.outputs.engine}.rejected")
