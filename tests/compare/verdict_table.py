"""Kinds of outputs with candidates that are good and candidates that are ruined, made by random numbers: what a verdict has to tell apart.

Every kind is a function of a random generator and a number of samples that gives the reference's outputs and candidates for them. A
harmless candidate differs as good INT8 or FP16 does: by 30 dB and less of what each quantity tells. A harmful one has lost something that
a user would miss. `python tests/compare/verdict_table.py` prints the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from onnx2trt.compare.accuracy import Accuracy, worst_of
from onnx2trt.compare.outputs import Comparison
from onnx2trt.data.reader import Batch

LIMIT = 1.0  # percent, the default
Outputs = dict[str, np.ndarray]  # of one sample, without the batch axis
NOISE_DB = (30.0, 36.0, 45.0)


@dataclass
class Kind:
    """Samples of the reference, and candidates."""

    reference: list[Outputs]
    harmless: dict[str, list[Outputs]] = field(default_factory=dict)
    harmful: dict[str, list[Outputs]] = field(default_factory=dict)
    feeds: dict[str, str] = field(default_factory=dict)  # output -> input that it feeds, of models with a state
    batched: bool = True  # the first axis of the outputs is the batch


KINDS: dict[str, Callable[[np.random.Generator, int], Kind]] = {}


def kind(make):
    KINDS[make.__name__] = make
    return make


# ---- candidates


def outputs(**arrays) -> list[Outputs]:
    """Arrays with all samples along the first axis -> outputs of each sample."""
    count = len(next(iter(arrays.values())))
    return [{name: np.asarray(array[index]) for name, array in arrays.items()} for index in range(count)]


def spread(values: np.ndarray, axes) -> np.ndarray:
    """Standard deviation over the samples and `axes`, to be broadcast; of a quantity that never changes a hundredth of its size."""
    found = values.std(axes, keepdims=True)
    return np.where(found > 0, found, 0.01 * np.abs(values).mean() + 1e-6)


def noisy(random, values: np.ndarray, db: float, axes) -> np.ndarray:
    """Independent noise of 10^(-db/20) of each quantity's standard deviation; zeros stay what a ReLU makes of them."""
    found = values + random.standard_normal(values.shape) * spread(values, axes) * 10 ** (-db / 20)
    return np.where(values == 0, 0, found).astype(np.float32)


def half(values: np.ndarray) -> np.ndarray:
    """As FP16 has it."""
    return values.astype(np.float16).astype(np.float32)


def rounded(values: np.ndarray, axes) -> np.ndarray:
    """To 8 bits of each quantity's range, as an INT8 tensor with a scale for each channel."""
    scale = np.maximum(np.abs(values).max(axes, keepdims=True), 1e-9) / 127
    return (np.rint(values / scale) * scale).astype(np.float32)


def usual(random, values: np.ndarray, axes) -> dict[str, np.ndarray]:
    """Candidates as good INT8 and FP16 make them."""
    found = {f"noise of {db:g} dB": noisy(random, values, db, axes) for db in NOISE_DB}
    return found | {"FP16": half(values)}


