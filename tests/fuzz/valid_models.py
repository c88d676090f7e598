"""Random valid models of opset 7 to 22: what exporters of all ages write, in small.

Every operator is written as its opset has it: axes as attribute or input, Clip, Pad, Slice, Split, Squeeze, Resize in their forms. Weights
are initializers, Constant nodes, or initializers that are inputs, too (as before IR 4), shared by several nodes, computed from one another,
and outputs of the model. Nodes have names, or none, or the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from random_networks import RandomNetwork

OPSETS = range(7, 23)
BODIES = 1_000_000


@dataclass
class Tensor:
    """In a model in the making."""

    name: str
    shape: tuple[int, ...]  # without the batch axis

    @property
    def rank(self) -> int:
        return len(self.shape) + 1


@dataclass
class Maker:
    """Nodes, weights and outputs of one model in the making."""

    random: np.random.Generator
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)  # weights that are Constant nodes
    outputs: dict[str, tuple[int, list]] = field(default_factory=dict)  # name -> (type, shape)
    kinds: list[str] = field(default_factory=list)
    naming: str = "all"
    number: int = 0
    parts: tuple = ()  # that the model is made of; none: those of its kind of input

    def pick(self, *choices):
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def fresh(self, word: str) -> str:
        self.number += 1
        return f"{word.lower()}_{self.number}"

    def node(self, op: str, inputs, outputs: int = 1, **attributes) -> list[str]:
        """Names of its outputs."""
        found = [self.fresh(op) for _ in range(outputs)]
        name = {"all": f"/{found[0]}", "none": "", "same": f"/{op}", "odd": f"{found[0]}:0 (ü)/{op}"}[self.naming]
        self.nodes.append(helper.make_node(op, list(inputs), found, name=name, **attributes))
        return found

    def add(self, op: str, *inputs: str, **attributes) -> str:
        return self.node(op, inputs, **attributes)[0]

    def weight(self, *shape: int, fan_in: int = 1, gain: float = 1.3, mean: float = 0.0) -> str:
        values = self.random.standard_normal(shape) * gain / np.sqrt(fan_in) + mean
        return self.const(values.astype(np.float32), "w")

    def const(self, values, word: str = "c", dtype=None) -> str:
        name = self.fresh(word)
        self.weights[name] = np.asarray(values, dtype)
        if self.chance(0.15) and (self.opset >= 9 or self.weights[name].dtype == np.float32):  # before, a Constant was floating-point
            self.constants.add(name)
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, "i", np.int64)

    # ---- operators that opsets write differently

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.ints(*shape))

    def squeeze(self, op: str, x: str, axis: int) -> str:
        return self.add(op, x, self.ints(axis)) if self.opset >= 13 else self.add(op, x, axes=[axis])

    def clip(self, x: str, low: float, high: float) -> str:
        if self.opset >= 11:
            return self.add("Clip", x, self.const(low, "c", np.float32), self.const(high, "c", np.float32))
        return self.add("Clip", x, min=low, max=high)

    def reduce(self, op: str, x: str, axes: list[int], keepdims: int) -> str:
        as_input = self.opset >= (13 if op == "ReduceSum" else 18)
        return self.add(op, x, self.ints(*axes), keepdims=keepdims) if as_input else self.add(op, x, axes=axes, keepdims=keepdims)

    def slice(self, x: str, axis: int, start: int, end: int) -> str:
        if self.opset >= 10:
            return self.add("Slice", x, self.ints(start), self.ints(end), self.ints(axis))
        return self.add("Slice", x, axes=[axis], starts=[start], ends=[end])

    def split(self, x: str, axis: int, sizes: list[int]) -> list[str]:
        if self.opset >= 13:
            return self.node("Split", [x, self.ints(*sizes)], len(sizes), axis=axis)
        return self.node("Split", [x], len(sizes), axis=axis, split=sizes)

    def pad(self, x: str, pads: list[int], mode: str) -> str:
        if self.opset >= 11:
            more = [self.const(0.5, "c", np.float32)] if mode == "constant" and self.chance(0.5) else []
            return self.add("Pad", x, self.ints(*pads), *more, mode=mode)
        return self.add("Pad", x, pads=pads, mode=mode)

    def enlarge(self, x: str, rank: int) -> str:
        """Twice as high and wide, by the nearest."""
        scales = self.const([1.0] * (rank - 2) + [2.0] * 2, "s", np.float32)
        if self.opset >= 11:
            way = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
            if self.chance(0.4):
                way = {"mode": "linear", "coordinate_transformation_mode": self.pick("half_pixel", "align_corners", "asymmetric")}
            return self.add("Resize", x, "" if self.opset >= 13 else self.const([], "r", np.float32), scales, **way)
        if self.opset == 10:
            return self.add("Resize", x, scales, mode="nearest")
        if self.opset == 9:
            return self.add("Upsample", x, scales, mode="nearest")
        return self.add("Upsample", x, scales=[1.0] * (rank - 2) + [2.0] * 2, mode="nearest")

    def softmax(self, x: str, op: str = "Softmax") -> str:
        """Over the last axis, which is what all opsets agree on."""
        return self.add(op, x, axis=-1) if self.opset >= 13 or self.chance(0.5) and self.opset >= 11 else self.add(op, x, axis=2)

    def quantized(self, x: str, reach: float) -> str:
        """Q and DQ with one scale for all of it."""
        dtype = self.pick(np.int8, np.int8, np.uint8)
        zero = 0 if dtype is np.int8 else 128
        given = [self.const(reach / 127, "scale", np.float32), self.const(zero, "zero", dtype)]
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *given), *given)

    def result(self, tensor: str, shape: list, elem_type: int = TensorProto.FLOAT) -> None:
        """One more output; of some exporters it has the tensor's own name."""
        name = tensor
        if tensor in self.weights or tensor in self.outputs or self.chance(0.5):
            name = f"y{len(self.outputs)}"
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        self.outputs[name] = elem_type, shape


