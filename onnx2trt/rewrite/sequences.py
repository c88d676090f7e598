"""Operators on lists of tensors, which TensorRT does not have, as what they give: SequenceAt of a SplitToSequence is one part of a Split.

PyTorch writes them for tensor_split, and in scripted code for split, chunk and unbind, where it does not know how many parts there will be.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS, Profile
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import all_nodes, attribute, with_inner_nodes
from onnx2trt.rewrite.contrib_nodes import Other, Replacement
from onnx2trt.rewrite.known_sizes import Sizes, known_values, sizes_of
from onnx2trt.rewrite.unroll import unroll

MAKING = ("SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SplitToSequence")
TAKING = ("SequenceAt", "SequenceLength", "ConcatFromSequence")
PLACES = {"SequenceInsert": 2, "SequenceErase": 1, "SequenceAt": 1, "SplitToSequence": 1}  # of the input that has to be known
MOST_PARTS = 1024  # of one list
SLICE_OPSET = 10  # from here on its bounds are inputs


def fold_sequences(model: onnx.ModelProto, profiles: tuple[Profile, ...]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Put tensors in the place of lists whose length and places are known.

    Args:
        model: with all its data in memory; left as it is.
        profiles: what hangs on sizes is known where these do not vary within them.

    Returns:
        (the model, or `model` itself where there is nothing to fold; the names of the nodes that are gone)
    """
    if not any(node.op_type in MAKING for node in all_nodes(model.graph)):
        return model, ()
    graph = Graph.from_model(model)
    before = _names(graph)
    while unroll(graph, _is_list, profiles) or _fold(graph, profiles):
        graph.sort()
        graph.prune()
    gone = tuple(name for name in before if name not in set(_names(graph)))
    return (graph.to_model(), gone) if gone else (model, ())


def _names(graph: Graph) -> list[str]:
    """Of the nodes on lists, and of the loops with such nodes inside."""
    inside = ("Loop", *MAKING, *TAKING)
    return [node.name for node in graph.nodes if node.op_type in inside and any(map(_is_list, with_inner_nodes(node)))]


def _is_list(node: onnx.NodeProto) -> bool:
    return node.op_type in (*MAKING, *TAKING) and node.domain in STANDARD_DOMAINS


def _fold(graph: Graph, profiles: tuple[Profile, ...]) -> bool:
    """Put tensors in the place of what is taken from lists, in place; whether there was any."""
    asked = [node.input[PLACES[node.op_type]] for node in graph.nodes if _is_list(node) and len(node.input) > PLACES.get(node.op_type, 9)]
    lists = _Lists(graph, known_values(graph, dict.fromkeys(filter(None, asked)), profiles), sizes_of(graph, profiles))
    nodes, folded = [], False
    for node in list(graph.nodes):
        try:
            made = lists.replaced(node)
        except Other:
            made = None
        folded |= made is not None and node.op_type in TAKING
        nodes += [node] if made is None else made
    if folded:
        graph.replace_nodes(nodes)
    return folded


