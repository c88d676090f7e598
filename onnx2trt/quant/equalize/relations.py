"""Ties and fixes between the channels of all tensors of a graph; what is tied together and nowhere fixed is a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from onnx2trt.base.model_info import STANDARD_DOMAINS
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute, reads
from onnx2trt.model.operators import ALONG, SPATIAL, WEIGHTED

FIXED = -1  # slot of a channel that has to stay as it is
ROUNDS = 20  # of alternating between entries and magnitudes (Group.relative)


@dataclass(frozen=True)
class Place:
    """Where the channels of a tensor are, and which unknown each of them is."""

    slots: np.ndarray  # int [C]: entry of the group's vector for each channel, or FIXED
    axis: int
    rank: int


@dataclass(frozen=True, eq=False)
class Group:
    """Tensors whose channels are chosen together: one vector of `size` entries, of which each channel takes one."""

    places: dict[str, Place]
    size: int

    def expand(self, name: str, values: np.ndarray, neutral: float) -> np.ndarray:
        """The group's vector [size] as one value for each channel [C] of tensor `name`; `neutral` where it is fixed."""
        slots = self.places[name].slots
        return np.where(slots == FIXED, neutral, np.asarray(values, np.float64)[slots])

    def largest(self, channels: dict[str, np.ndarray]) -> np.ndarray:
        """Over channel values [C] of tensors, the largest of each entry of the vector: [size]; -inf where none of the tensors has it."""
        found = np.full(self.size, -np.inf)
        for name in self.places.keys() & channels.keys():
            slots = self.places[name].slots
            np.maximum.at(found, slots[slots != FIXED], np.asarray(channels[name], np.float64)[slots != FIXED])
        return found

    def relative(self, channels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """How far channels reach, [C], each tensor divided by its own magnitude: INT8 has a scale for each tensor, so what counts is
        how its channels compare with each other.

        By least squares in logarithms, the reach of a channel is its entry of the vector times the magnitude of its tensor. Tensors
        that agree with each other (a Concat and its inputs) therefore keep their values.
        """
        names = [name for name in self.places if name in channels]
        logs = {}
        for name in names:
            slots, values = self.places[name].slots, np.asarray(channels[name], np.float64)
            live = (slots != FIXED) & np.isfinite(values) & (values > 0)
            logs[name] = slots[live], np.log(values[live])
        magnitudes = dict.fromkeys(names, 0.0)
        slots = np.concatenate([np.zeros(0, int), *(own for own, _ in logs.values())])
        for _ in range(ROUNDS):
            left = np.concatenate([np.zeros(0), *(values - magnitudes[name] for name, (_, values) in logs.items())])
            entries = np.bincount(slots, left, self.size) / np.maximum(np.bincount(slots, minlength=self.size), 1)
            for name, (own, values) in logs.items():
                magnitudes[name] = float((values - entries[own]).mean()) if own.size else 0.0
        return {name: np.asarray(channels[name], np.float64) / np.exp(magnitudes[name]) for name in names}

    def anchor(self, channels: dict[str, np.ndarray]) -> float:
        """The largest value of the channels that are fixed within the same tensors; 0 where there is none."""
        fixed = [np.asarray(channels[name])[self.places[name].slots == FIXED] for name in self.places.keys() & channels.keys()]
        return max((float(values.max()) for values in fixed if values.size), default=0.0)


class Relations:
    """Ties and fixes between the channels of all tensors of a graph."""

    def __init__(self, graph: Graph, shapes: dict[str, tuple[int, ...]]):
        self.graph = graph
        self.shapes = {name: shapes[name] for name in graph.float_tensors() if name in shapes and len(shapes[name]) >= 2}
        self.axes = _channel_axes(graph, self.shapes)
        self.readings = Counter(name for node in graph.nodes for name in reads(node))
        self.unknowns: dict[str, np.ndarray] = {}  # tensor -> int [C]
        total = 0
        for name, shape in self.shapes.items():
            self.unknowns[name] = np.arange(total, total + shape[self.axes[name]])
            total += shape[self.axes[name]]
        self._labels = np.arange(total)  # unknown -> the smallest unknown tied to it
        self._fixed = np.zeros(total, bool)
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []  # not yet in the labels
        for name in {*graph.input_names, *graph.output_names} & self.unknowns.keys():
            self.fix(self.unknowns[name])

    def enter(self, node: onnx.NodeProto, rules: dict[str, Callable[[Relations, onnx.NodeProto], tuple[str, ...]]]) -> None:
        """Apply the rule of a node; it answers which tensors it has dealt with, all others that the node touches are fixed."""
        rule = rules.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        done = rule(self, node) if rule else ()
        for name in (*reads(node), *node.output):
            if name not in done and name in self.unknowns:
                self.fix(self.unknowns[name])

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Channel i of one is to have the value of channel i of the other."""
        self._ties.append((np.asarray(first), np.asarray(second)))

    def fix(self, unknowns: np.ndarray) -> None:
        """These channels stay as they are."""
        self._fixed[unknowns] = True

    def solve(self) -> None:
        """Give all unknowns that are tied together one label; what is tied to something fixed is fixed."""
        if self._ties:
            first, second = (np.concatenate(part) for part in zip(*self._ties))
            self._ties = []
            while not np.array_equal(one := self._labels[first], two := self._labels[second]):
                np.minimum.at(self._labels, np.maximum(one, two), np.minimum(one, two))
                while not np.array_equal(self._labels, shorter := self._labels[self._labels]):
                    self._labels = shorter
        labels = np.zeros_like(self._fixed)
        labels[self._labels[self._fixed]] = True
        self._fixed = labels[self._labels]

    def is_fixed(self, unknowns: np.ndarray) -> np.ndarray:
        """Whether each of these has to stay as it is, by what has been entered so far."""
        self.solve()
        return self._fixed[unknowns]

    def alike(self, *names: str) -> bool:
        """Whether these are activations of one rank, with the same number of channels at the same place."""
        if not all(name in self.unknowns for name in names):
            return False
        return len({(len(self.shapes[name]), self.axes[name], len(self.unknowns[name])) for name in names}) == 1

    def channels(self, name: str, like: str) -> np.ndarray | None:
        """The unknowns of `name`, broadcast to the channels of tensor `like`; None where that has no meaning."""
        if name not in self.unknowns or (len(self.shapes[name]), self.axes[name]) != (len(self.shapes[like]), self.axes[like]):
            return None
        if len(self.unknowns[name]) not in (1, len(self.unknowns[like])):
            return None
        return np.broadcast_to(self.unknowns[name], self.unknowns[like].shape)

    def groups(self) -> tuple[Group, ...]:
        """What is free, as far as it feeds a convolution or matrix product, in execution order."""
        self.solve()
        members: dict[int, list[str]] = {}  # the first label of a group -> its tensors
        home: dict[int, int] = {}  # label -> the first label of its group; all free labels of one tensor are in one group
        for name, unknowns in self.unknowns.items():
            labels = np.unique(self._labels[unknowns[~self._fixed[unknowns]]]).tolist()
            if labels:
                homes = sorted({home[label] for label in labels if label in home}) or labels[:1]
                joined = [tensor for other in homes for tensor in members.pop(other, ())]
                members[homes[0]] = [*joined, name]
                home = {label: homes[0] if found in homes else found for label, found in home.items()} if homes[1:] else home
                home.update(dict.fromkeys(labels, homes[0]))
        feeding = {node.input[0] for node in self.graph.nodes if node.op_type in WEIGHTED and node.input}
        return tuple(self._group(names) for names in members.values() if feeding.intersection(names))

    def _group(self, names: list[str]) -> Group:
        unknowns = np.concatenate([self.unknowns[name] for name in names])
        labels = np.unique(self._labels[unknowns[~self._fixed[unknowns]]])
        places = {}
        for name in names:
            own = self.unknowns[name]
            slots = np.where(self._fixed[own], FIXED, np.searchsorted(labels, self._labels[own]))
            places[name] = Place(slots, self.axes[name], len(self.shapes[name]))
        return Group(places, len(labels))


def _channel_axes(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Tensor -> axis of its channels: 1 around convolutions, the last around matrix products, and so on along elementwise operators."""
    axes: dict[str, int] = {}
    for node in graph.nodes:
        for name in (*node.input[:1], *node.output[:1]):
            if name in shapes and node.op_type in SPATIAL:
                axes.setdefault(name, 1)
            elif name in shapes and node.op_type in ("MatMul", "LayerNormalization"):
                axes.setdefault(name, len(shapes[name]) - 1)
    before = -1
    while before != len(axes):  # forwards and backwards, until nothing new comes to light
        before = len(axes)
        for node in (*graph.nodes, *reversed(graph.nodes)):
            names = [name for name in (*node.input, *node.output[:1]) if name in shapes]
            known = next((name for name in names if name in axes), None)
            if node.op_type == "Transpose" and known and len(names) == 2:
                perm = list(attribute(node, "perm", ()) or reversed(range(len(shapes[known]))))
                inside = axes[known] if known == names[0] else perm[axes[known]]
                axes.setdefault(names[0], inside)
                axes.setdefault(names[1], perm.index(inside))
            elif node.op_type in ALONG and known:
                for name in names:
                    if len(shapes[name]) == len(shapes[known]):
                        axes.setdefault(name, axes[known])
    return {name: axes.get(name, 1) for name in shapes}
