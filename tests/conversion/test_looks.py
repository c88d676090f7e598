"""conversion/looks.py: what the first of the samples tell of a choice, next to one that was measured on all."""

from dataclasses import replace

import numpy as np
import pytest

from onnx2trt.compare.accuracy import Accuracy
from onnx2trt.conversion.looks import MOST_KEPT, Looks, expected_ratio

ROW = Accuracy("simulated", "data", "y", "values", 2.0, None, 17.0, 0.1, 0, 20, None, None, False, "values")


def table(seed=0, samples=20, slices=30):
    """Samples and slices that lose more than others, whatever the choice; the first column is that of all slices."""
    state = np.random.default_rng(seed)
    lost = state.lognormal(0, 1, (samples, 1)) * state.lognormal(0, 0.5, (1, slices)) * state.lognormal(0, 0.3, (samples, slices))
    return np.hstack([lost.max(1, keepdims=True), lost])


@pytest.mark.parametrize("seed", range(10))
def test_what_loses_the_same_share_everywhere_is_told_exactly(seed):
    whole = table(seed)
    assert expected_ratio(0.4 * whole[:4], whole) == pytest.approx(0.4)
    assert expected_ratio(0.0 * whole[:4], whole) == 0.0


def test_it_is_nearer_than_the_first_samples_alone():
    """Of choices that differ by chance, too."""
    off, alone = [], []
    for seed in range(50):
        whole, chance = table(seed), np.random.default_rng(1000 + seed).lognormal(-1, 0.3, (20, 31))
        lost = chance * whole
        true = lost[:, 1:].mean(0).max() / whole[:, 1:].mean(0).max()
        off.append(np.log(expected_ratio(lost[:4], whole) / true))
        alone.append(np.log(lost[:4, 1:].mean(0).max() / whole[:, 1:].mean(0).max() / true))
    assert np.std(off) < 0.1 < 3 * np.std(off) < np.std(alone)


@pytest.mark.parametrize(
    "lost, whole",
    [
        (table()[:20], table()),  # all samples: that is a measurement
        (table()[:0], table()),
        (table(slices=29)[:4], table()),  # judged along another axis
        (table()[:4, :1], table()[:, :1]),  # no slices are known
        (table()[:4], np.vstack([0.0 * table()[:4], table()[4:]])),  # it lost nothing there
        (table()[:4], 0.0 * table()),
    ],
)
def test_samples_that_do_not_tell_are_not_asked(lost, whole):
    assert expected_ratio(lost, whole) is None


def test_the_choice_that_gave_up_as_many_layers_is_compared_with():
    looks = Looks()
    assert looks.near(("a",)) is None
    looks.add((), (ROW,), {"y": table()})
    looks.add(("a", "b", "c"), (replace(ROW, drop_percent=1.0),), {"y": 0.5 * table()})
    assert looks.near(("a",)) == () and looks.near(("a", "b")) == ("a", "b", "c")
    ((row, ratio),) = looks.rows(("a", "b", "c"), {"y": table()[:4]})
    assert row.drop_percent == 1.0 and ratio == pytest.approx(2.0)
    assert looks.rows((), {"y": table(slices=2)[:4]}) is None


@pytest.mark.parametrize("row", [replace(ROW, metric="top1"), replace(ROW, steps=20)])
def test_decisions_and_states_are_not_told_by_a_few_samples(row):
    looks = Looks()
    looks.add((), (ROW, row), {"y": table()})
    assert looks.near(()) is None


def test_what_would_take_much_memory_is_not_kept():
    looks = Looks()
    looks.add((), (ROW,), {"y": np.ones((2, MOST_KEPT))})
    assert looks.near(()) is None
