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
