"""Normalisations that are one operator, in real FP16 engines of TensorRT-RTX: what they are computed in."""

import re

import numpy as np
import onnx
import pytest
from command import onnx2trt
from models import model, node, random

from onnx2trt.trt.plan_text import _plan_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.mark.parametrize("operator, opset", [("LayerNormalization", 17), ("RMSNormalization", 23)])
def test_mean_and_variance_are_fp32_in_an_fp16_engine(tmp_path, operator, opset):
    """So an epsilon that FP16 does not hold is no reason to keep them in FP32, with what BERT adds to them around."""
    nodes = [node("MatMul", "x w", "m", "product"), node(operator, "m s", "y", "norm", epsilon=1e-12)]
    weights = {"w": random(64, 64, seed=1), "s": np.ones(64, np.float32)}
    onnx.save(model(nodes, {"x": [4, 16, 64]}, {"y": [4, 16, 64]}, weights, opset), tmp_path / "net.onnx")
    done = onnx2trt(tmp_path, "--onnx", "net.onnx", "--precision", "fp16", "--json", "r.json")
    assert done.code == 0, done.stderr
    assert done.json("r.json")["precision"]["fallback"] == []
    plan = _plan_of(memoryview((tmp_path / "net.engine").read_bytes()))
    assert re.search(r"name=__myl_\w*Cast\w*Mean\w*Sqrt\w*Cast", plan), "one kernel, which reads and gives FP16, with casts inside"
    assert re.search(r'name="__mye\w+_reshape".* type=half', plan), "its factors are FP16"
