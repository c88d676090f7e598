"""One row of the verdict: an output compared over one data set, and whether it passes. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

LEAST_SQNR_DB = 10.0  # below which nothing passes that the user has not asked for by --metric
MOST_NOISE_PERCENT = 10.0  # of what varies: the same, so that outputs that hardly do anything are not held against themselves
HARDLY_PERCENT = 2.0  # of its size that an output changes over the samples, below which it is said
LITTLE_PERCENT = 10.0  # the same, below which a drop looks much worse than the SQNR beside it
UNSURE_FACTOR = 2.0  # between an error and what it may be, from which on it is said that the samples are few


@dataclass(frozen=True)
class Accuracy:
    """How far one output of what was built is from the ONNX model's, over one data set."""

    executed_on: str  # gpu | simulated
    inputs: str  # the folder or file, or "synthetic"
    output: str
    metric: str  # values | top1 | argmax | mask:T | equal | rows | cosine | noise
    drop_percent: float
    standard_error: float | None
    sqnr_db: float
    max_abs_error: float
    nonfinite: int
    samples: int
    worst: str | None
    worst_drop_percent: float | None
    constant: bool  # the reference output never changes: no evidence of accuracy
    kind: str | None = None  # what it was taken for: values, classes, class map, sequence, mask, labels, rows; "as asked" by --metric
    shown_percent: float | None = None  # of the drop, what so few samples show at least: this is held against the limit
    interval_percent: list[float] | None = None  # in which the drop is with a probability of 95 %
    count: float | None = None  # decisions or values that tell the drop
    signal_percent: float | None = None  # error in what varies, as shown at least, of outputs that are judged by decisions
    signal_limit_percent: float | None = None
    noise_percent: float | None = None  # error in what varies, of the worst slice
    change_percent: float | None = None  # by how much the reference differs over the samples, of its size
    worst_slice: str | None = None  # in words
    parts: list[dict] | None = None  # of outputs that hold several things, as boxes and scores
    best_scores_points: float | None = None  # by how much the best scores of classes and samples differ (RMS), 0.01 each
    steps: int | None = None  # the samples are inferences in a row, each fed with the state that the one before has left
    feeds: str | None = None  # the input that the output is fed back to
    seen_in_calibration: bool | None = None  # some of the samples are those that INT8 scales were chosen on; None: not known, or no INT8
    seen_samples: int | None = None  # how many
    held_out_percent: float | None = None  # the drop where scales and weights were made without the samples; where all were seen
    stuck: bool | None = None  # the candidate's output never changes, the reference's does; None: it does

    optional: ClassVar = (
        *("kind", "shown_percent", "interval_percent", "count", "signal_percent", "signal_limit_percent"),
        *("noise_percent", "change_percent", "worst_slice", "parts", "best_scores_points"),
        *("steps", "feeds", "stuck", "seen_in_calibration", "seen_samples", "held_out_percent"),
    )

    def rounded(self) -> Accuracy:
        """The same with as many digits as mean something."""
        return Accuracy(**{name: _rounded(value) for name, value in vars(self).items()})

    @property
    def chosen(self) -> bool:
        """The user has said how it is compared."""
        return self.kind == "as asked"

    @property
    def shown(self) -> float:
        """What is held against the limit, in percent."""
        return self.drop_percent if self.shown_percent is None else self.shown_percent

    def excess(self, limit_percent: float) -> float:
        """How far it is above what is accepted: it passes up to 1."""
        if self.nonfinite:
            return math.inf
        found = [_share(self.shown, limit_percent)]
        if self.signal_percent is not None:
            found.append(_share(self.signal_percent, max(self.signal_limit_percent, limit_percent)))
        if self.stuck or self.drowned:
            found.append(max(_share(self.noise_percent or 100.0, max(MOST_NOISE_PERCENT, limit_percent)), 1.0 + 1e-9))
        return max(found)

    def likely_excess(self, limit_percent: float) -> float:
        """The same by the errors as they were measured, which of few values may be above the truth as well as below it; of decisions, of
        which a single one would count, by what they show."""
        found = [self.excess(limit_percent)]
        if self.metric == "values":
            found.append(_share(self.drop_percent, limit_percent))
        if self.signal_percent is not None and self.noise_percent is not None:
            found.append(_share(self.noise_percent, max(self.signal_limit_percent, limit_percent)))
        return max(found)

    @property
    def drowned(self) -> bool:
        """Whatever the metric says, the error is as large as what the output tells."""
        told = not self.constant and not self.chosen and self.noise_percent is not None
        return told and self.sqnr_db < LEAST_SQNR_DB and self.noise_percent > MOST_NOISE_PERCENT

    def left_open(self, limit_percent: float) -> str:
        """What decides where the drop is above the limit and passes: what so few samples show of it; in words, empty elsewhere."""
        if not self.shown <= limit_percent < self.drop_percent or self.excess(limit_percent) > 1:
            return ""
        text = f"{self.samples} sample{'s show' if self.samples > 1 else ' shows'} {self.shown:.2f} % of it, the rest may be chance"
        if self.metric == "values" and self.change_percent is not None and self.change_percent < LITTLE_PERCENT:
            text += f": from sample to sample the output changes by only {self.change_percent:.2g} % of its size"
        return text

    def few(self, limit_percent: float) -> str:
        """That the samples are too few or too much alike to tell the limit, in words; empty where they do."""
        number = f"{self.samples} sample{'s' * (self.samples > 1)} of {self.inputs}"
        what = f"{number} cannot show {limit_percent:g} % for output {self.output!r}"
        if self.count is None or self.inputs == "synthetic" or not limit_percent:
            return ""
        if self.kind == "values" and self.change_percent is not None and self.change_percent < HARDLY_PERCENT:
            of = f"output {self.output!r} differs from sample to sample by {self.change_percent:.2g} % of its size"
            return f"the samples of {self.inputs} are much alike: {of}, and every error is large against that"
        if self.metric == "values":
            factor = _share(self.drop_percent, self.shown) if self.shown else 1.0
            return f"{what}: its error may be off by a factor of {factor:.0f}" if factor >= UNSURE_FACTOR else ""
        if self.metric in ("top1", "argmax", "equal") and self.count * limit_percent < 100:
            return f"{what}: one of them is {100 / max(self.count, 1):.3g} %"
        return ""

    def still(self) -> str:
        """That these samples do not show what a part of it does, in words; empty where they do."""
        runs = [slices_of(part) for part in self.parts or () if part.get("still")]
        if not runs:
            return ""
        return (
            f"hardly anything happens in {' and '.join(runs)} of output {self.output!r} on {self.inputs} (scores of objects that "
            "none of the samples holds?): agreement there is no evidence; samples in which something does tell more"
        )

    @property
    def all_seen(self) -> bool:
        """There is no sample among them that the scales were not chosen on."""
        return bool(self.seen_in_calibration) and self.seen_samples >= self.samples

    def seen(self) -> str:
        """That it was measured on samples that the scales were chosen on, in words; empty where it was not."""
        if not self.seen_in_calibration:
            return ""
        if self.all_seen:
            without = "" if self.held_out_percent is None else f"; with scales made without them the drop is {self.held_out_percent:.2f} %"
            return f"measured on samples that the scales were chosen on{without}"
        return f"{self.seen_samples} of the samples are those that the scales were chosen on"

    def seen_as(self) -> str:
        """What the output was taken for, how it is judged, and how to say otherwise, in one line."""
        if self.chosen:
            return f"output {self.output!r}: {WORDS.get(self.metric, self.metric)}, as --metric says"
        text = f"output {self.output!r}: taken for {self.kind}, judged by {WORDS.get(self.metric, self.metric)}"
        if self.metric.startswith("mask:"):
            text = f"output {self.output!r}: taken for a mask, judged by the overlap (IoU) of what is above {self.metric[5:]}"
        if self.feeds:
            text += f"; it is fed back to input {self.feeds!r}"
        return f"{text}; --metric {self.output}:{OTHERWISE.get(self.metric, 'values')} judges it otherwise"


WORDS = {
    "values": "its error as a share of what varies over the data, in the worst slice",
    "top1": "the best class of each sample",
    "argmax": "the best class of each place",
    "equal": "equal entries",
    "rows": "rows that are found again, in any order",
    "cosine": "the angle",
    "noise": "the error's energy",
}
OTHERWISE = {"values": "top1, argmax, rows or noise"}


def slices_of(part: dict) -> str:
    """Which slices one of an output's parts is, in words."""
    first, last = part["first"], part["last"]
    return f"slices {first} to {last}" if last > first else f"slice {first}"


def worst_of(rows: tuple[Accuracy, ...], limit_percent: float, excess=Accuracy.excess) -> Accuracy:
    """The row that is furthest above the limit, or nearest to it."""
    return max(rows, key=lambda row: (excess(row, limit_percent), row.drop_percent))


def _share(value: float, limit: float) -> float:
    return value / limit if limit > 0 else (math.inf if value > 0 else 0.0)


def _rounded(value):
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return {key: _rounded(entry) for key, entry in value.items()} if isinstance(value, dict) else value
