"""Stage 'validate': the outputs of what was built against the ONNX model's."""

from __future__ import annotations

from dataclasses import asdict

from core.model_info import ModelInfo
from core.plan import Plan
from graph.prepare import Prepared
from graph.reference import Session
from graph.simulate import simulation
from stages.data import Data
from stages.run import Run
from validate import Accuracy, compare, failure


def check_accuracy(plan: Plan, info: ModelInfo, prepared: Prepared, data: Data, run: Run) -> str:
    """Compare on every data set given; the validation folder decides where there is one.

    Returns:
        The status: simulated, or not_validated.

    Raises:
        ConversionError: VALIDATION.
    """
    if not plan.validation.enabled:
        return "not_validated"
    with run.stage("validate", "comparing the outputs with the model's"):
        rows, decisive = _compare_all(info, prepared, data, run)
    for row in rows:
        if row.constant:
            run.console.warn(f"output {row.output!r} of the model is constant on {row.inputs}: agreement there is no evidence of accuracy")
    error = failure(decisive, plan.validation.max_drop_percent) or failure(rows, float("inf"))
    if error:
        raise error
    return "simulated"


def _compare_all(info: ModelInfo, prepared: Prepared, data: Data, run: Run) -> tuple[tuple[Accuracy, ...], tuple[Accuracy, ...]]:
    """(rows of all data sets, rows of the first, which decides)."""
    reference = Session.from_path(info.path)
    candidate = Session.from_graph(simulation(prepared.graph)) if prepared.changed else reference
    outputs = tuple(spec.name for spec in info.outputs)
    decisive: tuple[Accuracy, ...] = ()
    rows: tuple[Accuracy, ...] = ()
    for dataset in data.to_compare():
        batches = run.console.track(data.reader.batches(dataset), max(len(dataset.paths), 1), f"comparing on {dataset.origin}")
        found = compare(
            reference.run,
            candidate.run,
            batches,
            outputs,
            origin=dataset.origin,
            executed_on="simulated",
            picture=data.picture_size,
            channels_last=data.channels_last,
        )
        rows, decisive = rows + found, decisive or found
        run.result["accuracy"] = [_rounded(row) for row in rows]
    return rows, decisive


def _rounded(row: Accuracy) -> dict:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(row).items()}
