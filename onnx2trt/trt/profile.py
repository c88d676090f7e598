"""Times of single layers of two engines of one model, brought together by the ONNX nodes that the layers compute."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx2trt.trt.inspector import EngineLayer


@dataclass(frozen=True)
class Part:
    """Nodes that at least one of the engines computes together, and the time of all layers that belong to them."""

    nodes: frozenset[str]
    first_ms: float
    second_ms: float


Timed = tuple[tuple[EngineLayer, ...], dict[str, float]]  # layers, and layer name -> milliseconds


def parts_of(first: Timed, second: Timed, joined: Iterable[tuple[str, ...]] = ()) -> list[Part]:
    """The smallest groups of nodes that no layer of either engine reaches out of.

    TensorRT fuses other layers in INT8 than in FP16, so single layers cannot be compared. Layers that name no node (conversions
    of formats, "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1") count for the layer of 8 bits that writes what they read, if
    what they serve is none: without it they would not be there. Else for the layer that their own name ends with.

    Args:
        joined: nodes that shall be in one part besides.
    """
    groups = Groups()
    for nodes in joined:
        groups.join(nodes)
    owners = [_owners(layers) for layers, _ in (first, second)]
    for owner in owners:
        for nodes in owner.values():
            groups.join(nodes)
    sums: dict[str, list[float]] = {}
    for index, (owner, (_, times)) in enumerate(zip(owners, (first, second))):
        for layer, milliseconds in times.items():
            nodes = owner.get(layer)
            if nodes:
                sums.setdefault(groups.root(nodes[0]), [0.0, 0.0])[index] += milliseconds
    members = groups.members()
    return [Part(frozenset(members[root]), *both) for root, both in sums.items()]


def _owners(layers: tuple[EngineLayer, ...]) -> dict[str, tuple[str, ...]]:
    """Layer name -> the nodes that its time is counted for; layers of nobody are left out."""
    own = {layer.name: layer for layer in layers if layer.nodes}
    writers = {name: layer for layer in own.values() for name in layer.writes}
    found = {name: layer.nodes for name, layer in own.items()}
    for layer in layers:
        if not layer.nodes:
            name = max((name for name in own if layer.name.endswith(name)), key=len, default=None)
            served = own.get(name)
            source = next((writers[read] for read in layer.reads if read in writers), None)
            if source and source.in_8_bits and not (served and served.in_8_bits):
                served = source
            if served:
                found[layer.name] = served.nodes
    return found


class Groups:
    """Union-find over node names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, node: str) -> str:
        self._parent.setdefault(node, node)
        while self._parent[node] != node:
            self._parent[node] = self._parent[self._parent[node]]
            node = self._parent[node]
        return node

    def join(self, nodes: tuple[str, ...]) -> None:
        for node in nodes:
            self._parent[self.root(node)] = self.root(nodes[0])

    def members(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for node in self._parent:
            found.setdefault(self.root(node), []).append(node)
        return found
