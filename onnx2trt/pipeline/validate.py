"""The verdict on what was made elsewhere: an engine on its GPU, or a prepared ONNX of any tool on the CPU."""

from __future__ import annotations

from dataclasses import replace

from onnx2trt.base.errors import AccuracyError, ConversionError, ExitCode
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline.engine import check
from onnx2trt.plan.capabilities import NO_LIBRARY
from onnx2trt.plan.plan import Plan, make_plan
from onnx2trt.report.result import Candidate, Result
from onnx2trt.stages import preflight, shapes
from onnx2trt.stages import validate as validating
from onnx2trt.stages.candidate import recognise
from onnx2trt.stages.load import loaded_engine
from onnx2trt.stages.observe import observed, observed_candidate
from onnx2trt.stages.probe import probe
from onnx2trt.stages.read_back import describe_engine, describe_onnx

HINT = (
    "Look at the worst samples with --report. Prepare it again with less in a lower precision, or with other calibration data, or accept "
    "the difference with a larger --max-accuracy-drop."
)


def validate(args, result: Result, run: Run) -> None:
    """The pipeline of the door 'validate'.

    Raises:
        ConversionError: MODEL where one of the two cannot be read, MACHINE for an engine that cannot be executed here, VALIDATION where
            the outputs differ, and from any stage.
    """
    plan = make_plan(args, NO_LIBRARY)
    header = recognise(plan.validation.engine, run)
    try:
        if header is None:
            validate_onnx(plan, result, run)
        else:
            validate_engine(args, result, run, header.backend)
    except AccuracyError as error:
        error.hint = HINT
        raise


def validate_engine(args, result: Result, run: Run, backend: str = "auto") -> None:
    """The pipeline of --validate-only: an engine that was built elsewhere, on the machine where it will serve.

    Args:
        backend: of the engine, where its header names it.
    """
    library, plan, environment = probe(args, run, backend)
    result.take(environment=environment)
    data, described = preflight.read_engine_file(plan)
    result.take(engine=described, candidate=Candidate(described.path, described.sha256, described.bytes, "engine"))
    with loaded_engine(library, plan, data, run) as engine:
        result.take(engine=replace(described, **engine.describe()))
        job = observed(preflight.preflight_engine(library, plan, engine, run), run)
        result.take(**preflight.describe(job), precision=describe_engine(job, engine, run))
        _warn_of_synthetic(job, run)
        check(job, None, engine, result, run)
    result.take(exit_code=0)


def validate_onnx(plan: Plan, result: Result, run: Run) -> None:
    """A prepared ONNX, on any machine."""
    if plan.validation.require_execution:
        raise ConversionError(
            f"--require-execution: {plan.validation.engine} is an ONNX model, which is only simulated here",
            hint="Build an engine of it, and validate that.",
            code=ExitCode.VALIDATION,
        )
    job, candidate = preflight.preflight_onnx(plan, run)
    about = candidate.info
    result.take(**preflight.describe(job), candidate=Candidate(about.path, about.sha256, about.bytes, "onnx"))
    result.take(precision=describe_onnx(job, observed_candidate(job, candidate, run)))
    _warn_of_synthetic(job, run)
    rows = validating.compare_onnx(job, candidate, run)
    result.take(accuracy=[row.rounded() for row in rows])
    result.take(**validating.judge(job, rows, False, run))
    shapes.try_onnx(job, candidate, run)
    result.take(exit_code=0)


def _warn_of_synthetic(job: Job, run: Run) -> None:
    """Of INT8 the verdict itself says that it cannot be judged so."""
    if job.plan.door and job.data.any().kind == "synthetic" and not job.quantizes:
        run.console.warn("compared on made-up inputs only; --validate gives real ones")
