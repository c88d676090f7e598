"""examples/run_engine.py: what can be tested of it without a GPU. Its preprocessing is ours, bit for bit; test_gpu.py runs engines."""

import hashlib
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT
from helpers import encode, picture, prepared

from preprocess import load_picture

SCRIPT = ROOT / "examples" / "run_engine.py"

WAYS = [
    {
        "resize": way,
        "layout": layout,
        "dtype": dtype,
        "color": color,
        "channels": channels,
        "input_range": 255 if dtype == "uint8" else reach,
    }
    for way, layout, dtype, (color, channels), reach in itertools.product(
        ("stretch", "letterbox", "crop"),
        ("NCHW", "NHWC"),
        ("float32", "float16", "uint8"),
        (("rgb", 3), ("bgr", 3), ("gray", 1), ("rgb", 4), ("bgr", 4)),
        (1, 255),
    )
]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import run_engine

    return run_engine


@pytest.mark.parametrize("shape", [(50, 31), (20, 90), (24, 32)])
def test_its_preprocessing_is_ours_bit_for_bit(example, tmp_path, shape):
    for index, way in enumerate(WAYS):
        way, channels = dict(way), way["channels"]
        way["mean"] = (0.0,) * channels if way["dtype"] == "uint8" else (0.485, 0.456, 0.406, 0.3)[:channels]
        way["std"] = (1.0,) * channels if way["dtype"] == "uint8" else (0.229, 0.224, 0.225, 0.7)[:channels]
        pre = prepared(way.pop("channels"), **way)
        data = encode(".png", picture(*shape, channels=(1, 3, 4)[index % 3], seed=index))
        (tmp_path / "p.png").write_bytes(data)
        expected = load_picture(str(tmp_path / "p.png"), pre)
        found = example.preprocess(data, json.loads(json.dumps(pre.describe())))
        assert found.dtype == expected.dtype and found.flags.c_contiguous
        assert found.tobytes() == expected[None].tobytes() and found.shape == (1, *expected.shape), way


def write_engine(folder, preprocessing=None, **engine):
    result = {
        "preprocessing": preprocessing,
        "plan": {"profiles": [{"name": "x", "min": [2, 3, 24, 32]}], "build": {"version_compatible": False}},
        "environment": {"backend": "tensorrt"},
        "engine": {"sha256": hashlib.sha256(b"engine").hexdigest(), **engine},
    }
    (folder / "m.engine").write_bytes(b"engine")
    (folder / "m.engine.json").write_text(json.dumps(result))
    return result


def test_a_picture_fills_the_smallest_batch_of_the_engine(example, tmp_path):
    result = write_engine(tmp_path, prepared().describe())
    (tmp_path / "p.png").write_bytes(encode(".png", picture(20, 20)))
    feed = example.load_inputs(str(tmp_path / "p.png"), result)
    assert feed["x"].shape == (2, 3, 24, 32) and np.array_equal(feed["x"][0], feed["x"][1])


def test_arrays_are_taken_by_name(example, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.ones(3), other=np.zeros(2))
    assert set(example.load_inputs(str(tmp_path / "in.npz"), write_engine(tmp_path))) == {"x", "other"}


@pytest.mark.parametrize(
    "prepare, words",
    [
        (lambda folder: (folder / "m.engine.json").unlink(), "m.engine.json"),
        (lambda folder: write_engine(folder, sha256="0"), "belongs to another engine"),
        (lambda folder: write_engine(folder), "takes no picture; give an .npz with x"),
        (lambda folder: (folder / "p.png").write_bytes(b"no picture"), "no picture that OpenCV knows"),
        (lambda folder: (folder / "p.png").unlink(), "p.png"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, prepare, words):
    (tmp_path / "p.png").write_bytes(encode(".png", picture(20, 20)))
    write_engine(tmp_path, prepared().describe())
    prepare(tmp_path)
    done = subprocess.run([sys.executable, str(SCRIPT), "m.engine", "p.png"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and words in done.stderr and "Traceback" not in done.stderr


def test_it_is_short_and_needs_nothing_of_ours():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) < 120
    assert not [
        line for line in text.splitlines() if line.startswith(("from ", "import ")) and line.split()[1] in ("core", "trt", "preprocess")
    ]
