"""quant/rare.py: samples whose values narrow scales cut off."""

import numpy as np
import pytest

from onnx2trt.quant.rare import FACTOR, MOST_RARE, may_be_rare, rare


def peaks(*rows, names="ab"):
    return [dict(zip(names, row)) for row in rows]


def test_it_is_those_beyond_the_narrow_scale_and_beyond_what_is_usual():
    usual = [(1.0, 9.0)] * 8
    seen = peaks(*usual, (4.0, 9.0), (1.0, 10.0), (3.0, 9.0), (0.1, 20.0))
    assert rare(seen, {"a": 1.0, "b": 2.0}) == [8, 10, 11], "a tensor that all samples have cut off alike tells none from another"
    assert rare(seen, {"a": 5.0, "b": 30.0}) == [], "nothing is cut off"
    assert rare(seen, {"b": 2.0}) == [11]


def test_a_tensor_that_is_silent_in_most_samples():
    assert rare(peaks(*[(0.0,)] * 9, (7.0,)), {"a": 2.0}) == [9]
    assert rare(peaks(*[(0.0,)] * 9, (0.0,)), {"a": 0.0}) == []
    assert rare([{}, {"a": 9.0}, {}], {"a": 1.0}) == [1], "some are made for few samples"


def test_it_is_a_few_at_the_most():
    assert rare(peaks(*[(1.0,)] * 40, *[(10.0 + n,) for n in range(10)]), {"a": 1.0}) == [49, 48, 47, 46][:MOST_RARE]
    assert rare([], {"a": 1.0}) == rare(peaks((1.0,)), {}) == []


@pytest.mark.parametrize("seed", range(5))
def test_samples_of_one_kind_are_not_rare(seed):
    """The largest of 1000 normal values, in 100 samples."""
    draw = np.random.default_rng(seed)
    table = np.abs(draw.standard_normal((100, 3, 1000))).max(2) * [1, 10, 0.1]
    narrow = {name: float(np.median(table[:, at]) * 0.8) for at, name in enumerate("abc")}
    assert FACTOR < 2 and rare(peaks(*table, names="abc"), narrow) == []


@pytest.mark.parametrize("seed", range(20))
def test_whether_there_may_be_rare_ones_is_told_without_scales(seed):
    draw = np.random.default_rng(seed)
    seen = peaks(*np.abs(draw.standard_normal((12, 2))) ** draw.uniform(0, 1.5) * [1, 5])
    scales = [dict(zip("ab", draw.uniform(0.01, 9, 2))) for _ in range(20)]
    assert may_be_rare(seen) or not any(rare(seen, one) for one in scales)
    assert not may_be_rare(peaks(*[(1.0, 2.0)] * 9)) and may_be_rare(peaks(*[(1.0, 2.0)] * 9, (1.0, 4.0)))
