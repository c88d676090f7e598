"""Random networks with constants that keep denominators, logarithms and roots off zero, written as exporters and people write them."""

from __future__ import annotations

import numpy as np
import onnx
from models import FLOAT, model, node

EPSILONS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 1e-20, 1e-30)
SHAPE = (2, 8, 6)


class GuardedNet:
    """x [N, 8, 6] -> y [N, 8, 4]: layers, and between them quotients, roots and logarithms of what may be zero."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}
        self.said: list[str] = []  # what was chosen, for the message of a test that fails

    def build(self) -> onnx.ModelProto:
        value = self._layer("x", 6)
        for _ in range(self._random.integers(1, 4)):
            value = self._pick(self._quotient, self._quotient, self._logarithm, self._inverse_sigmoid, self._layer, self._normalized)(value)
        last = self._layer(value, 4, relu=False)
        return model([*self._nodes, node("Identity", last, "y", "last")], {"x": ["N", *SHAPE[1:]]}, {"y": ["N", 8, 4]}, self._weights)

    # ---- small parts

    def _pick(self, *choices):
        return choices[self._random.integers(len(choices))]

    def _op(self, op: str, inputs: str, **attributes) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(node(op, inputs, name, f"{op}_{len(self._nodes)}", **attributes))
        return name

    def _const(self, value, dtype=np.float32) -> str:
        name = f"k{len(self._weights)}"
        self._weights[name] = np.asarray(value, dtype)
        return name

    def _layer(self, value: str, width: int = 6, relu: bool = True) -> str:
        weight = self._const(self._random.standard_normal((6, width)) / 3)
        made = self._op("MatMul", f"{value} {weight}")
        if self._random.random() < 0.3:
            made = self._op("Add", f"{made} {self._const(self._random.standard_normal(width) / 10)}")
        return self._op("Relu", made) if relu and self._random.random() < 0.7 else made

    def _epsilon(self) -> float:
        epsilon = self._pick(*EPSILONS)
        self.said.append(f"{epsilon:g}")
        return epsilon

    # ---- what may be zero: [N, 8, 6] or [N, 8, 1]

    def _square(self, value: str) -> str:
        return self._pick(
            lambda: self._op("Mul", f"{value} {value}"),
            lambda: self._op("Pow", f"{value} {self._const(2.0)}"),
        )()

    def _mean(self, value: str) -> str:
        return self._op("ReduceMean", value, axes=[-1])

    def _total(self, value: str) -> str:
        return self._op("ReduceSum", f"{value} {self._const([-1], np.int64)}")

    def _energy(self, value: str) -> str:
        return self._pick(
            lambda: self._mean(self._square(value)),
            lambda: self._total(self._square(value)),
            lambda: self._op("ReduceSumSquare", value, axes=[-1]),
            lambda: self._variance(value),
            lambda: self._op("Relu", self._op("Sub", f"{self._mean(self._square(value))} {self._square(self._mean(value))}")),
        )()

    def _variance(self, value: str) -> str:
        return self._mean(self._square(self._op("Sub", f"{value} {self._mean(value)}")))

    def _amount(self, value: str) -> str:
        """At least zero."""
        return self._pick(
            lambda: self._energy(value),
            lambda: self._op("Sqrt", self._energy(value)),
            lambda: self._op("ReduceL2", value, axes=[-1]),
            lambda: self._op("ReduceL1", value, axes=[-1]),
            lambda: self._total(self._op("Abs", value)),
            lambda: self._op("Abs", value),
            lambda: self._op("Relu", value),
            lambda: self._mean(self._op("Relu", value)),
            lambda: self._op("ReduceMax", self._op("Abs", value), axes=[-1]),
        )()

    # ---- what keeps it off zero

    def _guarded(self, value: str, epsilon: float) -> str:
        shaped = self._pick(epsilon, [epsilon], [[[epsilon]] * 8])
        guards = {
            "add": lambda: self._op("Add", f"{value} {self._const(shaped)}"),
            "radd": lambda: self._op("Add", f"{self._const(epsilon)} {value}"),
            "sub": lambda: self._op("Sub", f"{value} {self._const(-epsilon)}"),
            "max": lambda: self._op("Max", f"{value} {self._const(shaped)}"),
            "clip": lambda: self._op("Clip", f"{value} {self._const(epsilon)}"),
            "expand": lambda: self._op("Add", f"{value} {self._op('Expand', f'{self._const([epsilon])} ' + self._op('Shape', value))}"),
            "fill": lambda: self._op("Max", f"{value} {self._filled(value, epsilon)}"),
            "where": lambda: self._op("Where", f"{self._op('Equal', f'{value} {self._const(0.0)}')} {self._const(epsilon)} {value}"),
            "mask": lambda: self._op("Add", f"{value} {self._masked(value, epsilon)}"),
            "sum": lambda: self._op("Sum", f"{value} {self._const(epsilon)}"),
        }
        name = self._pick(*guards)
        self.said.append(name)
        return guards[name]()

    def _filled(self, value: str, epsilon: float) -> str:
        return self._op("ConstantOfShape", self._op("Shape", value), value=onnx.helper.make_tensor("value", FLOAT, [1], [epsilon]))

    def _masked(self, value: str, epsilon: float) -> str:
        zero = self._op("Cast", self._op("Equal", f"{value} {self._const(0.0)}"), to=FLOAT)
        return self._op("Mul", f"{zero} {self._const(epsilon)}")

    def _passed_on(self, value: str) -> str:
        """Through what changes no value: [N, 8, 1] or [N, 8, 6] -> the same, or [N, 8, 6]."""
        return self._pick(
            lambda: value,
            lambda: self._op("Expand", f"{value} {self._const([1, 8, 6], np.int64)}"),
            lambda: self._op("Transpose", self._op("Transpose", value, perm=[0, 2, 1]), perm=[0, 2, 1]),
            lambda: self._op("Squeeze", f"{self._op('Unsqueeze', f'{value} {self._const([1], np.int64)}')} {self._const([1], np.int64)}"),
            lambda: self._op("Mul", f"{value} {self._const(self._random.uniform(0.5, 2))}"),
        )()

    def _root(self, value: str) -> str:
        return self._op("Sqrt", value) if self._random.random() < 0.5 else self._op("Pow", f"{value} {self._const(0.5)}")

    # ---- what has no value at zero: [N, 8, 6] -> [N, 8, 6]

    def _quotient(self, value: str) -> str:
        self.said.append("quotient")
        amount, epsilon = self._amount(value), self._epsilon()
        below = self._passed_on(self._guarded(amount, epsilon))
        if self._random.random() < 0.4:
            below = self._passed_on(self._root(below))
        return self._divided(value, below)

    def _divided(self, value: str, below: str) -> str:
        return self._pick(
            lambda: self._op("Div", f"{value} {below}"),
            lambda: self._op("Mul", f"{value} {self._passed_on(self._op('Reciprocal', below))}"),
            lambda: self._op("Mul", f"{self._op('Div', f'{self._const(1.0)} {below}')} {value}"),
            lambda: self._op("Mul", f"{value} {self._op('Pow', f'{below} {self._const(-1.0)}')}"),
        )()

    def _normalized(self, value: str) -> str:
        """Layer normalisation, with the variance spelled out in one of the usual ways."""
        self.said.append("normalized")
        energy = self._energy(value)
        guarded = self._guarded(energy, self._epsilon())
        centred = self._op("Sub", f"{value} {self._mean(value)}")
        return self._pick(
            lambda: self._op("Div", f"{centred} {self._root(guarded)}"),
            lambda: self._op("Mul", f"{centred} {self._op('Pow', f'{guarded} {self._const(-0.5)}')}"),
            lambda: self._op("Mul", f"{centred} {self._op('Reciprocal', self._root(guarded))}"),
        )()

    def _logarithm(self, value: str) -> str:
        self.said.append("logarithm")
        amount, epsilon = self._amount(value), self._epsilon()
        made = self._op("Log", self._passed_on(self._guarded(amount, epsilon)))
        return self._op("Add", f"{value} {self._op('Mul', f'{made} {self._const(0.1)}')}")

    def _inverse_sigmoid(self, value: str) -> str:
        """log(p / (1 - p)), p clipped to what lies between epsilon and 1 - epsilon."""
        self.said.append("inverse sigmoid")
        epsilon, one = self._pick(1e-3, 1e-5, 1e-6), self._const(1.0)
        p = self._op("Clip", f"{value} {self._const(epsilon)} {self._const(1 - epsilon)}")
        other = self._op("Sub", f"{one} {p}")
        return self._pick(
            lambda: self._op("Log", self._op("Div", f"{p} {other}")),
            lambda: self._op("Sub", f"{self._op('Log', p)} {self._op('Log', other)}"),
        )()


def inputs(seed: int) -> dict[str, np.ndarray]:
    """All zero, of one value, of one value in each row, mostly zero, and ordinary."""
    random = np.random.default_rng(seed)
    ordinary = random.standard_normal(SHAPE).astype(np.float32)
    some = ordinary * (random.random((*SHAPE[:2], 1)) < 0.5)
    return {
        "zero": np.zeros(SHAPE, np.float32),
        "constant": np.full(SHAPE, random.uniform(-1, 1), np.float32),
        "rows": np.broadcast_to(ordinary[..., :1], SHAPE).copy(),
        "sparse": some.astype(np.float32),
        "ordinary": ordinary,
    }
