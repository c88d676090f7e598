"""Two runners of one model against each other: what every stage that measures accuracy needs beside compare/outputs.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from onnx2trt.compare.accuracy import Accuracy, worst_of
from onnx2trt.compare.states import Runner
from onnx2trt.conversion.job import Job
from onnx2trt.data.holdout import Split
from onnx2trt.data.reader import Arrays, Batch
from onnx2trt.model.session import Session

REMEMBERED_BYTES = 2**28  # of reference outputs


def on_arrays(run: Callable[[Arrays], Arrays]) -> Runner:
    """What runs arrays as they are, as a runner of batches."""
    return lambda batch: run(batch.arrays)


def as_declared(job: Job, run_it: Callable[[Arrays], Arrays], cast_inputs: bool = True) -> Runner:
    """Wrap what runs a model whose inputs and outputs --io-types has changed, so that it takes and gives what the ONNX declares."""
    changed = {spec.name: spec.dtype for spec in job.engine_io.inputs}
    declared = {spec.name: spec.dtype for spec in job.info.outputs}

    def runner(batch: Batch) -> Arrays:
        given = {name: array.astype(changed[name], copy=False) for name, array in batch.arrays.items()} if cast_inputs else batch.arrays
        return {name: array.astype(declared[name], copy=False) for name, array in run_it(given).items()}

    return runner


class Reference:
    """A graph's outputs on the same batches again and again; computed once, as far as there is room to remember them."""

    def __init__(self, session: Session):
        self._session = session
        self._remembered: list[dict[str, np.ndarray]] = []

    def one_pass(self) -> Runner:
        """The outputs for each batch in turn, from the first."""
        position = count()

        def run(batch):
            index = next(position)
            if index < len(self._remembered):
                return self._remembered[index]
            found = self._session.run(batch.arrays)
            if index == len(self._remembered) and (index + 1) * sum(array.nbytes for array in found.values()) <= REMEMBERED_BYTES:
                self._remembered.append(found)
            return found

        return run

    def forget(self) -> None:
        """Give the memory back."""
        self._remembered.clear()


def by_part(split: Split, sessions: Sequence[Session]) -> Runner:
    """Each batch by the session of the trial that was made without it; by the first where there is but one."""

    def run(batch: Batch) -> Arrays:
        part = max(split.part_of(batch.samples[0]), 0) if len(sessions) > 1 else 0
        return sessions[part].run(batch.arrays)

    return run


def worst_output(rows: Sequence[Accuracy], limit_percent: float) -> tuple[Accuracy, bool]:
    """(the output that is furthest above the limit, or nearest to it; whether all outputs pass, by the rule of the final check)."""
    worst = worst_of(tuple(rows), limit_percent)
    return worst, worst.excess(limit_percent) <= 1
