"""One output over the samples: what the reference makes of it, and how far the candidate is from that.

Everything is collected in one pass and in bounded memory; what the output is, and so what the candidate is judged by, is decided when the
data is through, by what the reference did over all of it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

import numpy as np

from onnx2trt.compare import values
from onnx2trt.compare.best_scores import BestScores
from onnx2trt.compare.intervals import bootstrap, percentiles, shown_share, wilson
from onnx2trt.compare.labels import LABELS_OF_FLOATS, Labels
from onnx2trt.compare.metrics import MASK_THRESHOLD, are_shares, class_axis, decibels, drop_percent, measure
from onnx2trt.compare.row_groups import ListFinding
from onnx2trt.compare.values import Errors, Finding
from onnx2trt.compare.variation import Variation
from onnx2trt.compare.winners import Winners

COLOURS = 3  # channels of an image, whose largest is no class
SIGNAL_LIMIT = 10.0  # percent: error in what varies, of outputs that are judged by decisions; an SQNR of 10 dB
MOST_ALLOWED = 5.0  # the most that few values excuse there, as a factor: half of what varies is never to be lost
LOST_LIMIT = 45.0  # percent: of the entries of one label


@dataclass(frozen=True)
class Kind:
    """What an output was taken for."""

    name: str  # values | classes | class map | sequence | mask | labels | rows | as asked
    metric: str  # values | top1 | argmax | mask:T | equal | rows | cosine | noise
    axis: int | None = None  # of the classes, in a sample


@dataclass(frozen=True)
class View:
    """What is known of all outputs beforehand."""

    image: tuple[int, int] | None = None  # (height, width) of the image input
    channels_last: bool = False  # the model is NHWC
    synthetic: bool = False  # made-up inputs, on which no decision means anything
    batched: bool = True  # the samples are without the output's batch axis


@dataclass(frozen=True)
class Judged:
    """What a study comes to."""

    kind: Kind
    drop_percent: float
    shown_percent: float  # what the samples show at least
    interval: tuple[float, float] | None
    standard_error: float | None
    drops: tuple[float, ...]  # of each sample
    signal: Finding | None = None  # error in what varies; None where it does not count
    signal_percent: float | None = None  # the same as one number, as shown at least
    signal_limit: float = SIGNAL_LIMIT
    count: float | None = None  # decisions or values that tell the drop
    change_percent: float | None = None  # by how much the reference differs over the samples, of its size
    worst_slice: str | None = None  # in words
    parts: list[dict] | None = None  # of values that hold several things
    sqnr_db: float | None = None  # where it is not that of the outputs as they are
    best_scores_points: float | None = None  # by how much the best scores differ; None: the output holds none
    may_be_stuck: bool = False  # the same answer for every sample would be wrong

    @property
    def each(self) -> np.ndarray:
        """[samples, slices]: what each lost in percent, of what is judged and of each slice of the signal."""
        drops = np.array(self.drops, np.float64)[:, None]
        return np.hstack([drops, self.signal.each]) if self.signal is not None and len(self.signal.each) == len(drops) else drops


@dataclass
class Study:
    """Collects the samples of one output."""

    name: str
    asked: str = "auto"  # metric of the user's choice
    view: View = View()
    variation: Variation | None = None
    known: bool = False  # the variation was learned in an earlier pass over the same data
    decided: Kind | None = None  # by that pass, where the user has not: nothing is collected for other kinds
    errors: Errors = field(default_factory=Errors)
    best_scores: BestScores = field(default_factory=BestScores)
    labels: Labels | None = None
    winners: dict[int, Winners] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    nonfinite: int = 0
    max_abs_error: float = 0.0
    _parts: list[float] = field(default_factory=list)  # of the metric that was asked for, or of the mask
    _wholes: list[float] = field(default_factory=list)
    _energies: list[float] = field(default_factory=lambda: [0.0, 0.0])  # of the reference, of the error
    _samples: list[tuple[float, float]] = field(default_factory=list)  # (error, reference) energy of each
    _map: bool = True  # every sample so far is one map at the size of the image
    _flat: bool = False  # the first reference is one single value
    _sums: list[int | None] = field(default_factory=lambda: [None, None])  # checksums of the first reference and output
    _same: list[bool] = field(default_factory=lambda: [True, True])  # all references, and all outputs, equal the first

    def __post_init__(self):
        if self.variation is None:
            self.variation = Variation(channels_last=self.view.channels_last)

    def add(self, reference: np.ndarray, output: np.ndarray, path: str) -> None:
        """One sample, without its batch axis."""
        told = np.isfinite(reference)
        wrong = told & ~np.isfinite(output)
        self.nonfinite += int(wrong.sum())
        self._look_for_change(reference, output)
        base = np.where(told, reference, 0).astype(np.float64)
        clean = np.where(told & ~wrong, output, 0).astype(np.float64)
        error = clean - base
        self.max_abs_error = max(self.max_abs_error, float(np.abs(error).max(initial=0.0)))
        energies = float((base**2).sum()), float((error**2).sum())
        self._energies = [sum(pair) for pair in zip(self._energies, energies)]
        self._samples.append(energies)
        self.paths.append(path)
        if self.asked in ("auto", "values"):
            if not self.known:
                self.variation.add(base, told)
            axes = tuple(axis.index for axis in self.variation.axes if axis.fixed)
            self.errors.add(error, axes)
            self.best_scores.add(base, clean, axes)
        if self.asked == "auto" and self.decided is not None:
            self._add_decided(self.decided, reference, output)
        elif self.asked == "auto" and not self.view.synthetic:
            self._add_decisions(reference, output)
        elif self.asked in ("top1", "argmax"):
            axis = class_axis(self.asked, (1, *reference.shape), self.view.channels_last)
            self.winners.setdefault(axis, Winners(axis)).count(reference, output)
        elif self.asked not in ("auto", "values"):
            self._add_part(self.asked, base, clean)

    def _add_part(self, metric: str, reference: np.ndarray, output: np.ndarray) -> None:
        part, whole = measure(metric, reference, output)
        self._parts.append(part)
        self._wholes.append(whole)

    def _add_decided(self, kind: Kind, reference: np.ndarray, output: np.ndarray) -> None:
        if kind.metric in ("top1", "argmax"):
            self.winners.setdefault(kind.axis, Winners(kind.axis)).count(reference, output)
        elif kind.metric == "equal":
            self.labels = self.labels or Labels()
            self.labels.add(reference, output)
        elif kind.metric not in ("values", "noise"):
            self._add_part(kind.metric, reference, output)

    def _add_decisions(self, reference: np.ndarray, output: np.ndarray) -> None:
        """Whatever the output may turn out to be."""
        if self.labels is None:
            self.labels = Labels()
        if reference.dtype.kind != "f" or self.labels.whole:
            self.labels.add(reference, output)
        if reference.dtype.kind != "f":
            return
        if len(self.paths) == 1:
            self.winners = {axis: Winners(axis) for axis in self._class_axes(reference.shape)}
        for one in self.winners.values():
            if one.possible:
                one.add(reference, output)
        flat = np.squeeze(reference)
        self._map = self._map and flat.shape == self.view.image and bool(are_shares(flat.min(), flat.max()))
        if self._map:
            self._add_part(f"mask:{MASK_THRESHOLD}", reference, output)

    def _class_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Where classes may lie: channels first or last, whatever the layout of the model; a sequence has them last, some first."""
        wide = [axis for axis, size in enumerate(shape) if size > 1]
        if not wide:
            return ()
        if len(wide) == 1:
            return (wide[0],)
        if len(wide) == 2:
            return (wide[1], wide[0])
        return (wide[-1] if self.view.channels_last else wide[0],)

    def _look_for_change(self, reference: np.ndarray, output: np.ndarray) -> None:
        for which, array in enumerate((reference, output)):
            checksum = zlib.crc32(np.ascontiguousarray(array).tobytes())
            if self._sums[which] is None:
                self._sums[which] = checksum
                if which == 0:
                    self._flat = bool(array.size == 0 or (array == array.reshape(-1)[0]).all())
            self._same[which] = self._same[which] and checksum == self._sums[which]

    # ---- when the data is through

    @property
    def samples(self) -> int:
        return len(self.paths)

    @property
    def constant(self) -> bool:
        """The reference never changed: one single value, or the same for every one of several samples."""
        return self._same[0] and (self._flat or self.samples > 1)

    @property
    def stuck(self) -> bool:
        """The candidate gives the same values for every one of several samples, the reference does not."""
        return self.samples > 1 and self._same[1] and not self._same[0]

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise), pooled over all samples."""
        return decibels(*self._energies)

    def kind(self) -> Kind:
        """By what the reference has done so far."""
        if self.asked != "auto":
            axis = next(iter(self.winners), None)
            return Kind("as asked", self.asked, axis)
        if self.decided is not None:
            return self.decided
        if self.view.synthetic:
            return Kind("values", "noise")
        labels = self.labels
        if labels is not None and labels.entries:
            whole_numbers = labels.whole and 1 < labels.labels <= LABELS_OF_FLOATS
            if not self.winners and not labels.brightness or self.winners and whole_numbers:
                return Kind("labels", "equal")
        found = next((one for one in self.winners.values() if one.shares), None)
        found = found or next((one for one in self.winners.values() if one.clear and not self._colours(one) and not self._boxes(one)), None)
        if found is not None:
            wide = sum(size > 1 for size in self.variation.shape)
            name, metric = {1: ("classes", "top1"), 2: ("sequence", "argmax")}.get(wide, ("class map", "argmax"))
            return Kind(name, metric, found.axis)
        if self._map and self._parts and self.variation.two_valued:
            return Kind("mask", f"mask:{MASK_THRESHOLD}")
        return Kind("values", "values")

    def _colours(self, found: Winners) -> bool:
        return found.classes == COLOURS and sum(size > 1 for size in self.variation.shape) > 2

    def _boxes(self, found: Winners) -> bool:
        """The columns start with boxes, whose lengths are no classes."""
        return any(axis.index == found.axis and axis.boxes is not None and axis.boxes.found for axis in self.variation.axes)

    def last_drop(self, kind: Kind) -> float:
        """Of the last sample alone, in percent, as far as it can be told while the data is not through."""
        if kind.metric in ("top1", "argmax"):
            one = self.winners[kind.axis]
            parts, wholes = [one.last_agreed], one.positions
        elif kind.metric == "equal" and self.asked == "auto":
            parts, wholes = self.labels.equal, self.labels.entries
        elif kind.metric in ("values", "rows") or kind.metric == "noise" and self.asked == "auto":
            wholes, parts = zip(*self._samples[-1:])
            return float(drop_percent("noise", np.array(parts), np.array(wholes)))
        else:
            parts, wholes = self._parts, self._wholes
        return float(drop_percent(kind.metric, np.array(parts[-1:]), np.array(wholes[-1:])))

    def judged(self, rows: ListFinding | None = None) -> Judged:
        """By its kind.

        Args:
            rows: what was found of its rows, where it is a list.
        """
        if rows is not None and self.asked in ("auto", "rows"):
            return _of_rows(rows, self.asked)
        kind = self.kind()
        if kind.metric == "values":
            return self._of_values(kind)
        if kind.metric == "equal" and self.asked == "auto":
            ratio, shown, label = self.labels.lost()
            judged = self._counted(kind, self.labels.equal, self.labels.entries)
            where = None if label is None else f"label {label:g}"
            return replace(judged, signal_percent=shown, signal_limit=LOST_LIMIT, worst_slice=where)
        if kind.metric in ("top1", "argmax"):
            one = self.winners[kind.axis]
            return self._with_signal(self._counted(kind, one.agreed, one.positions))
        if kind.metric == "noise" and self.asked == "auto":
            references, errors = zip(*self._samples)
            return self._counted(kind, errors, references)
        return self._with_signal(self._counted(kind, self._parts, self._wholes))

    def _of_values(self, kind: Kind) -> Judged:
        found = values.finding(self.variation.scales, self.errors)
        return Judged(
            kind,
            found.drop_percent,
            found.shown_percent,
            found.interval,
            found.standard_error,
            found.drops,
            found,
            count=found.count,
            change_percent=None if self.variation.change is None else 100 * self.variation.change,
            worst_slice=self._slice(found),
            parts=[part.as_dict for part in found.parts] or None,
            may_be_stuck=self.asked == "auto",
            best_scores_points=self.best_scores.moved(found.axis, self.variation),
        )

    def _with_signal(self, judged: Judged) -> Judged:
        if self.asked != "auto":
            return judged
        scale = self.variation.scale_of(judged.kind.axis)
        found = values.finding([scale] if scale else [], self.errors, MOST_ALLOWED)
        return replace(judged, signal=found, signal_percent=found.shown_percent, worst_slice=self._slice(found), may_be_stuck=True)

    def _slice(self, found: Finding) -> str | None:
        """Its place in words: 'slice 3 of 22 along axis 1', axes counted with the batch where the output has one."""
        if found.slice is None:
            return None
        return f"slice {found.slice} of {self.variation.shape[found.axis]} along axis {found.axis + self.view.batched}"

    def _counted(self, kind: Kind, parts, wholes) -> Judged:
        """What is a share of something that was counted, or of an energy."""
        parts, wholes = np.array(parts, np.float64), np.array(wholes, np.float64)
        drop = float(drop_percent(kind.metric, parts, wholes))
        drawn = bootstrap(lambda rows: drop_percent(kind.metric, parts[rows], wholes[rows]), len(parts))
        interval, shown = percentiles(drawn), drop
        if kind.metric not in ("noise", "cosine"):
            missed, total = float(wholes.sum() - parts.sum()), float(wholes.sum())
            low, high = wilson(missed, total)
            shown = min(shown_share(missed, total), drop)
            interval = (min(low, interval[0]), max(high, interval[1])) if interval else (low, high)
        each = drop_percent(kind.metric, parts[:, None], wholes[:, None])
        error = None if drawn is None else float(np.std(drawn))
        count = None if kind.metric in ("noise", "cosine") else float(wholes.sum())
        return Judged(kind, drop, shown, interval, error, tuple(float(value) for value in each), count=count)


def _of_rows(found: ListFinding, asked: str) -> Judged:
    drops = np.array(found.drops)
    drawn = bootstrap(lambda rows: drops[rows].mean(1), len(drops))
    low, high = percentiles(drawn) or (found.shown_percent, found.drop_percent)
    return Judged(
        Kind("rows" if asked == "auto" else "as asked", "rows"),
        found.drop_percent,
        found.shown_percent,
        (min(low, found.shown_percent), max(high, found.drop_percent)),
        None if drawn is None else float(np.std(drawn)),
        found.drops,
        worst_slice=None if found.column is None else f"column {found.column}",
        sqnr_db=decibels(*found.energies),
    )
