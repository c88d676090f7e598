"""Round a layer's weights to 8 bits together, so that their errors cancel in what the layer computes.

To the nearest integer each weight loses least by itself, but inputs depend on one another: what one weight loses, others can make up
for. With D the difference from the exact weights, the outputs change by D gram D^T on average. That is what AdaRound [1], OBQ [2] and
GPTQ [3] make small, too. The method is LDLQ [4], which gives the integers of GPTQ without the inverse of gram: one weight of every row
after the other becomes the integer (FP8: value) that costs least if those behind it may take any real value. With gram = U diag(w) U^T
and U upper triangular with ones on its diagonal, D gram D^T is the sum of w_j (D U)_j^2, so that is the value nearest to what makes
(D U)_j zero. A weight may move by more than to the next one up or down (as in AdaRound), and by what the range ends at, those behind it
know.

Until 2026-11-30 it was the coordinate descent of QuantEase [5], in two sweeps that began with the nearest integers: four times the products
of matrices, and twice the steps. Where inputs hardly depend on one another it lost up to 4 % less by the weights, where they do up to 19 %
more. A sweep behind LDLQ takes another 1 to 4 %, which does not show in the outputs (0.1 dB up or down), and takes longer than all of it.

[1] Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020
[2] Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022
[3] Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023
[4] Chee et al., "QuIP: 2-Bit Quantization of Large Language Models With Guarantees", NeurIPS 2023
[5] Behdin et al., "QuantEase: Optimization-based Quantization for Language Models", arXiv:2309.01885, 2023
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx2trt.rewrite.number_formats import INT8, NumberFormat

BLOCK = 32  # columns: what those before them do to them is one product of matrices, what they do to one another one of a vector for each


@dataclass(frozen=True)
class _Columns:
    """Some weights of every row, [K, G, O] each: one weight of every row lies side by side."""

    exact: np.ndarray
    nearest: np.ndarray
    ends: np.ndarray  # which of these stay
    values: np.ndarray  # the best real ones, as far as columns before these have a say; changed to those that are taken

    def part(self, some: slice) -> _Columns:
        return _Columns(self.exact[some], self.nearest[some], self.ends[some], self.values[some])


def settle(exact: np.ndarray, gram: np.ndarray, number_format: NumberFormat = INT8, apart: np.ndarray | None = None) -> np.ndarray:
    """Values of the format (INT8: integers) whose products with the inputs are nearer to those of the exact weights than the nearest are.

    Weights that are nearest to either end of the range stay there: who takes the scales from the largest weights has to find the same ones.

    Args:
        exact: [G, O, K] (groups, outputs, inputs of one output value), weights in units of the scale of their row.
        gram: [G, K, K], mean products of the inputs, positive definite.
        apart: [G, K, L], vectors whose products with themselves count, too: in float32 nothing would be left of gram beside large ones.

    Returns:
        float32 [G, O, K], -127..127 (FP8: -448..448).
    """
    exact = np.ascontiguousarray(exact.transpose(2, 0, 1), np.float32)
    nearest = number_format.nearest(exact)
    columns = _Columns(exact, nearest, np.abs(nearest) == number_format.largest, exact.copy())
    pulls, weights = triangle(gram)
    if apart is not None:
        add_products(pulls, weights, apart)
    _settle(columns, pulls, number_format)
    return columns.values.transpose(1, 2, 0)


def _by_group(columns: np.ndarray) -> np.ndarray:
    """[K, G, O] as [G, K, O], and the other way round; a view."""
    return columns.transpose(1, 0, 2)


def triangle(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pulls, weights): gram = (1 + pulls)^T diag(weights) (1 + pulls), where pulls are below the diagonal alone.

    Args:
        gram: [G, K, K], positive definite.

    Returns:
        float32 [G, K, K], [G, K].
    """
    size = gram.shape[1]
    pulls, weights = np.zeros(gram.shape, np.float32), np.empty(gram.shape[:2], np.float32)
    for start in reversed(range(0, size, BLOCK)):
        end = min(start + BLOCK, size)
        behind = pulls[:, end:, start:end] * weights[:, end:, None]
        rows = gram[:, start:end, :end] - behind.transpose(0, 2, 1) @ pulls[:, end:, :end]
        own = rows[:, ::-1, : start - 1 if start else None : -1].astype(np.float64)
        upper = np.linalg.cholesky(own)[:, ::-1, ::-1]  # of the matrix turned round: upper @ upper^T is the matrix itself
        roots = np.einsum("gkk->gk", upper)
        weights[:, start:end] = np.square(roots)
        pulls[:, start:end, start:end] = np.tril((upper / roots[:, None]).transpose(0, 2, 1), -1)
        pulls[:, start:end, :start] = np.linalg.inv(upper * roots[:, None]).astype(np.float32) @ rows[:, :, :start]
    return pulls, weights


def add_products(pulls: np.ndarray, weights: np.ndarray, apart: np.ndarray) -> None:
    """Make `triangle` of gram that of gram + apart apart^T, in place (Gill, Golub, Murray and Saunders, "Methods for Modifying Matrix
    Factorizations", 1974, C1).

    Args:
        apart: [G, K, L].
    """
    for vector in apart.transpose(2, 0, 1).astype(np.float64):
        left = np.ones(len(vector))
        for column in reversed(range(vector.shape[1])):
            own, before = vector[:, column], weights[:, column].astype(np.float64)
            after = before + left * own**2
            share = left * own / after
            left *= before / after
            weights[:, column] = after
            vector[:, :column] -= own[:, None] * pulls[:, column, :column]
            pulls[:, column, :column] += share[:, None] * vector[:, :column]


def _settle(columns: _Columns, pulls: np.ndarray, number_format: NumberFormat) -> None:
    """One weight of every row after the other.

    Args:
        pulls: [G, K, K], of these columns on one another.
    """
    if len(columns.exact) > BLOCK:
        half = len(columns.exact) // 2
        first, second = slice(half), slice(half, None)
        before, behind = columns.part(first), columns.part(second)
        _settle(before, pulls[:, first, first], number_format)
        behind.values[...] -= _by_group(pulls[:, second, first] @ _by_group(before.values - before.exact))
        _settle(behind, pulls[:, second, second], number_format)
        return
    errors = np.empty_like(columns.exact)
    for number, best in enumerate(columns.values):
        if number:
            best -= (pulls[:, number, None, :number] @ _by_group(errors[:number]))[:, 0]
        number_format.nearest(best, out=best)
        np.copyto(best, columns.nearest[number], where=columns.ends[number])
        np.subtract(best, columns.exact[number], out=errors[number])
