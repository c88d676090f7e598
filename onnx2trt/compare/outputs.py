"""Compare what was built with what was asked for: outputs of the engine (or of the prepared model) against the ONNX model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.read_ahead import map_in_order
from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.compare.change import Change, most_telling
from onnx2trt.compare.evidence import Watch
from onnx2trt.compare.metrics import fits, misfit
from onnx2trt.compare.row_groups import Pair
from onnx2trt.compare.rows import Lists
from onnx2trt.compare.states import Kept, Runner
from onnx2trt.compare.study import Judged, Kind, Study, View
from onnx2trt.compare.variation import Variation
from onnx2trt.data.reader import Batch

Sample = tuple[dict[str, Pair], str, frozenset[str]]  # output -> (reference, candidate) without the batch axis; file; outputs without one
BY_ROW = ("top1", "argmax")  # metrics whose own definition says that the first axis counts samples


class OtherShape(ConversionError):
    """An output has another shape than the ONNX model's, as lists of what was found can have."""


def _other_shape(name: str, expected: tuple[int, ...], found: tuple[int, ...]) -> OtherShape:
    return OtherShape(f"output {name!r} has shape {list(found)}, the ONNX model gives {list(expected)}", code=ExitCode.VALIDATION)


@dataclass(frozen=True)
class Learned:
    """What one pass over the data has told of a reference output."""

    variation: Variation
    kind: Kind | None  # what it was taken for; None: the user has said it, or it is a list


