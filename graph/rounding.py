"""Round a layer's weights to INT8 together, so that their errors cancel in what the layer computes.

To the nearest integer each weight loses least by itself, but inputs depend on one another: what one weight loses, others can make up
for. With D the difference from the exact weights, the outputs change by D gram D^T on average. Coordinate descent takes one weight of
every row after the other and sets it to the integer for which that is smallest, given all others.
"""

from __future__ import annotations

import numpy as np

from graph.qdq import INT8_MAX

SWEEPS = 2  # over all weights; the first brings nearly everything
BLOCK = 64  # columns between two updates of all others, by one product of matrices


def settle(integers: np.ndarray, scales: np.ndarray, exact: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Integers whose products with the inputs are nearer to those of the exact weights.

    Args:
        integers: [G, O, K] (groups, outputs, inputs of one output value), the nearest ones. Those at either end of the range stay:
            who takes the scales from the largest weights has to find the same ones.
        scales: [G, O, K], of each weight.
        exact: [G, O, K].
        gram: [G, K, K], mean products of the inputs, positive definite.

    Returns:
        float32 [G, O, K], -127..127.
    """
    integers, scales, gram = (array.astype(np.float32) for array in (integers, scales, gram))
    ends, curvature = np.abs(integers) == INT8_MAX, np.einsum("gkk->gk", gram)
    slopes = (integers * scales - exact).astype(np.float32) @ gram  # half the gradient
    for _ in range(SWEEPS):
        for start in range(0, integers.shape[2], BLOCK):
            block = slice(start, start + BLOCK)
            before, own = integers[:, :, block].copy(), slopes[:, :, block].copy()
            for column in range(start, min(start + BLOCK, integers.shape[2])):
                old, scale = integers[:, :, column].copy(), scales[:, :, column]
                best = np.rint(old - own[:, :, column - start] / (scale * curvature[:, None, column]))
                integers[:, :, column] = np.where(ends[:, :, column], old, np.clip(best, -INT8_MAX, INT8_MAX))
                change = (integers[:, :, column] - old) * scale
                own += change[:, :, None] * gram[:, column, None, block]
            slopes += ((integers[:, :, block] - before) * scales[:, :, block]) @ gram[:, block]
    return integers
