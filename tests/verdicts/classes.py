"""Outputs that hold classes: one decision a sample, or one a step."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, alive, dead, kind, mean_of, sigmoid, single, softmax, usual


def trained_logits(random, *shape) -> np.ndarray:
    """[..., C]: one class stands out; now and then two do."""
    logits = random.standard_normal(shape) * 1.5 - 2
    best = random.integers(0, shape[-1], shape[:-1])
    lead = np.where(random.random(shape[:-1]) < 0.03, 0.2, 1.0) * (6 + 3 * random.random(shape[:-1]))
    np.put_along_axis(logits, best[..., None], logits.max(-1, keepdims=True) + lead[..., None], -1)
    return logits.astype(np.float32)


def near_ties(random, logits: np.ndarray) -> np.ndarray:
    """[..., C] with a second class all but as good as the first in a tenth of the places."""
    found = logits.copy()
    first, second = np.argsort(found, -1)[..., -1:], np.argsort(found, -1)[..., -2:-1]
    level = np.take_along_axis(found, first, -1) - 1e-3 * np.ptp(found)
    level = np.where(random.random(first.shape) < 0.1, level, np.take_along_axis(found, second, -1))
    np.put_along_axis(found, second, level, -1)
    return found


def swapped(logits: np.ndarray) -> np.ndarray:
    """[..., C] with the first two exchanged where they are nearly equal."""
    found = logits.copy()
    order = np.argsort(found, -1)
    first, second = order[..., -1:], order[..., -2:-1]
    a, b = np.take_along_axis(found, first, -1), np.take_along_axis(found, second, -1)
    near = a - b < 2e-3 * np.ptp(found)
    np.put_along_axis(found, first, np.where(near, b, a), -1)
    np.put_along_axis(found, second, np.where(near, a, b), -1)
    return found


def of_classes(random, logits: np.ndarray, make=lambda values: values) -> Kind:
    """[n, C] logits, given as `make` has them."""
    logits = near_ties(random, logits)
    values = make(logits)
    good = {what: make(found) for what, found in usual(random, logits, None).items()} | {"near ties swapped": make(swapped(logits))}
    common = np.bincount(logits.argmax(-1).ravel(), minlength=logits.shape[-1]).argmax()
    bad = {
        "scores lost": make(logits * 0.02),
        "constant": make(mean_of(logits)),
        "one class dead": make(dead(logits, common, -1, float(logits.min()))),
        "shuffled classes": make(np.roll(logits, 1, -1)),
        "noise": make(logits + random.standard_normal(logits.shape) * logits.std() * 5),
    }
    return single(values, good, {what: found.astype(np.float32) for what, found in bad.items()})


@kind
def class_logits(random, n):
    return of_classes(random, trained_logits(random, n, int(random.choice([5, 10, 100, 1000]))))


@kind
def class_probabilities(random, n):
    return of_classes(random, trained_logits(random, n, int(random.choice([3, 10, 100]))), softmax)


@kind
def class_log_probabilities(random, n):
    return of_classes(random, trained_logits(random, n, 35), lambda values: np.log(softmax(values) + 1e-12))


@kind
def two_classes(random, n):
    logit = random.standard_normal((n, 1)) * 4
    return of_classes(random, np.concatenate([-logit, logit], 1), softmax)


@kind
def untrained_class_logits(random, n):
    """As random networks give them: nothing tells them from an embedding, and good noise changes some winners."""
    values = random.standard_normal((n, 20)).astype(np.float32)
    bad = {"constant": mean_of(values), "one class dead": dead(values, alive(values, 1, 0), 1), "half": values / 2, "zero": values * 0}
    return single(values, usual(random, values, 0), bad)


@kind
def labels_of_samples(random, n):
    values = random.integers(0, 40, n)
    good = {"the same": values}
    one = values.copy()
    one[0] = (one[0] + 1) % 40
    good["one differs"] = one  # 0.5 % of 200, and of 3 or 20 a single one
    bad = {"off by one": values + 1, "constant": values * 0 + values[0] + 50, "shuffled": random.permutation(40)[values]}
    return single(values, good, bad)


@kind
def several_labels_at_once(random, n):
    logits = random.standard_normal((n, 20)) * 2 - 4 + 9 * (random.random((n, 20)) < 0.15)
    values = sigmoid(logits)
    good = {what: sigmoid(found) for what, found in usual(random, logits, 0).items()}
    bad = {"scores lost": values * 0.4, "constant": mean_of(values), "one class dead": dead(values, alive(values, 1, 0), 1)}
    return single(values, good, bad | {"zero": values * 0})


@kind
def characters(random, n):
    """CTC: probabilities of characters, blank most of the time."""
    steps, classes = 40, 37
    logits = trained_logits(random, n, steps, classes)
    blank = random.random((n, steps)) < 0.6
    logits[blank, 0] = logits.max(-1)[blank] + 6
    values = softmax(near_ties(random, logits))
    good = {what: softmax(found) for what, found in usual(random, logits, None).items()}
    values = softmax(logits)
    good["near ties swapped"] = softmax(swapped(logits))
    silent = logits.copy()
    silent[..., 0] += 40
    bad = {"all blank": softmax(silent), "shuffled": values[..., ::-1].copy(), "constant": mean_of(values), "late": np.roll(values, 3, 1)}
    return single(values, good, bad)


@kind
def tokens(random, n):
    """A language model's logits."""
    logits = near_ties(random, trained_logits(random, n, 12, 300))
    good = usual(random, logits, None) | {"near ties swapped": swapped(logits)}
    bad = {"scores lost": logits * 0.02, "shuffled": logits[..., ::-1].copy(), "constant": mean_of(logits)}
    return single(logits, good, bad | {"noise": (logits + random.standard_normal(logits.shape) * 6).astype(np.float32)})


@kind
def hidden_states(random, n):
    values = random.standard_normal((n, 10, 48)) * np.exp(0.7 * random.standard_normal(48))
    return regression_like(random, values)


@kind
def forecast(random, n):
    """Hours ahead x quantities of unlike units."""
    values = random.standard_normal((n, 24, 4)).cumsum(1) * np.array([10, 0.1, 1, 300]) + np.array([15, 0.5, 0, 1000])
    return regression_like(random, values)


def regression_like(random, values: np.ndarray) -> Kind:
    """[n, T, features]"""
    values = values.astype(np.float32)
    bad = {"zero": values * 0, "constant": mean_of(values), "half": values / 2, "features swapped": values[..., ::-1].copy()}
    bad["one feature lost"] = dead(values, 1, 2, float(values[..., 1].mean()))
    return single(values, usual(random, values, (0, 1)), bad)