def smooth(random, *shape) -> np.ndarray:
    """Random numbers in 0..1 that vary smoothly over the last two axes."""
    *first, height, width = shape
    coarse = random.random((*first, max(height // 4, 2) + 1, max(width // 4, 2) + 1))
    rows = np.linspace(0, coarse.shape[-2] - 1.001, height)
    columns = np.linspace(0, coarse.shape[-1] - 1.001, width)
    y, x = rows.astype(int), columns.astype(int)
    fy, fx = (rows - y)[:, None], columns - x
    upper = coarse[..., y, :][..., x] * (1 - fx) + coarse[..., y, :][..., x + 1] * fx
    lower = coarse[..., y + 1, :][..., x] * (1 - fx) + coarse[..., y + 1, :][..., x + 1] * fx
    return (upper * (1 - fy) + lower * fy).astype(np.float32)


def softmax(values: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(values - values.max(axis, keepdims=True))
    return (powers / powers.sum(axis, keepdims=True)).astype(np.float32)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-values))).astype(np.float32)


def dead(values: np.ndarray, index, axis: int, by: float = 0.0) -> np.ndarray:
    """One slice lost."""
    found = values.copy()
    np.moveaxis(found, axis, 0)[index] = by
    return found


def alive(values: np.ndarray, axis: int, axes) -> int:
    """The slice that tells most of those that are not the most: some class that occurs, but not the largest."""
    energy = values.var(axes)
    order = np.argsort(energy)
    return int(order[-2]) if len(order) > 1 else int(order[-1])


def mean_of(values: np.ndarray) -> np.ndarray:
    """The same answer for every sample: the best one."""
    return np.broadcast_to(values.mean(0, keepdims=True), values.shape).astype(values.dtype).copy()


def single(values: np.ndarray, usual_ones: dict, harmful: dict, name: str = "y") -> Kind:
    """A kind with one output."""
    return Kind(
        outputs(**{name: values}),
        {what: outputs(**{name: found}) for what, found in usual_ones.items()},
        {what: outputs(**{name: found}) for what, found in harmful.items()},
    )


# ---- classes


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


# ---- values of a sample


def regression(random, values: np.ndarray) -> Kind:
    """[n, features], each of its own scale."""
    values = values.astype(np.float32)
    bad = {"stuck at the mean": mean_of(values), "half": values / 2, "zero": values * 0, "far too small": values * 0 + values.min(0) * 0.35}
    if values.shape[1] > 1:
        bad["one feature lost"] = dead(values, 1, 1, float(values[:, 1].mean()) if values[:, 1].std() else 0.0)
        bad["features swapped"] = values[:, ::-1]
    return single(values, usual(random, values, 0), bad)


@kind
def regression_of_two(random, n):
    return regression(random, np.stack([176 + 32 * random.random(n), 140 + 60 * random.random(n)], 1))


@kind
def regression_of_one(random, n):
    return regression(random, 40 + 12 * random.standard_normal((n, 1)))


@kind
def regression_in_large_units(random, n):
    """As kelvins: it varies by little of its size."""
    return regression(random, 300 + 6 * random.standard_normal((n, 1)))


@kind
def regression_of_mixed_units(random, n):
    columns = (40 + 12 * random.standard_normal(n), random.random(n), random.standard_normal(n) * 0.3, 320 * random.random(n))
    return regression(random, np.stack([*columns, random.standard_normal(n) * 1e-3], 1))


@kind
def embedding_of_length_one(random, n):
    size = int(random.choice([64, 128, 512]))
    values = random.standard_normal((n, size)) * np.exp(0.3 * random.standard_normal(size))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    turned = values @ np.linalg.qr(random.standard_normal((size, size)))[0]
    largest = np.where(values == values.max(1, keepdims=True), values, 0)
    bad = {"turned": turned.astype(np.float32), "zero": values * 0, "constant": mean_of(values), "only the largest": largest}
    return single(values, usual(random, values, 0), bad | {"negative": -values})


@kind
def features_after_a_relu(random, n):
    values = np.maximum(random.standard_normal((n, 256)) * np.exp(0.5 * random.standard_normal(256)) - 0.3, 0).astype(np.float32)
    bad = {"zero": values * 0, "constant": mean_of(values), "half": values / 2, "shuffled": values[:, ::-1].copy()}
    return single(values, usual(random, values, 0), bad)


# ---- images and maps


def of_image(random, values: np.ndarray, channel: int = 1) -> Kind:
    """[n, C, H, W] or [n, H, W, C]."""
    axes = tuple(axis for axis in range(values.ndim) if axis != channel)
    values = values.astype(np.float32)
    bad = {
        "half the brightness": values / 2,
        "constant": mean_of(values),
        "grey": np.full_like(values, values.mean()),
        "zero": values * 0,
        "negative": (values.max() + values.min()) - values,
        "upside down": np.flip(values, axes[1]).copy(),
    }
    if values.shape[channel] > 1:
        bad["channels swapped"] = np.flip(values, channel).copy()
        bad["one channel lost"] = dead(values, 1, channel)
    return single(values, usual(random, values, axes), bad)


@kind
def image(random, n):
    side = int(random.choice([16, 24, 40]))
    tint = np.array([0.3, 0.1, 0.0]).reshape(3, 1, 1)
    return of_image(random, smooth(random, n, 3, side, side) * 0.6 + tint)


@kind
def image_with_channels_last(random, n):
    return of_image(random, (smooth(random, n, 3, 20, 24) * 0.6 + np.array([0.3, 0.1, 0.0]).reshape(3, 1, 1)).transpose(0, 2, 3, 1), 3)


@kind
def image_of_pixels(random, n):
    return of_image(random, smooth(random, n, 3, 24, 24) * 120 + np.array([100, 60, 20]).reshape(3, 1, 1))


@kind
def image_around_zero(random, n):
    return of_image(random, smooth(random, n, 3, 24, 24) * np.array([1.5, 1, 0.7]).reshape(3, 1, 1) - 0.5)


@kind
def image_of_bytes(random, n):
    values = np.rint(smooth(random, n, 3, 24, 24) * 150 + np.array([100, 60, 20]).reshape(3, 1, 1)).astype(np.uint8)
    good = {"off by one": values + random.integers(0, 2, values.shape).astype(np.uint8), "the same": values}
    bad = {"half the brightness": values // 2, "constant": mean_of(values), "channels swapped": values[:, ::-1].copy(), "zero": values * 0}
    return single(values, good, bad)


@kind
def latents(random, n):
    return of_image(random, random.standard_normal((n, 4, 16, 16)) * np.array([1, 0.8, 1.2, 0.6]).reshape(4, 1, 1))


@kind
def depth(random, n):
    return of_image(random, 2 + 40 * smooth(random, n, 1, 24, 32) ** 2)


@kind
def depth_within_one(random, n):
    return of_image(random, smooth(random, n, 1, 16, 16))


@kind
def flow_and_uncertainty(random, n):
    scale = np.array([20, 8, 0.02]).reshape(3, 1, 1)
    return of_image(random, (smooth(random, n, 3, 24, 24) - 0.4) * scale)


@kind
def distance_heads(random, n):
    """Two channels of which the first is always the larger."""
    values = smooth(random, n, 2, 16, 16) * np.array([1, -1]).reshape(2, 1, 1) * 5
    return of_image(random, values)


@kind
def heatmaps(random, n):
    side, count = 32, 17
    rows, columns = np.mgrid[:side, :side]
    y, x = (random.integers(2, side - 2, (n, count, 1, 1)) for _ in range(2))
    peak = random.uniform(0.5, 1, (n, count, 1, 1))
    values = (peak * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 6)).astype(np.float32)
    bad = {"scores lost": values * 0.4, "one point lost": dead(values, 5, 1), "constant": mean_of(values), "zero": values * 0}
    return single(values, usual(random, values, (0, 2, 3)), bad | {"shifted by four": np.roll(values, 4, 3)})


@kind
def sound(random, n):
    size = int(random.choice([2000, 8000]))
    time = np.arange(size) / 100
    values = random.random((n, 1)) * np.sin(time * random.uniform(1, 9, (n, 1))) * (time > time.max() / 3)
    values = values.astype(np.float32)
    good = usual(random, values, None)
    return single(values, good, {"silence": values * 0, "half as loud": values / 2, "negative": -values, "constant": mean_of(values)})


@kind
def grid_mostly_empty(random, n):
    values = np.zeros((n, 8, 16, 16))
    cells = random.random((n, 1, 16, 16)) < 0.08
    values = np.where(cells, np.maximum(random.standard_normal(values.shape) + 0.5, 0), 0).astype(np.float32)
    bad = {"zero": values * 0, "half": values / 2, "one channel lost": dead(values, 3, 1), "constant": mean_of(values)}
    return single(values, usual(random, values, (0, 2, 3)), bad)


@kind
def grid_of_an_empty_scene(random, n):
    """Nothing but a bias in most samples, and a few cells."""
    values = np.full((n, 4, 12, 12), -0.3) + np.array([0, 0.1, 0.2, 0.3]).reshape(4, 1, 1)
    values = values + (random.random((n, 1, 12, 12)) < 0.03) * random.standard_normal(values.shape) * 2
    values = values.astype(np.float32)
    bad = {"constant": mean_of(values), "one channel lost": dead(values, 1, 1, float(values[:, 1].mean())), "zero": values * 0}
    return single(values, usual(random, values, (0, 2, 3)), bad)


# ---- class maps and masks


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


# ---- sequences


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


# ---- detectors


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


# ---- lists


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


# ---- states


@dataclass
class Stateful:
    """A model with a state, as functions of (inputs, state) -> (output, state)."""

    inputs: np.ndarray  # [n, features]
    state: np.ndarray  # [features], at the start
    reference: Callable
    harmless: dict[str, Callable]
    harmful: dict[str, Callable]


@kind
def recurrent_state(random, n):
    size = 24
    turn = np.linalg.qr(random.standard_normal((size, size)))[0] * 0.8
    given, read = random.standard_normal((size, 6)), random.standard_normal((4, size)) / np.sqrt(size)

    def step(turn=turn, given=given, loss=0.0, bias=0.0, noise=0.0):
        def run(x, state):
            new = np.tanh(state @ turn.T + x @ given.T * 0.5) * (1 - loss) + bias
            new = new + random.standard_normal(new.shape) * noise
            return (new @ read.T).astype(np.float32), new.astype(np.float32)

        return run

    close = {"INT8 weights": step(rounded(turn, 1), rounded(given, 1)), "noise of 40 dB in the state": step(noise=0.005)}
    bad = {
        "state lost": step(turn * 0),
        "drifting by 5 % a step": step(bias=0.05),
        "noise of 10 dB": step(noise=0.2),
        "half": step(loss=0.5),
    }
    return Stateful(random.standard_normal((n, 6)).astype(np.float32), np.zeros(size, np.float32), step(), close, bad)


@kind
def slowly_drifting_state(random, n):
    """Single steps differ by 30 dB, and a hundred of them by the whole."""
    size = 16

    def step(keep=0.97, bias=0.0):
        def run(x, state):
            new = keep * state + (1 - keep) * 4 * x + bias
            return np.tanh(new).astype(np.float32)[:, :4], new.astype(np.float32)

        return run

    return Stateful(
        random.standard_normal((n, size)).astype(np.float32),
        np.zeros(size, np.float32),
        step(),
        {"FP16": step(0.97, 1e-5)},
        {"drift": step(0.97, 0.012)},
    )


# ---- the table


VIEWS = {"mask": {"image": (32, 32)}, "image_with_channels_last": {"channels_last": True}}


def made(name: str, seed: int, n: int) -> Kind | Stateful:
    """One kind's samples and candidates, the same for the same seed."""
    return KINDS[name](np.random.default_rng([seed, n, *name.encode()]), n)


def candidates(found: Kind | Stateful) -> Iterator[tuple[bool, str, object]]:
    """(harmless, what it is, the candidate)"""
    yield from ((True, what, candidate) for what, candidate in found.harmless.items())
    yield from ((False, what, candidate) for what, candidate in found.harmful.items())


def compared(name: str, found: Kind | Stateful, candidate, batch: int = 1) -> tuple[Accuracy, ...]:
    """The rows of the verdict on one candidate.

    Args:
        batch: samples of one inference; lists of any length come one by one.
    """
    if isinstance(found, Stateful):
        return _compared_with_state(found, candidate)
    outputs, size = tuple(found.reference[0]), batch if found.batched else 1
    places = range(0, len(found.reference), size)

    def run(samples):
        def runner(given: Batch):
            rows = [samples[min(given.arrays["at"] + row, len(samples) - 1)] for row in range(size)]
            return rows[0] if not found.batched else {output: np.stack([row[output] for row in rows]) for output in outputs}

        return runner

    def batches():
        for at in places:
            real = min(size, len(found.reference) - at)
            yield Batch({"at": at}, size, real, tuple(f"{index}.npz" for index in range(at, at + real)))

    unbatched = frozenset() if found.batched else frozenset(outputs)
    comparison = Comparison(outputs, unbatched=unbatched, **VIEWS.get(name, {}))
    return comparison.compare(run(found.reference), run(candidate), batches(), "data")


def _compared_with_state(found: Stateful, candidate) -> tuple[Accuracy, ...]:
    def run(step):
        def runner(given: Batch):
            output, state = step(given.arrays["x"], given.arrays["h_in"])
            return {"y": output, "h_out": state}

        return runner

    batches = [Batch({"x": x[None], "h_in": found.state[None]}, 1, 1, (f"{index}.npz",)) for index, x in enumerate(found.inputs)]
    comparison = Comparison(("y", "h_out"), states={"h_out": "h_in"})
    return comparison.compare(run(found.reference), run(candidate), batches, "data")


@dataclass
class Line:
    """One kind in the table."""

    name: str
    kinds: set[str] = field(default_factory=set)
    good: list[tuple[float, float]] = field(default_factory=list)  # (drop in percent, excess) of harmless candidates
    bad: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def judged(name: str, seeds, counts, batch: int = 1) -> Line:
    """All candidates of one kind, for several seeds and numbers of samples."""
    line = Line(name)
    for n in counts:
        for seed in seeds:
            found = made(name, seed, n)
            for harmless, what, candidate in candidates(found):
                rows = compared(name, found, candidate, batch)
                worst = worst_of(rows, LIMIT)
                line.kinds |= {row.kind for row in rows}
                (line.good if harmless else line.bad).append((worst.drop_percent, worst.excess(LIMIT)))
                if (worst.excess(LIMIT) <= 1) != harmless:
                    line.wrong.append(f"{'false alarm' if harmless else 'miss'}: {name}, {n} samples, seed {seed}, {what}: {worst}")
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description="The verdict table: kinds of outputs, harmless and harmful candidates.")
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, nargs="+", default=[3, 20, 200])
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    print("| output | taken for | harmless: drop up to | above the limit by | harmful: drop from | above the limit by |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name in args.kinds:
        line = judged(name, range(args.seeds), args.samples, args.batch)
        good, bad = np.array(line.good), np.array(line.bad)
        cells = (f"{good[:, 0].max():.2f} %", f"{good[:, 1].max():.2f}", f"{bad[:, 0].min():.3g} %", f"{bad[:, 1].min():.3g}")
        print(f"| {name.replace('_', ' ')} | {', '.join(sorted(line.kinds))} | {' | '.join(cells)} |", flush=True)
        for text in line.wrong:
            print(text, flush=True)


if __name__ == "__main__":
    main()
