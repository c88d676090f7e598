"""--skip-unchanged: what an engine was made from stands in its side file; where all of that is the same, nothing is built again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

from onnx2trt.conversion.former import hash_file, read_former
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.bound_values import is_file
from onnx2trt.data.holdout import choose_split
from onnx2trt.data.samples import Dataset, files_of
from onnx2trt.plan import key as identity
from onnx2trt.quant.calibration_cache import fit_file, hash_files, side_file
from onnx2trt.report.result import Environment, Result


def inputs_of(job: Job, environment: Environment) -> dict:
    """All that the result depends on, but for the caches, which the run itself may write; looked at before the work."""
    versions = {"library": f"{environment.backend} {environment.tensorrt}", **identity.versions()}
    if job.plan.executes_here:
        versions |= {"gpu": environment.gpu, "driver": environment.driver}
    data = {
        "--calibration-dir": _hash_data(job.data.calibration, _also_measured(job)),
        "--validation-dir": _hash_data(job.data.validation),
        "--test-image": _hash_data(job.data.test),
        "--bind-input": job.info.identity if any(is_file(entry.text) for entry in job.info.bound) else None,
        "--plugins": [hash_file(path) or path for path in job.plan.build.plugins] or None,
    }
    given = {flag: value for flag, value in data.items() if value}
    return {"model": job.info.sha256, "options": identity.options(job.plan), "data": given, "versions": versions}


def key_of(job: Job, run: Run) -> dict:
    """The key of a conversion: what it was made from, and the caches as they are now, with what this run has written."""
    caches = {}
    if job.plan.calibration.cache:
        cache = job.plan.calibration.cache
        paths = (cache, side_file(cache), fit_file(cache))
        caches["--calibration-cache"] = [_hash_now(path, run) for path in paths]
    if job.plan.build.timing_cache_named and job.plan.build.timing_cache:
        caches["--timing-cache"] = _hash_now(job.plan.build.timing_cache, run)
    return identity.sealed({**job.inputs, "data": {**job.inputs["data"], **caches}})


def find_former(job: Job, run: Run) -> Result | None:
    """The result of an earlier run that this one would only repeat; None where there is none. Says which, and why."""
    former, reason = read_former(job.plan.outputs.engine, job.plan.outputs.side_file)
    if former:
        reason = _why_not(former, job, key_of(job, run))
    engine = job.plan.outputs.engine
    if reason:
        run.console.info(f"not skipped: {reason}")
        return None
    run.console.info(f"unchanged: {engine} ({former.status}) was made from the same model, options, data and versions")
    return former


def take_former(former: Result, job: Job, environment: Environment) -> Result:
    """The former result as this run's: environment and names of files are those of now."""
    model = replace(former.model, path=job.info.path)
    engine = replace(former.engine, path=job.plan.outputs.engine)
    return replace(former, environment=environment, model=model, engine=engine, skipped=True)


def _why_not(former: Result, job: Job, key: dict) -> str:
    """Why a former result does not do; empty where it does."""
    changed = identity.differences(former.key, key, job.plan.typed)
    if changed:
        return "changed since the engine was built: " + "; ".join(changed)
    if job.plan.validation.require_execution and former.status == "simulated":
        return "the engine was not executed, which --require-execution asks for"
    save = job.plan.outputs.save_onnx
    if save:
        saved = former.saved_onnx or {}
        if not saved or any(hash_file(save + suffix) != sha256 for suffix, sha256 in saved.items()):
            return f"{save} is missing, or not the model that the engine was built from"
    return ""


def _also_measured(job: Job) -> tuple[str, ...]:
    """Files of the calibration folder that accuracy is measured on, though they are not among the samples."""
    if job.data.calibration is None:
        return ()
    split = choose_split(job.data)
    measured = (split.to_measure(), *job.data.to_compare())
    unused = frozenset(job.data.calibration.unused)
    return tuple(sorted(files_of(sample for dataset in measured for sample in dataset.samples if sample in unused)))


def _hash_data(data: Dataset | None, also: tuple[str, ...] = ()) -> str | None:
    if data is None:
        return None
    root = data.origin if os.path.isdir(data.origin) else os.path.dirname(data.origin) or "."
    names = "\0".join(os.path.relpath(sample, root) for sample in data.unused)  # they take part in the choice, whatever is in them
    text = f"{hash_files(data.files, root)} {hash_files(also, root)} {names}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _hash_now(path: str, run: Run) -> str | None:
    return run.written.get(os.path.realpath(path)) or hash_file(path)
