"""Networks whose values FP16 does not hold, in the ways in which real ones have them."""

from __future__ import annotations

import numpy as np
import onnx
from models import model, multiplication_chain, node, random

ROWS, WIDTH = 8, 16


def rms_norm() -> onnx.ModelProto:
    """Written-out RMSNorm on activations of some hundred, whose squares are beyond FP16: [8, 16] -> [8, 16]."""
    nodes = [
        node("MatMul", "x large", "h", "up"),
        node("Mul", "h h", "squares", "squares"),
        node("ReduceMean", "squares", "mean", "mean", axes=[-1]),
        node("Add", "mean epsilon", "off", "offset"),
        node("Sqrt", "off", "root", "root"),
        node("Div", "h root", "normed", "normed"),
        node("Mul", "normed gain", "scaled", "scaled"),
        node("MatMul", "scaled w", "y", "down"),
    ]
    weights = {"large": random(WIDTH, WIDTH, scale=300.0), "epsilon": np.float32(1e-6), "gain": random(WIDTH, seed=1) + 2}
    return model(nodes, {"x": [ROWS, WIDTH]}, {"y": [ROWS, WIDTH]}, {**weights, "w": random(WIDTH, WIDTH, seed=2)})


def residual_stream() -> onnx.ModelProto:
    """A residual stream with a channel of 1e5, as language models have them, in front of a LayerNormalization: [8, 16] -> [8, 4]."""
    outlier = np.zeros(WIDTH, np.float32)
    outlier[3] = 1e5
    nodes = [
        node("MatMul", "x w", "h", "first"),
        node("Relu", "h", "r", "relu"),
        node("MatMul", "r w2", "h2", "second"),
        node("Add", "h2 x", "sum", "residual"),
        node("Add", "sum outlier", "stream", "outlier"),
        node("LayerNormalization", "stream gain bias", "normed", "norm", axis=-1),
        node("MatMul", "normed head", "y", "head"),
    ]
    weights = {"w": random(WIDTH, WIDTH), "w2": random(WIDTH, WIDTH, seed=1), "outlier": outlier, "gain": np.ones(WIDTH, np.float32)}
    return model(
        nodes,
        {"x": [ROWS, WIDTH]},
        {"y": [ROWS, 4]},
        {**weights, "bias": random(WIDTH, seed=2), "head": random(WIDTH, 4, seed=3)},
    )


def raw_pixels() -> onnx.ModelProto:
    """Convolutions on values of 1e3 without any normalisation, brought back at the end: [1, 3, 16, 16] -> [1, 4, 16, 16]."""
    nodes = [
        node("Mul", "x range", "p", "pixels"),
        node("Conv", "p w1", "c1", "stem", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1", "relu"),
        node("Conv", "r1 w2", "c2", "body", pads=[1, 1, 1, 1]),
        node("Mul", "c2 back", "m", "back"),
        node("Conv", "m w3", "y", "head"),
    ]
    weights = {"range": np.float32(1e3), "w1": random(8, 3, 3, 3), "w2": random(8, 8, 3, 3, seed=1, scale=3.0), "back": np.float32(1e-5)}
    return model(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 4, 16, 16]}, {**weights, "w3": random(4, 8, 1, 1, seed=2)})


def late_scale() -> onnx.ModelProto:
    """Attention whose scores are scaled after the product: [8, 16] -> [8, 16]."""
    nodes = [
        node("MatMul", "x wq", "q", "query"),
        node("MatMul", "x wk", "k", "key"),
        node("Transpose", "k", "kt", "turn", perm=[1, 0]),
        node("MatMul", "q kt", "s", "scores"),
        node("Mul", "s scale", "t", "scaled"),
        node("Softmax", "t", "p", "softmax", axis=-1),
        node("MatMul", "p x", "y", "values"),
    ]
    weights = {"wq": random(WIDTH, WIDTH, scale=60.0), "wk": random(WIDTH, WIDTH, seed=1, scale=60.0), "scale": np.float32(2e-5)}
    return model(nodes, {"x": [ROWS, WIDTH]}, {"y": [ROWS, WIDTH]}, weights)


NETS = {
    "RMSNorm": rms_norm(),
    "residual stream": residual_stream(),
    "raw pixels": raw_pixels(),
    "late scale": late_scale(),
    "chain of 1e5": multiplication_chain(),
}
