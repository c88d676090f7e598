"""quant/equalize/relations.py: what a group of channels knows of its members and of their fixed neighbours."""

import numpy as np

from onnx2trt.quant.equalize.relations import FIXED, Group, Place


def test_a_group_reaches_as_far_as_its_members_and_is_anchored_by_their_fixed_neighbours():
    group = Group({"t0": Place(np.array([0, 1, FIXED]), 1, 4), "t1": Place(np.array([FIXED, 1]), 1, 4)}, 2)
    assert group.anchor({"t0": np.array([9.0, 9.0, 2.0]), "t1": np.array([3.0, 9.0])}) == 3.0
    np.testing.assert_array_equal(group.largest({"t0": np.array([1.0, 2.0, 7.0]), "t1": np.array([9.0, 5.0])}), [1, 5])
    np.testing.assert_array_equal(group.largest({}), [-np.inf, -np.inf])


def test_reaches_are_compared_within_tensors():
    """Each has an INT8 scale of its own: that one is a hundred times the other says nothing about the channels."""
    group = Group({"t0": Place(np.arange(3), 1, 4), "t1": Place(np.arange(3), 1, 4)}, 3)
    reach = np.array([1.0, 4.0, 2.0])
    found = group.relative({"t0": reach, "t1": 100 * reach})
    np.testing.assert_allclose(found["t0"], found["t1"])
    np.testing.assert_allclose(found["t0"] / found["t0"][0], reach)
    apart = group.relative({"t0": reach, "t1": 100 * reach[::-1]})
    np.testing.assert_allclose(np.log(apart["t0"]).mean(), np.log(apart["t1"]).mean())


def test_tensors_that_agree_keep_what_their_channels_differ_by():
    parts = {"small": Place(np.array([0, 1]), 1, 4), "large": Place(np.array([2, 3]), 1, 4), "joined": Place(np.arange(4), 1, 4)}
    reaches = {"small": np.array([1.0, 2.0]), "large": np.array([50.0, 90.0]), "joined": np.array([1.0, 2.0, 50.0, 90.0])}
    found = Group(parts, 4).relative(reaches)
    for name, values in reaches.items():
        np.testing.assert_allclose(found[name], values)


def test_channels_without_values_take_no_part_in_the_comparison():
    group = Group({"t0": Place(np.array([0, 1, FIXED]), 1, 4), "t1": Place(np.arange(2), 1, 4)}, 2)
    found = group.relative({"t0": np.array([0.0, 3.0, 7.0]), "t1": np.array([5.0, -np.inf])})
    np.testing.assert_allclose(found["t0"], [0.0, 3.0, 7.0])
    np.testing.assert_allclose(found["t1"], [5.0, -np.inf])
    assert group.relative({}) == {}
