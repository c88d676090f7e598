"""compare/row_matching.py: rows that belong together."""

import numpy as np

from onnx2trt.compare.row_matching import NEAR, Rows, match


def rows(columns, labels=None) -> Rows:
    columns = np.asarray(columns, np.float64)
    return Rows(columns, np.zeros((len(columns), 0)) if labels is None else np.asarray(labels, np.float64)[:, None], np.ones(len(columns)))


def pairs(reference, found):
    return sorted(zip(*(part.tolist() for part in match(reference, found))))


def test_the_same_rows_in_any_order():
    values = np.random.default_rng(0).standard_normal((50, 3)) * 9
    order = np.random.default_rng(1).permutation(50)
    assert pairs(rows(values), rows(values[order])) == sorted(zip(order.tolist(), range(50)))


def test_the_nearest_goes_first_and_each_row_has_one_partner():
    assert pairs(rows([[0.0], [0.3]]), rows([[0.25], [0.31]])) == [(0, 0), (1, 1)]
    assert pairs(rows([[0.0], [0.0]]), rows([[0.1]])) in ([(0, 0)], [(1, 0)])


def test_far_rows_and_other_labels_are_other_rows():
    assert pairs(rows([[0.0]]), rows([[NEAR * 1.01]])) == [] and pairs(rows([[0.0]]), rows([[NEAR * 0.99]])) == [(0, 0)]
    assert pairs(rows([[0.0]], [1]), rows([[0.0]], [2])) == []
    assert pairs(rows(np.zeros((3, 0)), [1, 2, 3]), rows(np.zeros((2, 0)), [3, 1])) == [(0, 1), (2, 0)]


def test_empty_lists():
    empty = rows(np.zeros((0, 2)))
    assert pairs(empty, rows([[1.0, 2.0]])) == pairs(rows([[1.0, 2.0]]), empty) == pairs(empty, empty) == []
