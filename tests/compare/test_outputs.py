"""compare/outputs.py: how outputs become samples."""

import numpy as np
from models import random

from onnx2trt.compare.outputs import Comparison
from onnx2trt.data.reader import Batch


def row(expected, found, rows, metric="auto"):
    """The comparison of one output of one inference."""
    batch = Batch({}, rows, rows, ("a.npz",) * max(rows, 1))
    return Comparison(("y",), metric).compare(lambda _: {"y": expected}, lambda _: {"y": found}, [batch], origin="data")[0]


def test_classes_are_compared_along_their_own_axis_where_inputs_have_no_common_batch():
    expected = random(1, 3, 8, 8)
    assert row(expected, -expected, rows=0).drop_percent > 90
    assert row(expected, -expected, rows=1).drop_percent > 90


def test_the_first_axis_counts_samples_for_top1():
    expected = np.eye(6, 5, dtype=np.float32)
    found = expected.copy()
    found[0] = [0, 1, 0, 0, 0]
    for rows in (0, 1, 6):
        accuracy = row(expected, found, rows, metric="top1")
        assert accuracy.samples == 6 and abs(accuracy.drop_percent - 100 / 6) < 1e-9


def test_argmax_over_the_last_axis_of_a_sequence():
    expected = random(1, 20, 7)
    found = expected.copy()
    found[0, :5] *= -1
    accuracy = row(expected, found, rows=1, metric="argmax")
    assert accuracy.metric == "argmax" and abs(accuracy.drop_percent - 25) < 1e-9
