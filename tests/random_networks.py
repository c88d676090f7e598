"""Random networks of the kinds that INT8 has to cope with, and how near INT8 comes to them at each effort.

Blocks take their weights by name from one store, so a block that is applied twice shares them: siamese branches, unrolled loops, heads
over several levels. Weights also appear as data, biases serve several layers, and weights are outputs of the network.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from helpers import planned
from models import FLOAT, model
from onnx import TensorProto, helper

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.pipeline import int8
from onnx2trt.rewrite.simulate import simulation

Feed = dict[str, np.ndarray]
CALIBRATED, MEASURED = 12, 480  # samples; of 48, one rules: 13 of 400 such sets had lost more than 1 dB, none of 40 of 480


@dataclass(frozen=True)
class RandomNetwork:
    """A model and a source of data for it."""

    seed: int
    model: onnx.ModelProto
    feed: Callable[[int], Feed]  # number of a sample -> its arrays, batch 1
    kinds: tuple[str, ...]  # of what is in it


class Builder:
    """Nodes and weights of one network in the making."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.kinds: list[str] = []
        self.outputs: dict[str, list] = {}
        self.spread = float(self.random.choice([0.0, 0.5, 1.0]))  # of the magnitudes of output channels, in natural logarithms
        self._number = 0

    def add(self, op: str, *inputs: str, **attributes) -> str:
        """A node; returns its output."""
        self._number += 1
        name = f"{op.lower()}{self._number}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"/{name}", **attributes))
        return name

    def weight(self, name: str, *shape: int, fan_in: int, outputs: int = 0, gain: float = 1.4) -> str:
        """The weight of this name, made where there is none yet.

        Args:
            outputs: axis of the output channels, whose magnitudes differ.
        """
        if name not in self.weights:
            values = self.random.standard_normal(shape) / np.sqrt(fan_in) * gain
            size = [-1 if axis == outputs else 1 for axis in range(len(shape))]
            magnitudes = np.exp(self.random.standard_normal(shape[outputs]) * self.spread)
            self.weights[name] = (values * (magnitudes / np.sqrt((magnitudes**2).mean())).reshape(size)).astype(np.float32)
        return name

    def vector(self, name: str, *shape: int, mean: float = 0.0, scale: float = 0.2) -> str:
        if name not in self.weights:
            self.weights[name] = (self.random.standard_normal(shape) * scale + mean).astype(np.float32)
        return name

    def const(self, name: str, values, dtype=np.int64) -> str:
        self.weights.setdefault(name, np.asarray(values, dtype))
        return name

    def pick(self, *choices):
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def result(self, tensor: str, name: str, rank: int) -> None:
        self.nodes.append(helper.make_node("Identity", [tensor], [name], name=f"/{name}"))
        self.outputs[name] = [f"{name}_{axis}" for axis in range(rank)]

    def activation(self, x: str, kind: str, channels: int, scope: str) -> str:
        if kind == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        if kind == "relu6":
            return self.add("Clip", x, self.const("zero", 0.0, np.float32), self.const("six", 6.0, np.float32))
        if kind == "prelu":
            return self.add("PRelu", x, self.vector(f"{scope}_slope", channels, 1, 1, mean=0.2, scale=0.1))
        return x if kind == "none" else self.add(kind, x, **({"alpha": 0.1} if kind == "LeakyRelu" else {}))


IMAGE_ACTIVATIONS = ("Relu", "Relu", "LeakyRelu", "relu6", "silu", "HardSwish", "Tanh", "prelu", "Elu", "none")
ROW_ACTIVATIONS = ("Relu", "Relu", "LeakyRelu", "silu", "Tanh", "Elu", "none")


# ---- blocks of images: [N, C, H, W] -> [N, C, H', W']. A block is drawn once (`draw`), and what it gives may be applied many times.


