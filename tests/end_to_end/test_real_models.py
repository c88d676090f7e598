"""Models and images of others, converted as a user would. Run with: pytest -m real"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command import onnx2trt
from macs import int8_share
from real_models import LIGHT, light, ppocr

from onnx2trt.base.opencv import opencv

pytestmark = pytest.mark.real
DATA = Path(__file__).resolve().parents[1] / "data" / "ppocr_det"
SHAPES = {"det": (1, 3, 640, 640), "cls": (1, 3, 48, 192), "rec": (1, 3, 48, 320)}
TEST_IMAGES = sorted((DATA / "test").glob("*.jpg"))


def dims(shape):
    return "x".join(map(str, shape))


def tensor(path, shape):
    """An image as the deployments of these models make it: RGB, stretched, 0..1."""
    cv2 = opencv()
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray((cv2.resize(image, shape[3:1:-1]).astype(np.float32) / 255).transpose(2, 0, 1)[None])


def outputs(model, images, shape, as_it_stands=True):
    options = ort.SessionOptions()
    if as_it_stands:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": tensor(path, shape)})[0] for path in images])


def sqnr_db(reference, found):
    return 10 * np.log10((reference.astype(np.float64) ** 2).sum() / ((found - reference).astype(np.float64) ** 2).sum())


def model_of(name):
    try:
        return ppocr(name)
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", ["det", "cls", "rec"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_ppocr(tmp_path, name, precision):
    source, shape = model_of(name), SHAPES[name]
    flags = ("--opt-shapes", f"x:{dims(shape)}", "--test-image", TEST_IMAGES[1], "-o", "m.engine", "--save-onnx", "m.onnx")
    done = onnx2trt(tmp_path, "--onnx", source, "--precision", precision, *flags)
    assert done.code == 0, done.stderr
    result = done.json("m.engine.json")
    assert result["precision"]["delivered"] == precision and (tmp_path / "m.engine").stat().st_size > 1e6
    found, expected = (outputs(model, TEST_IMAGES[:4], shape) for model in (tmp_path / "m.onnx", source))
    assert sqnr_db(expected, found) > (100 if precision == "fp32" else 35)
    if name == "rec" and precision == "fp16":
        made = onnx.load(tmp_path / "m.onnx").graph.node
        assert {"LayerNormalization"} == {one.op_type for one in made if one.op_type in ("LayerNormalization", "Sqrt")}, (
            "Paddle spells them out"
        )
        assert result["precision"]["fallback"] == []


def test_ppocr_with_a_range_of_shapes(tmp_path):
    shapes = ("--min-shapes", "x:1x3x48x64", "--opt-shapes", "x:2x3x48x320", "--max-shapes", "x:4x3x48x640")
    done = onnx2trt(tmp_path, "--onnx", model_of("rec"), *shapes, "--test-image", TEST_IMAGES[0], "-o", "m.engine")
    assert done.code == 0, done.stderr
    assert done.json("m.engine.json")["plan"]["profiles"][0]["max"] == [4, 3, 48, 640]


def pooled_iou(model, images, shape):
    reference, found = (outputs(path, images, shape) > 0.3 for path in (model_of("det"), model))
    return (reference & found).sum() / (reference | found).sum()


DET_INT8 = ("--opt-shapes", "x:1x3x640x640", "--precision", "int8", "--no-baseline", "-o", "m.engine", "--save-onnx", "m.onnx")


def test_ppocr_detection_in_int8(tmp_path):
    """Nothing but the calibration images; the test images are only looked at here."""
    done = onnx2trt(tmp_path, "--onnx", model_of("det"), *DET_INT8, "--calibration-dir", DATA / "calibration", timeout=600)
    assert done.code == 0, done.stderr
    result = done.json("m.engine.json")
    assert result["calibration"]["samples_used"] == 20 and result["accuracy"][0]["metric"] == "mask:0.3"
    found = int8_share(tmp_path / "m.onnx", x=SHAPES["det"])
    assert found > 0.8 and found == pytest.approx(result["precision"]["int8_mac_share"], abs=1e-3)
    assert pooled_iou(tmp_path / "m.onnx", TEST_IMAGES, SHAPES["det"]) > 0.988
    found, fused = (outputs(tmp_path / "m.onnx", TEST_IMAGES[:3], SHAPES["det"], as_it_stands) for as_it_stands in (True, False))
    assert sqnr_db(found, fused) > 20, "with the fusions that anybody gets from ONNX Runtime"


def test_ppocr_detection_from_the_cache_of_tensorrt(tmp_path):
    """Its scales for all layers lose 10 % of the mask; the layers are judged by the validation images."""
    flags = ("--calibration-cache", DATA / "tensorrt-10.6-entropy2.cache", "--validation-dir", DATA / "test")
    done = onnx2trt(tmp_path, "--onnx", model_of("det"), *DET_INT8, *flags, timeout=600)
    assert done.code == 0, done.stderr
    row, tried = done.json("m.engine.json")["accuracy"][0], done.json("m.engine.json")["calibration"]["tried"]
    assert row["drop_percent"] <= 1 and row["samples"] == 16 and tried[0]["drop_percent"] > 5 and not tried[0]["passed"]
    assert 100 * (1 - pooled_iou(tmp_path / "m.onnx", TEST_IMAGES, SHAPES["det"])) == pytest.approx(row["drop_percent"], abs=0.2)


@pytest.mark.parametrize("name", ["cls", "rec"])
def test_other_ppocr_networks_in_int8(tmp_path, name):
    flags = ("--opt-shapes", f"x:{dims(SHAPES[name])}", "--precision", "int8", "--calibration-dir", DATA / "calibration")
    done = onnx2trt(tmp_path, "--onnx", model_of(name), *flags, "--validation-dir", DATA / "test", "-o", "m.engine", timeout=600)
    assert done.code == 0, done.stderr
    assert done.json("m.engine.json")["accuracy"][0]["drop_percent"] <= 1


@pytest.mark.parametrize("name", LIGHT[::3])  # nothing is rewritten there, and each takes seconds
def test_light_models_in_fp32(tmp_path, name):
    done = onnx2trt(tmp_path, "--onnx", light(name), "--precision", "fp32", "-o", "m.engine")
    assert done.code == 0, done.stderr
    assert done.json("m.engine.json")["status"] == "not_validated" and "compared with itself" in done.stderr


@pytest.mark.parametrize("name", LIGHT)
def test_light_models_in_fp16_keep_what_overflows_in_fp32(tmp_path, name):
    done = onnx2trt(tmp_path, "--onnx", light(name), "-o", "m.engine", "--json", "r.json")
    result = done.json("r.json")
    if done.code == 7:
        assert "fp16 was asked for, but the engine is fp32" in done.error
        return
    assert done.code == 0, done.stderr
    kept = [entry for entry in result["precision"]["fallback"] if "above 32752" in entry["reason"]]
    overflows = {"densenet121": False, "inception_v2": False, "shufflenet": False}.get(name, True)
    assert bool(kept) == overflows and result["accuracy"][0]["nonfinite"] == 0
