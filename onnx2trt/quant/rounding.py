"""Round a layer's weights to INT8 together, so that their errors cancel in what the layer computes.

To the nearest integer each weight loses least by itself, but inputs depend on one another: what one weight loses, others can make up
for. With D the difference from the exact weights, the outputs change by D gram D^T on average. That is what AdaRound [1], OBQ [2] and
GPTQ [3] make small, too. The method is the cyclic coordinate descent of QuantEase [4]: it takes one weight of every row after the other
and sets it to the integer for which D gram D^T is smallest, given all others. So a weight may move by more than to the next integer up
or down (as in AdaRound), and is looked at again in the next sweep (unlike in OBQ and GPTQ, where it is fixed once it is rounded).

[1] Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020
[2] Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022
[3] Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023
[4] Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", arXiv:2309.01885, 2023
"""

from __future__ import annotations

import numpy as np

from onnx2trt.rewrite.qdq import INT8_MAX

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
    # one weight of every row lies side by side, [G, K, O]
    integers, scales, exact = (np.ascontiguousarray(array.transpose(0, 2, 1), np.float32) for array in (integers, scales, exact))
    gram = gram.astype(np.float32)
    ends, steps = np.abs(integers) == INT8_MAX, 1 / (scales * np.einsum("gkk->gk", gram)[:, :, None])
    slopes = gram @ (integers * scales - exact)  # half the gradient
    for _ in range(SWEEPS):
        for start in range(0, integers.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            before = integers[:, block].copy()
            _settle_block(
                integers[:, block], scales[:, block], ends[:, block], steps[:, block], slopes[:, block].copy(), gram[:, block, block]
            )
            slopes += gram[:, :, block] @ ((integers[:, block] - before) * scales[:, block])
    return integers.transpose(0, 2, 1)


def _settle_block(integers, scales, ends, steps, slopes, gram) -> None:
    """One weight of every row after the other; all arrays are those of the block, [G, B, O], and [G, B, B]."""
    for column in range(integers.shape[1]):
        old = integers[:, column]
        best = np.rint(old - slopes[:, column] * steps[:, column])
        np.clip(best, -INT8_MAX, INT8_MAX, out=best)
        np.copyto(best, old, where=ends[:, column])
        change = (best - old) * scales[:, column]
        integers[:, column] = best
        slopes[:, column + 1 :] += gram[:, column + 1 :, column, None] * change[:, None, :]
