"""Heads of detectors: boxes and scores for every anchor; keypoints."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, dead, half, kind, mean_of, noisy, outputs, sigmoid, single, usual


def anchors(random, n, count, classes) -> tuple[np.ndarray, np.ndarray]:
    """(boxes [n, count, 4] as x1, y1, x2, y2 in pixels of 320; scores [n, count, classes]) of a grid of anchors with few objects."""
    side = int(np.sqrt(count))
    grid = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) * 320 / side
    centre = grid + random.standard_normal((n, side * side, 2)) * 6
    size = np.exp(random.normal(np.log(40), 0.4, (n, side * side, 2)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1)
    logits = random.standard_normal((n, side * side, classes)) - 7
    objects = random.random((n, side * side)) < 0.03
    objects[:, 0] = True
    best = random.integers(0, classes, objects.shape)
    logits[objects, best[objects]] = 1 + 1.5 * random.random(int(objects.sum()))
    return boxes, logits


def of_detector(random, boxes, logits, join) -> Kind:
    scores = sigmoid(logits)
    common = int(scores.max(1).mean(0).argmax())
    size = np.sqrt(np.prod(boxes[..., 2:] - boxes[..., :2], -1).mean())
    near = boxes + random.standard_normal(boxes.shape) * size * 0.02
    good = {"noise of 34 dB of the boxes' size, scores of 36 dB": join(near, sigmoid(noisy(random, logits, 36, None)))}
    good["FP16"] = {name: half(found) for name, found in join(boxes, scores).items()}
    bad = {
        "scores lost": join(near, scores * 0.0),
        "scores times 0.6": join(near, scores * 0.6),
        "one class dead": join(near, dead(scores, common, 2)),
        "boxes shifted by six pixels": join(boxes + 6, scores),
        "boxes lost": join(boxes * 0, scores),
        "the same boxes always": join(mean_of(boxes), scores),
        "classes shuffled": join(boxes, scores[..., ::-1]),
    }
    return Kind(
        outputs(**join(boxes, scores)),
        {what: outputs(**found) for what, found in good.items()},
        {what: outputs(**found) for what, found in bad.items()},
    )


def as_centres(boxes) -> np.ndarray:
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


@kind
def detector_channels_first(random, n):
    boxes, logits = anchors(random, n, int(random.choice([64, 400])), int(random.choice([4, 18])))
    return of_detector(
        random, boxes, logits, lambda a, b: {"y": np.concatenate([as_centres(a), b], -1).transpose(0, 2, 1).astype(np.float32)}
    )


@kind
def detector_anchors_first(random, n):
    boxes, logits = anchors(random, n, 256, 6)
    return of_detector(random, boxes, logits, lambda a, b: {"y": np.concatenate([a, b], -1).astype(np.float32)})


@kind
def detector_of_one_class(random, n):
    boxes, logits = anchors(random, n, 256, 1)
    made = of_detector(random, boxes, logits, lambda a, b: {"y": np.concatenate([as_centres(a), b], -1).astype(np.float32)})
    del made.harmful["classes shuffled"]
    return made


@kind
def detector_of_two_outputs(random, n):
    boxes, logits = anchors(random, n, 144, 5)
    return of_detector(random, boxes, logits, lambda a, b: {"boxes": a.astype(np.float32), "scores": b.astype(np.float32)})


@kind
def detector_within_one(random, n):
    """Boxes as shares of the image."""
    boxes, logits = anchors(random, n, 256, 5)
    return of_detector(
        random, boxes, logits, lambda a, b: {"boxes": (as_centres(a) / 320).astype(np.float32), "scores": b.astype(np.float32)}
    )


@kind
def raw_detector_head(random, n):
    """[3 * (5 + classes), H, W] before any decoding."""
    values = random.standard_normal((n, 3, 9, 10, 10)) * np.array([0.6, 0.6, 0.4, 0.4, 1.5, 2, 2, 2, 2]).reshape(9, 1, 1)
    values[:, :, 4:] -= 5
    values[:, :, 4:] += 7 * (random.random((n, 3, 1, 10, 10)) < 0.05)
    values = values.reshape(n, 27, 10, 10).astype(np.float32)
    bad = {"zero": values * 0, "one channel lost": dead(values, 4, 1, -5.0), "constant": mean_of(values), "half": values / 2}
    return single(values, usual(random, values, (0, 2, 3)), bad)


@kind
def keypoints(random, n):
    """17 points: x and y in pixels, and how sure they are."""
    body = random.uniform(60, 260, (17, 2))
    values = np.concatenate(
        [body + random.standard_normal((n, 1, 2)) * 20 + random.standard_normal((n, 17, 2)) * 8, random.random((n, 17, 1))], -1
    )
    values = values.astype(np.float32)
    lost = dead(values, 5, 1)
    bad = {
        "one point lost": lost,
        "constant": mean_of(values),
        "scores lost": dead(values, 2, 2),
        "x and y swapped": values[..., [1, 0, 2]],
    }
    return single(values, usual(random, values, 0), bad)


@kind
def point_map_of_poses(random, n):
    values = random.standard_normal((n, 24, 3, 3)).astype(np.float32) * 0.5
    return single(values, usual(random, values, 0), {"zero": values * 0, "constant": mean_of(values), "negative": -values})


def grid(random, n):
    """[n, 3, 10, 10, 4 + 1 + 3]: offsets, sizes, objectness and class scores of three anchors in each cell."""
    shape = (n, 3, 10, 10)
    parts = [random.random((*shape, 2)) * 320, 20 + 60 * random.random((*shape, 2))]
    scores = sigmoid(random.standard_normal((*shape, 4)) - 6 + 8 * (random.random((*shape, 1)) < 0.05))
    return np.concatenate([*parts, scores], -1).astype(np.float32)


def of_grid(random, values, to) -> Kind:
    good = usual(random, values, (0, 1, 2, 3))
    bad = {
        "scores lost": values * np.array([1] * 4 + [0.5] * 4),
        "boxes lost": values * np.array([0] * 4 + [1] * 4),
        "constant": mean_of(values),
    }
    bad["one class dead"] = dead(values, 6, 4)
    return single(to(values), {what: to(found) for what, found in good.items()}, {what: to(found) for what, found in bad.items()})


@kind
def grid_of_five_axes(random, n):
    return of_grid(random, grid(random, n), lambda values: values.astype(np.float32))


@kind
def grid_with_channels_last(random, n):
    """[n, 10, 10, 24] of a model that takes its images channels first."""
    values = grid(random, n)
    return of_grid(random, values, lambda found: found.transpose(0, 2, 3, 1, 4).reshape(n, 10, 10, 24).astype(np.float32))
