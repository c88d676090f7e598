"""Second table: heads of detectors."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, dead, half, kind, mean_of, sigmoid, smooth, softmax
from verdicts.spoiled import far, near, of, of_several, ulp


def objects(random, n, side, classes, image, sharp=3.0, rate=0.02):
    """(centres and sizes [n, side * side, 4] in pixels, class logits [n, side * side, classes], objectness logits [n, side * side])"""
    stride = image / side
    cell = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) * stride
    centre = cell + random.uniform(-0.5, 0.5, (n, side * side, 2)) * stride
    size = np.exp(random.normal(np.log(image / 8), 0.5, (n, side * side, 2)))
    there = random.random((n, side * side)) < rate
    there[np.arange(n), random.integers(0, side * side, n)] = True
    best = random.integers(0, classes, there.shape)
    logits = random.standard_normal((n, side * side, classes)) * 0.8 - 5
    np.put_along_axis(logits, best[..., None], np.where(there, sharp * random.random(there.shape) + 0.5, -5)[..., None], -1)
    objectness = np.where(there, 1 + 2 * random.random(there.shape), -6 + random.standard_normal(there.shape))
    return np.concatenate([centre, size], -1), logits, objectness


def shifted(boxes, share=0.2):
    """Centres moved by a share of each box's size."""
    return np.concatenate([boxes[..., :2] + share * boxes[..., 2:], boxes[..., 2:]], -1)


def corners(boxes):
    return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def head(random, boxes, scores, logits, join) -> Kind:
    """
    Args:
        boxes: centres and sizes.
        scores: logits -> what the head gives.
        join: (boxes, scores) -> outputs.
    """
    width = np.sqrt((boxes[..., 2:] ** 2).mean())
    good = {}
    for db in (32, 40):
        factor = 10 ** (-db / 20)
        good[f"noise of {db} dB"] = join(
            boxes + random.standard_normal(boxes.shape) * width * factor, scores(logits + random.standard_normal(logits.shape) * 2 * factor)
        )
    given = scores(logits)
    usual = join(boxes, given)
    good |= {"one ulp": {k: ulp(v) for k, v in usual.items()}, "FP16": {k: half(v) for k, v in usual.items()}}
    # FP16 of pixels is as the format has it
    order = given.reshape(-1, given.shape[-1]).max(0).argsort()
    bad = {
        "scores lost": join(boxes, given * 0),
        "scores times 0.6": join(boxes, given * 0.6),
        "scores times 0.1": join(boxes, given * 0.1),
        "boxes shifted by 20 %": join(shifted(boxes), given),
        "boxes lost": join(boxes * 0, given),
        "boxes half as large": join(np.concatenate([boxes[..., :2], boxes[..., 2:] / 2], -1), given),
        "samples mixed up": join(np.roll(boxes, 1, 0), np.roll(given, 1, 0)),
        "constant": join(mean_of(boxes), mean_of(given)),
    }
    if given.shape[-1] > 1:
        bad |= {"classes swapped": join(boxes, np.flip(given, -1)), "one class dead": join(boxes, dead(given, order[-1], -1))}
    return of_several({k: v.astype(np.float32) for k, v in usual.items()}, good, bad)


def one(boxes, scores):
    return {"output0": np.concatenate([boxes, scores], -1)}


@kind
def yolov5(random, n):
    """[A, 5 + C]: boxes in pixels, objectness, class scores."""
    classes = int(random.choice([1, 7, 20]))
    boxes, logits, objectness = objects(random, n, 12, classes, 640)
    logits = logits + 4.5 + random.standard_normal(logits.shape)  # classes are told where there is no object, too
    return head(random, boxes, sigmoid, np.concatenate([objectness[..., None], logits], -1), one)


@kind
def yolov8_pixels(random, n):
    """[4 + C, A]"""
    boxes, logits, _ = objects(random, n, int(random.choice([10, 24])), int(random.choice([2, 18, 80])), 320)
    return head(random, boxes, sigmoid, logits, lambda a, b: {"output0": one(a, b)["output0"].transpose(0, 2, 1)})


@kind
def yolov8_normalised(random, n):
    boxes, logits, _ = objects(random, n, 14, int(random.choice([3, 20])), 1)
    return head(random, boxes, sigmoid, logits, lambda a, b: {"output0": one(a, b)["output0"].transpose(0, 2, 1)})


@kind
def yolo_nas(random, n):
    """Corners in pixels and scores, in two outputs."""
    boxes, logits, _ = objects(random, n, 16, 8, 640)
    return head(random, boxes, sigmoid, logits, lambda a, b: {"pred_bboxes": corners(a), "pred_scores": b})


