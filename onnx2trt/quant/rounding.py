"""Round a layer's weights to 8 bits together, so that their errors cancel in what the layer computes.

To the nearest integer each weight loses least by itself, but inputs depend on one another: what one weight loses, others can make up
for. With D the difference from the exact weights, the outputs change by D gram D^T on average. That is what AdaRound [1], OBQ [2] and
GPTQ [3] make small, too. The method is the cyclic coordinate descent of QuantEase [4]: it takes one weight of every row after the other
and sets it to the integer (FP8: value) for which D gram D^T is smallest, given all others. So a weight may move by more than to the next
one up or down (as in AdaRound), and is looked at again in the next sweep (unlike in OBQ and GPTQ, where it is fixed once it is rounded).

[1] Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020
[2] Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022
[3] Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023
[4] Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", arXiv:2309.01885, 2023
"""

from __future__ import annotations

import numpy as np

from onnx2trt.rewrite.number_formats import INT8, NumberFormat

# Over all weights. The first takes two thirds of what the nearest integers lose, the second 4 % more. That does not show in PP-OCRv4 det or
# nudenet, but 40 random networks came 0.2 dB less near with one sweep, as fewer fits were found to pay.
SWEEPS = 2
BLOCK = 64  # columns: what all others do to them is one product of matrices, what they do to one another one of a vector for each


def settle(exact: np.ndarray, gram: np.ndarray, number_format: NumberFormat = INT8) -> np.ndarray:
    """Values of the format (INT8: integers) whose products with the inputs are nearer to those of the exact weights than the nearest are.

    Weights that are nearest to either end of the range stay there: who takes the scales from the largest weights has to find the same ones.

    Args:
        exact: [G, O, K] (groups, outputs, inputs of one output value), weights in units of the scale of their row.
        gram: [G, K, K], mean products of the inputs, positive definite.

    Returns:
        float32 [G, O, K], -127..127 (FP8: -448..448).
    """
    exact = np.ascontiguousarray(exact.transpose(0, 2, 1), np.float32)  # one weight of every row lies side by side, [G, K, O]
    nearest = number_format.nearest(exact)
    ends = np.abs(nearest) == number_format.largest
    diagonal = np.arange(gram.shape[1])
    pulls = (gram / gram[:, diagonal, diagonal, None]).astype(np.float32)  # of one weight's error on the best value of another
    pulls[:, diagonal, diagonal] = 0
    errors = nearest - exact
    for _ in range(SWEEPS):
        for start in range(0, exact.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            wanted = exact[:, block] - pulls[:, block] @ errors
            _settle_block(wanted, exact[:, block], errors[:, block], ends[:, block], pulls[:, block, block], number_format)
    return number_format.nearest(exact + errors).transpose(0, 2, 1)


def _settle_block(wanted, exact, errors, ends, pulls, number_format: NumberFormat) -> None:
    """One weight of every row after the other; all arrays are those of the block, [G, B, O], and [G, B, B].

    Args:
        wanted: the best values while no other weight changes; overwritten.
        errors: of the integers; changed to those of the new ones.
        ends: which weights stay.
    """
    changes = np.zeros_like(errors)
    for column in range(errors.shape[1]):
        best = wanted[:, column]
        best -= (pulls[:, column, None, :column] @ changes[:, :column])[:, 0]
        best[...] = number_format.nearest(best)
        best -= exact[:, column]
        np.copyto(best, errors[:, column], where=ends[:, column])
        np.subtract(best, errors[:, column], out=changes[:, column])
    errors[...] = wanted
