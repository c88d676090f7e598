"""--refit: other weights for an engine that is there, with the checks and the files of a build."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from functools import partial

from onnx2trt.base.errors import AccuracyError, ConversionError
from onnx2trt.base.words import base_name
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.pipeline.engine import Made, build_and_check
from onnx2trt.pipeline.prepare import Choice, prepare_again
from onnx2trt.plan import key as identity
from onnx2trt.plan.capabilities import NO_LIBRARY
from onnx2trt.plan.plan import Plan, make_plan
from onnx2trt.plan.refit import as_built
from onnx2trt.plan.rules import flag_problem
from onnx2trt.report.built import Refittable
from onnx2trt.report.result import Environment, Result
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.stages import asked, preflight, unchanged, write
from onnx2trt.stages import refit as stage
from onnx2trt.stages.observe import observed
from onnx2trt.stages.probe import probe
from onnx2trt.trt.builder import BuiltEngine
from onnx2trt.trt.header import Header
from onnx2trt.trt.library import Library

HINT = "Build the engine anew with these weights: layers that stay in FP32 are then chosen for them. Or accept it with --max-accuracy-drop."


def refit(args, result: Result, run: Run) -> None:
    """The pipeline of --refit. The engine that is named stays as it is, unless --output names it, too.

    Raises:
        ConversionError: MODEL for another network, MACHINE where the engine takes no weights, and from any stage.
    """
    data, header, former = stage.read_refittable(args.refit, run)
    _as_built(args, former.refit)
    library, plan, environment = _probe(args, header, former.refit, run)
    result.take(environment=environment)
    job = preflight.preflight(library, plan, run)
    result.take(**preflight.describe(job))
    stage.check_network(job, former.refit)
    job = replace(job, inputs=unchanged.inputs_of(job, environment))
    if plan.dry_run:
        return result.take(status="planned", exit_code=0)
    try:
        made = _refit(asked.without_half(observed(job, run)), data, former.refit, result, run)
    except AccuracyError as error:
        error.hint = HINT
        raise
    _write(job, made, former, result, run)


def _as_built(args, known: Refittable) -> None:
    """The flags that the engine was built with, held against the same rules as typed ones.

    Raises:
        ConversionError: MACHINE.
    """
    try:
        as_built(args, known.flags)
        problem = flag_problem(Namespace(**{**vars(args), "refit": None}))
    except ValueError as error:
        problem = str(error)
    if problem:
        raise stage.damaged(args.refit, problem)


def _probe(args, header: Header | None, known: Refittable, run: Run) -> tuple[Library, Plan, Environment]:
    """As every conversion; where this machine will not do, another network is said first."""
    try:
        return probe(args, run, header.backend if header else "auto")
    except ConversionError:
        stage.check_network(preflight.preflight(None, make_plan(args, NO_LIBRARY), run), known)
        raise


def _refit(job: Job, data: bytes, known: Refittable, result: Result, run: Run) -> Made:
    asked.check_io_types(job)
    prepared = prepare_again(job, known.kept_fp32, known.exact_scales, run)
    changed = stage.changed_weights(prepared, known)
    run.console.info(f"{len(changed)} of {len(prepared.graph.weights)} weights have other values")
    return build_and_check(job, Choice(prepared), prepared, result, run, partial(_made, data, changed))


def _made(data: bytes, changed: frozenset[str], job: Job, choice: Choice, prepared: Prepared, run: Run) -> tuple[BuiltEngine, Prepared]:
    """In the place of a build."""
    return stage.refit_engine(job, prepared, data, changed, run), prepared


def _write(job: Job, made: Made, former: Result, result: Result, run: Run) -> None:
    """The files of a build; --skip-unchanged does not take the engine for a built one."""
    with run.stage("write", f"writing {base_name(job.plan.outputs.engine)}"):
        engine = write.write_engine(made.job, made.prepared, made.built, made.traffic, run)
        result.take(engine=replace(engine, **made.details), saved_onnx=write.write_onnx(made.job, made.prepared, run))
        again = stage.to_remember(job, made.prepared, former.refit.flags, former.refit.exact_scales)
        if again:
            result.take(refit=replace(again, refitted_from={"path": job.plan.refit, "sha256": former.engine.sha256}))
        options = {**job.inputs["options"], "--refit": former.engine.sha256}
        result.take(key=identity.sealed({**job.inputs, "options": options}))
    result.take(exit_code=0, **run.said())
    write.write_side_file(job, result, run)
