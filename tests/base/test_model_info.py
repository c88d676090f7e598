"""base/model_info.py: several optimization profiles as one that spans them."""

import numpy as np
import pytest

from onnx2trt.base.model_info import Profile, groups_of, spanning


def profile(*bounds, name="x", values=None):
    return Profile(name, *bounds, values)


def test_one_profile_is_itself():
    alone = (profile((1,), (2,), (4,)),)
    assert spanning([alone]) == alone and groups_of(alone) == (alone,)
    assert groups_of(()) == ((),)


@pytest.mark.parametrize("seed", range(20))
def test_what_spans_takes_what_any_of_them_takes(seed):
    chosen = np.random.default_rng(seed)
    groups = [
        tuple(profile(*map(tuple, np.sort(chosen.integers(0, 9, (3, 2)), axis=0).tolist()), name=name) for name in "xy")
        for _ in range(chosen.integers(2, 5))
    ]
    spanned = spanning(groups)
    assert [entry.name for entry in spanned] == ["x", "y"] and list(groups_of(spanned)) == groups
    for index, entry in enumerate(spanned):
        assert entry.opt == groups[0][index].opt, "usual as in the first"
        for shape in np.ndindex(9, 9):
            assert entry.takes(shape) or not any(group[index].takes(shape) for group in groups)
        assert entry.takes(entry.min) and entry.takes(entry.max) and not entry.takes((*entry.max, 1))


def test_values_that_decide_about_shapes_are_spanned_too():
    groups = [(profile((2,), (2,), (2,), values=((1, 4), (2, 5), (3, 6))),), (profile((2,), (2,), (2,), values=((0, 5), (9, 9), (9, 9))),)]
    assert spanning(groups)[0].values == ((0, 4), (2, 5), (9, 9))
    assert spanning([groups[0], (profile((2,), (2,), (2,)),)])[0].values is None
