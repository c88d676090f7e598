"""Class maps and masks."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, dead, kind, mean_of, sigmoid, single, smooth, softmax, usual


def regions(random, n, classes, side) -> np.ndarray:
    """Class numbers [n, side, side] in patches, the first class most of all."""
    weight = np.concatenate([[3.0], np.exp(-0.15 * np.arange(classes - 1))])
    field = smooth(random, n, classes, side, side) * 2 + 0.3 * np.log(weight).reshape(-1, 1, 1)
    return field.argmax(1)


def map_logits(random, n, classes, side) -> np.ndarray:
    labels = regions(random, n, classes, side)
    logits = random.standard_normal((n, classes, side, side)) - 4
    np.put_along_axis(logits, labels[:, None], 6 + 4 * random.random((n, 1, side, side)), 1)
    return logits.astype(np.float32)


def of_class_map(random, logits: np.ndarray, make=lambda values: values) -> Kind:
    labels = logits.argmax(1)
    common = np.bincount(labels.ravel()).argsort()[-2]
    background = logits.copy()
    background[:, 0] += 40
    good = {what: make(found) for what, found in usual(random, logits, (0, 2, 3)).items()}
    bad = {
        "all background": make(background),
        "one class dead": make(dead(logits, common, 1, float(logits.min()))),
        "scores lost": make(logits * 0.02),
        "classes shuffled": make(np.flip(logits, 1).copy()),
        "shifted by four": make(np.roll(logits, 4, 3)),
    }
    return single(make(logits), good, bad)


@kind
def class_map(random, n):
    return of_class_map(random, map_logits(random, n, int(random.choice([5, 8, 19])), 24))


@kind
def class_map_of_shares(random, n):
    return of_class_map(random, map_logits(random, n, 4, 24), lambda values: softmax(values, 1))


@kind
def untrained_class_map(random, n):
    values = random.standard_normal((n, 19, 12, 12)).astype(np.float32)
    bad = {"zero": values * 0, "one class dead": dead(values, 3, 1), "half": values / 2, "constant": mean_of(values)}
    return single(values, usual(random, values, (0, 2, 3)), bad)


@kind
def map_of_labels(random, n):
    labels = regions(random, n, int(random.choice([5, 19])), 32)
    common = np.bincount(labels.ravel()).argsort()[-2]
    tipped = np.where(random.random(labels.shape) < 0.0035, np.roll(labels, 1, 2), labels)
    bad = {
        "all background": labels * 0,
        "one class dead": np.where(labels == common, 0, labels),
        "off by one": labels + 1,
        "shifted by four": np.roll(labels, 4, 2),
        "constant": np.broadcast_to(labels[:1], labels.shape) if n > 1 else labels * 0,
    }
    return single(labels, {"0.35 % tipped over": tipped, "the same": labels}, bad)


@kind
def rare_labels(random, n):
    """One class fills a thousandth of the map."""
    labels = np.zeros((n, 40, 40), np.int64)
    for one in labels:
        y, x = random.integers(0, 36, 2)
        one[y : y + 2, x : x + 2] = 1
        one[y + 2, x] = 2 if random.random() < 0.5 else 0
    return single(labels, {"the same": labels}, {"all background": labels * 0, "the class dead": np.where(labels == 1, 0, labels)})


def spots(random, n, side) -> np.ndarray:
    """Bool [n, side, side]: a few spots."""
    return smooth(random, n, side, side) > 0.72


@kind
def mask(random, n):
    side = 32
    logits = np.where(spots(random, n, side), 5, -5) + random.standard_normal((n, side, side))
    values = sigmoid(logits)[:, None]
    good = {what: sigmoid(found)[:, None] for what, found in usual(random, logits, None).items()}
    bad = {"empty": values * 0, "scores lost": values * 0.25, "shifted by four": np.roll(values, 4, 3), "full": values * 0 + 1}
    return single(values, good, bad | {"constant": mean_of(values)})


@kind
def mask_of_bools(random, n):
    values = spots(random, n, 32)
    tipped = values ^ (random.random(values.shape) < 0.002)
    bad = {"empty": values & False, "full": values | True, "shifted by four": np.roll(values, 4, 2), "the other way": ~values}
    return single(values, {"0.2 % tipped over": tipped, "the same": values}, bad)


@kind
def map_of_two_classes(random, n):
    """Logits of background and foreground."""
    logit = np.where(spots(random, n, 24), 5, -5)[:, None] + random.standard_normal((n, 1, 24, 24))
    logits = np.concatenate([-logit, logit], 1).astype(np.float32)
    good = usual(random, logits, None)
    bad = {
        "all background": logits - np.array([0, 20]).reshape(2, 1, 1),
        "scores lost": logits * 0.02,
        "shifted by four": np.roll(logits, 4, 3),
    }
    return single(logits, good, {what: found.astype(np.float32) for what, found in bad.items()})


@kind
def map_of_labels_as_floats(random, n):
    made = map_of_labels(random, n)
    for samples in (made.reference, *made.harmless.values(), *made.harmful.values()):
        for sample in samples:
            sample["y"] = sample["y"].astype(np.float32)
    return made
