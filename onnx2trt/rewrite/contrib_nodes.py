"""What takes the place of one node that is written in other operators."""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.graph import Graph


class Other(Exception):
    """A form of an operator that is left as it is."""


class Replacement:
    """Nodes in `made`, with names of their own, for `node` of `graph`; called, it adds one and returns the name of what that makes.

    Args:
        dtype: of the floating-point constants that are added.
    """

    def __init__(self, graph: Graph, node: onnx.NodeProto, dtype: type):
        self.graph, self.node, self.opset, self.dtype = graph, node, graph.opset, dtype
        self.made: list[onnx.NodeProto] = []

    def __call__(self, operator: str, *inputs: str, to: str = "", **attributes) -> str:
        target = to or self.graph.unique(f"{self.node.name}/{operator}")
        name = self.graph.unique(f"{self.node.name}/{operator}_node")
        self.made.append(onnx.helper.make_node(operator, list(inputs), [target], name=name, **attributes))
        return target

    def constant(self, value, dtype=None) -> str:
        name = self.graph.unique(f"{self.node.name}/constant")
        self.graph.weights[name] = np.asarray(value, dtype or self.dtype)
        return name

    def input(self, index: int) -> str:
        return self.node.input[index] if index < len(self.node.input) else ""

    def output(self, index: int) -> str:
        return self.node.output[index] if index < len(self.node.output) else ""

    def without_outputs(self, first: int, last: int = 9) -> None:
        if any(self.output(index) for index in range(first, last)):
            raise Other

    def without_inputs(self, *places: int) -> None:
        if any(self.input(index) for index in places):
            raise Other

    def weight(self, index: int) -> np.ndarray:
        if self.input(index) not in self.graph.weights:
            raise Other
        return self.graph.weights[self.input(index)]

    def split(self, tensor: str, count: int) -> list[str]:
        names = [self.graph.unique(f"{self.node.name}/part") for _ in range(count)]
        more = {"num_outputs": count} if self.opset >= 18 else {}
        name = self.graph.unique(f"{self.node.name}/Split_node")
        self.made.append(onnx.helper.make_node("Split", [tensor], names, name=name, axis=-1, **more))
        return names

    def mean(self, tensor: str) -> str:
        """Over the last axis."""
        if self.opset >= 18:
            return self("ReduceMean", tensor, self.constant([-1], np.int64), keepdims=1)
        return self("ReduceMean", tensor, axes=[-1], keepdims=1)

    def squeezed(self, tensor: str, axes: list[int]) -> str:
        return self("Squeeze", tensor, self.constant(axes, np.int64)) if self.opset >= 13 else self("Squeeze", tensor, axes=axes)

    def unsqueezed(self, tensor: str, axes: list[int]) -> str:
        return self("Unsqueeze", tensor, self.constant(axes, np.int64)) if self.opset >= 13 else self("Unsqueeze", tensor, axes=axes)
