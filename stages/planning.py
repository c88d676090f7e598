"""Stages 'probe' and 'preflight': what is possible here, and everything that can be refused before long work."""

from __future__ import annotations

import onnx

from core import plan as rules
from core.files import check_writable, remove_abandoned
from core.model_info import ModelInfo, Profile
from core.plan import Plan
from core.shapes import make_profiles
from graph.preflight import check_file
from graph.preflight import preflight as check_model
from report.result import describe_environment, describe_model, describe_plan
from stages.data import Data, choose_data
from stages.run import Run
from trt.library import Library, capabilities, load_library


def make_plan(args, run: Run) -> tuple[Library, Plan]:
    """Load the library, ask the machine, decide everything that flags decide.

    Raises:
        ConversionError: MACHINE, or MODEL where --onnx is no file (cheaper to see than a library is to load).
    """
    with run.stage("probe", "looking at library and machine"):
        check_file(args.onnx)
        library = load_library(args.backend)
        caps = capabilities(library)
        run.result["environment"] = describe_environment(caps)
        plan = rules.make_plan(args, caps)
    for flag, cell in plan.effects:
        run.console.info(f"{flag}: {cell.effect.value}: {cell.note}")
    return library, plan


def preflight(plan: Plan, run: Run) -> tuple[onnx.ModelProto, ModelInfo, tuple[Profile, ...], Data]:
    """Outputs writable, model sound, profiles complete, data there.

    Raises:
        ConversionError: OUTPUT, MODEL, USAGE, CALIBRATION or VALIDATION.
    """
    with run.stage("preflight", f"checking {plan.onnx}"):
        for path in _written(plan):
            check_writable(path)
            remove_abandoned(path)
        model, info = check_model(plan.onnx)
        run.result["model"] = describe_model(info)
        profiles = make_profiles(info.inputs, plan.shapes)
        run.result["plan"] = describe_plan(plan, profiles)
        data = choose_data(plan, info, profiles)
        if data.reader.preprocessing:
            run.result["preprocessing"] = data.reader.preprocessing.describe()
    for warning in info.warnings:
        run.console.warn(warning)
    return model, info, profiles, data


def _written(plan: Plan) -> list[str]:
    """Every file that this run may write."""
    outputs = plan.outputs
    paths = [outputs.engine, outputs.side_file, outputs.save_onnx, plan.calibration.cache]
    if outputs.json != "-":
        paths.append(outputs.json)
    return [path for path in paths if path]
