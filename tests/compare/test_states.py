"""compare/states.py: which outputs are fed back, and many steps in a row."""

import numpy as np
import pytest

from onnx2trt.base.model_info import TensorSpec
from onnx2trt.compare.states import MOST_STEPS, STEPS, Kept, fed_back
from onnx2trt.data.reader import Batch


def specs(text: str, dtype: str = "float32") -> list[TensorSpec]:
    """'x:1x8 h:1x4' -> specs."""
    return [
        TensorSpec(name, tuple(int(d) if d.isdigit() else d for d in dims.split("x")), dtype)
        for name, dims in (part.rsplit(":", 1) for part in text.split())
    ]


STATES = [
    ("input:bx512 state:2xbx128", "output:bx1 stateN:2xbx128", {"stateN": "state"}),
    ("x:1x8 h0:1x4 c0:1x4", "y:1x2 hn:1x4 cn:1x4", {"hn": "h0", "cn": "c0"}),
    ("x:1x8 h_in:1x4 c_in:1x4", "y:1x2 h_out:1x4 c_out:1x4", {"h_out": "h_in", "c_out": "c_in"}),
    ("src:1x3x8x8 r1i:1x4x4x4 r2i:1x4x4x4", "fgr:1x3x8x8 r1o:1x4x4x4 r2o:1x4x4x4", {"r1o": "r1i", "r2o": "r2i"}),
    ("x:1x8 prev_state:1x8", "y:1x8 state:1x8", {"state": "prev_state"}),
    ("x:1x8 cache_conv:1x8 cache_lstm:1x8", "y:1x8 new_cache_conv:1x8 new_cache_lstm:1x8")
    + ({"new_cache_conv": "cache_conv", "new_cache_lstm": "cache_lstm"},),
    ("ids:1x1 past_key_values.0.key:1x4xpx8 past_key_values.1.key:1x4xpx8", "y:1x1x9 present.0.key:1x4xqx8 present.1.key:1x4xqx8")
    + ({"present.0.key": "past_key_values.0.key", "present.1.key": "past_key_values.1.key"},),
]


@pytest.mark.parametrize(("inputs", "outputs", "expected"), STATES)
def test_states_are_known_by_their_names(inputs, outputs, expected):
    assert fed_back(specs(inputs), specs(outputs)) == expected


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ("image:1x3x8x8", "image_out:1x3x8x8"),  # it is all that goes in
        ("input:1x3x8x8 mask:1x1x8x8", "output:1x3x8x8"),
        ("x:1x8 h_in:1x4", "y:1x8 h_out:1x5"),  # another shape
        ("x:1x8 h:1x4", "y:1x8 c:1x4"),
        ("x:1x8 h:1x4", "h2:1x4"),
    ],
)
def test_other_outputs_are_no_states(inputs, outputs):
    assert fed_back(specs(inputs), specs(outputs)) == {}


def test_another_type_is_no_state():
    assert fed_back(specs("x:1x8 h_in:1x4"), specs("h_out:1x4", "int64")) == {}


def batch(index, size=2) -> Batch:
    return Batch({"x": np.full((1, size), index, np.float32), "h_in": np.zeros((1, size), np.float32)}, 1, 1, (f"{index}.npz",))


def adds(by):
    """A model that sums up what it has seen."""

    def run(given: Batch):
        return {"h_out": given.arrays["h_in"] + by * given.arrays["x"]}

    return run


def steps(count, **options):
    kept = Kept({"h_out": "h_in"})
    for index in range(1, count + 1):
        kept.add(batch(index, **options))
    return [tuple(float(found["h_out"][0, 0]) for found in step[1:]) for step in kept.steps(adds(1), adds(2))]


def test_each_is_fed_with_its_own_state():
    assert steps(3)[:4] == [(1, 2), (3, 6), (6, 12), (7, 14)], "the samples are gone through again"
    assert len(steps(3)) == STEPS and len(steps(100)) == 100 and len(steps(300)) == MOST_STEPS


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("onnx2trt.compare.states.MOST_BYTES", 5 * 16)
    assert steps(9)[5] == (16, 32), "five were kept"


def test_a_cache_that_grows_cannot_be_fed_back():
    kept = Kept({"h_out": "h_in"})
    kept.add(batch(1))
    grown = {"h_out": np.zeros((1, 3), np.float32)}
    assert list(kept.steps(lambda _: grown, lambda _: grown)) == []


def test_without_states_nothing_is_kept():
    kept = Kept({})
    kept.add(batch(1))
    assert list(kept.steps(adds(1), adds(1))) == []