@dataclass(frozen=True)
class Comparison:
    """How the outputs of one model are compared."""

    outputs: tuple[str, ...]  # their names
    metric: tuple[tuple[str, str], ...] = ()  # the user's choice (--metric): output ("" for all that it fits) -> metric, the last counts
    image: tuple[int, int] | None = None  # (height, width) of the image input
    channels_last: bool = False  # the model is NHWC
    executed_on: str = "simulated"  # or gpu
    states: dict[str, str] = field(default_factory=dict)  # output -> the input that it is fed back to
    unbatched: frozenset[str] = frozenset()  # outputs whose first axis is not the batch
    learned: dict[str, Learned] = field(default_factory=dict)  # of the reference; filled by a pass, for others over the same data
    lost: dict[str, np.ndarray] = field(default_factory=dict)  # by the first candidate, [samples, slices] in percent
    lost_last: dict[str, np.ndarray] = field(default_factory=dict)  # by the last one

    def compare(
        self, reference: Runner, candidate: Runner, batches: Iterable[Batch], origin: str, watch: Watch | None = None, at_once: int = 1
    ) -> tuple[Accuracy, ...]:
        """Run both on every batch and compare each output; a model with a state is run over many steps, too, each fed with its own.

        Args:
            reference: the ONNX model as the user gave it.
            candidate: the engine, or the simulation of the prepared model.
            batches: the data.
            origin: where the data comes from; on synthetic data `auto` is noise, since nothing else means anything there.
            watch: looks on, for the report.
            at_once: batches that several threads may give to `candidate` at the same time; `reference` gets them one by one, in order.

        Raises:
            ConversionError: VALIDATION, where shapes differ or there is no sample; USAGE, where `metric` fits no output.
        """
        kept, ran = Kept(self.states), map_in_order(batches, candidate, at_once)

        def run() -> Iterator[tuple[Batch, dict, dict]]:
            for batch, found in ran:
                kept.add(batch)
                yield batch, reference(batch), found

        rows = self._pass(run(), origin, watch, self.learned)
        if not rows:
            raise ConversionError(f"no sample of {origin} could be read", code=ExitCode.VALIDATION)
        if not self.states or origin == "synthetic":
            return rows
        steps = self._pass(kept.steps(reference, candidate), origin, None, {})
        rows += tuple(replace(row, steps=row.samples) for row in steps)
        return tuple(replace(row, feeds=self.states.get(row.output)) for row in rows)

    def change(self, expected: Sequence[dict[str, np.ndarray]]) -> Change:
        """What tells how far outputs are from these, for the ranking of layers; by what was learned of the reference."""
        variations = {name: one.variation for name, one in self.learned.items()}
        return Change([{name: batch[name] for name in self.outputs} for batch in expected], variations, dict(self.metric))

    def telling(self, most: int) -> list[int]:
        """The numbers of a few samples in which the first candidate that was compared has lost most."""
        samples = max(map(len, self.lost.values()), default=0)
        return most_telling([one for one in self.lost.values() if len(one) == samples], most) if samples else list(range(most))

    def _pass(self, runs: Iterable, origin: str, watch: Watch | None, learned: dict[str, Learned]) -> tuple[Accuracy, ...]:
        """One row for each output."""
        studies: dict[str, Study] = {}
        shapes: dict[str, tuple] = {}
        lists = Lists(frozenset(name for name in self.outputs if self._asked(name, None) == "rows"))
        watched = origin != "synthetic"
        known = bool(learned)
        for batch, expected, found in runs:
            unfit = misfit(dict(self.metric), {name: expected[name].shape for name in self.outputs}, self.channels_last)
            if unfit:
                raise unfit
            given = tuple(getattr(array, "shape", ()) for array in batch.arrays.values())
            for sample, path, unbatched in self._samples(expected, found, batch):
                studies = studies or {
                    name: self._study(name, expected[name], origin, learned, name not in unbatched) for name in self.outputs
                }
                if watched:
                    lists.add(sample, given, unbatched)
                for name, (a, b) in sample.items():
                    if a.shape != b.shape:
                        shapes.setdefault(name, (expected[name].shape, found[name].shape))
                        continue
                    studies[name].add(a, b, path)
                    if watch is not None:
                        watch.see(studies[name], a, b, path)
        found_lists = lists.findings() if watched else {}
        for name, (a, b) in shapes.items():
            if name not in found_lists:
                raise _other_shape(name, a, b)
        judged = {name: study.judged(found_lists.get(name)) for name, study in studies.items() if study.samples or name in found_lists}
        if not known:
            kinds = {name: one.kind if name not in found_lists and studies[name].asked == "auto" else None for name, one in judged.items()}
            learned.update({name: Learned(study.variation, kinds.get(name)) for name, study in studies.items()})
        if learned is self.learned:
            self.lost_last.clear()
            self.lost_last.update({name: one.each for name, one in judged.items()})
            if not self.lost:
                self.lost.update(self.lost_last)
        if watch is not None:
            watch.end(studies, judged)
        return tuple(self._accuracy(studies[name], one, origin) for name, one in judged.items())

    def _study(self, name: str, expected: np.ndarray, origin: str, learned: dict[str, Learned], batched: bool) -> Study:
        view, asked = View(self.image, self.channels_last, origin == "synthetic", batched), self._asked(name, expected.shape)
        known = learned.get(name)
        return Study(name, asked, view, known.variation, True, known.kind) if known else Study(name, asked, view)

    def _asked(self, name: str, shape: tuple | None) -> str:
        """The user's choice for an output; one for all outputs only where it fits."""
        choice = dict(self.metric)
        general = choice.get("", "auto")
        if name in choice:
            return choice[name]
        return general if shape is None or general == "auto" or fits(general, shape, self.channels_last) else "auto"

    def _samples(self, expected: dict[str, np.ndarray], found: dict[str, np.ndarray], batch: Batch) -> Iterator[Sample]:
        """Of each real row; an output without the batch axis is one sample, that of the first row."""
        rows = {name: self._rows(name, expected[name], found[name], batch) for name in self.outputs}
        unbatched = frozenset(name for name, number in rows.items() if number is None)
        count = max([number for number in rows.values() if number is not None], default=1)
        for row in range(max(count, 1)):
            sample = {}
            for name, number in rows.items():
                if number is None and row == 0:
                    sample[name] = expected[name], found[name]
                elif number is not None and row < number:
                    sample[name] = expected[name][row], found[name][row]
            yield sample, batch.samples[min(row, len(batch.samples) - 1)], unbatched

    def _rows(self, name: str, a: np.ndarray, b: np.ndarray, batch: Batch) -> int | None:
        """How many samples an output holds along its first axis; None where that does not count samples, or there is nothing in it."""
        if a.ndim and a.ndim == b.ndim and a.shape[0] == batch.rows > 1 and b.shape[0] != batch.rows:
            raise _other_shape(name, a.shape, b.shape)  # whole samples are missing
        if not a.ndim or a.ndim != b.ndim or a.shape[0] != b.shape[0] or name in self.unbatched:
            return None
        if not a.shape[0] and not batch.rows:
            return None
        if a.shape[0] == batch.rows:
            return batch.real_rows
        by_row = self._asked(name, a.shape) in BY_ROW or batch.rows == 0 and a.shape[0] == 1
        return a.shape[0] if by_row else None

    def _accuracy(self, study: Study, judged: Judged, origin: str) -> Accuracy:
        several = len(judged.drops) > 1
        worst = int(np.argmax(judged.drops)) if judged.drops else 0
        return Accuracy(
            executed_on=self.executed_on,
            inputs=origin,
            output=study.name,
            metric=judged.kind.metric,
            drop_percent=judged.drop_percent,
            standard_error=judged.standard_error,
            sqnr_db=judged.sqnr_db if judged.sqnr_db is not None else study.sqnr_db,
            max_abs_error=study.max_abs_error,
            nonfinite=study.nonfinite,
            samples=max(study.samples, len(judged.drops)),
            worst=study.paths[worst] if several and worst < study.samples else None,
            worst_drop_percent=judged.drops[worst] if several and worst < study.samples else None,
            constant=study.constant,
            kind=judged.kind.name,
            shown_percent=judged.shown_percent,
            interval_percent=list(judged.interval) if judged.interval else None,
            count=judged.count,
            signal_percent=judged.signal_percent,
            signal_limit_percent=None if judged.signal_percent is None else judged.signal_limit,
            noise_percent=judged.signal.drop_percent if judged.signal else None,
            change_percent=judged.change_percent,
            worst_slice=judged.worst_slice,
            parts=judged.parts,
            best_scores_points=judged.best_scores_points,
            stuck=True if study.stuck and judged.may_be_stuck else None,
        )
