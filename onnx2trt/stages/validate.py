"""Stage 'validate': the outputs of what was built against the ONNX model's, and how long they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from onnx2trt.base.errors import DataError
from onnx2trt.compare.evidence import Sample, Watch
from onnx2trt.compare.latency import measure_in_turn
from onnx2trt.compare.outputs import Accuracy, Runner, failure
from onnx2trt.conversion.comparing import compare_runners, on_arrays
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.arrays import synthetic_arrays
from onnx2trt.data.datasets import Data, batches_to_compare
from onnx2trt.data.pixels import displayed
from onnx2trt.data.reader import Arrays, Batch, load_image
from onnx2trt.data.samples import Dataset
from onnx2trt.model.session import AT_ONCE, Session
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.trt.engine import Engine


def check(job: Job, prepared: Prepared | None, engine: Engine | None, run: Run) -> str:
    """Compare on every data set given (the validation folder decides where there is one), and time on the GPU.

    Returns:
        The status: validated, simulated, or not_validated.

    Raises:
        ConversionError: VALIDATION.
    """
    if not job.plan.validation.enabled:
        return "not_validated"
    status = _check_accuracy(job, prepared, engine, run)
    if engine is not None:
        with run.stage("latency", "measuring the latency"):
            kept: dict[str, list[float]] = {}
            run.result["latency"] = latencies(job, {"": engine}, kept)[""]
            run.evidence.latency_ms = kept[""]
    return status


def _check_accuracy(job: Job, prepared: Prepared | None, engine: Engine | None, run: Run) -> str:
    if job.plan.build.plugins:
        run.console.warn("with --plugins ONNX Runtime cannot run the model, so there is nothing to compare with")
        return "not_validated"
    with run.stage("validate", "comparing the outputs with the model's"):
        rows, decisive = _compare_all(job, prepared, engine, run)
    for row in rows:
        if row.constant:
            run.console.warn(f"output {row.output!r} of the model is constant on {row.inputs}: agreement there is no evidence of accuracy")
    # INT8 is made for data like that of its calibration; noise is none, and real networks change it beyond any limit
    judged = job.plan.precision != "int8" or job.info.quantized or any(row.inputs != "synthetic" for row in decisive)
    error = (failure(decisive, job.plan.validation.max_drop_percent) if judged else None) or failure(rows, float("inf"))
    if error:
        raise error
    if not judged:
        run.console.warn("the accuracy of INT8 was not judged: synthetic inputs do not tell it; --test-image or --validation-dir does")
        return "not_validated"
    return "simulated" if engine is None else "validated"


def _compare_all(job: Job, prepared: Prepared | None, engine: Engine | None, run: Run) -> tuple[tuple[Accuracy, ...], tuple[Accuracy, ...]]:
    """(rows of all data sets, rows of the first, which decides)."""
    reference, at_once = Session.from_path(job.info.path), 1
    if engine is not None:
        candidate = as_declared(job, engine.run, cast_inputs=False)
    elif prepared.changed:
        session = Session.from_graph(simulation(prepared.graph), in_turn=len(job.data.to_compare()[0].paths) < AT_ONCE)
        candidate, at_once = as_declared(job, session.run), session.at_once
    else:
        candidate = on_arrays(reference.run)
    decisive: tuple[Accuracy, ...] = ()
    rows: tuple[Accuracy, ...] = ()
    data: Data = job.data
    run.evidence.start()
    for dataset in data.to_compare():
        watch = Watch(run.evidence, dataset.origin, data.image_size, data.channels_last) if run.evidence.wanted else None
        batches = run.console.track(batches_to_compare(data, [dataset]), max(len(dataset.paths), 1), f"comparing on {dataset.origin}")
        executed_on = "simulated" if engine is None else "gpu"
        found = compare_runners(job, on_arrays(reference.run), candidate, batches, dataset.origin, executed_on, watch, at_once)
        if watch:
            _keep_samples(run, data, dataset, watch, decides=not decisive)
        rows, decisive = rows + found, decisive or found
        run.result["accuracy"] = [_rounded(row) for row in rows]
    return rows, decisive


def _keep_samples(run: Run, data: Data, dataset: Dataset, watch: Watch, decides: bool) -> None:
    """For the report: a sample of the test file (of the first data set where there is none), and the worst ones of what decides."""
    if dataset.origin == (data.test or data.to_compare()[0]).origin:
        image = _image(data, dataset.kind, watch.path)
        run.evidence.sample = Sample(dataset.origin, watch.path, image, tuple(watch.outputs.values()))
    if decides:
        worst = [(path, output) for drop, path, output in watch.worst.values() if drop > 0]
        run.evidence.worst = [Sample(dataset.origin, path, _image(data, dataset.kind, path), (output,)) for path, output in worst]


def _image(data: Data, kind: str, path: str) -> np.ndarray | None:
    """An image as the model has seen it; None for other data."""
    if kind != "images":
        return None
    try:
        return displayed(load_image(path, data.reader.preprocessing), data.reader.preprocessing)
    except DataError:  # gone since it was compared
        return None


def as_declared(job: Job, run_it: Callable[[Arrays], Arrays], cast_inputs: bool = True) -> Runner:
    """Wrap what runs a model whose ends --io-types has changed, so that it takes and gives what the ONNX declares."""
    changed = {spec.name: spec.dtype for spec in job.engine_io.inputs}
    declared = {spec.name: spec.dtype for spec in job.info.outputs}

    def runner(batch: Batch) -> Arrays:
        given = {name: array.astype(changed[name], copy=False) for name, array in batch.arrays.items()} if cast_inputs else batch.arrays
        return {name: array.astype(declared[name], copy=False) for name, array in run_it(given).items()}

    return runner


def latencies(job: Job, engines: dict[str, Engine], keep: dict[str, list[float]] | None = None) -> dict[str, dict]:
    """At the opt shapes; see validate.measure_in_turn. Several engines take turns."""
    for engine in engines.values():
        engine.load(synthetic_arrays(job.info.inputs, job.profiles))
    found = measure_in_turn({name: engine.time_ms for name, engine in engines.items()}, keep)
    return {
        name: {
            **times,
            "shape": {profile.name: list(profile.opt) for profile in job.profiles},
            "covers": "the engine alone on inputs in device memory, between CUDA events; no copies, no pre- or post-processing",
            "fp16_p50_ms": None,
        }
        for name, times in found.items()
    }


def _rounded(row: Accuracy) -> dict:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(row).items()}
