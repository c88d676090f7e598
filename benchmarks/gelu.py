"""What the GELU between two products costs, in the forms that it can be written in: the MLPs of a ViT, as TensorRT 8.6 to 10 builds them.

    python benchmarks/gelu.py [--images 1] [--tokens 6304] [--width 768] [--blocks 2] [--level 3] [--forms NAME ...] [--json FILE]

Each form is a network of its own: per block LayerNormalization, a product to four times the width, GELU, a product back, an addition. Built
by TensorRT's API with the FP16 and INT8 flags, weakly typed, inputs on the device, p50 of plain launches; INT8 by Q/DQ with made-up scales
on what both products read. Needs a GPU. No target: it says why rewrite/gelu.py is there. The dB of forms with ReLU, factors or a shift tell
nothing: they are other functions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

FORMS = {  # name -> (Q/DQ, activation, what stands before or behind it)
    "FP16, erf": (False, "erf", ""),
    "FP16, tanh": (False, "tanh", ""),
    "INT8, erf": (True, "erf", ""),
    "INT8, erf behind Q/DQ": (True, "erf", "Q/DQ before"),
    "INT8, tanh": (True, "tanh", ""),
    "INT8, tanh, factors": (True, "tanh", "factors"),  # of channels, as equalization leaves them
    "INT8, tanh, factor of all": (True, "tanh", "factor"),
    "INT8, tanh, shift": (True, "tanh", "shift"),  # of all channels alike
    "INT8, ReLU": (True, "relu", ""),
}
RANGE = 4.0  # of what the products read
RUNS = 200


class Builder:
    """Collects nodes and constants."""

    def __init__(self, quantized: bool) -> None:
        self.quantized, self.nodes, self.constants = quantized, [], []

    def constant(self, value) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        name = f"n{len(self.nodes)}_{operator}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def number(self, operator: str, x: str, value: float) -> str:
        return self.add(operator, x, self.constant(np.float32(value)))

    def pair(self, x: str, wanted: bool = True) -> str:
        """Q and DQ behind a tensor."""
        if not (self.quantized and wanted):
            return x
        scale, zero = self.constant(np.float32(RANGE / 127)), self.constant(np.int8(0))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), scale, zero)

    def apart(self, x: str, what: str, channels: int) -> str:
        """What stands between the activation and its reader, for the sake of INT8."""
        if what == "shift":
            return self.number("Add", x, 0.1)
        if what == "factor":
            return self.number("Mul", x, 1.1)
        return self.add("Mul", x, self.constant(np.linspace(0.5, 2, channels, dtype=np.float32))) if what == "factors" else x

    def product(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        if not self.quantized:
            return self.add("Add", self.add("MatMul", x, self.constant(weight)), self.constant(bias))
        scales = np.abs(weight).max(axis=0) / np.float32(127)
        integers = self.constant(np.rint(weight / scales).astype(np.int8))
        zeros = self.constant(np.zeros(len(scales), np.int8))
        read = self.add("DequantizeLinear", integers, self.constant(scales), zeros, axis=1)
        return self.add("Add", self.add("MatMul", x, read), self.constant(bias))

    def activation(self, kind: str, x: str) -> str:
        if kind == "relu":
            return self.add("Relu", x)
        if kind == "erf":
            whole = self.number("Add", self.add("Erf", self.number("Div", x, 2**0.5)), 1)
        else:
            cubic = self.number("Mul", self.add("Mul", self.add("Mul", x, x), x), 0.044715)
            whole = self.number("Add", self.add("Tanh", self.number("Mul", self.add("Add", x, cubic), (2 / np.pi) ** 0.5)), 1)
        return self.number("Mul", self.add("Mul", x, whole), 0.5)


def network(form: str, shape: list[int], blocks: int) -> bytes:
    """The ONNX of one form: x [images, tokens, width] -> y."""
    quantized, kind, beside = FORMS[form]
    width = shape[-1]
    b, random, x = Builder(quantized), np.random.default_rng(0), "x"
    for _ in range(blocks):
        wide, narrow = (random.standard_normal(shape, np.float32) for shape in ((width, 4 * width), (4 * width, width)))
        ones, zeros = b.constant(np.ones(width, np.float32)), b.constant(np.zeros(width, np.float32))
        normal = b.pair(b.add("LayerNormalization", x, ones, zeros, axis=-1))
        first = b.product(normal, wide * width**-0.5, random.standard_normal(4 * width, np.float32) / 10)
        active = b.apart(b.activation(kind, b.pair(first, beside == "Q/DQ before")), beside, 4 * width)
        second = b.product(b.pair(active), narrow * (4 * width) ** -0.5, random.standard_normal(width, np.float32) / 10)
        x = b.add("Add", x, second)
    b.nodes.append(helper.make_node("Identity", [x], ["y"]))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph(b.nodes, "mlps", ends[:1], ends[1:], b.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def build(trt, model: bytes, int8: bool, level: int) -> bytes:
    """A serialized engine.

    Raises:
        RuntimeError: TensorRT gave none.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(1 << int(explicit) if explicit is not None else 0)
    if not trt.OnnxParser(network, logger).parse(model):
        raise RuntimeError("the network was not parsed")
    config = builder.create_builder_config()
    config.builder_optimization_level = level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_flag(trt.BuilderFlag.FP16)
    if int8:
        config.set_flag(trt.BuilderFlag.INT8)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise RuntimeError("TensorRT gave no engine")
    return bytes(made)


def measure(library, engine: bytes, feed: dict[str, np.ndarray]) -> tuple[dict, np.ndarray]:
    """({"us": p50, "slowest": {layer: us} of the products}, the output)"""
    from onnx2trt.trt.engine import Engine
    from onnx2trt.trt.memory import open_cuda

    cuda = open_cuda("cuda-python")
    loaded = Engine(library, engine, cuda, lambda *_: None)
    try:
        output = loaded.run(feed)["y"]
        loaded.load(feed)
        loaded.time_ms(RUNS // 4)
        p50 = statistics.median(loaded.time_ms(RUNS))
        layers = sorted(loaded.layer_ms(RUNS // 4).items(), key=lambda item: -item[1])[:4]
        return {"us": round(1000 * p50, 1), "slowest": {name[:60]: round(1000 * ms, 1) for name, ms in layers}}, output
    finally:
        loaded.close()
        cuda.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1, help="first size of the input")
    parser.add_argument("--tokens", type=int, default=6304, help="of each (default: those of 32 images of 197)")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--level", type=int, default=3, help="builder optimization level")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="NAME", help="default: all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from onnx2trt.trt.library import load_library

    library = load_library("tensorrt")
    shape = [args.images, args.tokens, args.width]
    feed = {"x": np.random.default_rng(1).standard_normal(shape, np.float32)}
    found, exact = {}, None
    for form in args.forms:
        engine = build(library.trt, network(form, shape, args.blocks), FORMS[form][0], args.level)
        found[form], output = measure(library, engine, feed)
        exact = output if exact is None else exact
        noise = float(((output - exact) ** 2).sum())
        found[form]["db_against_first"] = round(10 * np.log10(float((exact**2).sum()) / noise), 1) if noise else None
        row = found[form]
        print(f"{form:26} {row['us']:8.1f} us  {row['db_against_first'] or '':>6}  {row['slowest']}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
