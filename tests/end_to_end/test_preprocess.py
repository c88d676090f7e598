"""preprocess.py: what the network really gets, as array, as image and in numbers."""

import hashlib
import json

import cv2
import numpy as np
import onnx
import pytest
from command import run
from helpers import image, jpeg_with_app1, orientation, prepared
from models import conv_net, layer_norm, model, node
from onnx import TensorProto

from onnx2trt.data.pixels import displayed
from onnx2trt.data.reader import load_image

IMAGENET = ("--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225")


def preprocess(folder, *arguments, **how):
    return run("preprocess.py", folder, *arguments, **how)


def shown(folder, *arguments):
    """The part of the JSON that is about the arrays."""
    done = preprocess(folder, *arguments, "--json", "p.json")
    assert done.code == 0, done.stderr
    result = done.json("p.json")
    assert result["status"] == "preprocessed" and result["environment"]["backend"] is None and result["plan"] is None
    return result["preprocessed"]


def save_net(folder, shape, elem_type=TensorProto.FLOAT):
    onnx.save(model([node("Identity", "x", "y")], {"x": (elem_type, shape)}, {"y": (elem_type, shape)}), folder / "net.onnx")


@pytest.fixture
def folder(tmp_path):
    save_net(tmp_path, ["N", 3, 24, 32])
    cv2.imwrite(str(tmp_path / "test.png"), image(40, 50))
    return tmp_path


# ---- the array and the image

FORMS = {
    "as RGB": ((), {}),
    "as ImageNet networks take it": (IMAGENET, {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}),
    "as BGR from 0 to 255": (("--color", "bgr", "--input-range", "255"), {"color": "bgr", "input_range": 255}),
    "padded": (("--resize", "letterbox"), {"resize": "letterbox"}),
    "cut": (("--resize", "crop"), {"resize": "crop"}),
}


@pytest.mark.parametrize("flags, changes", FORMS.values(), ids=FORMS)
def test_the_array_is_what_every_stage_of_a_conversion_reads(folder, flags, changes):
    found = shown(folder, "test.png", "--onnx", "net.onnx", "-o", "x.npy", *flags)
    array, expected = np.load(folder / "x.npy"), load_image(str(folder / "test.png"), prepared(**changes))
    assert array.dtype == np.float32 and array.shape == (1, 3, 24, 32) and np.array_equal(array[0], expected)
    assert np.array_equal(cv2.imread(str(folder / "x.png")), displayed(expected, prepared(**changes)))
    assert found["written"] == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("x.npy", "x.png")}


@pytest.mark.parametrize(
    "shape, elem_type, dtype, layout, channels",
    [
        ([1, 24, 32, 3], TensorProto.UINT8, "uint8", "NHWC", ["red", "green", "blue"]),
        ([1, 3, 24, 32], TensorProto.FLOAT16, "float16", "NCHW", ["red", "green", "blue"]),
        ([1, 1, 24, 32], TensorProto.FLOAT, "float32", "NCHW", ["gray"]),
        ([1, 4, 24, 32], TensorProto.FLOAT, "float32", "NCHW", ["red", "green", "blue", "alpha"]),
    ],
    ids=["uint8, channels last", "FP16", "gray", "with alpha"],
)
def test_type_layout_and_channels_are_those_of_the_input(folder, shape, elem_type, dtype, layout, channels):
    save_net(folder, shape, elem_type)
    (found,) = shown(folder, "test.png", "--onnx", "net.onnx", "-o", "x.npy")["arrays"]
    array = np.load(folder / "x.npy")
    assert (found["dtype"], found["shape"], found["layout"]) == (dtype, shape, layout) == (array.dtype.name, list(array.shape), layout)
    assert [row["channel"] for row in found["channels"]] == channels
    assert cv2.imread(str(folder / "x.png")).shape == (24, 32, 3)


