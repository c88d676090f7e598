"""What a run keeps for the report beside the result: one sample to look at, the drop of each, times, scales. Values, bounded in size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.detections import SHOWN, Detector
from onnx2trt.compare.metrics import MASK_THRESHOLD
from onnx2trt.compare.study import Judged, Kind, Study

LONGEST_SIDE = 800  # pixels of a map as it is kept
MOST_VALUES = 50_000  # of an output that is no map
SMALLEST_MAP = 8  # pixels; smaller ones are rather numbers
SERIES = 800  # neighbouring values that are drawn as a line
FEWEST_IN_LINE = 16  # values, below which a line shows nothing
MOST_VECTORS, VECTOR_SIZES = 200, (16, 4096)  # outputs that are kept whole, to ask which samples are alike; of these many values
MOST_CLASSES = 256  # of an output that holds class numbers itself


@dataclass(frozen=True)
class Output:
    """One output of one sample, of the model and of what was built from it, reduced to what is shown."""

    name: str
    kind: str  # classes: class numbers [H, W] | mask: bool [H, W] | map: float [H, W] | scores: float [C] | values: float [n] |
    # boxes: float [n, 6], see compare/detections.py
    shape: tuple[int, ...]  # of the whole sample, without its batch axis
    reference: np.ndarray
    candidate: np.ndarray
    differing: np.ndarray | None = None  # bool [H, W] of classes and masks: whether any pixel under a kept one differs
    differing_share: float = 0.0  # of all pixels
    threshold: float | None = None  # of a mask
    series: np.ndarray | None = None  # of values: [2, n] of neighbours, of the model and of the other; where they have an order
    detector: Detector | None = None  # of boxes


@dataclass(frozen=True)
class Sample:
    """What is looked at."""

    origin: str  # the folder or file, or "synthetic"
    path: str
    image: np.ndarray | None  # what the model was given, uint8 BGR [H, W, 3]
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Drops:
    """The drop of each sample, in percent, of one output over one data set."""

    origin: str
    output: str
    metric: str
    paths: tuple[str, ...]
    percent: tuple[float, ...]


@dataclass(frozen=True)
class Vectors:
    """One output of several samples, each a vector: embeddings, perhaps."""

    origin: str
    output: str
    paths: tuple[str, ...]
    reference: np.ndarray  # float32 [samples, size]
    candidate: np.ndarray


@dataclass
class Evidence:
    """Collected while a run goes on, for the last engine that it has built. Nothing is kept where no report is wanted."""

    wanted: bool = False
    sample: Sample | None = None
    worst: list[Sample] = field(default_factory=list)  # of each output that can be looked at, the sample that agrees least
    examples: list[Sample] = field(default_factory=list)  # where nothing is found in the first sample, one in which something is
    vectors: list[Vectors] = field(default_factory=list)
    drops: list[Drops] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)  # activation tensor -> INT8 scale, in the network's order
    quantized: frozenset[str] = frozenset()  # those of them that INT8 layers read
    equalized: bool = False  # the scales are those of the network with equalized channels

    def start(self) -> None:
        """An engine is looked at; what was kept of an earlier one does not count."""
        self.sample = None
        self.worst.clear()
        self.examples.clear()
        self.vectors.clear()
        self.drops.clear()
        self.latency_ms.clear()

    def keep_scales(self, scales: dict[str, float], equalized: bool, quantized: Iterable[str] = ()) -> None:
        """What INT8 layers are made with."""
        self.scales, self.equalized, self.quantized = scales, equalized, frozenset(quantized)


class Watch:
    """Looks on while outputs are compared over one data set."""

    def __init__(
        self, evidence: Evidence, origin: str, image: tuple[int, int] | None, channels_last: bool, detector: Detector | None = None
    ):
        """
        Args:
            image: (height, width) of the model's image input.
            channels_last: the model is NHWC.
            detector: how outputs that hold boxes are read.
        """
        self.outputs: dict[str, Output] = {}  # of the first sample
        self.worst: dict[str, tuple[float, str, Output]] = {}  # of several: drop in percent, file, what it looks like
        self.examples: dict[str, tuple[str, Output]] = {}  # of an output that shows nothing of the first sample: file, and what it is
        self.path = origin
        self._evidence, self._origin = evidence, origin
        self._image, self._channels_last = image, channels_last
        self._kinds: dict[str, Kind] = {}
        self._detector = detector
        self._vectors: dict[str, list[tuple[str, np.ndarray, np.ndarray]]] = {}

    def see(self, study: Study, reference: np.ndarray, output: np.ndarray, path: str) -> None:
        """One output of one sample, without its batch axis; the first sample is kept, and the worst."""
        name = study.name
        first = self.outputs.get(name)
        self._keep_vector(name, reference, output, path)
        if study.samples & (study.samples - 1) == 0:  # what it is, is known the better the more samples there are
            self._kinds[name] = study.kind()
        drop = study.last_drop(self._kinds[name])
        worse = first is None or drop > self.worst[name][0]
        empty = first is not None and first.kind == "boxes" and name not in self.examples and not _has_boxes(first)
        if not worse and not empty:
            return
        found = self._look(name, first, reference, output)
        if worse:
            self.worst[name] = drop, path, found
        if first is None:
            self.path, self.outputs[name] = path, found
        elif empty and _has_boxes(found):
            self.examples[name] = path, found

    def _look(self, name: str, first: Output | None, reference: np.ndarray, output: np.ndarray) -> Output:
        """As the first sample was looked at."""
        made_up = self._origin == "synthetic"
        if first is not None and first.kind == "boxes" or first is None and not made_up and _reads(self._detector, reference):
            return look_at_boxes(name, self._detector, reference, output)
        kind = (first.kind, first.threshold) if first else choose_kind(reference, self._image, self._kinds[name], made_up)
        return look(name, *kind, reference, output, self._channels_last)

    def _keep_vector(self, name: str, reference: np.ndarray, output: np.ndarray, path: str) -> None:
        kept, size = self._vectors.setdefault(name, []), reference.size
        if (
            output.shape == reference.shape
            and size == max(reference.shape, default=0)
            and VECTOR_SIZES[0] <= size <= VECTOR_SIZES[1]
            and len(kept) < MOST_VECTORS
        ):
            kept.append((path, *(np.ravel(values).astype(np.float32) for values in (reference, output))))

    def end(self, studies: dict[str, Study], judged: dict[str, Judged]) -> None:
        """The data set is through."""
        for name, one in judged.items():
            paths = studies[name].paths
            if len(paths) == len(one.drops):
                self._evidence.drops.append(Drops(self._origin, name, one.kind.metric, tuple(paths), one.drops))
            kept = self._vectors.get(name, ())
            if one.kind.metric in ("values", "cosine", "noise") and self._origin != "synthetic" and len({len(row[1]) for row in kept}) == 1:
                paths, *both = zip(*kept)
                self._evidence.vectors.append(Vectors(self._origin, name, paths, *map(np.stack, both)))


def _reads(detector: Detector | None, reference: np.ndarray) -> bool:
    return detector is not None and detector.form(reference.shape) is not None


def _has_boxes(output: Output) -> bool:
    return any(boxes.size and boxes[0, 4] >= SHOWN for boxes in (output.reference, output.candidate))


def look_at_boxes(name: str, detector: Detector, reference: np.ndarray, candidate: np.ndarray) -> Output:
    """A detector's output reduced to the boxes in it."""
    found = (detector.boxes(values) for values in (reference, candidate))
    return Output(name, "boxes", tuple(reference.shape), *found, detector=detector)


