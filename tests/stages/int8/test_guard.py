"""stages/int8/guard.py: layers that fell back to FP16 and are tried in INT8 once more."""

from types import SimpleNamespace

import pytest

from onnx2trt.plan.plan import EFFORTS
from onnx2trt.quant.sensitivity import Tried
from onnx2trt.stages.int8.guard import Choice

MACS = {"most": 50, "large": 20, "twin": 20, "medium": 15, "tiny": 0.5, "rest": 894.5}


def choice(effort, hostile):
    """A choice whose measurements fail where one of these layers is INT8; in the trials alone, not in the final fit, with a '?'."""
    made = object.__new__(Choice)
    made._job = SimpleNamespace(plan=SimpleNamespace(calibration=SimpleNamespace(effort=EFFORTS[effort])))
    made.asked = []

    def measure(kept, limit, final=False):
        made.asked.append((tuple(kept), final))
        bad = [name for name in hostile if name.strip("?") not in kept and not (final and "?" in name)]
        return Tried(len(kept), 0.5, 9.0 if bad else 0.1, 0.0, passed=not bad)

    made.__dict__.update(_macs=MACS, _trials=SimpleNamespace(measure=measure))
    return made


@pytest.mark.parametrize(
    "effort, hostile, left",
    [
        ("default", {"most"}, ["most", "tiny"]),
        ("default", {"most", "twin"}, ["most", "twin", "tiny"]),
        ("default", {"large?"}, ["large", "tiny"]),
        ("default", {"most", "large", "twin", "medium"}, ["most", "large", "twin", "medium", "tiny"]),
        ("best", set(), ["tiny"]),
        ("fast", set(), ["most", "large", "twin", "medium", "tiny"]),
    ],
)
def test_layers_are_taken_back_where_both_measurements_pass(effort, hostile, left):
    made, tried = choice(effort, hostile), []
    assert made._take_back(["most", "large", "twin", "medium", "tiny"], tried, 1.0) == left
    assert len(tried) == len(made.asked)


def test_of_equal_work_the_last_that_was_given_up_comes_first():
    made = choice("default", {"most"})
    made._take_back(["large", "most", "twin"], [], 1.0)
    firsts = [kept for kept, final in made.asked if final]
    assert firsts == [("large", "twin"), ("large", "most"), ("most",)]
