"""Third table: shapes, numbers of classes, units and offsets drawn anew for each seed."""

from __future__ import annotations

import numpy as np

from verdicts.base import dead, kind, mean_of, sigmoid, smooth, softmax
from verdicts.lists import best, detections
from verdicts.more_detectors import head, objects, one
from verdicts.more_maps import classes_of, street
from verdicts.more_sequences import ctc, spoken, voice
from verdicts.more_vectors import classifier
from verdicts.spoiled import far, near, of, of_several


def unit(random) -> float:
    """Of a quantity: from thousandths to thousands."""
    return float(10 ** random.uniform(-3, 3))


@kind
def any_detector(random, n):
    classes, image = int(random.integers(1, 30)), float(random.choice([1, 64, 320, 1280]))
    boxes, logits, _ = objects(
        random, n, int(random.integers(8, 20)), classes, image, sharp=random.uniform(1.5, 4), rate=random.uniform(0.01, 0.06)
    )
    last = random.random() < 0.5
    return head(
        random, boxes, sigmoid, logits, lambda a, b: {"y": one(a, b)["output0"] if last else one(a, b)["output0"].transpose(0, 2, 1)}
    )


@kind
def any_detector_of_two_outputs(random, n):
    classes, image = int(random.integers(1, 12)), float(random.choice([1, 416]))
    boxes, logits, _ = objects(random, n, int(random.integers(8, 20)), classes, image, rate=random.uniform(0.01, 0.1))
    return head(random, boxes, sigmoid, logits, lambda a, b: {"a": a, "b": b})


@kind
def any_regression(random, n):
    size, scale = int(random.integers(1, 9)), unit(random)
    found = scale * (random.standard_normal((n, size)) * np.exp(0.7 * random.standard_normal(size)) + random.uniform(-6, 6, size))
    bad = far(found, 1) | {"offset": found + 1.5 * found.std(0)}
    if size == 1 and found.std() < 0.2 * abs(found.mean()):
        bad.pop("times 0.6", None) if n < 2 else None
    return of(found, near(random, found, 0, whole=False), bad)


@kind
def any_embedding(random, n):
    size = int(random.integers(24, 700))
    found = random.standard_normal((n, size)) + random.uniform(0, 0.6) * random.standard_normal(size)
    if random.random() < 0.5:
        found = found / np.linalg.norm(found, axis=1, keepdims=True)
    found = found * (1 if random.random() < 0.5 else unit(random))
    return of(found, near(random, found, 0), far(found, 1))


@kind
def any_image(random, n):
    channels, height, width = int(random.integers(1, 9)), int(random.integers(10, 48)), int(random.integers(10, 48))
    found = smooth(random, n, channels, height, width) + random.uniform(0, 0.2) * random.random((n, 1, height, width))
    found = unit(random) * (found + random.uniform(-1, 1))
    return of(found, near(random, found, (0, 2, 3)), far(found, 1) | {"mirrored": np.flip(found, -1)})


@kind
def any_sparse_map(random, n):
    channels, side, scale = int(random.integers(1, 12)), int(random.integers(10, 30)), unit(random)
    there = random.random((n, 1, side, side)) < random.uniform(0.02, 0.15)
    there[:, :, 3, 4] = True
    found = scale * np.maximum(random.standard_normal((n, channels, side, side)) + 0.5, 0) * there
    bad = far(found, 1)
    bad.pop("features in another order", None)
    return of(found, near(random, found, (0, 2, 3)), bad)


@kind
def any_classifier(random, n):
    classes = int(random.integers(3, 800))
    logits = random.standard_normal((n, classes))
    labels = random.integers(0, classes, n)
    labels[: min(n, 2)] = [0, 1][: min(n, 2)]
    np.put_along_axis(logits, labels[:, None], logits.max(1, keepdims=True) + random.uniform(3, 9) * (0.7 + random.random((n, 1))), 1)
    make = [lambda found: found, softmax, lambda found: np.log(softmax(found))][int(random.integers(3))]
    return classifier(random, logits * random.uniform(0.8, 2), make)


