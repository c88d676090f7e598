"""Stage 'preflight': everything that can be refused before long work."""

from __future__ import annotations

import hashlib

from onnx2trt.base.errors import ConversionError, ExitCode, having_found
from onnx2trt.base.files import check_writable, read_engine, remove_abandoned
from onnx2trt.base.model_info import ModelInfo
from onnx2trt.compare.metrics import misfit
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.datasets import Data, choose_data
from onnx2trt.model.preflight import preflight as check_model
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.shapes import make_profiles
from onnx2trt.quant.calibration_cache import fit_file, side_file
from onnx2trt.report.html import check_libraries
from onnx2trt.report.result import EngineFile, describe_model, describe_plan
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.library import Library


def preflight(library: Library, plan: Plan, run: Run) -> Job:
    """Outputs writable, model sound, profiles complete, data there.

    Raises:
        ConversionError: OUTPUT, MODEL, USAGE, CALIBRATION or VALIDATION.
    """
    found: dict = {}
    with run.stage("preflight", f"checking {plan.onnx}"), having_found(found):
        for path in _written(plan):
            check_writable(path)
            remove_abandoned(path)
        _check_report(plan)
        if plan.build.timing_cache:
            remove_abandoned(plan.build.timing_cache)
        model, info = check_model(plan.onnx, bool(plan.build.plugins))
        found["model"] = describe_model(info)
        profiles = make_profiles(info.inputs, plan.shapes)
        found["plan"] = describe_plan(plan, profiles)
        data = choose_data(plan, info, profiles)
        _check_metric(plan, info, data)
    for warning in info.warnings:
        run.console.warn(warning)
    return Job(library, plan, model, info, profiles, data)


def describe(job: Job) -> dict:
    """The fields of the result that a job fills."""
    preprocessing = job.data.reader.preprocessing
    return {
        "model": describe_model(job.info),
        "plan": describe_plan(job.plan, job.profiles),
        "preprocessing": preprocessing.describe() if preprocessing else None,
    }


def read_engine_file(plan: Plan) -> tuple[bytes, EngineFile]:
    """The engine named by --validate-only.

    Raises:
        ConversionError: VALIDATION where it cannot be read, MACHINE where nothing here could run it.
    """
    path = plan.validation.engine
    data = read_engine("--validate-only", path)
    if not plan.executes_here:
        raise ConversionError(
            f"--validate-only {path}: no engine can be executed on this machine",
            hint="Run it on the machine with the GPU that the engine was built for.",
            code=ExitCode.MACHINE,
        )
    return data, EngineFile(path, len(data), hashlib.sha256(data).hexdigest(), [])


def preflight_engine(library: Library, plan: Plan, engine: Engine, run: Run) -> Job:
    """Check the model against an engine; shapes are those of the engine's profile.

    Raises:
        ConversionError: MODEL or VALIDATION, where names or ranks differ.
    """
    found: dict = {}
    with run.stage("preflight", f"checking {plan.onnx}"), having_found(found):
        _check_report(plan)
        model, info = check_model(plan.onnx, bool(plan.build.plugins))
        found["model"] = describe_model(info)
        ranks = {tensor.name: len(tensor.shape) for tensor in engine.tensors}
        declared = {spec.name: spec.shape for spec in (*info.inputs, *info.outputs)}
        if set(ranks) != set(declared) or any(shape is not None and len(shape) != ranks[name] for name, shape in declared.items()):
            raise ConversionError(
                f"{plan.validation.engine} is no engine of {plan.onnx}: its tensors are {sorted(ranks)}, the model's {sorted(declared)}",
                code=ExitCode.VALIDATION,
            )
        by_name = {tensor.name: tensor.profile for tensor in engine.tensors if tensor.is_input}
        profiles = tuple(by_name[spec.name] for spec in info.inputs)
        found["plan"] = describe_plan(plan, profiles)
        data = choose_data(plan, info, profiles)
        _check_metric(plan, info, data)
    return Job(library, plan, model, info, profiles, data)


def _check_report(plan: Plan) -> None:
    """What --report needs is there."""
    if plan.outputs.report:
        check_libraries()
        check_writable(plan.outputs.report)
        remove_abandoned(plan.outputs.report)


def _check_metric(plan: Plan, info: ModelInfo, data: Data) -> None:
    """A metric that fits no declared output is refused now, not after the build."""
    unfit = misfit(plan.validation.metric, {spec.name: spec.shape for spec in info.outputs}, data.channels_last)
    if unfit:
        raise unfit


def _written(plan: Plan) -> list[str]:
    """Every file that this run may write."""
    outputs = plan.outputs
    paths = [outputs.engine, outputs.side_file, outputs.save_onnx, plan.calibration.cache]
    if plan.build.timing_cache_named:  # one that was not asked for may fail with a warning
        paths.append(plan.build.timing_cache)
    if outputs.json != "-":
        paths.append(outputs.json)
    if plan.calibration.cache:
        paths += [side_file(plan.calibration.cache), fit_file(plan.calibration.cache)]
    return [path for path in paths if path]
