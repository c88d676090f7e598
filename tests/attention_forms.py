"""Attention as exporters write it: one in a random form, between projections with constant weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from models import model, node

SCALES = ("none", "behind mul", "behind div", "front", "both", "per head")
MASKS = ("none", "add constant", "add input", "where", "windows", "sub", "max")
LAYOUTS = ("joined", "two transposes", "three dims")
ENDS = ("plain", "guarded", "dropout", "cast")


@dataclass
class Form:
    """How one attention is written; what is not given is as simple as can be."""

    scale: str = "none"
    mask: str = "none"
    layout: str = "joined"  # how the keys are transposed
    end: str = "plain"  # what stands between Softmax and the second product
    swapped: bool = False  # operands of commutative operators the other way round
    positive_axis: bool = False
    mlp: bool = False  # with layer normalisations, and an MLP behind the attention: a block of a transformer
    batch: int = 2
    heads: int = 2
    size: int = 16  # of a head
    tokens: int = 12
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: dict = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.heads * self.size

    @staticmethod
    def random(seed: int) -> Form:
        pick = np.random.default_rng(seed)

        def one_of(options):
            return options[pick.integers(len(options))]

        mask, layout = one_of(MASKS), one_of(LAYOUTS)
        if layout == "three dims" and mask == "windows":
            mask = "none"
        sizes = {"batch": int(pick.integers(1, 3)), "heads": int(one_of([1, 2, 3])), "size": int(one_of([16, 32])), "tokens": 12}
        flags = {"swapped": bool(pick.integers(2)), "positive_axis": bool(pick.integers(2))}
        return Form(one_of(SCALES), mask, layout, one_of(ENDS), **flags, **sizes)

    def add(self, op: str, inputs: str, output: str, **attributes) -> str:
        names = inputs.split()
        if self.swapped and op in ("Add", "Mul") and len(names) == 2:
            names.reverse()
        self.nodes.append(node(op, " ".join(names), output, output, **attributes))
        return output

    def constant(self, name: str, value) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def normal(self, name: str, *shape: int, scale: float = 1.0) -> str:
        random = np.random.default_rng([len(self.weights), 7])
        return self.constant(name, (random.standard_normal(shape) * scale).astype(np.float32))

    def dense(self, x: str, name: str, of: int | None = None, to: int | None = None) -> str:
        of, to = of or self.width, to or self.width
        self.add("MatMul", f"{x} {self.normal(f'{name}_w', of, to, scale=of**-0.5)}", f"{name}_product")
        return self.add("Add", f"{name}_product {self.normal(f'{name}_b', to, scale=0.1)}", f"{name}_out")

    def normed(self, x: str, name: str) -> str:
        gain = self.constant(f"{name}_gain", np.linspace(0.5, 2, self.width, dtype=np.float32))
        return self.add("LayerNormalization", f"{x} {gain} {self.normal(f'{name}_shift', self.width, scale=0.1)}", name, axis=-1)

    def heads_of(self, x: str, name: str, perm: list[int]) -> str:
        shape = self.constant(f"{name}_split", np.int64([self.batch, self.tokens, self.heads, self.size]))
        self.add("Reshape", f"{x} {shape}", f"{name}_parts")
        y = self.add("Transpose", f"{name}_parts", f"{name}_heads", perm=[0, 2, 1, 3] if self.layout != "joined" else perm)
        if self.layout == "three dims":
            flat = self.constant(f"{name}_flat", np.int64([self.batch * self.heads, self.tokens, self.size]))
            y = self.add("Reshape", f"{y} {flat}", f"{name}_bmm")
        if self.layout != "joined" and perm == [0, 2, 3, 1]:
            y = self.add("Transpose", y, f"{name}_turned", perm=[0, 2, 1] if self.layout == "three dims" else [0, 1, 3, 2])
        return y

    def attended(self, x: str, scope: str) -> str:
        """One block: x [batch, tokens, width] -> the same, with what stands around."""
        residual, x = x, self.normed(x, f"{scope}_norm1") if self.mlp else x
        q, v = (self.heads_of(self.dense(x, f"{scope}_{part}"), f"{scope}_{part}", [0, 2, 1, 3]) for part in "qv")
        k = self.heads_of(self.dense(x, f"{scope}_k"), f"{scope}_k", [0, 2, 3, 1])
        q, k = self._in_front(q, k, scope)
        y = self.add("MatMul", f"{q} {k}", f"{scope}_scores")
        y = self._masked(self._behind(y, scope), scope)
        y = self._weighted(y, v, scope)
        if self.layout == "three dims":
            shape = self.constant(f"{scope}_apart", np.int64([self.batch, self.heads, self.tokens, self.size]))
            y = self.add("Reshape", f"{y} {shape}", f"{scope}_four")
        self.add("Transpose", y, f"{scope}_turned", perm=[0, 2, 1, 3])
        joined = self.constant(f"{scope}_joined", np.int64([self.batch, self.tokens, self.width]))
        self.add("Reshape", f"{scope}_turned {joined}", f"{scope}_merged")
        y = self.add("Add", f"{self.dense(f'{scope}_merged', f'{scope}_o')} {residual}", f"{scope}_end")
        if self.mlp:
            wide = self.dense(self.normed(y, f"{scope}_norm2"), f"{scope}_up", to=4 * self.width)
            down = self.dense(self.add("Relu", wide, f"{scope}_active"), f"{scope}_down", of=4 * self.width)
            y = self.add("Add", f"{down} {y}", f"{scope}_last")
        return y

    def _in_front(self, q: str, k: str, scope: str) -> tuple[str, str]:
        if self.scale in ("front", "both"):
            root = self.constant(f"{scope}_root", np.float32(self.size ** (-0.25 if self.scale == "both" else -0.5)))
            q = self.add("Mul", f"{q} {root}", f"{scope}_q_scaled")
            k = self.add("Mul", f"{k} {root}", f"{scope}_k_scaled") if self.scale == "both" else k
        return q, k

    def _behind(self, y: str, scope: str) -> str:
        if self.scale == "behind mul":
            return self.add("Mul", f"{y} {self.constant(f'{scope}_factor', np.float32(self.size**-0.5))}", f"{scope}_scaled")
        if self.scale == "behind div":
            return self.add("Div", f"{y} {self.constant(f'{scope}_root', np.float32([self.size**0.5]))}", f"{scope}_scaled")
        if self.scale == "per head" and self.layout != "three dims":
            each = np.linspace(0.1, 0.4, self.heads, dtype=np.float32).reshape(-1, 1, 1)
            return self.add("Mul", f"{y} {self.constant(f'{scope}_each', each)}", f"{scope}_scaled")
        return y

    def _masked(self, y: str, scope: str) -> str:
        causal = np.tril(np.ones((self.tokens, self.tokens), bool))
        if self.mask == "add constant":
            return self.add("Add", f"{y} {self.constant(f'{scope}_mask', np.where(causal, 0, -1e4).astype(np.float32))}", f"{scope}_masked")
        if self.mask == "add input":
            self.inputs["mask"] = [self.batch, 1, 1, self.tokens] if self.layout != "three dims" else [1, 1, self.tokens]
            return self.add("Add", f"{y} mask", f"{scope}_masked")
        if self.mask == "sub":
            return self.add("Sub", f"{y} {self.normal(f'{scope}_less', self.tokens, self.tokens)}", f"{scope}_masked")
        if self.mask == "where":
            low = self.constant(f"{scope}_low", np.float32(-1e4))
            return self.add("Where", f"{self.constant(f'{scope}_causal', causal)} {y} {low}", f"{scope}_masked")
        if self.mask == "max":
            return self.add("Max", f"{y} {self.constant(f'{scope}_low', np.float32(-1e4))}", f"{scope}_masked")
        return self._by_windows(y, scope) if self.mask == "windows" else y

    def _by_windows(self, y: str, scope: str) -> str:
        """Swin: a learned bias, then a mask for each window, of which there are `batch`."""
        y = self.add("Add", f"{y} {self.normal(f'{scope}_bias', 1, self.heads, self.tokens, self.tokens)}", f"{scope}_biased")
        shape = [self.batch, self.heads, self.tokens, self.tokens]
        apart = self.constant(f"{scope}_windows", np.int64([1, *shape]))
        y = self.add("Reshape", f"{y} {apart}", f"{scope}_by_window")
        mask = self.normal(f"{scope}_mask", 1, self.batch, 1, self.tokens, self.tokens)
        y = self.add("Add", f"{y} {mask}", f"{scope}_masked")
        return self.add("Reshape", f"{y} {self.constant(f'{scope}_back', np.int64(shape))}", f"{scope}_together")

    def _weighted(self, y: str, v: str, scope: str) -> str:
        axis = -1 if not self.positive_axis else 2 if self.layout == "three dims" else 3
        p = self.add("Softmax", y, f"{scope}_probabilities", axis=axis)
        if self.end == "guarded":
            self.add("IsNaN", p, f"{scope}_nan")
            p = self.add("Where", f"{scope}_nan {self.constant(f'{scope}_zero', np.float32(0))} {p}", f"{scope}_sound")
        elif self.end == "dropout":
            p = self.add("Dropout", p, f"{scope}_kept")
        elif self.end == "cast":
            p = self.add("Cast", p, f"{scope}_typed", to=onnx.TensorProto.FLOAT)
        return self.add("MatMul", f"{p} {v}", f"{scope}_context")

    def with_operator(self, layers: int = 2) -> onnx.ModelProto:
        """The same with the Attention of opset 23, which takes the heads apart by itself."""
        self.inputs["x"], y = [self.batch, self.tokens, self.width], "x"
        for index in range(layers):
            q, k, v = (self.dense(y, f"l{index}_{part}") for part in "qkv")
            heads = {"q_num_heads": self.heads, "kv_num_heads": self.heads}
            attended = self.add("Attention", f"{q} {k} {v}", f"l{index}_attended", **heads)
            y = self.add("Add", f"{self.dense(attended, f'l{index}_o')} {y}", f"l{index}_end")
        self.add("Identity", y, "y")
        return model(self.nodes, self.inputs, {"y": self.inputs["x"]}, self.weights, opset=23)

    def network(self, layers: int = 1) -> onnx.ModelProto:
        """x [batch, tokens, width] -> y, of the same shape."""
        self.inputs["x"], y = [self.batch, self.tokens, self.width], "x"
        for index in range(layers):
            y = self.attended(y, f"l{index}")
        self.add("Identity", y, "y")
        return model(self.nodes, self.inputs, {"y": [self.batch, self.tokens, self.width]}, self.weights)
