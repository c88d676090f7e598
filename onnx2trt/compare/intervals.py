"""How well few samples tell a share or an error: intervals of 95 %, and what can be said to be shown. Pure."""

from __future__ import annotations

import math

import numpy as np

Z = 1.96  # of the standard normal distribution: 95 % lie between -Z and Z
BOOTSTRAP_ROUNDS = 200
# The 95 % quantile of F(n, n - 1): by this factor the ratio of a mean square of n values to a variance that is estimated from as many
# exceeds the true one in one of twenty cases. From 30 values on, Z_ONE_SIDED * sqrt(4 / n) is its logarithm, within 2 %.
F_QUANTILES = (
    (3, 19.16), (4, 9.12), (5, 6.26), (6, 4.95), (7, 4.21), (8, 3.73), (10, 3.14), (12, 2.79), (15, 2.46), (20, 2.16), (30, 1.85)
)  # fmt: skip
Z_ONE_SIDED = 1.645
FEW, ENOUGH = 200.0, 800.0  # decisions or values
MOST_ALLOWED = 50.0  # two values would allow an error of 200 times the limit, and nothing at all would be seen


def wilson(missed: float, total: float) -> tuple[float, float]:
    """(low, high) in percent: between these lies the true share, where `missed` of `total` were counted.

    Wilson (1927), which holds for small counts and near 0, too: 0 of 20 is 0 to 16 %.
    """
    if total <= 0:
        return 0.0, 100.0
    share, spread = missed / total, Z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return 100 * max(middle - half, 0.0), 100 * min(middle + half, 1.0)


def enough(count) -> np.ndarray:
    """0 where so many decisions or values are few, and only what they show counts; 1 where they are enough, and the drop itself counts.

    Where nothing differs, 200 decisions show a drop below 2 %, and 800 one below 0.5 %.
    """
    return np.clip(np.log(np.maximum(count, 1.0) / FEW) / np.log(ENOUGH / FEW), 0.0, 1.0)


def shown_share(missed: float, total: float) -> float:
    """What `missed` of `total` show at least, in percent; one of several shows nothing, for it may be chance."""
    if total <= 0:
        return 0.0
    low = 0.0 if missed <= 1 < total else wilson(missed, total)[0]
    return low + (100 * missed / total - low) * float(enough(total))


def allowance(count) -> np.ndarray:
    """The factor by which an error in shares of a variance may be above the truth, where `count` values tell both.

    Args:
        count: one or several, as effective_count of slices.Moments.
    """
    counts = np.maximum(np.asarray(count, np.float64), 2.0)
    known, quantiles = np.array(F_QUANTILES, np.float64).T
    few = np.exp(np.interp(np.log(counts), np.log([2.0, *known]), np.log([199.5, *quantiles])))
    found = np.where(counts < known[-1], few, np.exp(Z_ONE_SIDED * np.sqrt(4 / counts)))
    return np.minimum(found, MOST_ALLOWED) ** (1 - enough(counts))


def bootstrap(drop, count: int) -> np.ndarray | None:
    """The drops of samples drawn with replacement, fixed seed; None for a single sample.

    Args:
        drop: indices of samples [rounds, count] -> drops [rounds], in percent.
    """
    if count < 2:
        return None
    return np.asarray(drop(np.random.default_rng(0).integers(0, count, (BOOTSTRAP_ROUNDS, count))))


def percentiles(drops: np.ndarray | None) -> tuple[float, float] | None:
    """The middle 95 % of bootstrapped drops."""
    return None if drops is None else tuple(float(value) for value in np.percentile(drops, (2.5, 97.5)))
