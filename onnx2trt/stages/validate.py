"""Stage 'validate': the outputs of what was built against the ONNX model's."""

from __future__ import annotations

import numpy as np

from onnx2trt.base.errors import DataError, having_found
from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.compare.evidence import Sample, Watch
from onnx2trt.compare.outputs import Runner, failure
from onnx2trt.conversion.comparing import as_declared, on_arrays
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.datasets import Data
from onnx2trt.data.feeds import batches_to_compare
from onnx2trt.data.pixels import displayed
from onnx2trt.data.reader import load_image
from onnx2trt.data.samples import Dataset
from onnx2trt.model.session import AT_ONCE, Session
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.trt.engine import Engine


def compare_outputs(job: Job, prepared: Prepared | None, engine: Engine | None, run: Run) -> tuple[Accuracy, ...]:
    """Compare on every data set given, the one that decides first; empty where nothing is to be compared.

    Args:
        prepared: what the engine was built from; only asked for where there is no engine to run.
        engine: None where it cannot be executed here.

    Raises:
        ConversionError: VALIDATION.
    """
    if not job.plan.validation.enabled:
        return ()
    if job.plan.build.plugins:
        run.console.warn("with --plugins ONNX Runtime cannot run the model, so there is nothing to compare with")
        return ()
    with run.stage("validate", "comparing the outputs with the model's"):
        rows = _compare_all(job, prepared, engine, run)
    for row in rows:
        if row.constant:
            run.console.warn(f"output {row.output!r} of the model is constant on {row.inputs}: agreement there is no evidence of accuracy")
    return rows


def judge(job: Job, rows: tuple[Accuracy, ...], executed: bool, run: Run) -> str:
    """
    Args:
        rows: of compare_outputs.
        executed: the engine itself was compared.

    Returns:
        The status: validated, simulated, or not_validated.

    Raises:
        AccuracyError: the outputs differ by more than was allowed.
    """
    if not rows:
        return "not_validated"
    decisive = tuple(row for row in rows if row.inputs == rows[0].inputs)
    # INT8 is made for data like that of its calibration; noise is none, and real networks change it beyond any limit
    judged = job.plan.precision != "int8" or job.info.quantized or any(row.inputs != "synthetic" for row in decisive)
    error = (failure(decisive, job.plan.validation.max_drop_percent) if judged else None) or failure(rows, float("inf"))
    if error:
        raise error
    if not judged:
        run.console.warn("the accuracy of INT8 was not judged: synthetic inputs do not tell it; --test-image or --validation-dir does")
        return "not_validated"
    return "validated" if executed else "simulated"


def _compare_all(job: Job, prepared: Prepared | None, engine: Engine | None, run: Run) -> tuple[Accuracy, ...]:
    reference = Session.from_path(job.info.path)
    candidate, at_once = _candidate(job, prepared, engine, reference)
    comparison = job.comparison("simulated" if engine is None else "gpu")
    data, rows, found = job.data, (), {}
    run.evidence.start()
    for dataset in data.to_compare():
        watch = Watch(run.evidence, dataset.origin, data.image_size, data.channels_last) if run.evidence.wanted else None
        batches = run.console.track(batches_to_compare(data, [dataset]), max(len(dataset.paths), 1), f"comparing on {dataset.origin}")
        with having_found(found):
            compared = comparison.compare(on_arrays(reference.run), candidate, batches, dataset.origin, watch, at_once)
        if watch:
            _keep_samples(run, data, dataset, watch, decides=not rows)
        rows += compared
        found["accuracy"] = [row.rounded() for row in rows]
    return rows


def _candidate(job: Job, prepared: Prepared | None, engine: Engine | None, reference: Session) -> tuple[Runner, int]:
    """(what is compared, how many batches it takes at once)"""
    if engine is not None:
        return as_declared(job, engine.run, cast_inputs=False), 1
    if not prepared.changed:
        return on_arrays(reference.run), 1
    session = Session.from_graph(simulation(prepared.graph), in_turn=len(job.data.to_compare()[0].paths) < AT_ONCE)
    return as_declared(job, session.run), session.at_once


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