@kind
def yolo_pose(random, n):
    """[4 + 1 + 3 K, A]"""
    points = int(random.choice([5, 17]))
    boxes, logits, _ = objects(random, n, 12, 1, 640)
    inside = boxes[:, :, None, :2] + random.uniform(-0.5, 0.5, (points, 2)) * boxes[:, :, None, 2:]
    inside = inside + random.standard_normal(inside.shape) * 0.1 * boxes[:, :, None, 2:]
    seen = sigmoid(random.standard_normal((*inside.shape[:3], 1)) * 2)

    def join(a, b):
        moved = inside + (a - boxes)[:, :, None, :2]
        pose = np.concatenate([moved, seen], -1).reshape(*boxes.shape[:2], -1)
        return {"output0": np.concatenate([a, b, pose], -1).transpose(0, 2, 1)}

    made = head(random, boxes, sigmoid, logits, join)
    lost = join(boxes, sigmoid(logits))["output0"]
    lost[:, 5 + 3 * 2 : 5 + 3 * 2 + 2] = 0
    made.harmful["one point lost"] = [{"output0": row.astype(np.float32)} for row in lost]
    return made


@kind
def yolo_seg(random, n):
    """[4 + C + 32, A] and prototypes [32, h, w]"""
    boxes, logits, _ = objects(random, n, 12, 6, 640)
    weights = random.standard_normal((n, 144, 32)) * 0.8
    protos = (smooth(random, n, 32, 20, 20) * 2 - 1).astype(np.float32)

    def join(a, b):
        return {"output0": np.concatenate([a, b, weights], -1).transpose(0, 2, 1), "output1": protos}

    made = head(random, boxes, sigmoid, logits, join)
    for what, found in far(protos, 1).items():
        made.harmful[f"prototypes: {what}"] = [{**row, "output1": p.astype(np.float32)} for row, p in zip(made.reference, found)]
    return made


@kind
def yolo_obb(random, n):
    """[4 + C + 1, A]: turned boxes, the angle last."""
    boxes, logits, _ = objects(random, n, 14, 5, 1024)
    angle = random.uniform(-0.7, 1.5, (n, 196, 1))

    def join(a, b, turn=1.0):
        return {"output0": np.concatenate([a, b, angle * turn], -1).transpose(0, 2, 1)}

    made = head(random, boxes, sigmoid, logits, join)
    made.harmful["angles lost"] = [{"output0": row.astype(np.float32)} for row in join(boxes, sigmoid(logits), 0.0)["output0"]]
    return made


@kind
def detr(random, n):
    """Logits with 'no object' [Q, C + 1], and boxes in 0..1."""
    queries, classes = 60, int(random.choice([3, 20]))
    logits = random.standard_normal((n, queries, classes + 1)) - 3
    there = random.random((n, queries)) < 0.1
    there[:, 0] = True
    best = np.where(there, random.integers(0, classes, there.shape), classes)
    np.put_along_axis(logits, best[..., None], 4 + 2 * random.random((n, queries, 1)), -1)
    base = random.random((1, queries, 2)) * 0.8 + 0.1
    centre = base + random.standard_normal((n, queries, 2)) * 0.05
    boxes = np.concatenate([centre, np.exp(random.normal(-2, 0.4, (n, queries, 2)))], -1)
    none = logits.copy()
    none[..., classes] += 20
    reference = {"logits": logits.astype(np.float32), "boxes": boxes.astype(np.float32)}
    good = {}
    for db in (32, 40):
        factor = 10 ** (-db / 20)
        noise = random.standard_normal(boxes.shape) * 0.15 * factor
        good[f"noise of {db} dB"] = {
            "logits": logits + random.standard_normal(logits.shape) * logits.std() * factor,
            "boxes": boxes + noise,
        }
    good["FP16"] = {name: half(found) for name, found in reference.items()}
    bad = {"never an object": {"logits": none}, "logits lost": {"logits": logits * 0}, "logits times 0.02": {"logits": logits * 0.02}}
    bad |= {"boxes shifted by 20 %": {"boxes": shifted(boxes)}, "boxes lost": {"boxes": boxes * 0}}
    bad |= {"classes in another order": {"logits": np.roll(logits, 1, -1)}, "samples mixed up": {"logits": np.roll(logits, 1, 0)}}
    return of_several(reference, good, bad)


@kind
def rt_detr(random, n):
    """Logits of classes each for itself [Q, C], all below 0 but a few, and boxes."""
    queries, classes = 80, 12
    boxes, logits, _ = objects(random, n, 9, classes, 1, rate=0.1)
    boxes, logits = boxes[:, :queries], logits[:, :queries]
    reference = {"logits": logits.astype(np.float32), "boxes": boxes.astype(np.float32)}
    good = {what: {"logits": found} for what, found in near(random, logits, (0, 1)).items()}
    flat = logits.copy()
    flat[...] = np.minimum(logits, -4)
    bad = {"objects lost": {"logits": flat}, "constant": {"logits": mean_of(logits)}, "half": {"logits": logits / 2}}
    bad |= {"classes in another order": {"logits": np.flip(logits, -1)}, "boxes shifted by 20 %": {"boxes": shifted(boxes)}}
    return of_several(reference, good, bad)


