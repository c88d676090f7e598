"""quant/equalize/relations.py: what a group of channels knows of its members and of their fixed neighbours."""

import numpy as np

from onnx2trt.quant.equalize.relations import FIXED, Group, Place


def test_a_group_reaches_as_far_as_its_members_and_is_anchored_by_their_fixed_neighbours():
    group = Group({"t0": Place(np.array([0, 1, FIXED]), 1, 4), "t1": Place(np.array([FIXED, 1]), 1, 4)}, 2)
    assert group.anchor({"t0": np.array([9.0, 9.0, 2.0]), "t1": np.array([3.0, 9.0])}) == 3.0
    np.testing.assert_array_equal(group.largest({"t0": np.array([1.0, 2.0, 7.0]), "t1": np.array([9.0, 5.0])}), [1, 5])
    np.testing.assert_array_equal(group.largest({}), [-np.inf, -np.inf])
