"""Values of a sample: regressions, embeddings, features."""

from __future__ import annotations

import numpy as np

from verdicts.base import Kind, dead, kind, mean_of, single, usual


def regression(random, values: np.ndarray) -> Kind:
    """[n, features], each of its own scale."""
    values = values.astype(np.float32)
    bad = {"stuck at the mean": mean_of(values), "half": values / 2, "zero": values * 0, "far too small": values * 0 + values.min(0) * 0.35}
    if values.shape[1] > 1 and len(values) > 3:  # three may be near to their mean by chance
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
