"""Small random networks whose outputs are of one kind or another, with candidates made by changing their weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from models import model, node
from onnx import TensorProto

from verdicts.base import rounded

INT64 = TensorProto.INT64
Weights = dict[str, np.ndarray]
Net = tuple[onnx.ModelProto, dict[str, onnx.ModelProto], dict[str, onnx.ModelProto], list[dict[str, np.ndarray]]]
NETS: dict[str, Callable[[np.random.Generator, int], Net]] = {}  # name -> (original, harmless, harmful, inputs of each sample)


def net(make):
    NETS[make.__name__] = make
    return make


def int8(weights: Weights) -> Weights:
    """Matrices and kernels in 8 bits with a scale for each output channel."""
    axes = {name: tuple(range(1, array.ndim)) for name, array in weights.items() if array.ndim > 1 and array.dtype.kind == "f"}
    return {name: rounded(array, axes[name]) if name in axes else array for name, array in weights.items()}


def fp16(weights: Weights) -> Weights:
    return {name: array.astype(np.float16).astype(np.float32) if array.dtype.kind == "f" else array for name, array in weights.items()}


def made(build: Callable[[Weights], onnx.ModelProto], weights: Weights, harmful: dict[str, Weights], feeds) -> Net:
    """
    Args:
        harmful: what is lost -> the weights that differ.
    """
    good = {"INT8 weights": build(int8(weights)), "FP16 weights": build(fp16(weights))}
    return build(weights), good, {what: build({**weights, **other}) for what, other in harmful.items()}, feeds


def scaled(random, *shape, gain=1.4) -> np.ndarray:
    return (random.standard_normal(shape) * gain / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def images(random, count, side=24) -> list[dict[str, np.ndarray]]:
    """Of one brightness and tint each, with patches."""
    coarse = random.random((count, 1, 3, side // 4, side // 4)).repeat(4, 3).repeat(4, 4)
    tint = random.random((count, 1, 3, 1, 1))
    return [{"x": (0.3 * one + 0.6 * level + 0.1 * random.random(one.shape)).astype(np.float32)} for one, level in zip(coarse, tint)]


def backbone(random) -> tuple[list, Weights]:
    """x [N, 3, 24, 24] -> f [N, 16, 12, 12]"""
    nodes = [node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]), node("Relu", "c1", "r1")]
    nodes += [node("Conv", "r1 w2 b2", "c2", pads=[1, 1, 1, 1]), node("Relu", "c2", "f")]
    weights = {"w1": scaled(random, 16, 3, 3, 3), "w2": scaled(random, 16, 16, 3, 3)}
    return nodes, weights | {name: (random.standard_normal(16) * 0.1).astype(np.float32) for name in ("b1", "b2")}


def on_images(random, count, nodes, weights, outputs, harmful) -> Net:
    trunk, common = backbone(random)

    def build(found):
        return model([*trunk, *nodes], {"x": ["N", 3, 24, 24]}, outputs, found)

    return made(build, {**common, **weights}, harmful, images(random, count))


@net
def net_of_two_distances(random, count):
    """[N, 2, 12, 12], the first always the larger."""
    head = np.abs(scaled(random, 2, 16, 1, 1))
    head[1] *= -1
    nodes = [node("Conv", "f head", "y")]
    first = np.float32([1, 0]).reshape(2, 1, 1, 1)
    bad = {"half": {"head": head / 2}, "one lost": {"head": head * first}, "swapped": {"head": head[::-1].copy()}}
    return on_images(random, count, nodes, {"head": head}, {"y": ["N", 2, 12, 12]}, bad)


@net
def net_of_an_embedding(random, count):
    """[N, 32] of length 1."""
    head = scaled(random, 16, 32)
    nodes = [node("GlobalAveragePool", "f", "p"), node("Flatten", "p", "q"), node("Sub", "q middle", "o"), node("MatMul", "o head", "e")]
    nodes += [node("LpNormalization", "e", "y", axis=1, p=2)]
    bad = {"turned": {"head": head[:, ::-1].copy()}, "half of it": {"head": np.where(np.arange(32) < 16, head, 0).astype(np.float32)}}
    weights = {"head": head, "middle": np.full(16, 0.4, np.float32)}
    return on_images(random, count, nodes, weights, {"y": ["N", 32]}, bad)


@net
def net_of_labels(random, count):
    """[N, 12, 12] by ArgMax."""
    head, bias = scaled(random, 8, 16, 1, 1), np.zeros(8, np.float32)
    nodes = [node("Conv", "f head bias", "l"), node("ArgMax", "l", "y", axis=1, keepdims=0)]
    common = bias.copy()
    common[0] = 100
    bad = {"one class only": {"bias": common}, "classes shuffled": {"head": head[::-1].copy()}}
    return on_images(random, count, nodes, {"head": head, "bias": bias}, {"y": (INT64, ["N", 12, 12])}, bad)


@net
def net_of_a_detector(random, count):
    """[N, 4 + 3, 144]: boxes in pixels of 320, and scores."""
    boxes, scores = scaled(random, 4, 16, 1, 1, gain=0.5), scaled(random, 3, 16, 1, 1, gain=4)
    nodes = [node("Conv", "f boxes", "b"), node("Sigmoid", "b", "bs"), node("Mul", "bs pixels", "bp")]
    nodes += [
        node("Conv", "f scores low", "s"),
        node("Sigmoid", "s", "ss"),
        node("Concat", "bp ss", "c", axis=1),
        node("Reshape", "c shape", "y"),
    ]
    weights = {"boxes": boxes, "scores": scores, "low": np.full(3, -2, np.float32), "pixels": np.float32(320)}
    bad = {
        "scores lost": {"scores": scores * 0, "low": np.full(3, -9, np.float32)},
        "one class dead": {"low": np.float32([-2, -30, -2])},
        "boxes lost": {"pixels": np.float32(0)},
        "boxes a tenth too small": {"pixels": np.float32(280)},
    }
    return on_images(random, count, nodes, {**weights, "shape": np.array([0, 7, -1])}, {"y": ["N", 7, 144]}, bad)


@net
def net_of_the_best(random, count):
    """TopK: scores, boxes and labels of the ten best of 144 anchors."""
    boxes, scores = scaled(random, 4, 16, 1, 1, gain=0.5), scaled(random, 3, 16, 1, 1, gain=4)
    nodes = [node("Conv", "f boxes", "b"), node("Sigmoid", "b", "bs"), node("Mul", "bs pixels", "bp"), node("Reshape", "bp four", "br")]
    nodes += [node("Transpose", "br", "bt", perm=[0, 2, 1]), node("Conv", "f scores low", "s"), node("Sigmoid", "s", "ss")]
    nodes += [node("Reshape", "ss three", "sr"), node("ReduceMax", "sr", "m", axes=[1], keepdims=0), node("TopK", "m k", "top i", axis=1)]
    nodes += [node("ArgMax", "sr", "l", axis=1, keepdims=0), node("GatherElements", "l i", "labels", axis=1)]
    nodes += [node("Unsqueeze", "i last", "iu"), node("Tile", "iu tile", "it"), node("GatherElements", "bt it", "found", axis=1)]
    weights = {"boxes": boxes, "scores": scores, "low": np.full(3, -2, np.float32), "pixels": np.float32(320)}
    weights |= {
        "four": np.array([0, 4, -1]),
        "three": np.array([0, 3, -1]),
        "k": np.array([10]),
        "last": np.array([2]),
        "tile": np.array([1, 1, 4]),
    }
    bad = {
        "scores lost": {"scores": scores * 0},
        "boxes lost": {"pixels": np.float32(0)},
        "classes shuffled": {"scores": scores[::-1].copy()},
    }
    outputs = {"found": ["N", 10, 4], "top": ["N", 10], "labels": (INT64, ["N", 10])}
    return on_images(random, count, nodes, weights, outputs, bad)


@net
def net_with_a_state(random, count):
    """A recurrent cell whose state goes round."""
    turn = (np.linalg.qr(random.standard_normal((16, 16)))[0] * 0.9).astype(np.float32)
    weights = {"turn": turn, "given": scaled(random, 6, 16, gain=1), "read": scaled(random, 16, 3), "bias": np.zeros(16, np.float32)}
    nodes = [node("MatMul", "h_in turn", "a"), node("MatMul", "x given", "b"), node("Add", "a b", "c"), node("Add", "c bias", "d")]
    nodes += [node("Tanh", "d", "h_out"), node("MatMul", "h_out read", "y")]

    def build(found):
        return model(nodes, {"x": [1, 6], "h_in": [1, 16]}, {"y": [1, 3], "h_out": [1, 16]}, found)

    feeds = [{"x": random.standard_normal((1, 6)).astype(np.float32), "h_in": np.zeros((1, 16), np.float32)} for _ in range(count)]
    bad = {
        "memory lost": {"turn": turn * 0},
        "memory short": {"turn": turn * np.float32(0.6)},
        "drifting": {"bias": np.full(16, 0.05, np.float32)},
    }
    return made(build, weights, bad, feeds)
