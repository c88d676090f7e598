"""How accurate a choice of INT8 layers is, on samples that nothing was fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property

from onnx2trt.compare.accuracy import Accuracy, worst_of
from onnx2trt.compare.best_scores import POINTS_PER_PERCENT
from onnx2trt.compare.change import Change
from onnx2trt.compare.states import Runner
from onnx2trt.conversion.comparing import ByPart, Reference
from onnx2trt.conversion.exact import Exact, Known
from onnx2trt.conversion.int8 import Fitted
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.looks import FAR, Looked, Looks
from onnx2trt.conversion.run import Run
from onnx2trt.data.feeds import batches_to_compare, inferences
from onnx2trt.data.holdout import FOLDS
from onnx2trt.data.reader import Arrays, Batch
from onnx2trt.data.samples import Dataset
from onnx2trt.data.seen import count_seen
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session, is_large
from onnx2trt.quant.sensitivity import DROPS, SCORES, Feed, Tried
from onnx2trt.rewrite.qdq import Layer

LEAST_RANKED_ON = 2  # samples


class Trials:
    """Measures choices of INT8 layers one after the other."""

    def __init__(self, job: Job, fitted: Fitted, macs: dict[str, int], finish: Callable[[Graph], Graph], run: Run):
        """
        Args:
            fitted: with a split.
            macs: node -> multiply-accumulates, of all of the graph.
            finish: makes of the graph with INT8 layers what a CPU can run of the one that will be built.
        """
        self._job, self._fitted, self._macs, self._run = job, fitted, macs, run
        self._finish = finish
        self._reference = Reference(lambda: Session.from_graph(fitted.graph), fitted.exact)
        self._comparison = job.comparison()  # what it learns of the reference holds for all choices
        self._measured: dict[tuple, tuple[Accuracy, ...]] = {}
        self._looks = Looks()
        self._looked: dict[tuple[str, ...], Looked] = {}
        self.beyond = {DROPS, SCORES}  # what is asked for, as long as a choice of layers gives it

    def measure(self, kept: Sequence[str], limit: float, final: bool = False) -> Tried:
        """The drop of the outputs with these layers given up, on the samples left out; it passes by the rule of the final check, where what
        is asked for `beyond` that holds, too.

        Args:
            limit: of the drop, in %.
            final: measure what was fitted to all samples instead, which saw the samples; but it is what will be built.
        """
        rows = self._rows(kept, final)
        by = Accuracy.likely_excess if DROPS in self.beyond else Accuracy.excess
        worst = worst_of(rows, limit, by)
        points = max((row.best_scores_points for row in rows if row.best_scores_points is not None), default=None)
        near = points is None or points <= POINTS_PER_PERCENT * limit or SCORES not in self.beyond
        numbers = (round(number, 6) for number in (self.share(kept), worst.drop_percent, worst.standard_error or 0.0))
        reached = limit * by(worst, limit) if limit else worst.shown
        points = None if points is None else round(points, 6)
        enough = all(row.excess(limit) <= 1 for row in rows)
        return Tried(len(kept), *numbers, by(worst, limit) <= 1 and near, reached, self._seen(final), points, enough)

    def look(self, kept: Sequence[str], limit: float) -> Tried:
        """What to expect of `measure`, by the first part of the samples alone; measured where they cannot tell, or it was before.

        Making and loading the graph of a part takes as long as running it on its samples. What was computed is not computed again.
        """
        near = self._looks.near(kept)
        known = near is None or (tuple(kept), False) in self._measured or DROPS not in self.beyond
        rows = None if known else self._look(kept, near)
        if rows is None:
            return self.measure(kept, limit)
        row, ratio = max(rows, key=lambda one: one[0].likely_excess(limit) * one[1])
        reached = ratio * (limit * row.likely_excess(limit) if limit else row.shown)
        if reached > FAR * limit:
            self._looked[tuple(kept)].outputs.forget()  # nobody will measure it
        numbers = (round(number, 6) for number in (self.share(kept), ratio * row.drop_percent, ratio * (row.standard_error or 0.0)))
        return Tried(len(kept), *numbers, reached <= limit, reached, self._seen(final=False), measured=False)

    def _look(self, kept: Sequence[str], near: tuple[str, ...]) -> tuple[tuple[Accuracy, float], ...] | None:
        """As Looks.rows, by the samples that the first trial was made without."""
        fitted, key, layers = self._fitted, tuple(kept), self._without(kept)
        if SCORES in self.beyond and any(row.best_scores_points is not None for row in self._rows(near, final=False)):
            return None
        if key not in self._looked:
            known, fit = Exact(tuple(fitted.graph.output_names)), (fitted.trials or (fitted.fit,))[0]
            part = ByPart(fitted.split, [fit.apply(fitted.graph_for(layers), layers)], in_turn=False)

            def noted(batch: Batch) -> Arrays:
                found = part(batch)
                for name, values in found.items():
                    known.add(batch.samples, name, values)
                return found

            self._compare(noted, part.at_once, f"looking at {self._named(kept)}", (self._first_part(),))
            self._looked[key] = Looked(known, dict(self._comparison.lost_last))
        return self._looks.rows(near, self._looked[key].lost)

    def _first_part(self) -> Dataset:
        """The samples that the first trial was made without; where there is but one trial, or none, the first fifth of all inferences."""
        split, reader = self._fitted.split, self._job.data.reader
        first, *others = split.cuts(split.to_measure())
        if others:
            return first
        count = -(-inferences(reader, first) // FOLDS) * reader.batch_size(first)
        return replace(first, samples=first.samples[:count])

    def _seen(self, final: bool) -> bool:
        """Whether the scales were chosen on the samples that are measured on, or on some of them."""
        split = self._fitted.split
        if split.measured is None:
            return final or split.blind
        return split.may_fit and self._overlap

    @cached_property
    def _overlap(self) -> bool:
        split = self._fitted.split
        return count_seen(split.measured, split.fitted) > 0

    def change(self, expected: list[Feed]) -> Change:
        """What tells how far outputs are from these, by what is known of the reference from the first measurement on."""
        return self._comparison.change(expected)

    def telling(self) -> list[Feed]:
        """A few batches to rank layers on: those in which the first choice that was measured has lost most; the fewer, the more layers."""
        job, split, seen, found = self._job, self._fitted.split, 0, []
        effort, layers = job.plan.calibration.effort, max(len(self._fitted.layers), 1)
        # of each layer, a sample runs through what stands behind it: half of the graph, on average
        affordable = 2 * effort.passes * len(split.to_measure().samples) / layers
        told = self._comparison.telling(int(min(effort.samples, max(affordable, LEAST_RANKED_ON))))
        for batch in batches_to_compare(job.data, split.cuts(split.to_measure())):
            rows = max(batch.real_rows, 1)
            if any(seen <= number < seen + rows for number in told):
                found.append(batch.arrays)
            seen += rows
        return found

    def held_out(self, kept: Sequence[str]) -> dict[str, float]:
        """Output -> drop in %, with these layers given up, on samples that scales and weights were made without; empty where no calibration
        samples were held out."""
        if self._fitted.split.measured is not None or self._fitted.split.blind:
            return {}
        return {row.output: row.drop_percent for row in self._rows(kept, final=False) if row.steps is None}

    def forget(self) -> None:
        """Give the memory of reference outputs back; what was measured stays known."""
        self._reference.forget()
        self._looked.clear()
        self._fitted.simulated.begin(())

    def _rows(self, kept: Sequence[str], final: bool) -> tuple[Accuracy, ...]:
        """Measured once."""
        key = (tuple(kept), final)
        if key not in self._measured:
            self._measured[key] = self._measure(kept, final)
            if not final:
                self._looks.add(kept, self._measured[key], self._comparison.lost_last)
        return self._measured[key]

    def _measure(self, kept: Sequence[str], final: bool) -> tuple[Accuracy, ...]:
        """Each sample with the graph of the trial that has not seen it."""
        fitted, layers, split = self._fitted, self._without(kept), self._fitted.split
        fits = (fitted.fit,) if final or not fitted.trials else fitted.trials
        equalized = fitted.graph_for(layers)
        graphs = [fit.apply(equalized, layers) for fit in fits]
        if final:  # its weights are FP32 then, and would be there twice while it is computed
            graphs = [self._finish(graph) for graph in graphs]
        known: Known | None = None if final else self._looked.pop(tuple(kept), None)
        if not final and not kept:  # all layers in INT8 have been tried on some of the samples
            known = fitted.simulated
        candidate = ByPart(split, graphs, in_turn=False, own=final, known=known)
        return self._compare(candidate, candidate.at_once, f"measuring with {self._named(kept)}", split.cuts(split.to_measure()))

    def share(self, kept: Sequence[str]) -> float:
        """Of the work in INT8, with these layers given up."""
        return sum(self._macs.get(layer.node, 0) for layer in self._without(kept)) / max(sum(self._macs.values()), 1)

    def _without(self, kept: Sequence[str]) -> list[Layer]:
        fp16_fallback = set(kept)
        return [layer for layer in self._fitted.layers if layer.node not in fp16_fallback]

    def _named(self, kept: Sequence[str]) -> str:
        return f"{self.share(kept):.0%} in {self._job.number_format.label}"

    def _compare(self, candidate: Runner, at_once: int, what: str, pieces: Sequence[Dataset]) -> tuple[Accuracy, ...]:
        """On these pieces of the samples, the first ones."""
        job = self._job

        def batches(said: str) -> Iterable[Batch]:
            found = batches_to_compare(job.data, pieces)
            return self._run.console.track(found, sum(inferences(job.data.reader, piece) for piece in pieces), said)

        if is_large(self._fitted.graph):
            self._reference.remember(batches("what the model gives"))
        found = self._comparison.compare(self._reference.one_pass(), candidate, batches(what), pieces[0].origin, at_once=at_once)
        self._reference.rest()
        return found
