"""Stage 'validate': the outputs of what was built against the ONNX model's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from onnx2trt.base.errors import AccuracyError, ConversionError, DataError, having_found
from onnx2trt.base.told import told_by
from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.compare.detections import Detector
from onnx2trt.compare.evidence import Sample, Watch
from onnx2trt.compare.failure import failure, not_finite
from onnx2trt.compare.states import Runner
from onnx2trt.conversion.blank import blank_inputs, lost
from onnx2trt.conversion.candidate import OnnxCandidate
from onnx2trt.conversion.comparing import Lent, Reference, as_declared, on_arrays
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.data.datasets import Data
from onnx2trt.data.feeds import batches_to_compare, inferences, warn_of_dark
from onnx2trt.data.pixels import displayed
from onnx2trt.data.reader import Arrays, Batch, load_image
from onnx2trt.data.samples import Dataset
from onnx2trt.data.seen import count_seen
from onnx2trt.model.session import AT_ONCE, CannotLoad, Session, is_large
from onnx2trt.plan.shapes import image_axes
from onnx2trt.rewrite.number_formats import FORMATS
from onnx2trt.rewrite.prepare import Prepared
from onnx2trt.rewrite.simulate import simulation
from onnx2trt.trt.engine import Engine

# Why a run that has succeeded is "not_validated"
SWITCHED_OFF = "validation was switched off (--no-validate)"
NO_REFERENCE = "ONNX Runtime cannot load the model, so there is nothing to compare with"
PLUGINS = "with --plugins ONNX Runtime cannot run the model, so there is nothing to compare with"
INT8_ON_SYNTHETIC = "the accuracy of INT8 was not judged: synthetic inputs do not tell it; --validate with data of yours does"
FP32_AS_IT_IS = (
    "the engine was not executed here, and FP32 rounds nothing that the CPU could simulate: the model would be compared with itself"
)
FP32_REWRITTEN = (
    "the engine was not executed here, and FP32 rounds nothing that the CPU could simulate: what was compared shows only that the "
    "rewritten graph computes what the model computes"
)
DRAWN = ("detect", "segment", "pose")  # tasks whose boxes stand upright
NO_STEPS = "several steps in a row could not be compared: the state changes its shape"


@dataclass(frozen=True)
class _Candidate:
    """What is compared with the model."""

    runner: Runner
    at_once: int = 1  # batches that it takes at the same time
    executed_on: str = "simulated"


def compare_outputs(job: Job, prepared: Prepared | None, engine: Engine | None, run: Run) -> tuple[Accuracy, ...] | None:
    """Compare on every data set given, the one that decides first; empty where nothing is to be compared, None where there is nothing to
    compare with.

    Args:
        prepared: what the engine was built from; only asked for where there is no engine to run. Where it is the model as it was given,
            there is nothing to compare: it is FP32, and rounds nothing.
        engine: None where it cannot be executed here.

    Raises:
        ConversionError: VALIDATION.
    """
    if engine is None and not prepared.changed:
        return ()
    return _compare(job, lambda: _built(job, prepared, engine), run, prepared.held_out if prepared else {})


def compare_onnx(job: Job, candidate: OnnxCandidate, run: Run) -> tuple[Accuracy, ...]:
    """The same for a prepared ONNX of whatever tool, which is computed on the CPU, what it has in FP16 by rounding.

    Raises:
        ConversionError: VALIDATION, or MODEL where ONNX Runtime cannot run it.
    """
    return _compare(job, lambda: _Candidate(*candidate.runner(job.info, _in_turn(job))), run, {})


def _compare(job: Job, candidate: Callable[[], _Candidate], run: Run, held_out: dict[str, float]) -> tuple[Accuracy, ...] | None:
    if not job.plan.validation.enabled:
        return ()
    if job.plan.build.plugins:
        return ()
    with run.stage("validate", "comparing the outputs with the model's"):
        try:
            reference = Lent(job.reference)
        except CannotLoad as error:
            run.console.warn(error.message)
            return None
        rows = tuple(_with_held_out(row, held_out) for row in _compare_all(job, reference, candidate, run))
    _say(rows, job.plan.validation.max_drop_percent, run)
    return rows


def _say(rows: tuple[Accuracy, ...], limit: float, run: Run) -> None:
    """What each output was taken for, once, and what its verdict is worth."""
    decisive = [row for row in rows if row.inputs == rows[0].inputs]
    seen = next(filter(None, (row.seen() for row in decisive)), "")
    if seen:
        run.console.info(f"{decisive[0].inputs}: {seen}; --validate with others tells more")
    fed = [row.output for row in decisive if row.feeds]
    for row in decisive:
        if row.inputs != "synthetic" and row.steps is None:
            run.console.once(row.seen_as())
    if fed:
        steps = max((row.steps for row in decisive if row.steps), default=None)
        run.console.info(f"{', '.join(map(repr, dict.fromkeys(fed)))}: {f'{steps} steps in a row were compared' if steps else NO_STEPS}")
    for row in rows:
        if row.constant:
            run.console.warn(f"output {row.output!r} of the model is constant on {row.inputs}: agreement there is no evidence of accuracy")
    for line in filter(None, (said for row in decisive for said in (row.few(limit), row.still()))):
        run.console.once(line)


def judge(job: Job, compared: tuple[Accuracy, ...] | None, executed: bool, run: Run) -> dict:
    """
    Args:
        compared: by compare_outputs.
        executed: the engine itself was compared.

    Returns:
        The fields of the result: the status (validated, simulated, or not_validated), and why it is the last, in words.

    Raises:
        AccuracyError: the outputs differ by more than was allowed.
    """
    rows = compared or ()
    decisive = tuple(row for row in rows if row.inputs == rows[0].inputs)
    # INT8 is made for data like that of its calibration; noise is none, and real networks change it beyond any limit
    judged = job.plan.precision not in FORMATS or job.info.quantized or any(row.inputs != "synthetic" for row in decisive)
    error = (failure(decisive, job.plan.validation.max_drop_percent) if rows and judged else None) or not_finite(rows)
    if error:
        raise error
    because = NO_REFERENCE if compared is None else _no_evidence(job, rows, judged, executed)
    if because is None:
        return {"status": "validated" if executed else "simulated"}
    if because != SWITCHED_OFF:
        run.console.warn(because if because in (PLUGINS, INT8_ON_SYNTHETIC) else f"not validated: {because}")
    return {"status": "not_validated", "not_validated_because": because}


def _no_evidence(job: Job, rows: tuple[Accuracy, ...], judged: bool, executed: bool) -> str | None:
    """Why what was compared shows nothing of what was built; None where it does."""
    if not job.plan.validation.enabled:
        return SWITCHED_OFF
    if job.plan.build.plugins:
        return PLUGINS
    if job.plan.precision == "fp32" and not executed and job.plan.validation.engine is None:
        return FP32_REWRITTEN if rows else FP32_AS_IT_IS
    return None if judged else INT8_ON_SYNTHETIC


def _compare_all(job: Job, reference: Lent, make_candidate: Callable[[], _Candidate], run: Run) -> tuple[Accuracy, ...]:
    data, rows, found = job.data, (), {}
    expected, blank = _ahead(job, reference, run) if is_large(job.graph()) else ({}, blank_inputs(job, reference.run))
    candidate = make_candidate()
    run.evidence.start()
    for dataset in data.to_compare():
        watch = _watch(job, dataset, run) if run.evidence.wanted else None
        label, count = f"comparing on {dataset.called}", inferences(data.reader, dataset)
        batches = run.console.track(batches_to_compare(data, [dataset]), count, label)
        with having_found(found):
            comparison = job.comparison(candidate.executed_on)
            known = expected[dataset.origin].one_pass() if expected else on_arrays(reference.run)
            compared = comparison.compare(known, candidate.runner, batches, dataset.origin, watch, candidate.at_once)
        if watch:
            _keep_samples(run, data, dataset, watch, decides=not rows)
        rows += tuple(replace(row, **_seen(job, dataset)) for row in compared)
        found["accuracy"] = [row.rounded() for row in rows]
    warn_of_dark(data.reader, run.console)
    if not not_finite(rows):
        with having_found(found):
            _try_blank(blank, candidate, run)
    return rows


def _ahead(job: Job, reference: Lent, run: Run) -> tuple[dict[str, Reference], list[tuple[Batch, Arrays]]]:
    """(origin of a data set -> the model's outputs on it, as far as there is room to remember them; inputs in which nothing is, and the
    outputs for them): the model is let go before the candidate is loaded, since each of them holds all weights."""
    found = {}
    for dataset in job.data.to_compare():
        found[dataset.origin] = Reference(lambda: reference)
        label, count = f"the model's outputs on {dataset.called}", inferences(job.data.reader, dataset)
        found[dataset.origin].remember(run.console.track(batches_to_compare(job.data, [dataset]), count, label))
    blank = list(blank_inputs(job, reference.run))
    reference.rest()
    return found, blank


def _watch(job: Job, dataset: Dataset, run: Run) -> Watch:
    return Watch(run.evidence, dataset.origin, job.data.image_size, job.data.channels_last, _detector(job))


def _detector(job: Job) -> Detector | None:
    """How the report reads boxes out of the outputs; None where there are none, or nobody has said so."""
    told, layout, size = told_by(job.info.metadata), job.plan.outputs.detector, _seen_size(job)
    if layout == "none" or size is None or layout is None and told.task not in DRAWN:
        return None
    return Detector(size, layout or "yolo", told.task if told.task in DRAWN else "detect", told.names)


def _seen_size(job: Job) -> tuple[int, int] | None:
    """(height, width) of the images that the model sees, also where they come as arrays; None where no input looks like images."""
    if job.data.image_size:
        return job.data.image_size
    usual = {profile.name: profile.opt for profile in job.profiles}
    found = (tuple(usual[spec.name][axis] for axis in axes) for spec in job.info.inputs if (axes := image_axes(spec)))
    return next(found, None)


def _seen(job: Job, dataset: Dataset) -> dict:
    """The fields of a row that tell whether the INT8 scales were chosen on its samples; none where they were not chosen here."""
    calibration = job.data.calibration
    if not job.quantizes or calibration is None:
        return {}
    seen = count_seen(dataset, calibration)
    return {"seen_in_calibration": seen > 0, "seen_samples": seen or None}


def _with_held_out(row: Accuracy, drops: dict[str, float]) -> Accuracy:
    """What INT8 that was made without the samples loses, where all samples are seen ones: the only hint at others."""
    return replace(row, held_out_percent=drops.get(row.output)) if row.all_seen and row.steps is None else row


def _try_blank(blank: Iterable[tuple[Batch, Arrays]], candidate: _Candidate, run: Run) -> None:
    """What FP16 has lost near zero shows with an input in which nothing is, and often nowhere else.

    Args:
        blank: such inputs, and the model's outputs for them.

    Raises:
        AccuracyError: the candidate makes NaN or infinity of it, and the model does not.
    """
    for batch, expected in blank:
        try:
            found = candidate.runner(batch)
        except ConversionError as error:
            run.console.warn(f"an input of zeros could not be tried: {error.message}")
            continue
        for name, count in lost(expected, found).items():
            raise AccuracyError(
                f"output {name!r} for an input of zeros: {count} values are NaN or infinite where the ONNX model's are finite",
                hint="A constant that keeps a denominator or a logarithm off zero is lost, or a value overflows there: keep the layers in "
                "FP32 with --layer-precisions PATTERN:fp32, or use --precision fp32.",
                drop_percent=None,
            )


def _built(job: Job, prepared: Prepared | None, engine: Engine | None) -> _Candidate:
    """The engine, or what it was built from."""
    if engine is not None:
        return _Candidate(as_declared(job, engine.run, cast_inputs=False), executed_on="gpu")
    simulated = simulation(prepared.graph)
    load = Session.from_graph if simulated is prepared.graph else Session.from_own_graph
    session = load(simulated, in_turn=_in_turn(job))
    return _Candidate(as_declared(job, session.run), session.at_once)


def _in_turn(job: Job) -> bool:
    """Whether there are too few inferences to compute several at once."""
    return inferences(job.data.reader, job.data.to_compare()[0]) < AT_ONCE


def _keep_samples(run: Run, data: Data, dataset: Dataset, watch: Watch, decides: bool) -> None:
    """For the report: a sample of the test file (of the first data set where there is none), and the worst ones of what decides."""
    if dataset.origin == (data.test or data.to_compare()[0]).origin:
        image = _image(data, dataset.kind, watch.path)
        run.evidence.sample = Sample(dataset.origin, watch.path, image, tuple(watch.outputs.values()))
    image_of = partial(_image, data, dataset.kind)
    run.evidence.examples += [Sample(dataset.origin, path, image_of(path), (output,)) for path, output in watch.examples.values()]
    if decides:
        worst = [(path, output) for drop, path, output in watch.worst.values() if drop > 0]
        run.evidence.worst = [Sample(dataset.origin, path, image_of(path), (output,)) for path, output in worst]


def _image(data: Data, kind: str, path: str) -> np.ndarray | None:
    """An image as the model has seen it; None for other data."""
    if kind != "images":
        return None
    try:
        return displayed(load_image(path, data.reader.preprocessing), data.reader.preprocessing)
    except DataError:  # gone since it was compared
        return None
