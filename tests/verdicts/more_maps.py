"""Second table: images, maps of values, maps of classes."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, dead, kind, mean_of, sigmoid, smooth, softmax
from verdicts.class_maps import regions
from verdicts.spoiled import far, near, of, of_several

MAP = (0, 2, 3)  # the axes of one channel


def values(random, found, channel: int = 1, extra=None, dtype=np.float32) -> Kind:
    """[n, C, H, W] or [n, H, W, C]"""
    found = np.asarray(found, np.float32)
    axes = tuple(axis for axis in range(found.ndim) if axis != channel)
    bad = far(found, channel) | {"grey": np.full_like(found, found.mean()), "mirrored": np.flip(found, -1 if channel == 1 else 2)}
    return of(found, near(random, found, axes), bad | (extra or {}), dtype=dtype)


def textured(random, n, channels, height, width) -> np.ndarray:
    """In 0..1: patches with fine detail."""
    fine = random.random((n, 1, height, width)) - 0.5
    return np.clip(smooth(random, n, channels, height, width) * 0.8 + 0.1 + 0.1 * fine, 0, 1)


@kind
def super_resolution(random, n):
    return values(random, textured(random, n, 3, 36, 48))


@kind
def super_resolution_of_luma(random, n):
    return values(random, textured(random, n, 1, 40, 40))


@kind
def image_in_minus_one_to_one(random, n):
    return values(random, 2 * textured(random, n, 3, 32, 32) - 1)


@kind
def image_of_255(random, n):
    return values(random, 255 * textured(random, n, 3, 20, 28))


@kind
def image_of_255_with_channels_last(random, n):
    return values(random, (255 * textured(random, n, 3, 20, 28)).transpose(0, 2, 3, 1), 3)


@kind
def dark_image(random, n):
    """Nothing but a few bright spots."""
    return values(random, textured(random, n, 3, 24, 24) ** 4)


@kind
def residual_of_a_denoiser(random, n):
    found = random.standard_normal((n, 3, 24, 24)) * (0.02 + 0.03 * smooth(random, n, 1, 24, 24))
    return values(random, found)


@kind
def colours_of_a_grey_image(random, n):
    return values(random, (smooth(random, n, 2, 24, 24) - 0.5) * np.array([60, 90]).reshape(2, 1, 1))


@kind
def diffusion_latents(random, n):
    channels = int(random.choice([4, 16]))
    scale = np.exp(0.3 * random.standard_normal((channels, 1, 1)))
    return values(random, (smooth(random, n, channels, 16, 16) * 2 - 1 + 0.3 * random.standard_normal((n, channels, 16, 16))) * scale)


@kind
def flow(random, n):
    return values(random, (smooth(random, n, 2, 24, 32) - 0.5) * np.array([40, 14]).reshape(2, 1, 1))


@kind
def flow_of_small_motion(random, n):
    return values(random, (smooth(random, n, 2, 24, 32) - 0.45) * 0.6)


@kind
def disparity(random, n):
    return values(random, 4 + 60 * smooth(random, n, 1, 24, 40))


@kind
def depth_without_a_channel(random, n):
    found = (1 / (0.05 + smooth(random, n, 1, 24, 24)))[:, 0].astype(np.float32)
    return of(found, near(random, found, None), far(found) | {"mirrored": np.flip(found, -1)})


@kind
def surface_normals(random, n):
    found = smooth(random, n, 3, 20, 20) * 2 - 1 + np.array([0, 0, 1]).reshape(3, 1, 1)
    return values(random, found / np.linalg.norm(found, axis=1, keepdims=True))


@kind
def alpha_matte(random, n):
    return values(random, np.clip(smooth(random, n, 1, 32, 32) * 4 - 1.5, 0, 1))


@kind
def text_map(random, n):
    """As text detectors give it: most of it near 0, some places near 1."""
    found = sigmoid(smooth(random, n, 1, 40, 40) * 30 - 22 + random.standard_normal((n, 1, 40, 40)) * 0.3)
    bad = far(found) | {"moved by four": np.roll(found, 4, -1)}
    return of(found, near(random, found, None), bad)


@kind
def pose_heatmaps(random, n):
    """Low peaks, for each joint."""
    height, width, joints = 32, 24, 13
    rows, columns = np.mgrid[:height, :width]
    y, x = random.integers(2, height - 2, (n, joints, 1, 1)), random.integers(2, width - 2, (n, joints, 1, 1))
    found = random.uniform(0.2, 0.9, (n, joints, 1, 1)) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4)
    found = (found + 0.002 * random.standard_normal(found.shape)).astype(np.float32)
    return values(random, found, extra={"moved by three": np.roll(found, 3, -1)})


@kind
def part_affinity_fields(random, n):
    field = (smooth(random, n, 10, 20, 20) - 0.5) * (smooth(random, n, 10, 20, 20) > 0.7)
    return values(random, field)


@kind
def occupancy_seen_from_above(random, n):
    """A cell in thirty is taken."""
    there = random.random((n, 1, 24, 24)) < 0.03
    found = sigmoid(np.where(there, 3, -8) + random.standard_normal((n, 6, 24, 24)))
    bad = far(found, 1)
    del bad["features in another order"]
    return of(found, near(random, found, MAP), bad)


@kind
def features_of_a_backbone(random, n):
    """After a ReLU, channels of unlike size, some of them silent."""
    found = np.maximum(random.standard_normal((n, 48, 8, 8)) - 0.5, 0) * np.exp(0.6 * random.standard_normal((48, 1, 1)))
    found[:, ::7] = 0
    return values(random, found)


# ---- classes


def street(random, n, classes, side, rare: bool = True) -> np.ndarray:
    """Logits [n, classes, side, side] of a trained network: sharp inside of regions, undecided at their borders."""
    labels = regions(random, n, classes, side)
    hot = np.eye(classes)[labels].transpose(0, 3, 1, 2)
    around = sum(np.roll(hot, (dy, dx), (2, 3)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    return (12 * around - 5 + 0.7 * random.standard_normal(around.shape)).astype(np.float32)


def classes_of(random, logits, make=lambda found: found, axis: int = 1) -> Kind:
    """Logits with the classes at axis 1; given with them at `axis`."""

    def given(found):
        return np.moveaxis(make(found), 1, axis)

    common = int(np.bincount(logits.argmax(1).ravel(), minlength=logits.shape[1]).argsort()[-2])
    background = logits.copy()
    background[:, 0] += 40
    good = {what: given(found) for what, found in near(random, logits, MAP).items() if what != "noise of 30 dB"}
    bad = {"first class everywhere": background, "one class dead": dead(logits, common, 1, float(logits.min())), "flat": logits * 0.02}
    bad |= {"classes in another order": np.roll(logits, 1, 1), "mirrored": np.flip(logits, 3), "zero": logits * 0, "negative": -logits}
    if len(logits) > 1:
        bad |= {"samples mixed up": np.roll(logits, 1, 0), "constant": mean_of(logits)}
    return of(given(logits), good, {what: given(found) for what, found in bad.items()})


@kind
def street_scene(random, n):
    return classes_of(random, street(random, n, int(random.choice([4, 11, 21])), 28))


@kind
def street_scene_with_channels_last(random, n):
    """Of a model that takes its images channels first."""
    return classes_of(random, street(random, n, 9, 28), axis=3)


@kind
def street_scene_of_log_probabilities(random, n):
    return classes_of(random, street(random, n, 7, 24), lambda found: np.log(softmax(found, 1)))


@kind
def background_and_foreground(random, n):
    """Probabilities of two classes."""
    return classes_of(random, street(random, n, 2, 32), lambda found: softmax(found, 1))


@kind
def foreground_logits(random, n):
    """One channel, of both signs; judged as values or as a mask."""
    found = (smooth(random, n, 1, 32, 32) - 0.6) * 30 + random.standard_normal((n, 1, 32, 32))
    bad = far(found) | {"all background": found - 40, "moved by four": np.roll(found, 4, -1)}
    return of(found, near(random, found, None), bad)


@kind
def labels_of_a_map(random, n):
    """[1, H, W] int32"""
    labels = street(random, n, 13, 32).argmax(1)[:, None]
    rare = np.bincount(labels.ravel(), minlength=13)
    lost = int(np.argsort(rare)[-3])
    border = np.roll(labels, 1, 3) != labels
    good = {"some border pixels": np.where(border & (random.random(labels.shape) < 0.02), np.roll(labels, 1, 3), labels), "same": labels}
    bad = {"first everywhere": labels * 0, "one class dead": np.where(labels == lost, 0, labels), "one more": labels + 1}
    bad |= {"mirrored": np.flip(labels, 3), "other order": 12 - labels}
    if n > 1:
        bad["samples mixed up"] = np.roll(labels, 1, 0)
    return of(labels, good, bad, dtype=np.int32)


@kind
def bytes_of_a_mask(random, n):
    """0 and 255, uint8"""
    found = (smooth(random, n, 28, 28) > 0.65) * 255
    edge = np.roll(found, 1, 2) != found
    good = {"some edges": np.where(edge & (random.random(found.shape) < 0.02), 255 - found, found)}
    bad = {"empty": found * 0, "full": found * 0 + 255, "the other way": 255 - found, "moved by four": np.roll(found, 4, 2)}
    return of(found, good, bad | {"half as bright": found // 2}, dtype=np.uint8)


@kind
def masks_of_instances(random, n):
    """[K, h, w] in 0..1"""
    found = sigmoid((smooth(random, n, 8, 20, 20) - 0.6) * 40)
    bad = far(found, 1) | {"moved by four": np.roll(found, 4, -1)}
    return of(found, near(random, found, MAP), bad)


@kind
def two_tasks(random, n):
    """A class map and a depth map of one network."""
    logits, depth = street(random, n, 6, 24), (1 + 30 * smooth(random, n, 1, 24, 24)).astype(np.float32)
    good = {"noise of 38 dB": {"seg": near(random, logits, MAP)["noise of 38 dB"], "depth": near(random, depth, None)["noise of 38 dB"]}}
    bad = {f"depth: {what}": {"depth": found} for what, found in far(depth).items()}
    bad |= {"seg: flat": {"seg": logits * 0.02}, "seg: first class everywhere": {"seg": logits + 40 * np.eye(6)[0].reshape(6, 1, 1)}}
    return of_several({"seg": logits, "depth": depth}, good, bad)


@kind
def half_precision_depth(random, n):
    return values(random, 2 + 50 * smooth(random, n, 1, 24, 24), dtype=np.float16)
