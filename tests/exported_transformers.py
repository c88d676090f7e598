"""Transformers with free batch and sequence, whose shapes are computed in the graph, as torch.onnx.export writes them."""

from __future__ import annotations

import numpy as np
import onnx
from models import model, node, random

TOKENS = 11


def transformer(layers=2, heads=2, size=4, tokens=True, opset=17, seed=0) -> onnx.ModelProto:
    """x -> embedding -> `layers` of attention and MLP with residual additions and layer normalisation -> logits.

    Args:
        size: of a head; the width is heads * size.
        tokens: x is INT64 [batch, sequence] (BERT); else an image [batch, 3, 4 * height, 4 * width] that is cut into patches (ViT).
    """
    build = _Builder(heads, size, opset, seed)
    x = build.embed_tokens("x") if tokens else build.embed_patches("x")
    for index in range(layers):
        x = build.block(x, f"l{index}")
    build.add("MatMul", f"{x} {build.weight('head', build.width, 3)}", "y", "head")
    inputs = {"x": (onnx.TensorProto.INT64, ["batch", "sequence"])} if tokens else {"x": ["batch", 3, "height", "width"]}
    return model(build.nodes, inputs, {"y": ["batch", None, 3]}, build.weights, opset)


class _Builder:
    def __init__(self, heads: int, size: int, opset: int, seed: int):
        self.heads, self.size, self.width, self.opset, self.seed = heads, size, heads * size, opset, seed
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, op: str, inputs: str, output: str, name: str = "", **attributes) -> str:
        self.nodes.append(node(op, inputs, output, name or output, **attributes))
        return output

    def weight(self, name: str, *shape: int) -> str:
        self.weights[name] = random(*shape, seed=self.seed + len(self.weights), scale=shape[0] ** -0.5)
        return name

    def constant(self, name: str, value) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def sizes(self, x: str, scope: str) -> tuple[str, str, str]:
        """x.size(0), x.size(1) and x.size(2), each as a tensor [1]."""
        found = []
        for axis in range(3):
            name = f"{scope}/size{axis}"
            self.add("Shape", x, f"{name}/shape")
            index, axes = self.constant(f"{name}/index", np.int64(axis)), self.constant(f"{name}/axes", np.int64([0]))
            self.add("Gather", f"{name}/shape {index}", f"{name}/scalar", axis=0)
            found.append(self.add("Unsqueeze", f"{name}/scalar {axes}", name))
        return tuple(found)

    def reshaped(self, x: str, parts: list, output: str) -> str:
        """Reshape to sizes of which some are tensors and some are numbers."""
        names = [part if isinstance(part, str) else self.constant(f"{output}/part{i}", np.int64([part])) for i, part in enumerate(parts)]
        self.add("Concat", " ".join(names), f"{output}/to", axis=0)
        return self.add("Reshape", f"{x} {output}/to", output)

    def expanded(self, x: str, parts: list[str], output: str) -> str:
        """x.expand(parts), where -1 keeps a size: export writes a mask that puts 1 in its place."""
        self.add("Concat", " ".join(parts), f"{output}/asked", axis=0)
        self.add("Shape", f"{output}/asked", f"{output}/rank")
        one, minus = onnx.numpy_helper.from_array(np.int64([1])), self.constant("minus_one", np.int64(-1))
        self.add("ConstantOfShape", f"{output}/rank", f"{output}/ones", value=one)
        self.add("Mul", f"{output}/ones {minus}", f"{output}/minus")
        self.add("Equal", f"{output}/asked {output}/minus", f"{output}/kept")
        self.add("Where", f"{output}/kept {output}/ones {output}/asked", f"{output}/to")
        return self.add("Expand", f"{x} {output}/to", output)

    def embed_tokens(self, x: str) -> str:
        axes = self.constant("axis0", np.int64([0]))
        self.add("Shape", x, "ids/shape")
        self.add("Gather", f"ids/shape {self.constant('second', np.int64([1]))}", "sequence")
        self.add("Gather", f"{self.weight('words', TOKENS, self.width)} {x}", "words/out")
        table = self.weight("positions", 32, self.width)
        self.add("Slice", f"{table} {self.constant('zero', np.int64([0]))} sequence {axes}", "positions/cut")
        return self.add("Add", "words/out positions/cut", "embedded")

    def embed_patches(self, x: str) -> str:
        self.add("Conv", f"{x} {self.weight('patches', self.width, 3, 4, 4)}", "patches/out", "patches/conv", strides=[4, 4])
        batch, channels, _ = self.sizes("patches/out", "embed")
        self.reshaped("patches/out", [batch, channels, -1], "patches/flat")
        self.add("Transpose", "patches/flat", "patches/rows", perm=[0, 2, 1])
        rest = self.constant("minus", np.int64([-1]))
        self.expanded(self.weight("class", 1, 1, self.width), [batch, rest, rest], "class/out")
        return self.add("Concat", "class/out patches/rows", "embedded", axis=1)

    def dense(self, x: str, name: str, to: int, of: int) -> str:
        self.add("MatMul", f"{x} {self.weight(f'{name}/w', of, to)}", f"{name}/product", name)
        return self.add("Add", f"{name}/product {self.weight(f'{name}/b', to)}", f"{name}/out")

    def normalized(self, x: str, scope: str) -> str:
        """Layer normalisation in single operators."""
        axes = {"axes": [-1]}
        self.add("ReduceMean", x, f"{scope}/mean", **axes)
        self.add("Sub", f"{x} {scope}/mean", f"{scope}/centred")
        self.add("Pow", f"{scope}/centred {self.constant(f'{scope}/two', np.float32(2))}", f"{scope}/square")
        self.add("ReduceMean", f"{scope}/square", f"{scope}/var", **axes)
        self.add("Add", f"{scope}/var {self.constant(f'{scope}/eps', np.float32(1e-5))}", f"{scope}/shifted")
        self.add("Sqrt", f"{scope}/shifted", f"{scope}/std")
        return self.add("Div", f"{scope}/centred {scope}/std", f"{scope}/out")

    def split_heads(self, x: str, scope: str, perm: list[int]) -> str:
        """view(x.size(0), x.size(1), heads, x.size(2) // heads).permute(perm), the sizes asked of the tensor at hand each time."""
        batch, sequence, width = self.sizes(x, scope)
        self.add("Div", f"{width} {self.constant(f'{scope}/count', np.int64([self.heads]))}", f"{scope}/size")
        self.reshaped(x, [batch, sequence, self.heads, f"{scope}/size"], f"{scope}/split")
        return self.add("Transpose", f"{scope}/split", f"{scope}/heads", perm=perm)

    def block(self, x: str, scope: str) -> str:
        width = self.width
        y = self.normalized(x, f"{scope}/norm1")
        q, k, v = (self.dense(y, f"{scope}/{name}", width, width) for name in "qkv")
        q, v = (self.split_heads(name, f"{name}h", [0, 2, 1, 3]) for name in (q, v))
        k = self.split_heads(k, f"{k}h", [0, 2, 3, 1])
        self.add("MatMul", f"{q} {k}", f"{scope}/scores", f"{scope}/qk")
        self.add("Softmax", f"{scope}/scores", f"{scope}/attention", axis=-1)
        self.add("MatMul", f"{scope}/attention {v}", f"{scope}/context", f"{scope}/av")
        self.add("Transpose", f"{scope}/context", f"{scope}/joined", perm=[0, 2, 1, 3])
        batch, sequence, _ = self.sizes(f"{scope}/joined", f"{scope}/back")
        self.reshaped(f"{scope}/joined", [batch, sequence, width], f"{scope}/merged")
        attended = self.add("Add", f"{self.dense(f'{scope}/merged', f'{scope}/o', width, width)} {x}", f"{scope}/residual")
        y = self.dense(self.normalized(attended, f"{scope}/norm2"), f"{scope}/up", 2 * width, width)
        self.add("Relu", y, f"{scope}/active")
        return self.add("Add", f"{self.dense(f'{scope}/active', f'{scope}/down', width, 2 * width)} {attended}", f"{scope}/end")
