"""Images and other maps of values."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, dead, kind, mean_of, single, smooth, usual


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


@kind
def image_of_a_still_camera(random, n):
    """A tenth of the contrast is what moves."""
    still = smooth(random, 1, 3, 20, 20) * 0.8 + 0.1
    return of_image(random, still + (smooth(random, n, 3, 20, 20) - 0.5) * 0.09)


@kind
def features_over_time(random, n):
    """[C, T] with channels of unlike loudness."""
    values = (random.standard_normal((n, 40, 60)) * np.exp(0.8 * random.standard_normal((40, 1)))).astype(np.float32)
    bad = {"zero": values * 0, "constant": mean_of(values), "half": values / 2, "shuffled": values[:, ::-1].copy()}
    return single(values, usual(random, values, (0, 2)), bad | {"negative": -values})


@kind
def half_precision_image(random, n):
    """FP16 outputs."""
    made = of_image(random, smooth(random, n, 3, 20, 20) * 0.7 + np.array([0.2, 0.1, 0.0]).reshape(3, 1, 1))
    for samples in (made.reference, *made.harmless.values(), *made.harmful.values()):
        for sample in samples:
            sample["y"] = sample["y"].astype(np.float16)
    return made
