"""The example network: what it is, what it can, and that INT8 is hard on it."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from command import ROOT, onnx2trt
from macs import int8_share

EXAMPLE = ROOT / "examples" / "ultralight_segmentation"
SHAPE = (1, 3, 256, 320)


def miou(model, *flags) -> float:
    command = [sys.executable, str(EXAMPLE / "evaluate.py"), str(model), "--json", *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["miou"]


def test_the_network_is_what_light_networks_are():
    model = onnx.load(EXAMPLE / "model.onnx")
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    operators = {node.op_type for node in model.graph.node}
    depthwise = [n for n in model.graph.node if n.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in n.attribute)]
    assert 1e6 < parameters < 3e6 and (EXAMPLE / "model.onnx").stat().st_size < 12e6
    assert len(depthwise) > 10 and {"HardSigmoid", "Mul", "GlobalAveragePool", "Resize", "Concat"} <= operators
    assert "BatchNormalization" not in operators
    batch = model.graph.input[0].type.tensor_type.shape.dim
    assert batch[0].dim_param and [dim.dim_value for dim in batch[1:]] == [3, 256, 320]


def test_the_data_is_complete_and_small():
    images = {name: sorted((EXAMPLE / name).iterdir()) for name in ("calibration", "test", "test_masks")}
    assert len(images["calibration"]) >= 100 and len(images["test"]) == len(images["test_masks"]) == 40
    assert sum(path.stat().st_size for paths in images.values() for path in paths) < 4e6
    assert [p.stem for p in images["test"]] == [p.stem for p in images["test_masks"]]


def test_the_data_can_be_made_again(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    import evaluate
    import make_dataset

    for index in (0, 17):
        image, classes = make_dataset.sample("test", index)
        assert np.array_equal(evaluate.read_mask(EXAMPLE / "test_masks" / f"{index:03d}.png"), classes)
        stored = evaluate.preprocess((EXAMPLE / "test" / f"{index:03d}.jpg").read_bytes()) * 255
        assert np.abs(stored - image[..., ::-1].transpose(2, 0, 1)).mean() < 4, "JPEG"


def test_it_segments():
    assert miou(EXAMPLE / "model.onnx") >= 0.90


def test_help_of_the_scripts_needs_nothing():
    done = subprocess.run([sys.executable, "-S", str(EXAMPLE / "evaluate.py"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "usage" in done.stdout


@pytest.mark.real
def test_naive_int8_hurts_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    import evaluate
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self.paths = iter(sorted((EXAMPLE / "calibration").glob("*.jpg")))

        def get_next(self):
            path = next(self.paths, None)
            return None if path is None else {"image": evaluate.preprocess(path.read_bytes())[None]}

    quantize_static(
        EXAMPLE / "model.onnx",
        tmp_path / "naive.onnx",
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=False,
        calibrate_method=CalibrationMethod.MinMax,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    assert miou(EXAMPLE / "model.onnx") - miou(tmp_path / "naive.onnx") >= 0.03


@pytest.mark.real
def test_our_int8_does_not(tmp_path):
    images = ("--calibration-dir", EXAMPLE / "calibration", "--test-image", EXAMPLE / "test" / "000.jpg")
    every = "--no-baseline"  # all layers that accuracy allows, also those that gain nothing by the engine's plan
    int8 = ("--onnx", EXAMPLE / "model.onnx", "--precision", "int8", every, "--calibration-cache", "c.cache")
    done = onnx2trt(tmp_path, *int8, *images, "--save-onnx", "int8.onnx")
    assert done.code == 0, done.stderr
    assert int8_share(tmp_path / "int8.onnx", image=SHAPE) >= 0.8
    assert miou(EXAMPLE / "model.onnx") - miou(tmp_path / "int8.onnx") <= 0.005
    again = onnx2trt(tmp_path, *int8, *images[2:], "--save-onnx", "again.onnx", "-o", "again.engine")
    assert again.code == 0, again.stderr
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes(), "from the cache alone"
    first, second = (one.json(f"{name}.engine.json")["accuracy"] for one, name in ((done, "model"), (again, "again")))
    assert [row.pop("seen_in_calibration", None) for row in (*first, *second)] == [False, None], "a cache does not tell its samples"
    assert first == second


@pytest.mark.real
def test_a_batch_of_sixteen(tmp_path):
    images = ("--calibration-dir", EXAMPLE / "calibration", "--calibration-samples", "20", "--test-image", EXAMPLE / "test" / "001.jpg")
    flags = ("--max-batch-size", "16")
    done = onnx2trt(tmp_path, "--onnx", EXAMPLE / "model.onnx", "--precision", "int8", *images, *flags)
    assert done.code == 0, done.stderr
    result = done.json("model.engine.json")
    assert result["plan"]["profiles"][0] == {"name": "image", "min": [1, *SHAPE[1:]], "opt": [16, *SHAPE[1:]], "max": [16, *SHAPE[1:]]}
    assert result["calibration"]["samples_used"] == 20
