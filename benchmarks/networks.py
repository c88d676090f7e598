"""The networks of benchmarks/engines.py, with weights of a fixed seed: their speed does not depend on what they have learned."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


class _Maker:
    """Nodes and weights on their way into a model."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def weight(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        self.weights.append(numpy_helper.from_array(np.float32(self._random.standard_normal(shape) * scale), name))
        return name

    def conv(self, source: str, name: str, inside: int, outside: int, kernel: int, stride=1, relu=True, gain=1.0) -> str:
        """Convolution with He's initialisation, and ReLU."""
        weight = self.weight(f"{name}.weight", (outside, inside, kernel, kernel), gain * (2 / (inside * kernel**2)) ** 0.5)
        inputs = [source, weight, self.weight(f"{name}.bias", (outside,), 0.05)]
        made = self.add("Conv", inputs, f"{name}.conv", strides=[stride] * 2, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2)
        return self.add("Relu", [made], f"{name}.relu") if relu else made

    def model(self, shape: tuple[int, ...], output: str) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims) for name, dims in (("x", shape), (output, None))]
        graph = helper.make_graph(self.nodes, "net", ends[:1], ends[1:], self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


def resnet50(batch: int = 32) -> onnx.ModelProto:
    """ResNet-50 as in torchvision: [batch, 3, 224, 224] -> [batch, 1000]; batch normalisation folded, stride in the 3x3 convolution."""
    make = _Maker()
    current = make.conv("x", "stem", 3, 64, 7, 2)
    current, inside = make.add("MaxPool", [current], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, (blocks, width, stride) in enumerate([(3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)]):
        for block in range(blocks):
            name, step = f"layer{stage + 1}.{block}", stride if block == 0 else 1
            made = make.conv(current, f"{name}.conv1", inside, width, 1)
            made = make.conv(made, f"{name}.conv2", width, width, 3, step)
            made = make.conv(made, f"{name}.conv3", width, 4 * width, 1, relu=False, gain=0.3)
            if block == 0:
                current = make.conv(current, f"{name}.downsample", inside, 4 * width, 1, step, relu=False)
            current, inside = make.add("Relu", [make.add("Add", [made, current], f"{name}.add")], f"{name}.relu"), 4 * width
    flat = make.add("Flatten", [make.add("GlobalAveragePool", [current], "average")], "flat")
    inputs = [flat, make.weight("fc.weight", (1000, inside), 0.02), make.weight("fc.bias", (1000,), 0.02)]
    return make.model((batch, 3, 224, 224), make.add("Gemm", inputs, "y", transB=1))


def unet(batch: int = 16) -> onnx.ModelProto:
    """3x3 convolutions + ReLU 3-32, then 64, 128, 256 at stride 2; bilinear x2 + Concat to 384-128, 192-64, 96-32; 1x1 to 2, softmax."""
    make = _Maker()
    made = [make.conv("x", "encoder0", 3, 32, 3)]
    for level, width in enumerate((64, 128, 256), 1):
        made.append(make.conv(made[-1], f"encoder{level}", width // 2, width, 3, 2))
    current = made.pop()
    make.weights.append(numpy_helper.from_array(np.float32([1, 1, 2, 2]), "twice"))
    for level, (inside, outside) in enumerate([(384, 128), (192, 64), (96, 32)]):
        resized = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        larger = make.add("Resize", [current, "", "twice"], f"decoder{level}.resize", **resized)
        joined = make.add("Concat", [larger, made.pop()], f"decoder{level}.concat", axis=1)
        current = make.conv(joined, f"decoder{level}", inside, outside, 3)
    logits = make.conv(current, "logits", 32, 2, 1, relu=False)
    return make.model((batch, 3, 256, 320), make.add("Softmax", [logits], "y", axis=1))


def transformer(layers: int, width: int, tokens: int = 128) -> onnx.ModelProto:
    """An encoder as BERT's, behind its embedding: [1, tokens, width] -> [1, tokens, 64]; heads of 64, 4 * width in between, Gelu by Erf."""
    make, heads = _Maker(), width // 64
    for name, values in (("split", [0, 0, heads, 64]), ("join", [0, 0, width])):
        make.weights.append(numpy_helper.from_array(np.int64(values), name))
    for name, value in (("root", 0.125), ("root2", 2**-0.5), ("one", 1.0), ("half", 0.5)):
        make.weights.append(numpy_helper.from_array(np.float32(value), name))

    def product(source: str, name: str, inside: int, outside: int) -> str:
        made = make.add("MatMul", [source, make.weight(f"{name}.weight", (inside, outside), inside**-0.5)], f"{name}.product")
        return make.add("Add", [made, make.weight(f"{name}.bias", (outside,), 0.05)], name)

    def normalized(source: str, name: str) -> str:
        gain = numpy_helper.from_array(np.ones(width, np.float32), f"{name}.gain")
        make.weights.append(gain)
        return make.add("LayerNormalization", [source, gain.name, make.weight(f"{name}.shift", (width,), 0.1)], name, axis=-1)

    current = "x"
    for layer in range(layers):
        at = f"layer{layer}"
        parts = {}
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            made = make.add("Reshape", [product(current, f"{at}.{part}", width, width), "split"], f"{at}.{part}.heads")
            parts[part] = make.add("Transpose", [made], f"{at}.{part}.turned", perm=order)
        scores = make.add("Mul", [make.add("MatMul", [parts["query"], parts["key"]], f"{at}.products"), "root"], f"{at}.scores")
        context = make.add("MatMul", [make.add("Softmax", [scores], f"{at}.shares", axis=-1), parts["value"]], f"{at}.context")
        joined = make.add("Reshape", [make.add("Transpose", [context], f"{at}.back", perm=[0, 2, 1, 3]), "join"], f"{at}.joined")
        sum_ = make.add("Add", [product(joined, f"{at}.out", width, width), current], f"{at}.sum")
        middle = normalized(sum_, f"{at}.norm")
        wide = product(middle, f"{at}.up", width, 4 * width)
        erf = make.add("Erf", [make.add("Mul", [wide, "root2"], f"{at}.erf.input")], f"{at}.erf")
        gate = make.add("Mul", [make.add("Add", [erf, "one"], f"{at}.gate.sum"), "half"], f"{at}.gate")
        narrow = product(make.add("Mul", [wide, gate], f"{at}.gelu"), f"{at}.down", 4 * width, width)
        current = normalized(make.add("Add", [narrow, middle], f"{at}.sum2"), f"{at}.norm2")
    return make.model((1, tokens, width), product(current, "y", width, 64))


def detector(size: int) -> onnx.ModelProto:
    """Strided convolutions to three levels, joined from the coarsest on, and a head on each: [1, 3, size, size] -> [1, places, 6]."""
    make, levels, current, inside = _Maker(), [], "x", 3
    for level, width in enumerate((16, 32, 64, 128, 256)):
        current = make.conv(current, f"down{level}", inside, width, 3, 2)
        current, inside = make.conv(current, f"stay{level}", width, width, 3), width
        levels.append((current, width))
    make.weights.append(numpy_helper.from_array(np.float32([1, 1, 2, 2]), "twice"))
    make.weights.append(numpy_helper.from_array(np.int64([0, 6, -1]), "flat"))
    heads, above = [], None
    for level, (current, width) in reversed(list(enumerate(levels))[2:]):
        if above is not None:
            larger = make.add("Resize", [above[0], "", "twice"], f"larger{level}", mode="nearest")
            joined = make.add("Concat", [larger, current], f"joined{level}", axis=1)
            current = make.conv(joined, f"mixed{level}", above[1] + width, width, 3)
        above = current, width
        head = make.conv(current, f"head{level}", width, 6, 1, relu=False)
        heads.append(make.add("Reshape", [make.add("Sigmoid", [head], f"scores{level}"), "flat"], f"flat{level}"))
    return make.model((1, 3, size, size), make.add("Transpose", [make.add("Concat", heads, "all", axis=2)], "y", perm=[0, 2, 1]))


def classifier(batch: int) -> onnx.ModelProto:
    """Ten convolutions, 3x3, to 256 channels, and a head: [batch, 3, 112, 112] -> [batch, 100]."""
    make, current, inside = _Maker(), "x", 3
    for level, width in enumerate((32, 64, 128, 256, 256)):
        current = make.conv(make.conv(current, f"down{level}", inside, width, 3, 2), f"stay{level}", width, width, 3)
        inside = width
    flat = make.add("Flatten", [make.add("GlobalAveragePool", [current], "average")], "flat")
    inputs = [flat, make.weight("fc.weight", (100, inside), 0.1), make.weight("fc.bias", (100,), 0.02)]
    return make.model((batch, 3, 112, 112), make.add("Gemm", inputs, "y", transB=1))