def finish(maker: Maker, inputs: dict[str, tuple[int, list]]) -> onnx.ModelProto:
    """The model, with its weights as exporters of that time keep them.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: it is not valid, which is a fault of the parts.
    """
    kept = {name: array for name, array in maker.weights.items() if name not in maker.constants}
    apart = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(maker.weights[n])) for n in sorted(maker.constants)]
    infos = [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()]
    old = maker.opset <= 8 or maker.chance(0.1)
    if old:  # before IR 4, initializers are inputs with a default
        maker.kinds.append("weights as inputs")
        types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in kept.items()}
        infos += [helper.make_tensor_value_info(name, types[name], list(array.shape)) for name, array in kept.items()]
    graph = helper.make_graph(
        [*apart, *maker.nodes],
        "random",
        infos,
        [helper.make_tensor_value_info(name, *spec) for name, spec in maker.outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in kept.items()],
    )
    ir = 3 if maker.opset <= 8 else 8 if maker.opset <= 18 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", maker.opset)], ir_version=ir)
    onnx.checker.check_model(model, full_check=True)
    return model


def random_model(seed: int) -> RandomNetwork:
    """The model of this number; from BODIES on its layers stand in bodies of control flow."""
    from tests.fuzz import valid_bodies
    from tests.fuzz.valid_parts import images, sequences, vectors

    random, bodies = np.random.default_rng([seed, 21]), seed >= BODIES
    opset = int(random.choice(valid_bodies.OPSETS if bodies else OPSETS))
    maker = Maker(random, opset, parts=(valid_bodies.block,) * bodies, naming=str(random.choice(["all", "all", "none", "same", "odd"])))
    inputs, make = maker.pick(images, images, sequences, vectors)(maker)
    batch = maker.pick("N", "N", 1)
    maker.outputs = {name: (kind, [batch if size == "N" else size for size in shape]) for name, (kind, shape) in maker.outputs.items()}
    inputs = {name: (kind, [batch if size == "N" else size for size in shape]) for name, (kind, shape) in inputs.items()}
    model = finish(maker, inputs)
    salt = int(random.integers(2**31))
    return RandomNetwork(seed, model, lambda number: make(np.random.default_rng([salt, number])), tuple(sorted(set(maker.kinds))))
