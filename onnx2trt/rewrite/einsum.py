"""Einsum that is a matrix product, as that product: attention and layers of Keras and of einops become what INT8 knows. And in the letters
that TensorRT's parser takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes, attribute


@dataclass(frozen=True)
class _Letters:
    """The axes of a product of two operands, by their letters."""

    batch: str  # of both operands and of the result
    first: str  # of the first operand and of the result
    inner: str  # that are summed over
    second: str  # of the second operand and of the result


def einsums_as_products(graph: Graph) -> Graph:
    """Each Einsum that is a product of two tensors, or of one with constant weights, as MatMul between Transposes and Reshapes.

    The MatMul has the name of the node; the result keeps its name. What MatMul cannot say (diagonals, sums over one operand, an
    ellipsis, several inner axes of two variables) stays.

    Returns:
        A new graph; `graph` itself where there is no Einsum.
    """
    if not any(node.op_type == "Einsum" and node.domain in STANDARD_DOMAINS for node in graph.nodes):
        return graph
    result, nodes = graph.copy(), []
    for node in result.nodes:
        nodes.extend(_Product(result, node).nodes() if node.op_type == "Einsum" and node.domain in STANDARD_DOMAINS else [node])
    result.replace_nodes(nodes)
    result.prune()
    return result


def has_capitals(node: onnx.NodeProto) -> bool:
    """Whether it is an Einsum with capital letters, which ONNX allows and TensorRT's parser does not, and small ones are enough for it."""
    if node.op_type != "Einsum" or node.domain not in STANDARD_DOMAINS:
        return False
    letters = {one for one in attribute(node, "equation", b"").decode() if one.isalpha()}
    return any(one.isupper() for one in letters) and len(letters) <= len(ascii_lowercase)


def in_small_letters(graph: Graph) -> None:
    """Rename, in place, the axes of such nodes, in bodies, too; in their order, by which a result that is not written down is sorted."""
    for node in filter(has_capitals, all_nodes(graph.proto.graph)):
        equation = attribute(node, "equation").decode()
        small = dict(zip(sorted({one for one in equation if one.isalpha()}), ascii_lowercase))
        entry = next(entry for entry in node.attribute if entry.name == "equation")
        entry.s = "".join(small.get(one, one) for one in equation).encode()


class _Product:
    """One Einsum on its way to a MatMul."""

    def __init__(self, graph: Graph, node: onnx.NodeProto):
        self._graph, self._node, self._made = graph, node, []

    def nodes(self) -> list[onnx.NodeProto]:
        """What stands in its place; itself, where it is no product of matrices."""
        operands, result = _parse(attribute(self._node, "equation", b"").decode())
        names = list(self._node.input)
        if len(operands) != 2 or len(names) != 2 or not all(_distinct(letters) for letters in (*operands, result)):
            return [self._node]
        if names[0] in self._graph.weights or self._turned(*operands, result) and names[1] not in self._graph.weights:
            names, operands = names[::-1], operands[::-1]
        letters = _axes(*operands, result)
        if letters is None or names[0] in self._graph.weights:
            return [self._node]
        if names[1] in self._graph.weights and not letters.batch:
            self._by_weights(names, operands, letters, result)
        elif len(letters.first) == len(letters.inner) == len(letters.second) == 1:
            self._by_variables(names, operands, letters, result)
        return self._made or [self._node]

    def _turned(self, first: str, second: str, result: str) -> bool:
        """Whether the axis of the second operand comes first in the result, as where keys stand before queries."""
        letters = _axes(first, second, result)
        return letters is not None and result.find(letters.second[:1]) < result.find(letters.first[:1])

    def _by_variables(self, names: Sequence[str], operands: Sequence[str], letters: _Letters, result: str) -> None:
        first = self._transposed(names[0], operands[0], letters.batch + letters.first + letters.inner)
        second = self._transposed(names[1], operands[1], letters.batch + letters.inner + letters.second)
        self._finish(first, second, letters.batch + letters.first + letters.second, result)

    def _by_weights(self, names: Sequence[str], operands: Sequence[str], letters: _Letters, result: str) -> None:
        """Several axes of constant weights are one; the sizes of the others are taken over, whatever they are."""
        array = self._graph.weights[names[1]]
        array = array.transpose([operands[1].index(letter) for letter in letters.inner + letters.second])
        inner, outer = array.shape[: len(letters.inner)], array.shape[len(letters.inner) :]
        matrix = self._graph.unique(f"{names[1]}__matrix")
        self._graph.weights[matrix] = np.ascontiguousarray(array.reshape(int(np.prod(inner)), int(np.prod(outer))))
        first = self._transposed(names[0], operands[0], letters.first + letters.inner)
        if len(inner) > 1:
            first = self._reshaped(first, [*[0] * len(letters.first), int(np.prod(inner))])
        apart = [*[0] * len(letters.first), *outer] if len(outer) > 1 else []
        self._finish(first, matrix, letters.first + letters.second, result, apart)

    def _finish(self, first: str, second: str, made: str, result: str, apart: Sequence[int] = ()) -> None:
        """The product, its axes taken apart and in the order of the result."""
        output = self._node.output[0]
        steps = ["MatMul", *(["Reshape"] if apart else []), *(["Transpose"] if made != result else [])]
        names = [self._graph.unique(f"{output}__{step.lower()}") for step in steps[:-1]] + [output]
        self._made.append(onnx.helper.make_node("MatMul", [first, second], [names[0]], name=self._node.name))
        if apart:
            self._reshaped(names[0], apart, names[1])
        if made != result:
            self._transposed(names[-2], made, result, output)

    def _transposed(self, name: str, given: str, wanted: str, output: str = "") -> str:
        if given == wanted:
            return name
        return self._add("Transpose", [name], output or self._graph.unique(f"{name}__turned"), perm=[given.index(one) for one in wanted])

    def _reshaped(self, name: str, shape: Sequence[int], output: str = "") -> str:
        sizes = self._graph.unique(f"{self._node.name}__shape")
        self._graph.weights[sizes] = np.array(shape, np.int64)
        return self._add("Reshape", [name, sizes], output or self._graph.unique(f"{name}__joined"))

    def _add(self, operator: str, inputs: list[str], output: str, **attributes) -> str:
        name = self._graph.unique(f"{self._node.name}__{operator.lower()}")
        self._made.append(onnx.helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output


def _parse(equation: str) -> tuple[list[str], str]:
    """(letters of each operand, letters of the result); no operands where the equation names no result, or has an ellipsis."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    return (left.split(","), result) if arrow and "." not in equation else ([], "")


def _distinct(letters: str) -> bool:
    return len(set(letters)) == len(letters)


def _axes(first: str, second: str, result: str) -> _Letters | None:
    """None where an axis is summed over in one operand alone, or a kind of axis is missing that a product has."""
    batch = "".join(one for one in result if one in first and one in second)
    inner = "".join(one for one in first if one in second and one not in result)
    kinds = ["".join(one for one in result if one in own and one not in other) for own, other in ((first, second), (second, first))]
    whole = set(first) == set(batch + inner + kinds[0]) and set(second) == set(batch + inner + kinds[1])
    complete = whole and inner and all(kinds) and set(result) == set(batch + "".join(kinds))
    return _Letters(batch, kinds[0], inner, kinds[1]) if complete else None