class _Lists:
    """What the lists of a graph hold, node by node in execution order."""

    def __init__(self, graph: Graph, values: dict[str, np.ndarray], sizes: dict[str, Sizes]):
        self._graph, self._values, self._sizes = graph, values, sizes
        self._held: dict[str, list[str]] = {}  # list -> its tensors
        self._even: dict[str, int] = {}  # list of an unknown number of parts of a tensor -> their size
        self._splits = {node.output[0]: node for node in graph.nodes if node.op_type == "SplitToSequence"}

    def replaced(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """The nodes in its place; None where it stays.

        A node that makes a list stays beside them: nothing may read it any more, and then it is pruned.

        Raises:
            Other: it has to stay.
        """
        if node.domain not in STANDARD_DOMAINS:
            return None
        if node.op_type == "Identity" and node.input[0] in self._held:
            self._held[node.output[0]] = self._held[node.input[0]]
        rule = RULES.get(node.op_type)
        if rule is None:
            return None
        made = Replacement(self._graph, node, np.float32)
        found = rule(self, node, made)
        if found is not None:
            self._held[node.output[0]] = found
            return [node, *made.made] if made.made else None
        return made.made

    def _list(self, node: onnx.NodeProto) -> list[str]:
        if node.input[0] not in self._held:
            raise Other
        return self._held[node.input[0]]

    def _place(self, node: onnx.NodeProto, default: int, most: int) -> int:
        """Where in a list, from 0 to `most`."""
        index = PLACES[node.op_type]
        if len(node.input) <= index or not node.input[index]:
            return default
        value = self._values.get(node.input[index])
        if value is None or value.size != 1:
            raise Other
        place = int(value.reshape(()))
        place += (most + 1 if node.op_type != "SequenceInsert" else most) * (place < 0)
        if not 0 <= place <= most:
            raise Other
        return place

    # ---- lists

    def empty(self, _node: onnx.NodeProto, _made: Replacement) -> list[str]:
        return []

    def construct(self, node: onnx.NodeProto, _made: Replacement) -> list[str]:
        return list(node.input)

    def insert(self, node: onnx.NodeProto, _made: Replacement) -> list[str]:
        held = self._list(node)
        place = self._place(node, len(held), len(held))
        return [*held[:place], node.input[1], *held[place:]]

    def erase(self, node: onnx.NodeProto, _made: Replacement) -> list[str]:
        held = self._list(node)
        place = self._place(node, len(held) - 1, len(held) - 1)
        return [*held[:place], *held[place + 1 :]]

    def split(self, node: onnx.NodeProto, made: Replacement) -> list[str]:
        axis, size = attribute(node, "axis", 0), self._size(node)
        if size:
            self._even[node.output[0]] = size
        parts = self._parts(node, size)
        names = [self._graph.unique(f"{node.name}/part") for _ in parts]
        made.made.append(_split(made, names, axis, parts))
        if _squeezes(node):
            return [made.squeezed(name, [axis]) for name in names]
        return names

    def _size(self, node: onnx.NodeProto) -> int:
        """Of each part but the last one; 0 where a list of sizes is given."""
        if len(node.input) < 2 or not node.input[1]:
            return 1
        asked = self._values.get(node.input[1])
        if asked is None or asked.ndim == 0 and asked < 1:
            raise Other
        return 0 if asked.ndim else int(asked)

    def _parts(self, node: onnx.NodeProto, size: int) -> list[int]:
        """The sizes of the parts along the axis."""
        if size:
            sizes, axis = self._sizes.get(node.input[0]), attribute(node, "axis", 0)
            if sizes is None or not -len(sizes) <= axis < len(sizes) or sizes[axis] is None:
                raise Other
            parts = [min(size, sizes[axis] - first) for first in range(0, sizes[axis], size)]
        else:
            parts = [int(part) for part in self._values[node.input[1]]]
        if not 0 < len(parts) <= MOST_PARTS or min(parts) < 1:
            raise Other
        return parts

    # ---- what is taken from them

    def at(self, node: onnx.NodeProto, made: Replacement) -> None:
        if node.input[0] not in self._held and node.input[0] in self._even:
            return self._part(node, made)
        held = self._list(node)
        made("Identity", held[self._place(node, -1, len(held) - 1)], to=node.output[0])

    def _part(self, node: onnx.NodeProto, made: Replacement) -> None:
        """One of an unknown number of parts, counted from the first one."""
        source, size, place = self._splits[node.input[0]], self._even[node.input[0]], self._place(node, -1, MOST_PARTS)
        if self._values[node.input[1]].reshape(()) < 0 or made.opset < SLICE_OPSET:
            raise Other
        axis, squeezes = attribute(source, "axis", 0), _squeezes(source)
        bounds = [made.constant([value], np.int64) for value in (place * size, (place + 1) * size, axis)]
        part = made("Slice", source.input[0], *bounds, to="" if squeezes else node.output[0])
        if squeezes:
            made("Identity", made.squeezed(part, [axis]), to=node.output[0])

    def length(self, node: onnx.NodeProto, made: Replacement) -> None:
        made("Identity", made.constant(len(self._list(node)), np.int64), to=node.output[0])

    def joined(self, node: onnx.NodeProto, made: Replacement) -> None:
        held, axis = self._list(node), attribute(node, "axis")
        if not held:
            raise Other
        parts = [made.unsqueezed(name, [axis]) for name in held] if attribute(node, "new_axis", 0) else held
        made("Concat", *parts, to=node.output[0], axis=axis)


def _squeezes(split: onnx.NodeProto) -> bool:
    """Whether its parts, of size 1, lose the axis."""
    return not attribute(split, "keepdims", 1) and (len(split.input) < 2 or not split.input[1])


def _split(made: Replacement, names: list[str], axis: int, parts: list[int]) -> onnx.NodeProto:
    name, given = made.graph.unique(f"{made.node.name}/Split_node"), made.input(0)
    if made.opset >= 13:
        return onnx.helper.make_node("Split", [given, made.constant(parts, np.int64)], names, name=name, axis=axis)
    return onnx.helper.make_node("Split", [given], names, name=name, axis=axis, split=parts)


Rule = Callable[[_Lists, onnx.NodeProto, Replacement], list[str] | None]
RULES: dict[str, Rule] = {  # the tensors of a list, or None where tensors are made
    "SequenceEmpty": _Lists.empty,
    "SequenceConstruct": _Lists.construct,
    "SequenceInsert": _Lists.insert,
    "SequenceErase": _Lists.erase,
    "SplitToSequence": _Lists.split,
    "SequenceAt": _Lists.at,
    "SequenceLength": _Lists.length,
    "ConcatFromSequence": _Lists.joined,
}
