"""conversion/proposed_sizes.py: a refusal proposes sizes that the model runs with."""

import re

import numpy as np
import pytest
from helpers import LIBRARIES, parse, quiet_run, refused, save
from models import model, node, random
from onnx import TensorProto

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.input_profiles import input_profiles
from onnx2trt.model.preflight import preflight
from onnx2trt.plan.plan import make_plan


def detector(size: int, imgsz: str = ""):
    """Anchors for one size are written into it, as exports do; `imgsz`: and that size beside it."""
    nodes = [
        node("Conv", "x w", "c", strides=[16, 16], pads=[1] * 4),
        node("Reshape", "c s", "r"),
        node("Add", "r anchors", "y"),
    ]
    weights = {"w": random(4, 3, 3, 3), "s": np.array([0, 4, -1]), "anchors": random(1, 4, (size // 16) ** 2)}
    source = model(nodes, {"x": ["batch", 3, "height", "width"]}, {"y": ["batch", 4, "n"]}, weights)
    if imgsz:
        source.metadata_props.add(key="imgsz", value=imgsz)
    return source


def cache():
    """The new keys behind those of a cache, masked: the length of the mask is the sum of the two others."""
    nodes = [
        node("Concat", "past new", "keys", axis=1),
        node("Unsqueeze", "mask two", "m"),
        node("Where", "m keys low", "y"),
    ]
    inputs = {"new": [1, "seq", 4], "past": [1, "past", 4], "mask": (TensorProto.BOOL, [1, "total"])}
    return model(nodes, inputs, {"y": [1, "total", 4]}, {"two": np.array([2]), "low": np.float32(-1)})


def with_state():
    """Frames of any length of at least 250, and a state with the batch on its second axis."""
    nodes = [
        node("Conv", "x w", "c", strides=[128]),
        node("ReduceMean", "c", "m", axes=[2], keepdims=0),
        node("Unsqueeze", "m zero", "u"),
        node("Add", "u state", "y"),
    ]
    inputs = {"x": ["batch", 1, "samples"], "state": [1, "batch", 4]}
    return model(nodes, inputs, {"y": [1, "batch", 4]}, {"w": random(4, 1, 250), "zero": np.array([0])})


def proposal(tmp_path, source, *flags):
    """The shapes in the hint, and whether it says that they run."""
    path = save(source, tmp_path / "net.onnx")
    plan = make_plan(parse(*flags), LIBRARIES["rtx"])
    with pytest.raises(ConversionError) as caught:
        input_profiles(plan, *preflight(path), quiet_run())
    shapes = re.search(r"--opt-shapes (.*?) (?:with|--min-shapes)", caught.value.hint)[1].split()
    return {name: tuple(map(int, shape.split("x"))) for name, _, shape in (text.partition(":") for text in shapes)}, caught.value.hint


@pytest.mark.parametrize("size", [224, 320, 640])
def test_the_size_that_is_written_into_a_detector(tmp_path, size):
    shapes, hint = proposal(tmp_path, detector(size))
    assert shapes == {"x": (1, 3, size, size)} and "runs with these sizes" in hint


def test_a_size_that_nobody_would_guess_stands_beside_the_model(tmp_path):
    assert proposal(tmp_path, detector(592, "[592, 592]"))[0] == {"x": (1, 3, 592, 592)}
    assert proposal(tmp_path, detector(592, "592"))[0] == {"x": (1, 3, 592, 592)}
    shapes, hint = proposal(tmp_path, detector(592, "nonsense ("))
    assert shapes["x"][:2] == (1, 3) and "runs with" not in hint


def test_lengths_that_hang_on_each_other(tmp_path):
    shapes, hint = proposal(tmp_path, cache())
    assert shapes["mask"][1] == shapes["past"][1] + shapes["new"][1] and "runs with these sizes" in hint


def test_a_batch_on_another_axis(tmp_path):
    shapes, hint = proposal(tmp_path, with_state())
    assert shapes["x"][0] == shapes["state"][1] == 1 and shapes["x"][2] >= 250 and "runs with these sizes" in hint


def test_what_was_given_stays(tmp_path):
    shapes, _ = proposal(tmp_path, cache(), "--opt-shapes", "past:1x7x4", "new:1x9x4")
    assert shapes == {"mask": (1, 16)}
    assert proposal(tmp_path, cache(), "--opt-shapes", "past:1x7x4", "new:1x2x4")[0] == {"mask": (1, 9)}


def test_the_sizes_of_the_data(tmp_path):
    np.savez(tmp_path / "a.npz", new=random(1, 3, 4), past=random(1, 5, 4), mask=np.ones((1, 8), bool))
    shapes, hint = proposal(tmp_path, cache(), "--test-image", str(tmp_path / "a.npz"))
    assert shapes == {"new": (1, 3, 4), "past": (1, 5, 4), "mask": (1, 8)} and "in your data" in hint


def test_sizes_that_vary_in_the_data_are_proposed_as_a_range_that_takes_all_of_them(tmp_path):
    for past, new in ((5, 1), (0, 3), (9, 2)):
        arrays = {"new": random(1, new, 4), "past": random(1, past, 4), "mask": np.ones((1, past + new), bool)}
        np.savez(tmp_path / f"{past}.npz", **arrays)
    _, hint = proposal(tmp_path, cache(), "--validate", str(tmp_path))
    flags = re.search(r"Add (--opt-shapes .*?)\. ", hint)[1].split()
    plan = make_plan(parse(*flags), LIBRARIES["rtx"])
    profiles = {one.name: one for one in input_profiles(plan, *preflight(str(tmp_path / "net.onnx")), quiet_run())}
    assert {name: (one.min, one.max) for name, one in profiles.items()} == {
        "new": ((1, 1, 4), (1, 3, 4)),
        "past": ((1, 0, 4), (1, 9, 4)),
        "mask": ((1, 1), (1, 12)),
    }
    assert profiles["mask"].min[1] == 0 + 1, "no sample has it, but the smallest of the others have"
    assert profiles["past"].opt[1] + profiles["new"].opt[1] == profiles["mask"].opt[1], "a sample's, not the middle of each"


def test_a_symbol_whose_size_is_known_keeps_it(tmp_path):
    shapes, _ = proposal(tmp_path, with_state(), "--opt-shapes", "state:1x3x4")
    assert shapes["x"][0] == 3


def test_the_batch_that_was_asked_for(tmp_path):
    shapes, hint = proposal(tmp_path, detector(320, "[320, 320]"), "--max-batch-size", "4")
    assert shapes == {"x": (4, 3, 320, 320)} and "runs with these sizes" in hint and "or --imgsz 320." in hint


def strided(tmp_path, *flags):
    source = detector(320)
    source.metadata_props.add(key="stride", value="32")
    return input_profiles(make_plan(parse(*flags), LIBRARIES["rtx"]), *preflight(save(source, tmp_path / "net.onnx")), quiet_run())


@pytest.mark.parametrize(
    "flags", [["--imgsz", "100x320"], ["--opt-shapes", "x:1x3x100x320"], ["--imgsz", "320", "--max-shapes", "x:1x3x330x320"]]
)
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(tmp_path, flags):
    with refused(ExitCode.USAGE, "is no multiple of the model's stride, 32", hint="320"):
        strided(tmp_path, *flags)


def test_a_multiple_of_the_stride_is_taken(tmp_path):
    assert strided(tmp_path, "--imgsz", "96")[0].opt == (1, 3, 96, 96)
