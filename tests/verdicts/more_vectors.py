"""Second table: vectors and single numbers of a sample; lists."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, kind, mean_of, outputs, sigmoid, softmax
from verdicts.classes import trained_logits
from verdicts.lists import best, detections
from verdicts.spoiled import far, near, of, of_several


def regression(random, found, offset=None, dtype=np.float32) -> Kind:
    """[n, features] or [n]"""
    bad = far(found, 1 if found.ndim > 1 else None)
    if len(found) > 2:
        bad["offset"] = found + (found.std(0) if offset is None else offset)
    return of(found, near(random, found, 0, whole=False), bad, dtype=dtype)


@kind
def age(random, n):
    return regression(random, random.uniform(3, 88, (n, 1)), 15)


@kind
def scalar_of_a_sample(random, n):
    """No axis but the batch."""
    return regression(random, 12 + 4 * random.standard_normal(n))


@kind
def distances_of_two(random, n):
    """As 22b: two channels, the first always the larger."""
    return regression(random, np.stack([random.uniform(170, 210, n), random.uniform(60, 90, n)], 1))


@kind
def angles_of_a_head(random, n):
    return regression(random, random.standard_normal((n, 3)) * np.array([35, 15, 8]))


@kind
def pose_of_a_camera(random, n):
    """Turn (length 1) and place in metres."""
    turn = random.standard_normal((n, 4)) * 0.3 + np.array([1, 0, 0, 0])
    return regression(random, np.concatenate([turn / np.linalg.norm(turn, axis=1, keepdims=True), random.standard_normal((n, 3)) * 40], 1))


@kind
def landmarks_in_one_vector(random, n):
    """68 points in 0..1"""
    face = random.random((68, 2)) * 0.4 + 0.3
    found = face + random.standard_normal((n, 1, 2)) * 0.06 + random.standard_normal((n, 68, 2)) * 0.02
    return regression(random, found.reshape(n, 136), 0.06)


@kind
def count_of_a_crowd(random, n):
    return regression(random, np.exp(random.normal(4, 1, (n, 1))))


@kind
def probability_of_one_class(random, n):
    found = sigmoid(random.standard_normal((n, 1)) * 4)
    bad = far(found) | {"half everywhere": found * 0 + 0.5, "the other way": 1 - found}
    return of(found, near(random, found, None), bad)


@kind
def logit_of_one_class(random, n):
    found = random.standard_normal((n, 1)) * 3 - 1
    return of(found, near(random, found, None), far(found) | {"offset": found + 4})


@kind
def tags(random, n):
    """Many labels at once, each rare."""
    logits = random.standard_normal((n, 60)) - 6 + 9 * (random.random((n, 60)) < 0.05)
    found = sigmoid(logits)
    good = {what: sigmoid(one) for what, one in near(random, logits, None).items()}
    bad = far(found) | {"one tag always": np.concatenate([found[:, :1] * 0 + 0.9, found[:, 1:]], 1)}
    seen = int((found > 0.5).sum(0).argmax())
    if (found[:, seen] > 0.5).sum() > 1:
        lost = found.copy()
        lost[:, seen] = 0.001
        bad["a common tag dead"] = lost
    return of(found, good, bad)


@kind
def tag_logits(random, n):
    found = random.standard_normal((n, 25)) * 1.5 - 5 + 8 * (random.random((n, 25)) < 0.2)
    bad = far(found) | {"all off": np.minimum(found, -3)}
    return of(found, near(random, found, None), bad)


@kind
def face_embedding(random, n):
    """512 of length 1"""
    found = random.standard_normal((n, 512)) + 0.3 * random.standard_normal(512)
    return of(
        found / np.linalg.norm(found, axis=1, keepdims=True), *_embedding(random, found / np.linalg.norm(found, axis=1, keepdims=True))
    )


@kind
def sentence_embedding(random, n):
    """Not normalised, with an outlier dimension."""
    found = random.standard_normal((n, 192)) * np.exp(0.4 * random.standard_normal(192))
    found[:, 11] = 9 + found[:, 11]
    return of(found, *_embedding(random, found))


def _embedding(random, found):
    turned = np.roll(found, 5, 1)
    noise = found + random.standard_normal(found.shape) * found.std() * 0.7
    first = np.where(np.arange(found.shape[1]) < found.shape[1] // 3, found, 0)
    return near(random, found, 0), far(found) | {"dimensions in another order": turned, "noise of 3 dB": noise, "two thirds zero": first}


@kind
def hash_bits(random, n):
    """Tanh, nearly -1 or 1."""
    found = np.tanh(random.standard_normal((n, 64)) * 3)
    return of(found, near(random, found, 0), far(found, 1))


def classifier(random, logits, make=lambda found: found) -> Kind:
    good = {what: make(found) for what, found in near(random, logits, None).items()}
    one = logits.copy()
    one[:, 0] += 60
    bad = {
        "first always": make(one),
        "flat": make(logits * 0.02),
        "in another order": make(np.roll(logits, 1, 1)),
        "negative": make(-logits),
    }
    if len(logits) == 1:  # held against its own size, whatever that is made of
        del bad["in another order"]
        if logits.argmax() == 0:
            del bad["first always"]
    if len(logits) > 1:
        bad["constant"] = make(mean_of(logits))
        mixed = np.roll(logits[np.argsort(logits.argmax(1))], len(logits) // 2, 0)
        if (mixed.argmax(1) != logits.argmax(1)).any():
            bad["samples mixed up"] = make(mixed)
    return of(make(logits), good, bad)


@kind
def sharp_probabilities(random, n):
    return classifier(random, 2 * trained_logits(random, n, int(random.choice([4, 37]))), softmax)


@kind
def logits_of_ten_thousand(random, n):
    return classifier(random, trained_logits(random, n, 10000))


@kind
def logits_of_three(random, n):
    logits = random.standard_normal((n, 3))
    np.put_along_axis(logits, random.integers(0, 3, (n, 1)), 7, 1)
    logits[: min(n, 3)] = np.eye(3)[: min(n, 3)] * 8
    return classifier(random, logits + 0.3 * random.standard_normal(logits.shape))


@kind
def similarity_to_texts(random, n):
    """As CLIP gives it: 15 to 30."""
    logits = random.normal(17, 1.2, (n, 12))
    np.put_along_axis(logits, random.integers(0, 12, (n, 1)), 26 + 3 * random.random((n, 1)), 1)
    return classifier(random, logits)


@kind
def classes_seldom_seen(random, n):
    """Nine of ten samples are of the first class."""
    logits = random.standard_normal((n, 6)) - 2
    label = np.where(random.random(n) < 0.9, 0, random.integers(1, 6, n))
    label[: min(n, 2)] = [0, 3][: min(n, 2)]
    np.put_along_axis(logits, label[:, None], 6 + 2 * random.random((n, 1)), 1)
    made = classifier(random, logits)
    return made


@kind
def two_heads_of_a_face(random, n):
    """Age as a number, gender as logits of two."""
    sign = np.where(random.random((n, 1)) < 0.5, 1, -1)
    if n > 1:
        sign[:2, 0] = [1, -1]
    gender = sign * np.array([3, -3]) + random.standard_normal((n, 2)) * 0.8
    years = random.uniform(5, 80, (n, 1))
    good = {}
    for what, found in near(random, years, 0).items():
        good[what] = {"age": found, "gender": near(random, gender, None)[what]}
    bad = {f"age: {what}": {"age": found} for what, found in far(years).items()}
    bad |= {
        "gender: other way": {"gender": gender[:, ::-1]},
        "gender: flat": {"gender": gender * 0.02},
        "gender: zero": {"gender": gender * 0},
    }
    return of_several({"age": years.astype(np.float32), "gender": gender.astype(np.float32)}, good, bad)


@kind
def yes_or_no(random, n):
    """One bool a sample."""
    found = random.random((n, 1)) < 0.5
    if n > 1:
        found[:2, 0] = [True, False]
    always = {"always no": found & False, "always yes": found | True} if n > 4 else {}  # of fewer, one alone may differ
    return of(found, {"same": found}, {"the other way": ~found} | always, dtype=bool)


@kind
def class_of_a_sample(random, n):
    """int64, no axis but the batch"""
    found = random.integers(0, 10, n)
    if n > 1:
        found[:2] = [3, 7]
    bad = {"one more": (found + 1) % 10, "always the first": found * 0, "other order": 9 - found}
    return of(found, {"same": found}, bad, dtype=np.int64)


@kind
def five_best_classes(random, n):
    """TopK of probabilities: values and indices [5]."""
    shares = softmax(random.standard_normal((n, 40)) * 2)

    def take(found):
        order = np.argsort(-found, 1, kind="stable")[:, :5]
        return outputs(values=np.take_along_axis(found, order, 1).astype(np.float32), indices=order)

    near_ties = shares * (1 + 1e-4 * random.standard_normal(shares.shape))
    bad = {"classes in another order": take(np.roll(shares, 1, 1)), "constant": take(mean_of(shares)), "the worst": take(0.2 - shares)}
    bad["values times 0.6"] = [{**row, "values": row["values"] * np.float32(0.6)} for row in take(shares)]
    return Kind(take(shares), {"near ties": take(near_ties), "noise": take(shares + 2e-4 * random.standard_normal(shares.shape))}, bad)


@kind
def rows_after_nms(random, n):
    """[M, 7]: sample, box, score, class; M differs, and so it does in the candidate."""
    boxes, scores, labels = detections(random, n, count=60, classes=5)

    def take(a, b, c):
        rows = []
        for one in best(a, b, c, 60):
            told = one["scores"] > 0.4
            parts = (np.zeros((told.sum(), 1)), one["boxes"][told], one["scores"][told, None], one["labels"][told, None])
            rows.append({"output": np.concatenate(parts, 1).astype(np.float32)})
        return rows

    size = np.exp(np.log(45))
    close = scores + random.standard_normal(scores.shape) * 0.004
    good = {
        "noise of 36 dB": take(boxes + random.standard_normal(boxes.shape) * size * 0.016, close, labels),
        "scores": take(boxes, close, labels),
    }
    bad = {
        "boxes shifted by 20 %": take(boxes + 0.2 * size, scores, labels),
        "scores times 0.6": take(boxes, scores * 0.6, labels),
        "classes in another order": take(boxes, scores, 4 - labels + (labels == 2)),
        "half of them lost": take(boxes, np.where(random.random(scores.shape) < 0.5, 0.0, scores), labels),
        "none at all": take(boxes, scores * 0.0, labels),
    }
    made = Kind(take(boxes, scores, labels), good, bad)
    made.batched = False
    return made


@kind
def varying_beside_constant(random, n):
    """A second output never changes."""
    found, fixed = random.standard_normal((n, 5)) * 4, np.full((n, 3), 2.5)
    good = {what: {"y": one} for what, one in near(random, found, 0).items()} | {"one ulp of both": {"fixed": fixed * (1 + 1e-7)}}
    bad = {f"y: {what}": {"y": one} for what, one in far(found, 1).items()} | {
        "fixed lost": {"fixed": fixed * 0},
        "fixed half": {"fixed": fixed / 2},
    }
    return of_several({"y": found.astype(np.float32), "fixed": fixed.astype(np.float32)}, good, bad)


@kind
def half_precision_regression(random, n):
    return regression(random, random.uniform(-4, 4, (n, 6)), dtype=np.float16)
