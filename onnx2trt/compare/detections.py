"""Boxes out of a detector's output: decoded, without doubles, and matched between two answers. Pure.

Layouts are those of YOLO exports (https://docs.ultralytics.com/modes/export): of v8 and later [4 + classes, boxes] with centre, size and a
score for each class, or [boxes, 6] with corners, score and class, where the model itself has removed the doubles; of v5
[boxes, 5 + classes], where the fifth column says whether there is anything. What follows these columns (masks, key points) is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

SHOWN = 0.25  # score from which on a box counts as found
LEAST = 0.1  # of a box that may belong to one of the other answer, which counts as found
DOUBLE = 0.45  # overlap (IoU) from which on two boxes of a class are one
SAME = 0.5  # overlap from which on boxes of two answers are the same
MOST_CANDIDATES, MOST_BOXES = 2000, 100  # before and after doubles are removed
NORMALIZED = 2.0  # coordinates up to it are parts of the image, not pixels
MORE_COLUMNS = ("segment", "pose")  # tasks whose boxes have columns behind their scores


@dataclass(frozen=True)
class Detector:
    """How the output of a detector is to be read."""

    size: tuple[int, int]  # height and width of the image that the model sees
    layout: str = "yolo"  # yolo: v8 and later | yolov5
    task: str = "detect"
    names: Mapping[int, str] = field(default_factory=dict)  # of classes; empty where they are not known

    def form(self, shape: tuple[int, ...]) -> str | None:
        """How an output of one sample of this shape holds boxes: columns | rows | finished | objects; None where it holds none.

        columns: [4 + classes, boxes]; rows: the same transposed; finished: [boxes, 6]; objects: [boxes, 5 + classes].
        """
        flat = [size for size in shape if size != 1]
        if len(flat) != 2:
            return None
        (first, second), classes = flat, len(self.names)
        if self.layout == "yolov5":
            return "objects" if (second == 5 + classes if classes else 5 < second < first) else None
        more = self.task in MORE_COLUMNS
        if first == 4 + classes if classes and not more else 4 + max(classes, 1) <= first < second:
            return "columns"
        if second == 6 or more and 6 < second < first:
            return "finished"
        return "rows" if (second == 4 + classes if classes and not more else 4 < second < first) else None

    def boxes(self, output: np.ndarray) -> np.ndarray:
        """[boxes, 6] float64: x1, y1, x2, y2 in pixels of the image, score, class; the surest first, without doubles.

        Args:
            output: of one sample, of a shape that has a form.
        """
        form = self.form(output.shape)
        rows = np.squeeze(output).astype(np.float64)
        rows = np.nan_to_num(rows.T if form == "columns" else rows, nan=0.0, posinf=1e9, neginf=-1e9)
        if form == "finished":
            places, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5]
        else:
            begin = 5 if form == "objects" else 4
            of_classes = rows[:, begin : begin + len(self.names)] if self.names else rows[:, begin:]
            if self.task == "pose" and not self.names:
                of_classes = of_classes[:, :1]
            classes = of_classes.argmax(1)
            scores = of_classes.max(1) * (rows[:, 4] if form == "objects" else 1.0)
            places = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)
        if np.abs(places).max(initial=0.0) <= NORMALIZED:
            places = places * (*self.size[::-1], *self.size[::-1])
        order = np.argsort(-scores, kind="stable")[:MOST_CANDIDATES]
        order = order[scores[order] >= LEAST]
        found = np.concatenate([places[order], scores[order, None], np.asarray(classes)[order, None]], 1)
        return found[:MOST_BOXES] if form == "finished" else _without_doubles(found)


@dataclass(frozen=True)
class Pair:
    """Boxes of two answers that belong together; None where only one has it."""

    model: np.ndarray | None  # [6], as Detector.boxes has them
    engine: np.ndarray | None
    overlap: float = 0.0  # IoU

    @property
    def score(self) -> float:
        """Of the surer one."""
        return max(float(box[4]) for box in (self.model, self.engine) if box is not None)


def match(model: np.ndarray, engine: np.ndarray) -> list[Pair]:
    """What at least one of two answers has found, the surest first; boxes of a class go together before others do."""
    overlaps = overlap(model, engine)
    same = model[:, None, 5] == engine[None, :, 5]
    a, b = np.nonzero(overlaps >= SAME)
    pairs, free_a, free_b = [], set(range(len(model))), set(range(len(engine)))
    for index in np.lexsort((-overlaps[a, b], ~same[a, b])):
        one, other = int(a[index]), int(b[index])
        if one in free_a and other in free_b:
            free_a.remove(one)
            free_b.remove(other)
            pairs.append(Pair(model[one], engine[other], float(overlaps[one, other])))
    pairs += [Pair(model[one], None) for one in free_a] + [Pair(None, engine[other]) for other in free_b]
    return sorted((pair for pair in pairs if pair.score >= SHOWN), key=lambda pair: -pair.score)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[len(a), len(b)] of the intersection over the union of boxes [n, 4 or more]."""
    left, right = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    both = np.prod(np.maximum(right - left, 0.0), 2)
    areas = [np.prod(np.maximum(boxes[:, 2:4] - boxes[:, :2], 0.0), 1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _without_doubles(found: np.ndarray) -> np.ndarray:
    """Of boxes of one class that overlap, the surest."""
    kept: list[int] = []
    left = np.arange(len(found))
    while left.size and len(kept) < MOST_BOXES:
        first, left = left[0], left[1:]
        kept.append(int(first))
        double = (overlap(found[first : first + 1], found[left])[0] > DOUBLE) & (found[left, 5] == found[first, 5])
        left = left[~double]
    return found[kept]
