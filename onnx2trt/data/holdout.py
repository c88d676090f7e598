"""Which samples INT8 is fitted to, and on which of them its accuracy is measured: never the same."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np

from onnx2trt.base.padded import Padded
from onnx2trt.base.progress import Progress
from onnx2trt.data.datasets import Data
from onnx2trt.data.feeds import Feeds, inferences
from onnx2trt.data.samples import Dataset

FOLDS = 5
ENOUGH_TO_HOLD_OUT = 64  # samples from which on a part is held out once, instead of every part in turn
HELD_OUT_PARTS = 4
MOST_MEASURED = 100


@dataclass(frozen=True)
class Split:
    """The calibration samples in `parts`, of which the first `trials` are left out in turn and measured on.

    `measured` is other data to measure on; then nothing is left out. Where the scales come from a cache without their samples, that
    other data stands in for `fitted`, too: layers may be judged by it, but nothing is fitted to it.
    """

    fitted: Dataset
    parts: int
    trials: int
    measured: Dataset | None
    may_fit: bool = True

    @cached_property
    def _position(self) -> dict[str, int]:
        return {sample: index for index, sample in enumerate(self.fitted.samples)}

    @property
    def blind(self) -> bool:
        """Whether it has to be measured on the very samples that were fitted to."""
        return self.trials == 0 and self.measured is None

    def part_of(self, sample: str) -> int:
        """The trial that leaves this sample out; -1 for samples that are always fitted to."""
        if self.trials == 0:
            return -1
        part = self._position[sample] % self.parts
        return part if part < self.trials else -1

    def to_fit(self, most: int | None = None) -> Dataset:
        """The samples to fit to, or `most` of them with the same share of each part; part by part."""
        return self._some(self.fitted.samples, most)

    @property
    def judged(self) -> frozenset[int]:
        """The trials whose samples judge what is decided before anything is fitted to all: channels are equalized without them."""
        return frozenset(range(max(1, self.trials * 2 // FOLDS) if self.trials else 0))

    def to_decide(self, most: int) -> Dataset:
        """Samples to make what to_judge shall judge, `most` at the most; all, where there are no others to judge by."""
        return self._some([one for one in self.fitted.samples if self.part_of(one) not in self.judged], most)

    def to_judge(self, most: int) -> Dataset:
        """Samples that are not among those of to_decide, unless there is one only; `most` at the most."""
        if self.measured is not None:
            return self.measured.at_most(most)
        return self.of_trials({-1} if self.blind else self.judged, most)

    @property
    def unjudged(self) -> tuple[frozenset[int], ...]:
        """The other trials, in groups as large as those that judge."""
        others, size = range(len(self.judged), self.trials), max(len(self.judged), 1)
        return tuple(frozenset(others[start : start + size]) for start in range(0, len(others), size))

    def of_trials(self, trials: Container[int], most: int) -> Dataset:
        """Samples that these trials leave out, `most` at the most."""
        return self._some([one for one in self.fitted.samples if self.part_of(one) in trials], most)

    def to_measure(self) -> Dataset:
        """The samples to measure on; `part_of` tells the trial of each where `measured` is None."""
        if self.measured is not None:
            return self.measured.at_most(MOST_MEASURED)
        return self._some([one for one in self.fitted.samples if self.trials == 0 or self.part_of(one) >= 0], MOST_MEASURED)

    def _some(self, samples: Iterable[str], most: int | None) -> Dataset:
        chosen = replace(self.fitted, samples=tuple(sorted(samples, key=self.part_of)))
        return chosen if most is None else chosen.at_most(most)

    def cuts(self, dataset: Dataset) -> tuple[Dataset, ...]:
        """Samples of to_fit or to_measure part by part, so that none shares its inference with one of another part."""
        if self.trials == 0:
            return (dataset,)
        return tuple(replace(dataset, samples=tuple(samples)) for _, samples in groupby(dataset.samples, self.part_of))


def choose_split(data: Data) -> Split | None:
    """A validation folder, else the rest of the calibration folder, else a part of the samples; None where there is neither."""
    fitted = data.calibration
    if fitted is None:
        return data.validation and Split(data.validation, 1, 0, data.validation, may_fit=False)
    unused = replace(fitted, samples=fitted.unused, unused=())
    if data.validation is not None or len(unused.samples) >= FOLDS:
        return Split(fitted, 1, 0, data.validation or unused)
    count = len(fitted.samples)
    if count >= ENOUGH_TO_HOLD_OUT:
        return Split(fitted, HELD_OUT_PARTS, 1, None)
    parts = min(FOLDS, count)
    return Split(fitted, parts, parts if count > 1 else 0, None)


@dataclass
class Parts:
    """Passes over the fitted samples (or some of them) that know which trial leaves the present sample out."""

    data: Data
    split: Split
    console: Progress
    label: str
    most: int | None = None
    current: int = -1
    padded: bool = False  # some rows of the present feed are no samples
    feeds: Feeds | None = None

    def __call__(self) -> Iterator[dict[str, np.ndarray]]:
        dataset = self.split.to_fit(self.most)
        self.feeds = Feeds(self.data.reader, dataset, self.console, self.label, cuts=self.split.cuts(dataset), must_vary=self.most is None)
        for feed in self.feeds():
            self.current, self.padded = self.split.part_of(self.feeds.samples[0]), isinstance(feed, Padded)
            yield feed

    @property
    def inferences(self) -> int:
        """Of one pass."""
        return sum(inferences(self.data.reader, piece) for piece in self.split.cuts(self.split.to_fit(self.most)))

    def __len__(self) -> int:
        """Samples of one pass."""
        count = len(self.split.fitted.samples)
        return count if self.most is None else min(count, self.most)


def without(parts: dict[int, object], left_out: Container[int], empty: Callable[[], object]):
    """What was collected of all parts but these, merged."""
    total = empty()
    for part, collected in parts.items():
        if part not in left_out:
            total.merge(collected)
    return total
