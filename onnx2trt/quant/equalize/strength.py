"""How strongly to equalize tensors that have to share the scales of their channels, so that no layer is worse off.

What is right for one tensor can be wrong for another that is tied to it: two levels of a pyramid under one head, the rounds of an unrolled
loop. So the scales s are taken to a power: s ** strength, which is the migration strength of SmoothQuant (Xiao et al., ICML 2023). It is
chosen by the noise that INT8 makes in what each layer computes: the activations are rounded to steps in proportion to the channel that
reaches furthest, max(r / s), which the weights carry into an output by (w s)^2; the weights of an output are rounded to steps in
proportion to max(w s), which the activations carry into it by (x / s)^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import attribute
from onnx2trt.model.operators import WEIGHTED
from onnx2trt.quant.equalize.relations import FIXED, Group
from onnx2trt.rewrite.qdq import INT8_MAX

STRENGTHS = tuple(step / 10 for step in range(10, 0, -1))
TOLERATED = 0.1  # more noise in a layer, as a logarithm: 10 %, or 0.4 dB
MOST_OUTPUTS = 256  # channels of a layer's output that are looked at, evenly spaced


@dataclass(frozen=True)
class Reach:
    """What is known of the channels of a tensor."""

    largest: np.ndarray  # [C], how far they reach
    spread: np.ndarray  # [C], root mean square


@dataclass(frozen=True)
class Read:
    """A tensor that a layer reads as INT8."""

    reach: Reach
    slots: np.ndarray  # int [C]: entry of the group's vector, or FIXED
    weights: np.ndarray  # float64 [outputs, C, taps], |w| from a channel to an output; 0 where nothing leads from one to the other

    def noise(self, vector: np.ndarray) -> float:
        """By how much scales change the noise in the layer's outputs: logarithm of the ratio, mean over the outputs."""
        before, after = self._unscaled, self._noise(np.where(self.slots == FIXED, 1.0, vector[self.slots]))
        live = before > 0
        return float(np.log(after[live] / before[live]).mean()) if live.any() else 0.0

    @cached_property
    def _unscaled(self) -> np.ndarray:
        """The noise with channels as they are, which all strengths are held against."""
        return self._noise(np.ones(len(self.slots)))

    def _noise(self, scales: np.ndarray) -> np.ndarray:
        """Mean square of the error in each output, [outputs].

        Rounding to steps makes an error of step^2 / 12, but none is larger than the value itself: what is far below a step becomes 0.
        """
        largest = np.where(np.isfinite(self.reach.largest), self.reach.largest, 0.0)
        weights, inputs = np.square(self.weights * scales[:, None]), np.square(self.reach.spread / scales)
        rounded_inputs = np.minimum(((largest / scales).max() / INT8_MAX) ** 2 / 12, inputs)
        rounded_weights = np.minimum((weights.max(axis=(1, 2)) / INT8_MAX**2 / 12)[:, None, None], weights)
        return weights.sum(axis=2) @ rounded_inputs + rounded_weights.sum(axis=2) @ inputs


def reads(graph: Graph, group: Group, reaches: dict[str, Reach]) -> list[Read]:
    """How the tensors of a group are read.

    Args:
        reaches: of the tensors that INT8 layers read.
    """
    found = []
    for node in graph.nodes:
        name = node.input[0] if node.op_type in WEIGHTED else ""
        if name in group.places and name in reaches and node.input[1] in graph.weights:
            slots = group.places[name].slots
            found.append(Read(reaches[name], slots, _weights(node, graph.weights[node.input[1]], len(slots))))
    return found


def choose_strength(vector: np.ndarray, found: Sequence[Read]) -> float:
    """The strength in 0..1 that makes least noise, without making any layer worse.

    Args:
        vector: the scales at full strength, [size].
    """
    best, least = 0.0, 0.0
    for strength in STRENGTHS:
        noise = [read.noise(vector**strength) for read in found]
        if noise and max(noise) <= TOLERATED and np.mean(noise) < least:
            best, least = strength, float(np.mean(noise))
    return best if found else 1.0


def _weights(node: onnx.NodeProto, weight: np.ndarray, channels: int) -> np.ndarray:
    """Read.weights; every layer here has an INT8 scale for each output channel."""
    weight = np.abs(weight, dtype=np.float64)
    if node.op_type in ("Gemm", "MatMul"):  # a batch of matrices is like taps
        turned = node.op_type == "Gemm" and attribute(node, "transB", 0)
        found = weight[:, :, None] if turned else weight.reshape(-1, *weight.shape[-2:]).transpose(2, 1, 0)
    else:
        found = weight.reshape(*weight.shape[:2], math.prod(weight.shape[2:]))
        found = found.transpose(1, 0, 2) if node.op_type == "ConvTranspose" else found
    chosen = np.arange(0, len(found), -(-len(found) // MOST_OUTPUTS))
    if found.shape[1] == channels:
        return found[chosen]
    groups, each = channels // found.shape[1], found.shape[1]
    whole = np.zeros((len(chosen), channels, found.shape[2]))
    for index, output in enumerate(chosen):
        first = output // (len(found) // groups) * each
        whole[index, first : first + each] = found[output]
    return whole
