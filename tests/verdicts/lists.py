"""Lists whose rows have an order of their own."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, Outputs, half, kind, mean_of


def detections(random, n, count=80, keep=20, classes=3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(boxes [n, count, 4] in pixels, scores [n, count], labels [n, count]) of candidates, of which TopK or NMS take the best."""
    corner = random.uniform(0, 280, (n, count, 2))
    boxes = np.concatenate([corner, corner + np.exp(random.normal(np.log(45), 0.4, (n, count, 2)))], -1)
    scores = np.sort(random.random((n, count)) ** 1.5, 1)[:, ::-1]
    return boxes, scores * 0.95 + 0.02, random.integers(0, classes, (n, count))


def best(boxes, scores, labels, keep: int) -> list[Outputs]:
    """The best `keep` of each sample, best first."""
    order = np.argsort(-scores, 1, kind="stable")[:, :keep]
    taken = [np.take_along_axis(values, order.reshape(*order.shape, *[1] * (values.ndim - 2)), 1) for values in (boxes, scores, labels)]
    return [{"boxes": a.astype(np.float32), "scores": b.astype(np.float32), "labels": c, "indices": d} for a, b, c, d in zip(*taken, order)]


def of_list(random, boxes, scores, labels, take) -> Kind:
    size = np.sqrt(np.prod(boxes[..., 2:] - boxes[..., :2], -1).mean())
    near = boxes + random.standard_normal(boxes.shape) * size * 0.02
    close = scores + random.standard_normal(scores.shape) * scores.std() * 0.015
    ties = scores.copy()
    ties[:, 1:-1:2] = ties[:, :-2:2] - 1e-4 * random.random(ties[:, 1:-1:2].shape)  # pairs of neighbours that are all but equal
    other = ties + random.standard_normal(ties.shape) * 1e-4
    lost = random.random(scores.shape) < 0.5
    return Kind(
        take(boxes, ties, labels),
        {
            "near ties swapped": take(boxes, other, labels),
            "noise of 34 dB of the boxes' size, scores of 36 dB": take(near, ties + close - scores, labels),
            "FP16": take(half(boxes), half(ties), labels),
        },
        {
            "boxes shifted by eight pixels": take(boxes + 8, ties, labels),
            "boxes lost": take(boxes * 0, ties, labels),
            "scores times 0.6": take(boxes, ties * 0.6, labels),
            "labels off by one": take(boxes, ties, labels + 1),
            "half of the objects lost": take(np.where(lost[..., None], boxes[:, ::-1], boxes), np.where(lost, 0.01, ties), labels),
            "other objects": take(boxes, ties[:, ::-1], labels),
        },
    )


@kind
def best_of_a_detector(random, n):
    """TopK in three outputs."""
    boxes, scores, labels = detections(random, n)

    def take(*found):
        return [{name: one[name] for name in ("boxes", "scores", "labels")} for one in best(*found, 20)]

    return of_list(random, boxes, scores, labels, take)


@kind
def best_in_one_output(random, n):
    """[K, 6] of an end-to-end detector."""

    def take(*found):
        parts = (np.concatenate([one["boxes"], one["scores"][:, None], one["labels"][:, None]], 1) for one in best(*found, 30))
        return [{"y": part.astype(np.float32)} for part in parts]

    return of_list(random, *detections(random, n), take)


@kind
def padded_detections(random, n):
    """As EfficientNMS gives them: a number of objects, and lists that end in zeros."""

    def take(*found):
        samples = []
        for one in best(*found, 25):
            told = one["scores"] > 0.3
            padded = {name: np.where(told.reshape(-1, *[1] * (one[name].ndim - 1)), one[name], 0) for name in ("boxes", "scores", "labels")}
            samples.append(padded | {"number": np.array([told.sum()], np.int32)})
        return samples

    return of_list(random, *detections(random, n), take)


@kind
def detections_above_a_threshold(random, n):
    """Lists of any length, sorted by score."""

    def take(*found):
        samples = []
        for one in best(*found, 80):
            told = one["scores"] > 0.35
            samples.append({name: one[name][told] for name in ("boxes", "scores", "labels")})
        return samples

    found = of_list(random, *detections(random, n), take)
    found.batched = False
    return found


@kind
def selected_indices(random, n):
    """[n, 3] as NonMaxSuppression gives them: batch, class, box."""

    def take(boxes, scores, labels):
        samples = []
        for values, names in zip(scores, labels):
            rows = [
                (0, label, box)
                for label in range(8)
                for box in np.argsort(-values, kind="stable")
                if names[box] == label and values[box] > 0.4
            ]
            samples.append({"selected": np.array(rows, np.int64).reshape(-1, 3)})
        return samples

    boxes, scores, labels = detections(random, n)
    found = of_list(random, boxes, scores, labels, take)
    for what in ("boxes shifted by eight pixels", "boxes lost"):  # they are in another output
        del found.harmful[what]
    found.batched = False
    return found


@kind
def best_indices(random, n):
    """TopK: values and indices."""
    values = np.sort(random.random((n, 200)), 1)[:, random.permutation(200)]
    values = values + random.random((n, 200))

    def take(scores):
        order = np.argsort(-scores, 1, kind="stable")[:, :30]
        return [{"values": row[chosen].astype(np.float32), "indices": chosen} for row, chosen in zip(scores, order)]

    tied = np.round(values, 2)
    good = {
        "near ties swapped": take(tied + random.random(values.shape) * 1e-6),
        "noise": take(tied + random.standard_normal(values.shape) * 1e-3),
    }
    bad = {
        "others": take(-tied),
        "shuffled": take(np.roll(tied, 7, 1)),
        "half the values": take(tied / 2),
        "one always": take(mean_of(tied)),
    }
    return Kind(take(tied), good, bad)
