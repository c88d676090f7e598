"""base/told.py: what an exporter has written beside the graph; whatever stands there, it is read or passed over, never believed blindly."""

import numpy as np
import pytest

from onnx2trt.base.told import Told, told_by

YOLO = {"imgsz": "[480, 640]", "stride": "32", "task": "detect", "names": "{0: 'cat', 1: \"dog's\"}"}


def test_what_ultralytics_writes():
    told = told_by(YOLO)
    assert told == Told((480, 640), 32, "detect", {0: "cat", 1: "dog's"}) and told.detector


@pytest.mark.parametrize(
    "metadata, expected",
    [
        ({}, Told()),
        ({"imgsz": "592"}, Told((592, 592))),
        ({"imgsz": "[0, 640]"}, Told()),
        ({"imgsz": "[640]"}, Told()),
        ({"imgsz": "True"}, Told()),
        ({"stride": "[8, 16, 32]"}, Told(stride=32)),
        ({"stride": "0"}, Told()),
        ({"stride": "32.0"}, Told()),
        ({"task": "classify"}, Told(task="classify")),
        ({"names": '{"0": "cat"}'}, Told(names={0: "cat"})),
        ({"names": "['cat', 'dog']"}, Told(names={0: "cat", 1: "dog"})),
        ({"names": "{'cat': 0}"}, Told()),
    ],
)
def test_other_forms(metadata, expected):
    assert told_by(metadata) == expected


def test_nonsense_is_passed_over():
    random = np.random.default_rng(3)
    for _ in range(300):
        text = "".join(random.choice(list("[](){}0123,.'\"-eE: nTrueascdict\0é"), random.integers(0, 40)))
        told = told_by({"imgsz": text, "stride": text, "names": text, "task": text})
        assert told.stride >= 1 and (told.size is None or min(told.size) > 0)
    assert told_by({"names": "(" * 100_000}) == Told()
