"""Rows of two lists that belong together, whatever their order: detections, indices of the best, points. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 0.5  # standard deviations: rows further apart, in the root mean square of their columns, are other rows


@dataclass(frozen=True)
class Rows:
    """One list."""

    columns: np.ndarray  # [rows, columns] float64, each in units of its standard deviation
    labels: np.ndarray  # [rows, labels] of whole numbers, which have to be the same
    weights: np.ndarray  # [rows], not negative

    def __len__(self) -> int:
        return len(self.weights)


def match(reference: Rows, found: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the reference, rows of what was found) that belong together, nearest first, each at most once."""
    if not len(reference) or not len(found):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    pairs = _in_place(reference, found)
    free = [np.ones(len(rows), bool) for rows in (reference, found)]
    if len(pairs):
        free[0][pairs[:, 0]], free[1][pairs[:, 1]] = False, False
    left = [np.flatnonzero(one) for one in free]
    if all(one.size for one in left):
        near = _near(reference, found, *left)
        taken = [np.zeros(one.size, bool) for one in left]
        for a, b in near:
            if not taken[0][a] and not taken[1][b]:
                taken[0][a] = taken[1][b] = True
                pairs = np.concatenate([pairs, [[left[0][a], left[1][b]]]])
    return pairs[:, 0], pairs[:, 1]


def _in_place(reference: Rows, found: Rows) -> np.ndarray:
    """[pairs, 2] of rows that are all but the same at the same place, as nearly all of them are."""
    count = min(len(reference), len(found))
    same = (reference.labels[:count] == found.labels[:count]).all(1)
    same &= _mean_square(reference.columns[:count] - found.columns[:count]) < (NEAR / 10) ** 2
    return np.repeat(np.flatnonzero(same)[:, None], 2, 1)


def _near(reference: Rows, found: Rows, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[pairs, 2] as places in `rows` and `others`, nearest first."""
    distance = np.zeros((rows.size, others.size))
    for column in range(reference.columns.shape[1]):
        distance += np.subtract.outer(reference.columns[rows, column], found.columns[others, column]) ** 2
    distance /= max(reference.columns.shape[1], 1)
    for label in range(reference.labels.shape[1]):
        distance[np.not_equal.outer(reference.labels[rows, label], found.labels[others, label])] = np.inf
    a, b = np.nonzero(distance < NEAR**2)
    order = np.argsort(distance[a, b], kind="stable")
    return np.stack([a[order], b[order]], 1)


def _mean_square(values: np.ndarray) -> np.ndarray:
    """Of each row; 0 where there are no columns."""
    return (values**2).mean(1) if values.shape[1] else np.zeros(len(values))
