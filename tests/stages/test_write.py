"""stages/write.py: how much of an engine its weights are."""

import numpy as np
from models import random

from onnx2trt.stages.write import distinct_bytes


def test_equal_weights_count_once():
    first = random(64, 64)
    other = first.copy()
    other.flat[5] += 1  # not among the values that are looked at first
    half = first.astype(np.float16)
    arrays = [first, first.copy(), other, half, first.reshape(4, 1024), np.zeros(3, np.float32), np.zeros(3, np.float32), np.float32(2)]
    assert distinct_bytes(map(np.asarray, arrays)) == 3 * first.nbytes + half.nbytes + 12 + 4
    assert distinct_bytes([]) == 0
