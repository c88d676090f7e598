"""Stage 'preflight': everything that can be refused before long work."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode, having_found
from onnx2trt.base.files import check_writable, read_engine, remove_abandoned
from onnx2trt.base.model_info import ModelInfo, Profile, TensorSpec, dims, groups_of, spanning
from onnx2trt.base.told import told_by
from onnx2trt.base.words import base_name
from onnx2trt.compare.metrics import misfit
from onnx2trt.conversion.bound_inputs import bind_inputs
from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.conversion.counted_model import count_and_fold
from onnx2trt.conversion.input_profiles import input_profiles
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.promised_shapes import rows_are_independent, try_shapes
from onnx2trt.conversion.run import Run
from onnx2trt.data.datasets import Data, choose_data, has_arrays
from onnx2trt.data.rows import has_fixed_batch
from onnx2trt.data.samples import files_of
from onnx2trt.model.apart import apart
from onnx2trt.model.counted import check_sizes
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes
from onnx2trt.model.operators import INTEGER
from onnx2trt.model.preflight import look_again
from onnx2trt.model.preflight import preflight as check_model
from onnx2trt.plan.door_arguments import image_beside
from onnx2trt.plan.idle import Facts, idle_flags, in_words
from onnx2trt.plan.plan import Plan
from onnx2trt.quant.calibration_cache import fit_file, side_file
from onnx2trt.report.built import EngineFile
from onnx2trt.report.described import describe_model, describe_plan
from onnx2trt.report.html import check_libraries
from onnx2trt.report.result import Candidate
from onnx2trt.rewrite.adopt import adopt
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.library import Library


def preflight(library: Library | None, plan: Plan, run: Run) -> Job:
    """Outputs writable, model sound, profiles complete, data there.

    Args:
        library: None where none is needed.

    Raises:
        ConversionError: OUTPUT, MODEL, USAGE, CALIBRATION or VALIDATION.
    """
    found: dict = {}
    with run.stage("preflight", f"checking {base_name(plan.onnx)}"), having_found(found):
        _check_outputs(plan)
        model, info = _read(plan, run)
        found["model"] = describe_model(info)
        profiles = input_profiles(plan, model, info, run)
        found["plan"] = describe_plan(plan, profiles)
        written_out, folded, lists = count_and_fold(model, profiles, plan.onnx, run)
        data = choose_data(plan, info, profiles, _independent(plan, model, info, profiles, run))
        _spare_inputs(plan, info, data)
        _check_metric(plan, info, data)
        light, weights = apart(written_out)
        job = Job(library, plan, light, info, profiles, data, folded + lists, weights=weights)
        facts = Facts(info.quantized, rewritten=job.rewritten or _repaired(job))
        job = replace(job, plan=_with_idle(plan, facts, info, data, run))
    for warning in info.warnings:
        run.console.warn(warning)
    _say_folded(folded, run)
    _say_of_data(plan, info, data, run)
    return job


def _say_of_data(plan: Plan, info: ModelInfo, data: Data, run: Run) -> None:
    """Fewer samples than were asked for; images that the model was probably not trained on in this form."""
    if "--calibration-samples" in plan.typed and data.calibration and len(data.calibration.samples) < plan.calibration.samples:
        run.console.warn(
            f"--calibration-samples {plan.calibration.samples}: {data.calibration.origin} has only {len(data.calibration.samples)}; "
            "all of them are used"
        )
    told, pre = told_by(info.metadata), data.preprocessing
    if told.detector and pre and pre.resize == "stretch":
        run.console.warn(
            f"the model's metadata call it a detector (task: {told.task}), and most of these are trained on letterboxed images: add "
            "--resize letterbox unless yours was trained on stretched ones"
        )


def _say_folded(folded: tuple[str, ...], run: Run) -> None:
    """
    Args:
        folded: names of If nodes.
    """
    if len(folded) == 1:
        run.console.info(f"If node {folded[0]!r} always takes the same branch here: that branch takes its place")
    elif folded:
        run.console.info(f"{len(folded)} If nodes always take the same branch here: these branches take their place")


def _read(plan: Plan, run: Run) -> tuple:
    """(the model, adopted where that was necessary, its bound inputs constants; what was found in it); watched from now on.

    Raises:
        ConversionError: MODEL or USAGE.
    """
    model, info = check_model(plan.onnx, bool(plan.build.plugins))
    run.watch(info.bytes)
    adopted = adopt(model, plan.onnx, for_tensorrt=plan.door not in ("preprocess", "validate"))
    if adopted:
        model, info = adopted.model, look_again(info, adopted.model, adopted.remarks)
    return bind_inputs(model, info, plan.shapes.bind_input)


def _independent(plan: Plan, model, info: ModelInfo, profiles: tuple[Profile, ...], run: Run) -> bool:
    """Try the promised shapes; whether rows are samples of their own, as far as files of arrays ask for that.

    Raises:
        ConversionError: MODEL.
    """
    if plan.build.plugins or plan.door == "preprocess":  # ONNX Runtime does not know them; and there nothing is computed
        return True
    if has_fixed_batch(info.inputs) and has_arrays(plan):
        return rows_are_independent(model, info, run)
    told = [try_shapes(model, info, group, plan.shapes.max_batch > 1, run) for group in groups_of(profiles)]
    return all(told)


def _with_idle(plan: Plan, facts: Facts, info: ModelInfo, data: Data, run: Run) -> Plan:
    """The plan that knows which of the typed flags play no part, and one warning that names them."""
    rowed = [spec.name for spec in info.inputs if spec.shape and not isinstance(spec.shape[0], int)]
    named = {name or info.inputs[0].name for name, _ in plan.shapes.max}
    facts = replace(
        facts,
        images=data.preprocessing is not None,
        free=any(spec.shape is None or any(not isinstance(dim, int) for dim in spec.shape) for spec in info.inputs),
        max_given=bool(rowed) and named.issuperset(rowed),
    )
    plan = replace(plan, effects=plan.effects + idle_flags(plan, facts))
    said = in_words(plan.effects)
    if said:
        run.console.warn(said)
    return plan


def _repaired(job: Job) -> bool:
    """Whether the model is repaired, or becomes FP32, before it is built; only looked at where it decides whether FP32 is compared."""
    return job.plan.variants == ("fp32",) and (job.info.half or bool(job.graph().repairs))


def describe(job: Job) -> dict:
    """The fields of the result that a job fills."""
    preprocessing = job.data.preprocessing
    return {
        "model": describe_model(job.info),
        "plan": describe_plan(job.plan, job.profiles),
        "preprocessing": preprocessing.describe() if preprocessing else None,
    }


def read_engine_file(plan: Plan) -> tuple[bytes, EngineFile]:
    """The engine that is compared.

    Raises:
        ConversionError: VALIDATION where it cannot be read, MACHINE where nothing here could run it.
    """
    path = plan.validation.engine
    data = read_engine("CANDIDATE" if plan.door else "--validate-only", path)
    if not plan.executes_here:
        raise ConversionError(
            f"{path}: no engine can be executed on this machine",
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
    with run.stage("preflight", f"checking {base_name(plan.onnx)}"), having_found(found):
        _check_outputs(plan)
        model, info = _read(plan, run)
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
        if engine.profiles > 1:
            groups = [{profile.name: profile for profile in engine.profile(index)} for index in range(engine.profiles)]
            profiles = spanning([tuple(group[spec.name] for spec in info.inputs) for group in groups])
        found["plan"] = describe_plan(plan, profiles)
        written_out, folded, lists = count_and_fold(model, profiles, plan.onnx, run)
        data = choose_data(plan, info, profiles, _independent(plan, model, info, profiles, run))
        _check_metric(plan, info, data)
        plan = _with_idle(plan, Facts(info.quantized, candidate="engine"), info, data, run)
        light, weights = apart(written_out)
    return Job(library, plan, light, info, profiles, data, folded + lists, weights=weights)


def preflight_onnx(plan: Plan, run: Run) -> tuple[Job, OnnxCandidate]:
    """Check the model against a prepared ONNX; where one of them leaves a size free, it is the other's.

    Raises:
        ConversionError: MODEL where one of them cannot be read, VALIDATION where their inputs and outputs differ, OUTPUT or USAGE.
    """
    path, found = plan.validation.engine, {}
    with run.stage("preflight", f"checking {base_name(plan.onnx)} and {base_name(path)}"), having_found(found):
        _check_outputs(plan)
        model, info = _read(plan, run)
        found["model"] = describe_model(info)
        other, other_info = bind_inputs(*check_model(path), plan.shapes.bind_input, may_lack=True)
        found["candidate"] = Candidate(path, other_info.sha256, other_info.bytes, "onnx")
        plan = replace(plan, precision=_carried(other.graph, other_info, info))
        inputs = _common_inputs(info, other_info)
        profiles = input_profiles(plan, model, replace(info, inputs=inputs), run)
        found["plan"] = describe_plan(plan, profiles)
        graph = Graph.from_model(other, profiles)
        check_sizes(Graph.from_model(model, profiles), profiles, plan.onnx)
        check_sizes(graph, profiles, path)
        common = replace(info, inputs=inputs)
        data = choose_data(plan, common, profiles, _independent(plan, model, common, profiles, run))
        _check_metric(plan, info, data)
        plan = _with_idle(plan, Facts(info.quantized, candidate="onnx"), replace(info, inputs=inputs), data, run)
        plan = replace(plan, build=replace(plan.build, plugins=()))  # of TensorRT
    for warning in dict.fromkeys((*info.warnings, *(f"{path}: {warning}" for warning in (*other_info.warnings, *graph.repairs)))):
        run.console.warn(warning)
    light, weights = apart(model)
    return Job(None, plan, light, info, profiles, data, weights=weights), OnnxCandidate(other_info, graph)


def _carried(graph, other_info: ModelInfo, info: ModelInfo) -> str:
    """The lowest precision that a candidate carries, and the model does not."""
    if not info.quantized and (other_info.quantized or any(node.op_type in INTEGER for node in all_nodes(graph))):
        return "int8"
    return "fp16" if other_info.half else "fp32"


def _common_inputs(info: ModelInfo, other: ModelInfo) -> tuple[TensorSpec, ...]:
    """The model's inputs, with the sizes that only the candidate fixes.

    Raises:
        ConversionError: VALIDATION, where the two do not have the same inputs and outputs, or types that are not of one kind.
    """
    names, others = ({spec.name for spec in (*of.inputs, *of.outputs)} for of in (info, other))
    of_other = {spec.name: spec for spec in (*other.inputs, *other.outputs)}
    if names != others or {spec.name for spec in info.inputs} != {spec.name for spec in other.inputs}:
        raise ConversionError(
            f"{other.path} is not made from {info.path}: it has {_interface(other)}; the model has {_interface(info)}",
            hint="Inputs and outputs must have the same names in both. An input that was made a constant is named with --bind-input.",
            code=ExitCode.VALIDATION,
        )
    for spec in (*info.inputs, *info.outputs):
        twin = of_other[spec.name]
        if np.dtype(spec.dtype).kind != np.dtype(twin.dtype).kind or not (spec in info.outputs or _fit(spec.shape, twin.shape)):
            own, its = (f"{one.dtype} {'of any rank' if one.shape is None else dims(one.shape)}" for one in (spec, twin))
            raise ConversionError(
                f"{other.path} is not made from {info.path}: {spec.name!r} is {its}, in the model {own}", code=ExitCode.VALIDATION
            )
    return tuple(replace(spec, shape=_common_shape(spec.shape, of_other[spec.name].shape)) for spec in info.inputs)


def _interface(info: ModelInfo) -> str:
    inputs, outputs = (", ".join(f"{spec.name!r}" for spec in specs) for specs in (info.inputs, info.outputs))
    return f"inputs {inputs} and outputs {outputs}"


def _fit(own: tuple | None, other: tuple | None) -> bool:
    """Whether two declared shapes can be one."""
    if own is None or other is None:
        return True
    return len(own) == len(other) and all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(own, other))


def _common_shape(own: tuple | None, other: tuple | None) -> tuple | None:
    if own is None or other is None:
        return other if own is None else own
    return tuple(a if isinstance(a, int) or not isinstance(b, int) else b for a, b in zip(own, other))


def _check_outputs(plan: Plan) -> None:
    """What this run writes can be written, and what --report needs is there."""
    for path in _written(plan):
        check_writable(path)
        remove_abandoned(path)
    if plan.build.timing_cache:
        remove_abandoned(plan.build.timing_cache)
    if plan.outputs.report:
        check_libraries()


def _spare_inputs(plan: Plan, info: ModelInfo, data: Data) -> None:
    """A name that the run would write to may not be that of a file that it reads; of files named by flags plan/outputs.py knows.

    Raises:
        ConversionError: USAGE.
    """
    read = dict.fromkeys(map(os.path.realpath, info.external), f"holds data of {plan.onnx}")
    for dataset in filter(None, (data.calibration, data.validation, data.test)):
        samples = files_of((*dataset.samples, *dataset.unused))
        read |= dict.fromkeys(map(os.path.realpath, samples), f"is one of the samples of {dataset.origin}")
    for path in _written(plan):
        if os.path.realpath(path) in read:
            raise ConversionError(
                f"{path} would be written over, and {read[os.path.realpath(path)]}", hint="Choose another name.", code=ExitCode.USAGE
            )


def _check_metric(plan: Plan, info: ModelInfo, data: Data) -> None:
    """A metric that fits no declared output is refused now, not after the build."""
    unfit = misfit(dict(plan.validation.metric), {spec.name: spec.shape for spec in info.outputs}, data.channels_last)
    if unfit:
        raise unfit


def _written(plan: Plan) -> list[str]:
    """Every file that this run may write."""
    outputs = plan.outputs
    paths = [outputs.engine, outputs.side_file, outputs.save_onnx, plan.calibration.cache, outputs.report, outputs.array]
    if plan.build.timing_cache_named:  # one that was not asked for may fail with a warning
        paths.append(plan.build.timing_cache)
    if outputs.json != "-":
        paths.append(outputs.json)
    if plan.calibration.cache:
        paths += [side_file(plan.calibration.cache), fit_file(plan.calibration.cache)]
    if outputs.array:
        paths.append(image_beside(outputs.array))
    return [path for path in paths if path]