@kind
def ssd(random, n):
    """Offsets from anchors [A, 4] and shares of classes with a background [A, C]."""
    anchors, classes = 240, int(random.choice([2, 4, 21]))
    logits = random.standard_normal((n, anchors, classes))
    there = random.random((n, anchors)) < 0.04
    there[:, 3] = True
    best = np.where(there, random.integers(1, classes, there.shape), 0)
    np.put_along_axis(logits, best[..., None], 6 + 2 * random.random((n, anchors, 1)), -1)
    offsets = (random.standard_normal((n, anchors, 4)) * np.array([1.2, 1.2, 0.8, 0.8])).astype(np.float32)
    background = logits.copy()
    background[..., 0] += 30
    reference = {"scores": softmax(logits), "offsets": offsets}
    good = {}
    for what, found in near(random, logits, None).items():
        good[what] = {"scores": softmax(found), "offsets": near(random, offsets, (0, 1))[what]}
    bad = {"background always": {"scores": softmax(background)}, "scores flat": {"scores": softmax(logits * 0.02)}}
    bad |= {f"offsets: {what}": {"offsets": found} for what, found in far(offsets, 2).items()}
    bad["classes in another order"] = {"scores": softmax(np.roll(logits, 1, -1))}
    return of_several(reference, good, bad)


@kind
def retinanet(random, n):
    """Logits [A C, H, W] and offsets [A 4, H, W] of two levels."""
    reference, good, bad = {}, {}, {}
    for level, side in enumerate((16, 8)):
        logits = random.standard_normal((n, 12, side, side)) * 0.7 - 5
        logits += 6 * (random.random((n, 12, side, side)) < 0.02)
        offsets = random.standard_normal((n, 8, side, side)) * np.tile([0.9, 0.9, 0.5, 0.5], 2).reshape(8, 1, 1)
        for name, values in ((f"cls{level}", logits), (f"reg{level}", offsets)):
            values = values.astype(np.float32)
            reference[name] = values
            for what, found in near(random, values, (0, 2, 3)).items():
                good.setdefault(what, {})[name] = found
            bad |= {f"{name}: {what}": {name: found} for what, found in far(values, 1).items() if what != "features in another order"}
        bad[f"cls{level}: objects lost"] = {f"cls{level}": np.minimum(logits, -3)}
    return of_several(reference, good, bad)


@kind
def centernet(random, n):
    """Heat of each class, sizes and offsets."""
    classes, side = int(random.choice([1, 5, 20])), 24
    rows, columns = np.mgrid[:side, :side]
    heat = np.full((n, classes, side, side), 1e-3) * (1 + random.random((n, classes, side, side)))
    for sample in heat:
        for _ in range(6):
            y, x, one_of = random.integers(1, side - 1), random.integers(1, side - 1), random.integers(0, classes)
            peak = random.uniform(0.4, 0.9) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 3)
            sample[one_of] = np.maximum(sample[one_of], peak)
    size = np.exp(smooth(random, n, 2, side, side) * 2)
    offset = random.random((n, 2, side, side))
    reference = {"hm": heat, "wh": size, "reg": offset}
    reference = {name: values.astype(np.float32) for name, values in reference.items()}
    good, bad = {}, {}
    for name, values in reference.items():
        for what, found in near(random, values, (0, 2, 3)).items():
            good.setdefault(what, {})[name] = found
        bad |= {f"{name}: {what}": {name: found} for what, found in far(values, 1).items() if not (name == "reg" and "order" in what)}
    bad["heat moved by two cells"] = {"hm": np.roll(heat, 2, -1)}
    return of_several(reference, good, bad)


@kind
def raw_heads_of_three_levels(random, n):
    """[3 (5 + C), H, W] logits, three outputs."""
    reference, good, bad = {}, {}, {}
    for level, side in enumerate((12, 6, 3)):
        values = random.standard_normal((n, 3, 8, side, side)) * np.array([1, 1, 0.5, 0.5, 1, 1.5, 1.5, 1.5]).reshape(8, 1, 1)
        values[:, :, 4:] -= 6
        values[:, :, 4] += 8 * (random.random((n, 3, side, side)) < 0.06)
        values = values.reshape(n, 24, side, side).astype(np.float32)
        name = f"p{level + 3}"
        reference[name] = values
        for what, found in near(random, values, (0, 2, 3), whole=False).items():
            good.setdefault(what, {})[name] = found
        bad |= {f"{name}: {what}": {name: found} for what, found in far(values, 1).items()}
    return of_several(reference, good, bad)


@kind
def boxes_alone(random, n):
    """A tracker: one box a sample, corners in pixels."""
    boxes = np.concatenate([random.uniform(60, 250, (n, 2)), random.uniform(30, 90, (n, 2))], -1)
    values = corners(boxes).astype(np.float32)
    bad = far(values) | ({"shifted by half of the size": corners(shifted(boxes, 0.5))} if n > 3 else {})
    return of(values, near(random, values, 0, whole=False), bad)