def test_range_and_mean_are_those_of_each_channel_in_the_order_of_the_network(folder):
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[..., 0], pixels[:20, :, 2] = 51, 255  # OpenCV has blue first
    cv2.imwrite(str(folder / "test.png"), pixels)
    (found,) = shown(folder, "test.png", "--onnx", "net.onnx")["arrays"]
    by_name = {row["channel"]: (row["min"], round(row["mean"], 3), row["max"]) for row in found["channels"]}
    assert by_name == {"red": (0, 0.5, 1), "green": (0, 0, 0), "blue": (pytest.approx(0.2), 0.2, pytest.approx(0.2))}
    assert list(by_name) == ["red", "green", "blue"]
    (swapped,) = shown(folder, "test.png", "--onnx", "net.onnx", "--color", "bgr")["arrays"]
    assert [(row["channel"], round(row["mean"], 3)) for row in swapped["channels"]] == [("blue", 0.2), ("green", 0), ("red", 0.5)]


@pytest.mark.parametrize(
    "size, resize, scaled, borders",
    [
        ((100, 50), "stretch", [32, 24], (0, 0, 0, 0)),
        ((100, 50), "letterbox", [32, 16], (0, 4, 0, 4)),
        ((100, 50), "crop", [48, 24], (-8, 0, -8, 0)),
        ((50, 100), "letterbox", [12, 24], (10, 0, 10, 0)),
        ((50, 100), "crop", [32, 64], (0, -20, 0, -20)),
        ((33, 24), "crop", [33, 24], (0, 0, -1, 0)),
    ],
)
def test_how_the_image_was_fitted_in(folder, size, resize, scaled, borders):
    cv2.imwrite(str(folder / "test.png"), np.full((size[1], size[0], 3), 7, np.uint8))
    found = shown(folder, "test.png", "--onnx", "net.onnx", "--resize", resize, "-o", "x.npy")["image"]
    sides = dict(zip(("left", "top", "right", "bottom"), borders))
    assert found == {"size": list(size), "scaled": scaled, "borders": sides}
    padding = cv2.imread(str(folder / "x.png"))[..., 0] == 114
    assert padding.sum() == 24 * 32 - min(scaled[0], 32) * min(scaled[1], 24), "what the numbers say is what the image shows"


def test_an_image_is_turned_as_its_camera_says(folder):
    jpeg = cv2.imencode(".jpg", image(40, 50))[1].tobytes()
    (folder / "turned.jpg").write_bytes(jpeg_with_app1(jpeg, orientation(6)))
    assert shown(folder, "turned.jpg", "--onnx", "net.onnx")["image"]["size"] == [40, 50]


def test_a_fixed_batch_is_filled(folder):
    save_net(folder, [4, 3, 24, 32])
    shown(folder, "test.png", "--onnx", "net.onnx", "-o", "x.npy")
    array = np.load(folder / "x.npy")
    assert array.shape == (4, 3, 24, 32) and all(np.array_equal(array[0], other) for other in array)


def test_values_that_the_input_cannot_hold_are_said(folder):
    save_net(folder, [1, 3, 24, 32], TensorProto.FLOAT16)
    done = preprocess(folder, "test.png", "--onnx", "net.onnx", "--std", "1e-8", "--json", "p.json", "-o", "x.npy")
    assert done.code == 0 and "infinite" in done.stderr
    (found,) = done.json("p.json")["preprocessed"]["arrays"]
    assert np.isinf(np.load(folder / "x.npy")).any() and all(row["max"] is None or row["max"] < 65504 for row in found["channels"])


def test_the_table_says_it_in_words(folder):
    flags = ("--onnx", "net.onnx", "-o", "x.npy", "--resize", "letterbox", *IMAGENET)
    done = preprocess(folder, "test.png", *flags, environment={"COLUMNS": "200"})
    for words in ("1x3x24x32 NCHW, rgb", "50x40 -> 30x24 -> 32x24", "padded: left 1, right 1", "0.485, 0.456, 0.406", "x.png", "green"):
        assert words in done.stdout


# ---- arrays


def test_arrays_are_described_and_written_as_the_network_gets_them(folder):
    np.save(folder / "data.npy", np.arange(5 * 3 * 24 * 32, dtype=np.float64).reshape(5, 3, 24, 32))
    found = shown(folder, "data.npy", "--onnx", "net.onnx", "-o", "x.npy")
    assert found["inferences"] == 5 and found["image"] is None and list(found["written"]) == ["x.npy"]
    row = {"channel": "all", "min": 0, "mean": (3 * 24 * 32 - 1) / 2, "max": 3 * 24 * 32 - 1}
    assert found["arrays"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 24, 32], "layout": None, "channels": [row]}]
    assert np.load(folder / "x.npy").dtype == np.float32 and not (folder / "x.png").exists()


