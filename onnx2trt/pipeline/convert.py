"""A conversion from the arguments to the files, one line a stage."""

from __future__ import annotations

from dataclasses import replace

from onnx2trt.base.files import read_engine
from onnx2trt.base.words import base_name
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline.engines import make_all
from onnx2trt.plan.plan import Plan
from onnx2trt.plan.refit import to_remember
from onnx2trt.plan.variants import BEST
from onnx2trt.report.result import Environment, Result
from onnx2trt.stages import inspect as inspecting
from onnx2trt.stages import preflight, refit, triton, unchanged, write
from onnx2trt.stages.observe import observed
from onnx2trt.stages.probe import probe


def convert(args, result: Result, run: Run) -> None:
    """The pipeline of a conversion.

    Args:
        args: the parsed command line.
        result: takes what the stages find.

    Raises:
        ConversionError: from any stage.
    """
    job, environment = _checked(args, result, run)
    plan = job.plan
    former = unchanged.find_former(job, run) if plan.skip_unchanged else None
    if plan.dry_run:
        return result.take(status="planned", exit_code=0)
    if former:
        result.adopt(unchanged.take_former(former, job, environment))
        if plan.outputs.triton_model:
            with run.stage("write", f"writing {base_name(plan.outputs.triton_model)}"):
                data = read_engine("--output", plan.outputs.engine)
                result.take(triton=triton.write_repository(job, result.engine, environment.gpu, data, run))
        return result.take(timings_s=run.said()["timings_s"])  # the warnings are those of the engine
    made = make_all(observed(job, run), result, run)
    with run.stage("write", f"writing {base_name(plan.outputs.engine)}"):
        engine = write.write_engine(job, made.prepared, made.built, made.traffic, run)
        result.take(engine=replace(engine, **made.details, **made.told_by_plan), saved_onnx=write.write_onnx(job, made.prepared, run))
        result.take(triton=triton.write_repository(job, result.engine, environment.gpu, made.built.data, run))
        result.take(refit=refit.to_remember(job, made.prepared, to_remember(args), getattr(made.choice, "exact_scales", False)))
        result.take(key=unchanged.key_of(job, run))
    result.take(exit_code=0, **run.said())
    write.write_side_file(job, result, run)


def find_former(args, run: Run) -> Result | None:
    """The result of an earlier run that this one would only repeat (--skip-unchanged); None where there is none. Nothing is written.

    Raises:
        ConversionError: from the stages before the work.
    """
    job, _ = _checked(args, Result(), run)
    return unchanged.find_former(job, run)


def _checked(args, result: Result, run: Run) -> tuple[Job, Environment]:
    """What the flags mean with this library, machine, model and data.

    Args:
        result: takes what is found.
    """
    library, plan, environment = probe(args, run)
    run.console.expect(_stages(plan))
    result.take(environment=environment)
    job = preflight.preflight(library, plan, run)
    result.take(**preflight.describe(job))
    job = replace(job, inputs=unchanged.inputs_of(job, environment))
    triton.check_repository(job)
    refit.check_refittable(job)
    return job, environment


CHOICES = {
    "fp16": ("choose",),
    "bf16": ("choose",),
    "int8": ("equalize", "calibrate", "fit", "choose"),
    "fp8": ("calibrate", "fit", "choose"),
}


def _stages(plan: Plan) -> tuple[str, ...]:
    """Those that a conversion may go through, in order; none where several engines are made, each of which goes through some."""
    if len(plan.variants) > 1 or plan.precision == BEST:
        return ()
    ranges = plan.keep_layers or plan.calibrator or plan.calibration.cache
    choices = CHOICES.get(plan.precision, ())
    checks = ("load",) * plan.executes_here + ("validate",) * plan.validation.enabled + ("latency",) * plan.executes_here
    return ("probe", "preflight", "shapes", "parse", *("ranges",) * bool(ranges), *choices, "build", *checks, "write")


def inspect(args, result: Result, run: Run) -> None:
    """The pipeline of --inspect: what is in an engine file."""
    result.take(**inspecting.inspect(args.inspect, tuple(args.plugins), run))
    result.take(status="inspected", exit_code=0)