def conv_block(b: Builder, c: int):
    groups, kernel, act = b.pick(1, 1, 2, 4, c), b.pick(1, 3, 3), b.pick(*IMAGE_ACTIVATIONS)
    bias, norm = b.pick("own", "own", "none", "common"), b.chance(0.25)
    b.kinds.append("depthwise" if groups == c else "grouped conv" if groups > 1 else "conv")

    def apply(x: str, scope: str) -> str:
        w = b.weight(f"{scope}_w", c, c // groups, kernel, kernel, fan_in=c // groups * kernel**2)
        biases = {"own": [f"{scope}_b"], "common": ["common_b"], "none": []}[bias]
        y = b.add("Conv", x, w, *(b.vector(name, c) for name in biases), group=groups, pads=[kernel // 2] * 4)
        if norm:
            variance = b.const(f"{scope}_var", np.exp(b.random.standard_normal(c) * b.spread), np.float32)
            parts = [b.vector(f"{scope}_gamma", c, mean=1.0), b.vector(f"{scope}_beta", c), b.vector(f"{scope}_mean", c)]
            y = b.add("BatchNormalization", y, *parts, variance)
        return b.activation(y, act, c, scope)

    return apply


def transposed_block(b: Builder, c: int):
    groups, kernel, act = b.pick(1, 2, 4, c), b.pick(2, 3), b.pick(*IMAGE_ACTIVATIONS)
    b.kinds.append("depthwise transposed" if groups == c else "grouped transposed" if groups > 1 else "transposed")

    def apply(x: str, scope: str) -> str:
        w = b.weight(f"{scope}_w", c, c // groups, kernel, kernel, fan_in=c // groups * kernel**2 // 2, outputs=b_axis)
        more = {"pads": [1] * 4, "output_padding": [1, 1]} if kernel == 3 else {}
        y = b.add("ConvTranspose", x, w, b.vector(f"{scope}_b", c), group=groups, strides=[2, 2], **more)
        return b.activation(b.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]), act, c, scope)

    b_axis = 1
    return apply


def mirrored_block(b: Builder, c: int):
    """A convolution, and a transposed one by the same weights."""
    groups, act = b.pick(1, 1, 2, c), b.pick(*IMAGE_ACTIVATIONS)
    b.kinds.append("mirrored")

    def apply(x: str, scope: str) -> str:
        w = b.weight(f"{scope}_w", c, c // groups, 3, 3, fan_in=c // groups * 9)
        y = b.activation(b.add("Conv", x, w, b.vector(f"{scope}_b", c), group=groups, pads=[1] * 4), act, c, scope)
        return b.add("ConvTranspose", y, w, group=groups, pads=[1] * 4)

    return apply


def residual_block(b: Builder, c: int):
    first, second, act = conv_block(b, c), conv_block(b, c), b.pick("Relu", "none", "LeakyRelu")
    b.kinds.append("residual")

    def apply(x: str, scope: str) -> str:
        return b.activation(b.add("Add", second(first(x, f"{scope}_1"), f"{scope}_2"), x), act, c, scope)

    return apply


def expanding_block(b: Builder, c: int):
    act, wide = b.pick(*IMAGE_ACTIVATIONS), b.pick(2, 3) * c
    b.kinds.append("inverted residual")

    def apply(x: str, scope: str) -> str:
        y = b.add("Conv", x, b.weight(f"{scope}_up", wide, c, 1, 1, fan_in=c), b.vector(f"{scope}_ub", wide))
        y = b.activation(y, act, wide, f"{scope}_u")
        y = b.add("Conv", y, b.weight(f"{scope}_dw", wide, 1, 3, 3, fan_in=9), b.vector(f"{scope}_db", wide), group=wide, pads=[1] * 4)
        y = b.activation(y, act, wide, f"{scope}_d")
        return b.add("Add", b.add("Conv", y, b.weight(f"{scope}_down", c, wide, 1, 1, fan_in=wide), b.vector(f"{scope}_b", c)), x)

    return apply


def gate_block(b: Builder, c: int):
    gate = b.pick("Sigmoid", "HardSigmoid")
    b.kinds.append("gate")

    def apply(x: str, scope: str) -> str:
        y = b.add("Conv", b.add("GlobalAveragePool", x), b.weight(f"{scope}_w", c, c, 1, 1, fan_in=c), b.vector(f"{scope}_b", c))
        return b.add("Mul", x, b.add(gate, y))

    return apply


def dense_block(b: Builder, c: int):
    inner = conv_block(b, c)
    b.kinds.append("concat")

    def apply(x: str, scope: str) -> str:
        joined = b.add("Concat", x, inner(x, f"{scope}_1"), axis=1)
        return b.add("Conv", joined, b.weight(f"{scope}_w", c, 2 * c, 1, 1, fan_in=2 * c))

    return apply


def moving_block(b: Builder, c: int):
    kind = b.pick("MaxPool", "AveragePool", "Resize", "shuffle", "InstanceNormalization")
    b.kinds.append(kind)

    def apply(x: str, scope: str) -> str:
        if kind == "Resize":
            half = b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            return b.add(
                "Resize",
                half,
                "",
                b.const("twice", [1, 1, 2, 2], np.float32),
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        if kind == "shuffle":
            apart = b.add("Reshape", x, b.const("apart", [0, 2, c // 2, -1]))
            return b.add("Reshape", b.add("Transpose", apart, perm=[0, 2, 1, 3]), b.const("joined", [0, c, SIZE, SIZE]))
        if kind == "InstanceNormalization":
            return b.add(kind, x, b.vector(f"{scope}_scale", c, mean=1.0), b.vector(f"{scope}_shift", c))
        return b.add(kind, x, kernel_shape=[3, 3], pads=[1] * 4)

    return apply


IMAGE_BLOCKS = (
    *(conv_block, conv_block, transposed_block, mirrored_block, residual_block),
    *(expanding_block, gate_block, dense_block, moving_block),
)
SIZE = 12  # height and width, throughout


# ---- blocks of rows: [N, T, C] or [N, C] -> the same


def linear_block(b: Builder, c: int):
    act, bias, form = b.pick(*ROW_ACTIVATIONS), b.pick("own", "none", "common"), b.pick("MatMul", "Gemm", "Gemm transposed")
    b.kinds.append(form)

    def apply(x: str, scope: str, rank: int) -> str:
        names = [b.vector({"own": f"{scope}_b", "common": "common_b"}[bias], c)] if bias != "none" else []
        if form == "MatMul" or rank == 3:
            y = b.add("MatMul", x, b.weight(f"{scope}_w", c, c, fan_in=c, outputs=1))
            y = b.add("Add", y, *names) if names else y
        elif form == "Gemm":
            y = b.add("Gemm", x, b.weight(f"{scope}_w", c, c, fan_in=c, outputs=1), *names)
        else:
            y = b.add("Gemm", x, b.weight(f"{scope}_w", c, c, fan_in=c), *names, transB=1)
        return b.activation(y, act, c, scope)

    return apply


def coder_block(b: Builder, c: int):
    """One matrix there and back, as of an autoencoder with tied weights."""
    act, rank3 = b.pick(*ROW_ACTIVATIONS), b.pick("MatMul", "none")
    b.kinds.append("tied coder")

    def apply(x: str, scope: str, rank: int) -> str:
        w = b.weight(f"{scope}_w", c, c, fan_in=c, outputs=1)
        if rank == 3:
            y = b.activation(b.add("MatMul", x, w), act, c, scope)
            return b.add("MatMul", y, w) if rank3 == "MatMul" else y
        y = b.activation(b.add("Gemm", x, w, b.vector(f"{scope}_b", c)), act, c, scope)
        return b.add("Gemm", y, w, b.vector(f"{scope}_b", c), transB=1)

    return apply


def mlp_block(b: Builder, c: int):
    act, norm, wide = b.pick(*ROW_ACTIVATIONS), b.chance(0.6), 2 * c
    b.kinds.append("mlp with norm" if norm else "mlp")

    def apply(x: str, scope: str, rank: int) -> str:
        y = x
        if norm:
            y = b.add("LayerNormalization", x, b.vector(f"{scope}_gamma", c, mean=1.0), b.vector(f"{scope}_beta", c), axis=-1)
        y = b.add("Add", b.add("MatMul", y, b.weight(f"{scope}_up", c, wide, fan_in=c, outputs=1)), b.vector(f"{scope}_ub", wide))
        y = b.add("MatMul", b.activation(y, act, wide, scope), b.weight(f"{scope}_down", wide, c, fan_in=wide, outputs=1))
        return b.add("Add", b.add("Add", y, b.vector(f"{scope}_b", c)), x)

    return apply


def attention_block(b: Builder, c: int):
    b.kinds.append("attention")
    tied = b.chance(0.3)  # queries and keys by one weight

    def apply(x: str, scope: str, rank: int) -> str:
        if rank == 2:
            return x
        q, k, v = (
            b.add("MatMul", x, b.weight(f"{scope}_{'qk' if tied and part in 'qk' else part}", c, c, fan_in=c, outputs=1)) for part in "qkv"
        )
        scores = b.add("Mul", b.add("MatMul", q, b.add("Transpose", k, perm=[0, 2, 1])), b.const("root", 1 / np.sqrt(c), np.float32))
        mixed = b.add("MatMul", b.add("Softmax", scores, axis=-1), v)
        return b.add("Add", b.add("MatMul", mixed, b.weight(f"{scope}_o", c, c, fan_in=c, outputs=1)), x)

    return apply


ROW_BLOCKS = (linear_block, linear_block, coder_block, mlp_block, mlp_block, attention_block)


# ---- networks


def applied(b: Builder, block, x: str, scope: str, *rank: int) -> str:
    """Once, or as an unrolled loop: the same weights again and again."""
    times = b.pick(1, 1, 1, 2, 3)
    if times > 1:
        b.kinds.append("loop")
    for _ in range(times):
        x = block(x, scope, *rank)
    return x


def images(b: Builder) -> tuple[dict, Callable]:
    c = b.pick(8, 12, 16)
    stem = b.weight("stem", c, 3, 3, 3, fan_in=27)
    trunk = [b.pick(*IMAGE_BLOCKS)(b, c) for _ in range(b.pick(2, 3, 4))]
    two = b.chance(0.4)
    ends = []
    for image in ("x", "x2")[: 1 + two]:
        y = b.add("Relu", b.add("Conv", image, stem, b.vector("stem_b", c), pads=[1] * 4))
        for index, block in enumerate(trunk):
            y = applied(b, block, y, f"t{index}")
        ends.append(y)
    if two:
        b.kinds.append("siamese")
        ends = [b.add("Abs", b.add("Sub", *ends))] if b.chance(0.5) else [b.add("Add", *ends)] if b.chance(0.5) else ends
    if b.chance(0.4):  # a pyramid; what follows is applied to each of its levels
        b.kinds.append("levels")
        level = ends[-1]
        for index in range(b.pick(1, 2)):
            w = b.weight(f"level{index}", c, c, 3, 3, fan_in=9 * c, gain=b.pick(0.5, 1.4, 4.0))
            level = b.add("Relu", b.add("Conv", level, w, pads=[1] * 4))
            ends.append(level)
    head, head_kind = b.pick(conv_block, residual_block, transposed_block)(b, c), b.pick("map", "map", "classes", "flat")
    for index, end in enumerate(ends):
        y = head(end, "head")
        if head_kind == "map":
            b.result(b.add("Conv", y, b.weight("out", 3, c, 1, 1, fan_in=c), b.vector("out_b", 3)), f"y{index}", 4)
        elif head_kind == "flat":
            flat = b.add("Flatten", b.add("MaxPool", y, kernel_shape=[4, 4], strides=[4, 4]))
            b.result(b.add("Gemm", flat, b.weight("out", 5, 9 * c, fan_in=9 * c), b.vector("out_b", 5), transB=1), f"y{index}", 2)
        else:
            flat = b.add("Flatten", b.add("GlobalAveragePool", y))
            b.result(b.add("Gemm", flat, b.weight("out", 5, c, fan_in=c), b.vector("out_b", 5), transB=1), f"y{index}", 2)
    if b.chance(0.15):
        b.kinds.append("weight as output")
        b.result("stem", "given", 4)
    magnitude, own = np.exp(b.random.standard_normal(3) * b.spread), b.pick(1.0, 1.0, 4.0)
    coarse = b.random.random((4, 3, 4, 4))

    def feed(number: int) -> Feed:
        random = np.random.default_rng([b_seed, number])
        found = {}
        for name, reach in (("x", 1.0), ("x2", own))[: 1 + two]:
            mixed = np.einsum("k,kcij->cij", random.dirichlet(np.ones(4)), coarse).repeat(3, 1).repeat(3, 2)
            values = (0.7 * mixed + 0.3 * random.random((3, SIZE, SIZE))) * magnitude[:, None, None] * reach
            found[name] = values[None].astype(np.float32)
        return found

    b_seed = int(b.random.integers(2**31))
    return {name: (FLOAT, ["N", 3, SIZE, SIZE]) for name in ("x", "x2")[: 1 + two]}, feed


def rows(b: Builder) -> tuple[dict, Callable]:
    c, rank, length = b.pick(12, 16, 24), b.pick(2, 3, 3), 8
    embedded = rank == 3 and b.chance(0.35)
    trunk = [b.pick(*ROW_BLOCKS)(b, c) for _ in range(b.pick(2, 3, 4))]
    two = not embedded and b.chance(0.35)
    ends = []
    for name in ("x", "x2")[: 1 + two]:
        y = b.add("Gather", b.weight("table", 40, c, fan_in=1), name, axis=0) if embedded else name
        if rank == 3 and b.chance(0.3):  # a constant that is the weight of a product, too
            b.kinds.append("weight as data")
            y = b.add("Add", y, b.const("place", b.random.standard_normal((length, c)), np.float32))
            square = b.add("MatMul", y, b.add("Transpose", "place", perm=[1, 0]))
            y = b.add("MatMul", square, "place")
            y = b.add("Mul", y, b.const("fold", 1 / c, np.float32))
        for index, block in enumerate(trunk):
            y = applied(b, block, y, f"t{index}", rank)
        ends.append(y)
    if two:
        b.kinds.append("siamese")
        ends = [b.add("Abs", b.add("Sub", *ends))] if b.chance(0.5) else ends
    for index, end in enumerate(ends):
        if embedded:  # the table is the output layer, too
            b.kinds.append("tied embedding")
            flat = b.add("Gemm", b.add("Reshape", end, b.const("rows", [-1, c])), "table", transB=1)
            b.result(b.add("Reshape", flat, b.const("tokens", [-1, length, 40])), f"y{index}", 3)
        elif rank == 3 and b.chance(0.5):
            b.result(b.add("MatMul", end, b.weight("out", c, 6, fan_in=c, outputs=1)), f"y{index}", 3)
        else:
            flat = b.add("ReduceMean", end, axes=[1], keepdims=0) if rank == 3 else end
            b.result(b.add("Gemm", flat, b.weight("out2", c, 6, fan_in=c, outputs=1), b.vector("out_b", 6)), f"y{index}", 2)
    mixing = b.random.standard_normal((4, c)) * np.exp(b.random.standard_normal(c) * b.spread)

    def feed(number: int) -> Feed:
        random = np.random.default_rng([b_seed, number])
        shape = (1, length) if rank == 3 else (1,)
        if embedded:
            return {"x": random.integers(0, 40, shape)}
        names = ("x", "x2")[: 1 + two]
        return {
            n: (random.standard_normal((*shape, 4)) @ mixing + 0.2 * random.standard_normal((*shape, c))).astype(np.float32) for n in names
        }

    b_seed = int(b.random.integers(2**31))
    shape = ["N", length] if embedded else ["N", length, c] if rank == 3 else ["N", c]
    kind = TensorProto.INT64 if embedded else FLOAT
    return dict.fromkeys(("x", "x2")[: 1 + two], (kind, shape)), feed


def random_network(seed: int) -> RandomNetwork:
    """The network of this number."""
    b = Builder(seed)
    inputs, feed = (images if b.chance(0.65) else rows)(b)
    found = model(b.nodes, inputs, b.outputs, b.weights)
    onnx.checker.check_model(found)
    return RandomNetwork(seed, found, feed, tuple(sorted(set(b.kinds))))


# ---- how near INT8 comes


def write(network: RandomNetwork, folder) -> None:
    """model.onnx and data/ in the folder."""
    onnx.save(network.model, os.path.join(folder, "model.onnx"))
    os.makedirs(os.path.join(folder, "data"), exist_ok=True)
    for number in range(CALIBRATED):
        np.savez(os.path.join(folder, "data", f"{number:02}.npz"), **network.feed(number))


def prepared_by(effort: str, *flags: str) -> Graph:
    """What the INT8 engine of model.onnx in the current folder computes, as a CPU can: no layer is given up for accuracy."""
    common = ("--precision", "int8", "--calibration-dir", "data", "--max-accuracy-drop", "100", "--no-validate")
    job, run = planned(*common, "--quantization-effort", effort, *flags, library="rtx")
    return simulation(int8.choose(job, run).prepared(run).graph)


def sqnr(expected: list[Feed], graph: Graph, feeds: list[Feed]) -> dict[str, float]:
    """Output -> signal to noise of a graph against the outputs of the model, in dB."""
    session = Session.from_graph(graph)
    energies = {name: np.zeros(2) for name in expected[0]}  # of signal and noise
    for reference, feed in zip(expected, feeds):
        found = session.run(feed)
        for name, energy in energies.items():
            exact = reference[name].astype(np.float64)
            energy += np.square(exact).sum(), np.square(found[name] - exact).sum()
    return {name: float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30))) for name, (signal, noise) in energies.items()}