def test_several_inputs_go_into_one_npz(tmp_path):
    inputs = {"ids": (TensorProto.INT64, [1, 5]), "scale": [1]}
    onnx.save(
        model([node("Identity", "ids", "y"), node("Identity", "scale", "z")], inputs, {"y": inputs["ids"], "z": [1]}), tmp_path / "m.onnx"
    )
    np.savez(tmp_path / "d.npz", ids=np.arange(5)[None], scale=np.float32([2]))
    found = shown(tmp_path, "d.npz", "--onnx", "m.onnx", "-o", "x.npz")
    assert [array["name"] for array in found["arrays"]] == ["ids", "scale"]
    assert np.load(tmp_path / "x.npz")["ids"].tolist() == [[0, 1, 2, 3, 4]]
    done = preprocess(tmp_path, "d.npz", "--onnx", "m.onnx", "-o", "x.npy")
    assert done.code == 2 and "2 inputs do not go into one .npy" in done.error and not (tmp_path / "x.npy").exists()


# ---- the result


def test_without_a_name_nothing_is_written(folder):
    before = sorted(path.name for path in folder.iterdir())
    done = preprocess(folder, "test.png", "--onnx", "net.onnx", "--json", "-")
    assert done.code == 0 and json.loads(done.stdout)["preprocessed"]["written"] == {} and "1x3x24x32" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def test_it_works_as_a_word_of_the_installed_command(folder):
    done = run("onnx2trt.py", folder, "preprocess", "test.png", "--onnx", "net.onnx", "-o", "x.npy")
    assert done.code == 0 and (folder / "x.npy").exists() and (folder / "x.png").exists()


# ---- faults


def damaged(folder):
    (folder / "test.png").write_bytes((folder / "test.png").read_bytes()[:200])


def taking_no_image(folder):
    onnx.save(layer_norm(), folder / "net.onnx")


def no_model(folder):
    (folder / "net.onnx").write_bytes(b"\x08\x08junk")


FAULTS = {
    "a model without an image input": (taking_no_image, (), 2, "images cannot be fed to this model"),
    "a flag that does not fit the input": (None, ("--color", "gray"), 2, "--color gray"),
    "free sizes": (lambda folder: save_net(folder, [1, 3, "h", "w"]), (), 2, "--opt-shapes x:"),
    "another kind of file": (None, ("-o", "x.png"), 2, "must end with .npy or .npz"),
    "the image itself as output": (None, ("-o", "test.npy"), 2, "IMAGE and --output's image name the same file"),
    "no such model": (lambda folder: (folder / "net.onnx").unlink(), (), 3, "cannot read net.onnx"),
    "a damaged model": (no_model, (), 3, "net.onnx"),
    "a damaged image": (damaged, (), 7, "test.png"),
    "no such image": (lambda folder: (folder / "test.png").unlink(), (), 7, "IMAGE test.png does not exist"),
    "no such folder to write to": (None, ("-o", "nowhere/x.npy"), 8, "cannot write nowhere/x.npy"),
    "a folder where the image should be": (lambda folder: (folder / "x.png").mkdir(), ("-o", "x.npy"), 8, "x.png"),
}


@pytest.mark.parametrize("make, flags, code, words", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(folder, make, flags, code, words):
    if make:
        make(folder)
    before = sorted(path.name for path in folder.iterdir())
    done = preprocess(folder, "test.png", "--onnx", "net.onnx", "-o", "x.npy", *flags)
    assert done.code == code and words in done.error, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == before, "nothing was written"


def test_a_fault_stands_in_the_json(folder):
    damaged(folder)
    done = preprocess(folder, "test.png", "--onnx", "net.onnx", "--json", "p.json")
    result = done.json("p.json")
    assert done.code == result["exit_code"] == 7 and result["status"] == "failed" and "test.png" in result["error"]["message"]


def test_no_engine_is_spoken_of(folder):
    onnx.save(conv_net(), folder / "net.onnx")
    done = preprocess(folder, "test.png", "--onnx", "net.onnx")
    assert done.code == 0 and "engine" not in done.stdout and not list(folder.glob("*.engine*"))
