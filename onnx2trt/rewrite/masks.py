"""Masks of -3.4e38, -inf and the like in front of a Softmax, as values that FP16 holds.

Such a value says "no attention here": exp() of it is zero, as it is of -1e4. FP16 does not hold the one, which keeps all between it and the
Softmax in FP32 and breaks the attention that TensorRT fuses; the other, even two of them with scores added, is far within its range.
"""

from __future__ import annotations

import numpy as np
import onnx

from onnx2trt.model.graph import Graph, array_of
from onnx2trt.model.nodes import attribute, subgraphs
from onnx2trt.rewrite.keep_fp32 import KEPT_FP32_ABOVE

CLIPPED = 1e4  # what BERT has always written; three of them, and scores besides, stay below KEPT_FP32_ABOVE
# operator -> the inputs through which a mask goes on towards a Softmax; None: all
MOVING = ("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze")
ON_THE_WAY: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(MOVING, (0,)),
    **dict.fromkeys(("Add", "Concat", "Max", "Min", "Mul", "Sum"), None),
    "Softmax": (0,),
    "Where": (1, 2),
}


def clip_masks(graph: Graph) -> tuple[Graph, list[str]]:
    """The graph with constants of a Softmax's masks clipped to +-CLIPPED, where FP16 does not hold them.

    Only readings that lead to nothing but a Softmax get the clipped constant. Whether that changes what the network computes (a mask of
    -3.4e38 above one of -1e4, or a row in which all is masked), its outputs tell: the caller compares them.

    Args:
        graph: FP32, not changed.

    Returns:
        (a new graph, names of the constants); (`graph` itself, []) where there is none.
    """
    large = {name: array for name, array in graph.weights.items() if array.dtype == np.float32 and _is_large(array)}
    result, ways = graph.copy(), _Ways(graph)
    found, copies = [], {}
    for node in result.nodes:
        if node.op_type == "ConstantOfShape" and ways.lead_to_softmax(node.output[0]):
            found += [node.output[0]] * _clip_filling(node)
        for index, name in enumerate(node.input):
            if name in large and ways.leads_on(node, index):
                if name not in copies:
                    copies[name] = result.unique(f"{name}__clipped")
                    result.weights[copies[name]] = _clipped(large[name])
                    found.append(name)
                node.input[index] = copies[name]
    if not found:
        return graph, []
    result.prune()
    return result, found


def _is_large(array: np.ndarray) -> bool:
    return bool(array.size) and float(np.abs(array).max()) > KEPT_FP32_ABOVE  # NaN is not


def _clipped(array: np.ndarray) -> np.ndarray:
    """What FP16 holds with room to spare stays as it is."""
    return np.where(np.abs(array) > KEPT_FP32_ABOVE, np.copysign(np.float32(CLIPPED), array), array).astype(np.float32)


def _clip_filling(node: onnx.NodeProto) -> bool:
    """Whether the value that a ConstantOfShape fills with was clipped."""
    value = attribute(node, "value")
    array = None if value is None else array_of(value)
    if array is None or array.dtype != np.float32 or not _is_large(array):
        return False
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(_clipped(array))))
    return True


class _Ways:
    """Which tensors lead to nothing but the data of Softmaxes."""

    def __init__(self, graph: Graph):
        self._consumers, self._outputs = graph.consumers(), set(graph.output_names)
        self._known: dict[str, bool] = {}

    def leads_on(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether input `index` of the node does."""
        return self._passes(node, node.input[index]) and (node.op_type == "Softmax" or self.lead_to_softmax(node.output[0]))

    def lead_to_softmax(self, tensor: str) -> bool:
        todo, seen = [tensor], set()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            readers = self._consumers.get(name, [])
            if name in self._outputs or not readers or self._known.get(name) is False:
                return self._remember(tensor, False)
            if not all(self._passes(reader, name) for reader in readers):
                return self._remember(tensor, False)
            todo += [reader.output[0] for reader in readers if reader.op_type != "Softmax"]
        return self._remember(tensor, True)

    def _passes(self, node: onnx.NodeProto, name: str) -> bool:
        """Whether the node, which reads this tensor, is a Softmax or hands it on towards one."""
        if subgraphs(node):
            return False
        places = ON_THE_WAY.get(node.op_type, ())
        return places is None or all(index in places for index, read in enumerate(node.input) if read == name)

    def _remember(self, tensor: str, leads: bool) -> bool:
        self._known[tensor] = leads
        return leads
