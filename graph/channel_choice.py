"""Which scales and shifts to give to channels (pure): a balance between what rounds activations and what rounds weights."""

from __future__ import annotations

import numpy as np
import onnx

from graph.channels import Group
from graph.graph import Graph
from graph.nodes import attribute
from graph.qdq import WEIGHTED

LIMIT = 64.0  # scales stay within this factor of their mean: beyond it, weights would leave what FP16 resolves


def choose_scales(
    maxima: np.ndarray, weights: np.ndarray | None = None, alpha: float = 0.8, anchor: float = 0.0, limit: float = LIMIT
) -> np.ndarray:
    """s = a**alpha / w**(1 - alpha), between activations that fit one scale (alpha 1) and weights that do (alpha 0).

    Args:
        maxima: [size], the largest |x| of each channel, or a percentile; 0 or not finite for channels without values.
        weights: [size], how much the weights that read the channel weigh (consumer_weights); 0, or None for all, where
            nothing speaks against alpha 1.
        alpha: 0..1 (SmoothQuant's migration strength).
        anchor: the largest |x| among channels of the same tensors that cannot be scaled (Group.anchor); 0 if there are
            none. The scaled channels get that maximum, as far as a common factor within the limit reaches; without an
            anchor their scales have mean 1.
        limit: scales stay between mean / limit and mean * limit (geometric mean).

    Returns:
        [size], float64, above 0; those of channels without values are the mean.
    """
    maxima = np.asarray(maxima, np.float64)
    sizes, live = _centred_logs(maxima)
    burdens, weighed = _centred_logs(np.zeros_like(maxima) if weights is None else np.asarray(weights, np.float64))
    logs = np.where(weighed & live, alpha * sizes - (1 - alpha) * burdens, sizes)
    logs[live] -= logs[live].mean() if live.any() else 0.0
    scales = np.exp(np.clip(logs, -np.log(limit), np.log(limit)))
    common = (maxima[live] / scales[live]).max() / anchor if anchor > 0 and live.any() else 1.0
    return scales * np.clip(common, 1 / limit, limit)


def _centred_logs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log of values above 0 less their mean, 0 elsewhere; and where they are above 0 (and finite)."""
    usable = np.isfinite(values) & (values > 0)
    logs = np.zeros_like(values)
    if usable.any():
        logs[usable] = np.log(values[usable])
        logs[usable] -= logs[usable].mean()
    return logs, usable


def choose_shifts(minima: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """The middle of each channel's range, [size]; 0 for channels without values (not finite)."""
    with np.errstate(invalid="ignore"):  # no values: minimum inf, maximum -inf
        middle = (np.asarray(minima, np.float64) + np.asarray(maxima, np.float64)) / 2
    return np.where(np.isfinite(middle), middle, 0.0)


def consumer_weights(graph: Graph, group: Group) -> np.ndarray:
    """How much the weights that read each entry of the group weigh against their neighbours, [size], 0 where it does not matter.

    Weights have a scale for each output channel, so what counts is |w| relative to the largest |w| of that channel; the
    root mean square over output channels. Depthwise convolutions do not count: their only input channel has the scale to itself.
    """
    found = {}
    for node in graph.nodes:
        if node.op_type in WEIGHTED and node.input[0] in group.places and node.input[1] in graph.weights:
            shares = _input_shares(node, graph.weights[node.input[1]], len(group.places[node.input[0]].slots))
            found[node.input[0]] = np.maximum(found.get(node.input[0], 0.0), shares)
    return np.maximum(group.largest(found), 0.0)


def _input_shares(node: onnx.NodeProto, weight: np.ndarray, count: int) -> np.ndarray:
    """[C]: for each input channel, its weights in units of the largest of each output channel, root mean square."""
    groups = attribute(node, "group", 1)
    if node.op_type == "Conv":
        blocks = np.abs(weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)).max(axis=3)  # [g, M/g, C/g]
    elif node.op_type == "ConvTranspose":
        blocks = np.abs(weight.reshape(groups, count // groups, weight.shape[1], -1)).max(axis=3).transpose(0, 2, 1)
    else:
        matrix = weight if node.op_type == "Gemm" and attribute(node, "transB", 0) else np.swapaxes(weight, -1, -2)
        blocks = np.abs(matrix).reshape(-1, matrix.shape[-1])[None]
    if blocks.shape[2] == 1:
        return np.zeros(count)
    shares = blocks / np.maximum(blocks.max(axis=2, keepdims=True), np.finfo(np.float32).tiny)
    return np.sqrt(np.square(shares, dtype=np.float64).mean(axis=1)).reshape(-1)