def choose_kind(reference: np.ndarray, image: tuple[int, int] | None, kind: Kind, made_up: bool) -> tuple[str, float | None]:
    """(what the output is shown as, threshold of a mask).

    Args:
        reference: one sample, without its batch axis.
        kind: what the output was taken for.
        made_up: synthetic inputs, on which neither classes nor images mean anything.
    """
    if made_up or not reference.size:
        return "values", None
    flat = np.squeeze(reference)
    if kind.metric in ("top1", "argmax") and flat.ndim == 1:
        return "scores", None
    if kind.metric == "argmax" and flat.ndim == 3:
        return "classes", None
    if flat.ndim != 2 or min(flat.shape) < SMALLEST_MAP or reference.ndim > 3:
        return "values", None
    if flat.shape == image and reference.dtype.kind in "iu" and kind.metric == "equal" and flat.min() >= 0 and flat.max() < MOST_CLASSES:
        return "classes", None  # the model itself has taken the best class
    if kind.metric.startswith("mask:"):
        return "mask", float(kind.metric[5:])
    if reference.dtype.kind == "b":
        return "mask", MASK_THRESHOLD
    return ("map" if flat.shape == image or reference.ndim == 3 else "values"), None  # [T, C] is a sequence, no image


def look(name: str, kind: str, threshold: float | None, reference: np.ndarray, candidate: np.ndarray, channels_last: bool) -> Output:
    """An output reduced to what is shown of it."""
    shape = tuple(reference.shape)
    if kind == "scores":
        return Output(name, kind, shape, *(np.ravel(values).astype(np.float64) for values in (reference, candidate)))
    if kind == "values":
        chosen = slice(None)
        if reference.size > MOST_VALUES:
            chosen = np.random.default_rng(0).integers(0, reference.size, MOST_VALUES)
        both = (np.ravel(values)[chosen].astype(np.float64) for values in (reference, candidate))
        return Output(name, kind, shape, *both, series=_series(reference, candidate))
    if kind == "classes":
        a, b = (_classes(values, channels_last) for values in (reference, candidate))
    else:
        a, b = np.squeeze(reference), np.squeeze(candidate)
        if kind == "mask":
            a, b = a.astype(np.float32) > threshold, b.astype(np.float32) > threshold
    step = -(-max(a.shape) // LONGEST_SIDE)
    if kind == "map":
        return Output(name, kind, shape, *(values[::step, ::step].astype(np.float64) for values in (a, b)))
    differing = a != b
    kept = (np.ascontiguousarray(values[::step, ::step]) for values in (a, b))
    return Output(name, kind, shape, *kept, _any_of(differing, step), float(differing.mean()), threshold)


def _series(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray | None:
    """[2, n] of what a line can be drawn through: a vector, or one channel of a sequence [T, C], where both differ most."""
    if reference.shape != candidate.shape:
        return None
    both = np.stack([np.squeeze(values).astype(np.float64) for values in (reference, candidate)])
    if both.ndim not in (2, 3) or both.shape[1] < FEWEST_IN_LINE:
        return None
    error = np.nan_to_num(np.abs(both[1] - both[0]), posinf=np.inf)
    if both.ndim == 3:
        channel = int(error.max(0).argmax())
        both, error = both[:, :, channel], error[:, channel]
    begin = min(max(int(error.argmax()) - SERIES // 2, 0), max(len(error) - SERIES, 0))
    return both[:, begin : begin + SERIES]


def _classes(values: np.ndarray, channels_last: bool) -> np.ndarray:
    """The class of each pixel, [H, W]."""
    flat = np.squeeze(values)
    if flat.ndim == 2:
        return flat.astype(np.int32)
    return np.nan_to_num(flat, nan=-np.inf).argmax(-1 if channels_last else 0).astype(np.int32)


def _any_of(flags: np.ndarray, step: int) -> np.ndarray:
    """Whether any flag of each block of step x step is set."""
    height, width = (-(-size // step) for size in flags.shape)
    filled = np.zeros((height * step, width * step), bool)
    filled[: flags.shape[0], : flags.shape[1]] = flags
    return filled.reshape(height, step, width, step).any((1, 3))