@kind
def any_class_map(random, n):
    logits = street(random, n, int(random.integers(2, 24)), int(random.integers(20, 36)))
    make = (lambda found: softmax(found, 1)) if random.random() < 0.5 else (lambda found: found)
    return classes_of(random, logits * random.uniform(0.7, 2), make, axis=int(random.choice([1, 3])))


@kind
def any_text(random, n):
    return ctc(random, spoken(random, n, int(random.integers(20, 90)), int(random.integers(20, 300)), random.uniform(0.2, 0.85)))


@kind
def any_tags(random, n):
    count = int(random.integers(3, 90))
    logits = random.standard_normal((n, count)) - random.uniform(3, 7) + 9 * (random.random((n, count)) < random.uniform(0.05, 0.4))
    logits[0, 0] = 4
    return of(sigmoid(logits), {what: sigmoid(found) for what, found in near(random, logits, None).items()}, far(sigmoid(logits)))


@kind
def any_sound(random, n):
    found = voice(random, n, int(random.integers(800, 9000))) * unit(random)
    return of(found, near(random, found, None), far(found) | {"late": np.roll(found, 60, -1)})


@kind
def any_labels(random, n):
    classes, side = int(random.integers(2, 30)), int(random.integers(16, 40))
    labels = street(random, n, classes, side).argmax(1)
    order = np.bincount(labels.ravel(), minlength=classes).argsort()
    edge = np.roll(labels, 1, 2) != labels
    good = {"some borders": np.where(edge & (random.random(labels.shape) < 0.015), np.roll(labels, 1, 2), labels)}
    bad = {"first everywhere": labels * 0, "dead": np.where(labels == order[-2], order[-1], labels), "one more": (labels + 1) % classes}
    return of(labels, good, bad | {"mirrored": np.flip(labels, 2)}, dtype=random.choice([np.int32, np.int64]))


@kind
def any_best_rows(random, n):
    keep, classes, image = int(random.integers(8, 60)), int(random.integers(1, 20)), float(random.choice([1, 640])) / 320
    boxes, scores, labels = detections(random, n, count=100, classes=classes)

    def take(a, b, c):
        rows = best(a * image, b, c, keep)
        parts = [(one["boxes"], one["scores"][:, None], one["labels"][:, None]) for one in rows]
        return {"y": np.stack([np.concatenate(part, 1) for part in parts]).astype(np.float32)}

    size, bad = 45.0, {}
    good = {"scores of 36 dB": take(boxes, scores + random.standard_normal(scores.shape) * 0.004, labels)}
    good["boxes of 34 dB"] = take(boxes + random.standard_normal(boxes.shape) * size * 0.02, scores, labels)
    bad["boxes shifted by 20 %"] = take(boxes + 0.2 * size, scores, labels)
    bad["scores times 0.6"] = take(boxes, scores * 0.6, labels)
    bad["others"] = take(boxes, scores[:, ::-1], labels)
    bad["samples mixed up"] = {"y": np.roll(take(boxes, scores, labels)["y"], 1, 0)}
    if classes > 1:
        bad["other classes"] = take(boxes, scores, (labels + 1) % classes)
    return of_several(take(boxes, scores, labels), good, bad)


@kind
def any_heads(random, n):
    """Three outputs of unlike units."""
    depth = unit(random) * (1 + 5 * smooth(random, n, 1, 20, 20))
    score = sigmoid(random.standard_normal((n, 6)) * 3)
    pose = unit(random) * (random.standard_normal((n, 3)) + 2)
    reference = {name: found.astype(np.float32) for name, found in (("depth", depth), ("score", score), ("pose", pose))}
    noise = {what: near(random, reference["depth"], None)[what] for what in ("noise of 30 dB", "FP16", "8 bits")}
    good = {what: {"depth": found, "pose": near(random, reference["pose"], 0)[what]} for what, found in noise.items()}
    bad = {f"{name}: {what}": {name: found} for name, values in reference.items() for what, found in far(values).items()}
    bad["one score dead"] = {"score": dead(score, int(score.var(0).argmax()), 1)}
    bad["the same pose"] = {"pose": mean_of(pose)}
    return of_several(reference, good, bad)
