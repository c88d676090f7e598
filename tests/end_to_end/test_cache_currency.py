"""The calibration cache as a currency between libraries and runs: whose caches are taken, and which are refused with exit code 5."""

import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import conv_net, model, node, random
from real_models import ppocr

from onnx2trt.quant import calibration_cache

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
DATA = Path(__file__).resolve().parents[1] / "data" / "ppocr_det"
INT8 = ("--onnx", "net.onnx", "--precision", "int8", "--calibration-cache", "c.cache", "--max-accuracy-drop", "20")
IMAGES = ("--calibration-dir", "images")


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A folder with a model, images, and the cache that a run has made of them."""
    folder = tmp_path_factory.mktemp("calibrated")
    onnx.save(conv_net(), folder / "net.onnx")
    (folder / "images").mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), pixels)
    done = onnx2trt(folder, *INT8, *IMAGES, "--no-validate", "--calibration-method", "minmax")
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture
def folder(calibrated, tmp_path):
    return Path(shutil.copytree(calibrated, tmp_path / "copy"))


def refused(folder, *fragments: str, flags=IMAGES) -> None:
    """Exit code 5 with these words, before anything is calibrated or built, and the cache untouched."""
    before = (folder / "c.cache").read_bytes()
    done = onnx2trt(folder, *INT8, *flags)
    assert done.code == 5 and "hint:" in done.error, done.stderr
    for fragment in fragments:
        assert fragment in done.error
    assert "building" not in done.stderr and "calibrating" not in done.stderr
    assert (folder / "c.cache").read_bytes() == before


# ---- stale


def test_another_model(folder):
    onnx.save(conv_net(classes=5), folder / "net.onnx")
    refused(folder, "c.cache is stale: it was made from another model")
    refused(folder, "another model", flags=())


def test_other_contents_of_the_images(folder):
    shutil.copy(folder / "images" / "1.png", folder / "images" / "0.png")
    refused(folder, "c.cache is stale: it was made from other calibration files", "--accept-stale-cache")


def test_another_preprocessing(folder):
    refused(folder, "stale", "another preprocessing", flags=(*IMAGES, "--mean", "0.5"))


def test_another_method(folder):
    refused(folder, "stale", "method minmax", flags=(*IMAGES, "--calibration-method", "entropy"))


# ---- foreign


def test_no_side_file_although_images_are_given(folder):
    (folder / "c.cache.json").unlink()
    refused(folder, "no (valid) side file", "not known to be made from --calibration-dir")


def test_a_cache_written_over_has_lost_its_side_file(folder):
    text = (folder / "c.cache").read_text()
    (folder / "c.cache").write_text(text.replace("MinMaxCalibration", "EntropyCalibration2"))
    refused(folder, "no (valid) side file")


def test_no_side_file_is_said_where_no_images_are_given(folder):
    (folder / "c.cache.json").unlink()
    done = onnx2trt(folder, *INT8, "--no-validate")
    assert done.code == 0 and "no side file" in done.stderr


# ---- damaged, and of another model


def foreign(folder, **scales) -> None:
    """A cache as another tool makes it, without a side file."""
    text = calibration_cache.to_text({"x": 0.004, "r1": 0.02, "r2": 0.05, **scales}, "entropy")
    (folder / "c.cache").write_text(text)
    (folder / "c.cache.json").unlink()


@pytest.mark.parametrize("scale", [3e38, 1e-45, 1e-6, 400.0])
def test_a_scale_that_has_nothing_to_do_with_the_tensor(folder, scale):
    """What a flipped bit makes of it passes for a number; the engine would be of no use, at exit code 0."""
    foreign(folder, r2=scale)
    refused(folder, "c.cache: the scale of 'r2' reaches to", "--accept-stale-cache", flags=())
    if 1e-30 < scale < 1e30:
        done = onnx2trt(folder, *INT8, "--accept-stale-cache", "--no-validate")
        assert done.code == 0 and "warning: calibration cache c.cache: the scale of 'r2' reaches to" in done.stderr


def test_a_foreign_cache_in_order_is_taken(folder):
    foreign(folder)
    done = onnx2trt(folder, *INT8, "--no-validate")
    assert done.code == 0 and "reaches to" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "digits, message",
    [
        ("3c01zz14", "is not 'tensor: 8 hexadecimal digits'"),
        ("7fc00000", "the scale of 'r1' is nan; it must be above 0 and finite"),
        (struct.pack(">f", -0.01).hex(), "the scale of 'r1' is -0.0"),
        ("3c01", "is not 'tensor: 8 hexadecimal digits'"),
    ],
    ids=["bad hexadecimal", "NaN", "negative", "truncated"],
)
def test_a_damaged_line(folder, digits, message):
    lines = (folder / "c.cache").read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("r1: "))
    lines[number] = f"r1: {digits}"
    (folder / "c.cache").write_text("\n".join(lines))
    refused(folder, f"c.cache, line {number + 1}: ", message, "delete it", flags=())


def test_names_that_the_model_does_not_have(folder):
    text = (folder / "c.cache").read_text()
    (folder / "c.cache").write_text(text.replace("r2: ", "renamed: "))
    refused(folder, "no scale for 1 of 2 tensors of this model, first 'r2'", "another model", flags=())


def test_a_tensor_that_was_always_zero_does_not_spoil_our_own_cache(tmp_path):
    """It has no scale, so no line in the cache; the side file says so."""
    nodes = [
        node("MatMul", "x w1", "a", "one"),
        node("Min", "a zero", "low"),
        node("Relu", "low", "dead"),
        node("MatMul", "dead w2", "b", "two"),
        node("Add", "a b", "y"),
    ]
    weights = {"w1": random(32, 32), "w2": random(32, 32), "zero": np.float32(0)}
    onnx.save(model(nodes, {"x": ["n", 32]}, {"y": ["n", 32]}, weights), tmp_path / "net.onnx")
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "x.npy", random(20, 32))
    fast = ("--no-validate", "--quantization-effort", "fast")  # a cache holds scales, not weights fitted to images
    first = onnx2trt(tmp_path, *INT8, *IMAGES, *fast, "--save-onnx", "first.onnx")
    assert first.code == 0, first.stderr
    assert "dead: " not in (tmp_path / "c.cache").read_text()
    second = onnx2trt(tmp_path, *INT8, *fast, "--save-onnx", "second.onnx")
    assert second.code == 0, second.stderr
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_a_cache_has_the_scales_of_layers_that_fell_back_too(folder):
    for path in folder.glob("c.cache*"):
        path.unlink()
    fallback = ("--layer-precisions", "head:fp16", "--no-validate")
    assert onnx2trt(folder, *INT8, *IMAGES, *fallback).code == 0
    names = [line.split(":")[0] for line in (folder / "c.cache").read_text().splitlines()[1:]]
    assert names == ["x", "c1", "r1", "c2", "r2", "y"], "TensorRT uses INT8 only where all tensors at a layer have a scale"
    assert onnx2trt(folder, *INT8, "--no-validate").code == 0


# ---- TensorRT's own, on the model that it was made for


def detector() -> Path:
    try:
        return ppocr("det")
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.mark.real
def test_a_cache_of_tensorrt_makes_the_qdq_model_without_images(tmp_path):
    cache = DATA / "tensorrt-10.6-entropy2.cache"
    shape = ("--opt-shapes", "x:1x3x640x640")
    flags = (
        "--precision",
        "int8",
        "--no-baseline",
        "--calibration-cache",
        cache,
        "--no-validate",
        "--save-onnx",
        "m.onnx",
        "-o",
        "m.engine",
    )
    done = onnx2trt(tmp_path, "--onnx", detector(), *shape, *flags)
    assert done.code == 0, done.stderr
    assert "no side file" in done.stderr and done.json("m.engine.json")["calibration"]["samples_used"] is None
    scales = calibration_cache.read(str(cache)).scales
    graph = onnx.load(tmp_path / "m.onnx").graph
    found = activation_scales(graph)
    assert len(found) >= 30 and found.keys() <= scales.keys()
    other = {tensor for tensor, scale in found.items() if scale != np.float16(scales[tensor])}
    assert all(found[tensor] in {float(np.float16(scale)) for scale in scales.values()} for tensor in other)
    readers = {name: node.op_type for node in graph.node for name in node.input if name.endswith("__dequantized")}
    handed_on = {name.removesuffix("__dequantized") for name, op in readers.items() if op in ("Resize", "Concat")}
    assert other <= handed_on, "what is only passed on has the scale of what reads it"


def activation_scales(graph: onnx.GraphProto) -> dict[str, float]:
    """Tensor -> scale of the QuantizeLinear behind it, as stored."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in values]
    return {casts.get(node.input[0], node.input[0]): values[node.input[1]].item() for node in quantizers}


@pytest.mark.real
def test_our_entropy_scales_are_as_good_as_tensorrts():
    detector()
    from benchmarks.entropy_scales import measure

    found = measure()
    assert found["tensors"] == 61
    assert found["median_difference"] < 0.08 and found["q90_difference"] < 0.5
    assert found["iou_ours"] >= found["iou_tensorrt"] - 0.005
