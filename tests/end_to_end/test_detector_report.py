"""--report of a detector, with real runs: boxes by the model's metadata, or as --detector says."""

import cv2
import numpy as np
import onnx
import pytest
from command import run
from html_page import Page
from models import model, node, random


def detector(**metadata: str) -> onnx.ModelProto:
    """A network that gives [1, 4 + 3, 64]: places as parts of the image, scores about 0.5."""
    nodes = [
        node("Conv", "images w", "c", strides=[4, 4]),
        node("Reshape", "c shape", "r"),
        node("Sigmoid", "r", "output0"),
    ]
    weights = {"w": random(7, 3, 4, 4, scale=0.2), "shape": np.array([1, 7, 64])}
    found = model(nodes, {"images": [1, 3, 32, 32]}, {"output0": [1, 7, 64]}, weights)
    for key, value in metadata.items():
        found.metadata_props.add(key=key, value=value)
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), pixels)
    np.save(tmp_path / "one.npy", np.random.default_rng(0).random((1, 3, 32, 32), np.float32))
    return tmp_path


NAMES = "{0: 'cat', 1: 'dog', 2: 'bird'}"


@pytest.mark.parametrize(
    "metadata, flags, data, name",
    [
        ({"task": "detect", "names": NAMES}, (), "images", "cat"),
        ({"task": "detect", "names": NAMES}, (), "one.npy", "cat"),
        ({"task": "detect", "names": NAMES}, ("--detector", "none"), "images", ""),
        ({}, ("--detector", "yolo"), "images", "class "),
        ({}, (), "images", ""),
        ({"task": "obb", "names": NAMES}, (), "images", ""),
    ],
)
def test_boxes_are_drawn_where_the_metadata_or_the_flag_say_so(folder, metadata, flags, data, name):
    drawn = bool(name)
    for file in ("net.onnx", "candidate.onnx"):
        onnx.save(detector(**metadata), folder / file)
    done = run("validate.py", folder, "candidate.onnx", "--onnx", "net.onnx", "--validate", data, "--report", "r.html", *flags)
    assert done.code == 0, done.stderr
    read = Page((folder / "r.html").read_bytes())
    read.check_alone()
    assert (read.source.count('<rect class="by-model"') > 0) is drawn
    assert ("found again by the candidate" in read.text) is drawn and name in read.text
    assert len(read.images) == (drawn and data == "images"), "the image is behind the boxes alone"


def test_without_a_report_the_flag_is_said_to_have_no_effect(folder):
    for file in ("net.onnx", "candidate.onnx"):
        onnx.save(detector(), folder / file)
    done = run("validate.py", folder, "candidate.onnx", "--onnx", "net.onnx", "--validate", "images", "--detector", "yolo")
    assert done.code == 0 and "--detector (only --report draws boxes)" in done.stderr
