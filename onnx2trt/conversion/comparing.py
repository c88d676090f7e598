"""Two runners of one model against each other: what every stage that measures accuracy needs beside compare/outputs.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from threading import Lock

import numpy as np

from onnx2trt.compare.accuracy import Accuracy, worst_of
from onnx2trt.compare.states import Runner
from onnx2trt.conversion.exact import Exact, FirstTime, Known
from onnx2trt.conversion.job import Job
from onnx2trt.data.holdout import Split
from onnx2trt.data.reader import Arrays, Batch
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session, is_large

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


class Lent:
    """A session that can be let go, and is loaded again where it has to compute once more."""

    def __init__(self, load: Callable[[], Session]):
        """
        Args:
            load: called at once, so that what it raises is raised here.
        """
        self._load, self._session = load, load()

    def run(self, arrays: Arrays) -> Arrays:
        self._session = self._session or self._load()
        return self._session.run(arrays)

    def rest(self) -> None:
        """Give its memory back."""
        self._session = None


class Reference:
    """A graph's outputs on the same batches again and again; computed once, as far as there is room to remember them.

    The graph is loaded when it has to compute.
    """

    def __init__(self, load: Callable[[], Session | Lent], known: Exact | None = None):
        """
        Args:
            load: the graph.
            known: what it gives, as far as somebody has seen it.
        """
        self._load, self._known = load, known or Exact(())
        self._session: Session | Lent | None = None
        self._remembered: list[dict[str, np.ndarray]] = []

    def one_pass(self) -> Runner:
        """The outputs for each batch in turn, from the first."""
        position, first = count(), FirstTime(self._known)

        def run(batch):
            index, known = next(position), first.of(batch.samples)
            if index < len(self._remembered):
                return self._remembered[index]
            if not known:
                self._session = self._session or self._load()
            found = known or self._session.run(batch.arrays)
            if index == len(self._remembered) and (index + 1) * sum(array.nbytes for array in found.values()) <= REMEMBERED_BYTES:
                self._remembered.append(found)
            return found

        return run

    def remember(self, batches: Iterable[Batch]) -> None:
        """Compute these outputs ahead, as far as there is room, so that the graph need not be loaded while others are; nothing where some
        are remembered already."""
        if self._remembered:
            return
        run = self.one_pass()
        for index, batch in enumerate(batches):
            run(batch)
            if index == len(self._remembered):
                break
        self.rest()

    def rest(self) -> None:
        """Give the memory of the loaded graph back, which may hold all weights once more."""
        self._session = None

    def forget(self) -> None:
        """Give the memory of the outputs back."""
        self._remembered.clear()
        self._known.forget()


class ByPart:
    """Each batch by the graph of the trial that was made without it; by the first where there is but one.

    Each graph is loaded when its first batch comes that nobody has computed, and let go as soon as those of the next one are under way, or
    before that where they are large: each may hold all weights once more. Batches come part by part (Split.cuts).
    """

    def __init__(self, split: Split, graphs: Sequence[Graph], in_turn: bool = True, own: bool = False, known: Known | None = None):
        """
        Args:
            known: what was computed of such graphs before.
            own: nobody else needs the graphs any more; a large one is without weights when it has been loaded.
        """
        self._split, self._graphs = split, graphs
        self._load = Session.from_own_graph if own else Session.from_graph
        self._in_turn = in_turn or len(graphs) > 1 and is_large(graphs[0])
        self._loaded: dict[int, Session] = {}
        self._given: Counter = Counter()  # batches, by part
        self._known = [FirstTime(known.of(part, graph) if known else Exact(())) for part, graph in enumerate(graphs)]
        self._lock = Lock()
        self.at_once = Session.most_at_once(self._in_turn)  # batches that may be given at the same time

    def __call__(self, batch: Batch) -> Arrays:
        part = max(self._split.part_of(batch.samples[0]), 0) if len(self._graphs) > 1 else 0
        with self._lock:
            found = self._known[part].of(batch.samples)
            if found:
                return found
            if part not in self._loaded:
                if self.at_once == 1:
                    self._loaded.clear()
                self._loaded[part] = self._load(self._graphs[part], in_turn=self._in_turn)
            session = self._loaded[part]
            self._given[part] += 1
            if self._given[part] >= self.at_once:  # no batch of another part can be waiting for its turn any more
                self._loaded = {part: session}
        return session.run(batch.arrays)


def worst_output(rows: Sequence[Accuracy], limit_percent: float) -> tuple[Accuracy, bool]:
    """(the output that is furthest above the limit, or nearest to it; whether all outputs pass, by the rule of the final check)."""
    worst = worst_of(tuple(rows), limit_percent)
    return worst, worst.excess(limit_percent) <= 1
