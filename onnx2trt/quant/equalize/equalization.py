"""What channel equalization has chosen for a network, and the network with it done for the layers that become INT8.

After cross-layer equalization (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019), but by
the measured ranges of activations instead of the weights' ranges, and with shifts besides scales.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from onnx2trt.model.graph import Graph
from onnx2trt.quant.equalize.apply import equalize, shift
from onnx2trt.quant.equalize.groups import scale_groups, shift_groups
from onnx2trt.quant.equalize.relations import Group
from onnx2trt.rewrite.qdq import Layer


@dataclass(frozen=True)
class Equalization:
    """What was chosen for a graph, to be applied for those layers that will be INT8."""

    original: Graph
    shifts: tuple[tuple[Group, np.ndarray], ...] = ()
    scales: tuple[tuple[Group, np.ndarray], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing that could be equalized."""
        return not (self.shifts or self.scales)

    def graph(self, tensors: Container[str], layers: Iterable[Layer]) -> Graph:
        """The same network, equalized for INT8 layers.

        What is FP16 stays as it is. Shifted, it would lose what INT8 gains, since FP16 is finest around 0. Scaled, a constant that all
        channels share would become one for each, which TensorRT's INT8 mode does not fuse with the operator before: 24 kernels more in
        PP-OCRv4 det.

        Args:
            tensors: read by the layers.
            layers: what they write is equalized, too, since their fitted weights fit that.
        """
        chosen = {layer.node for layer in layers}
        written = {name for node in self.original.nodes if node.name in chosen for name in node.output}
        shifts = [(group, vector) for group, vector in self.shifts if vector.any() and any(name in tensors for name in group.places)]
        scales = [(g, v) for g, v in self.scales if (v != 1).any() and any(name in tensors or name in written for name in g.places)]
        graph = shift(self.original, [group for group, _ in shifts], [vector for _, vector in shifts]) if shifts else self.original
        return equalize(graph, [group for group, _ in scales], [vector for _, vector in scales]) if scales else graph

    def reaches(self, maxima: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Tensor -> between what its max |x| lies once its channels are equalized, for layers or not; of those that may change.

        Args:
            maxima: tensor -> max |x|, as it is.
        """
        found = {}
        for group, vector in self.shifts:
            for name in group.places:
                by, largest = np.abs(group.expand(name, vector, 0.0)).max(initial=0.0), maxima.get(name, math.inf)
                found[name] = largest - by, largest + by
        for group, vector in self.scales:
            for name in group.places:
                factors, largest = group.expand(name, vector, 1.0), maxima.get(name, math.inf)
                low, high = found.get(name, (largest, largest))
                found[name] = low / factors.max(initial=1.0), high / factors.min(initial=1.0)
        return found

    def vectors(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(shifts, scales) by the first tensor of each group; `rebuild` is the inverse."""
        return tuple({_first(group): vector for group, vector in chosen} for chosen in (self.shifts, self.scales))


def rebuild(graph: Graph, shapes: dict[str, tuple[int, ...]], shifts: dict[str, np.ndarray], scales: dict[str, np.ndarray]) -> Equalization:
    """The equalization that has these vectors.

    Raises:
        ValueError: they do not fit the graph.
    """
    chosen = []
    for find, vectors in ((shift_groups, shifts), (scale_groups, scales)):
        groups = {_first(group): group for group in find(graph, shapes)} if vectors else {}
        if {name: (group.size,) for name, group in groups.items()} != {name: vector.shape for name, vector in vectors.items()}:
            raise ValueError("other channels are equalized together")
        chosen.append(tuple((group, vectors[name]) for name, group in groups.items()))
    if not all(np.isfinite(vector).all() for _, vector in chosen[0]):
        raise ValueError("a shift is not finite")
    if not all((np.isfinite(vector) & (vector > 0)).all() for _, vector in chosen[1]):
        raise ValueError("a scale of a channel is not above 0 and finite")
    return Equalization(graph, *chosen)


def _first(group: Group) -> str:
    return next(iter(group.places))
