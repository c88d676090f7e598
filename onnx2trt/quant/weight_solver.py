"""Weights in 8 bits that make up for what INT8 does to activations, fitted to the inputs that a layer really sees.

A layer computes y = W x + b. In INT8 or FP8 it gets x' (rounded and clipped) instead of x. Part of what is lost can be had back from x'
itself, since the columns of x depend on one another: W' and b' are the affine least squares fit

    W', b' = argmin E|W x - W' x' - (b' - b)|^2 + ridge |W - W'|^2

so W' = W + W Cov[x - x', x'] (Cov[x', x'] + ridge)^-1, and b' - b = W E[x] - W' E[x'], which is bias correction [1]. What W is multiplied
by hangs on the inputs alone: it is found once for all layers that read them (`learn`). Keeping the layer's own output is the layer-wise
reconstruction of AdaRound [2], OBQ [3] and GPTQ [4]; they choose by it how W is rounded, while here a better W' is sought before anything
is rounded.

Where no bias can take the difference of the means, E[(x - x') x'^T] and E[x' x'^T] stand for the covariances. W' is then rounded with
scales of its own: with those of W its largest weights would be cut, or fall short of 127. Any other W' + D costs
D (Cov[x', x'] + ridge) D^T more, and quant.rounding looks for integers that cost less: once the channels of activations are equalized, the
nearest ones would lose as much as INT8 activations do. Here x' is the layer's own FP32 input, quantised. Fitting to what comes out of INT8
layers was worse.

[1] Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
[2] Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020
[3] Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022 (OBQ)
[4] Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx2trt.quant.columns import Columns
from onnx2trt.quant.rounding import settle
from onnx2trt.rewrite.number_formats import INT8, NumberFormat
from onnx2trt.rewrite.qdq import Rounded, along, weight_scales

# Of the mean variance of a column. With a constant ridge, layers that see few positions are fitted to these alone and lose up to 8 dB
# on others (PP-OCR cls); where there are thousands of positions, anything from 0.1 to 3 does about as well.
RIDGE, RIDGE_PER_SCARCITY = 0.1, 10.0  # the latter times columns / rows
SMALL = 32  # matrices that are inverted at once
ROWS_PER_COLUMN, FEWEST_ROWS, MOST_ROWS = 32, 2048, 32768  # sampled positions of all data together; with 8 they are fitted too closely


class Sums:
    """What the fit needs to know about the inputs of the layers that read one weight; adds up over samples and over parts of the data.

    Inputs are counted in units of their INT8 scale, so that x' are integers, and layers weigh by what INT8 resolves of their inputs.
    Products are summed around the means, of each layer by itself: in float32, nothing would be left of a variance far below the square of
    its mean.
    """

    def __init__(self, groups: int, count: int, layers: int = 1, number_format: NumberFormat = INT8):
        """
        Args:
            groups, count: of the columns.
            layers: that read the weight, each its own inputs.
            number_format: of weights and inputs.
        """
        self.number_format = number_format
        self.numbers = np.zeros(layers)
        self.mean, self.quantized_mean = np.zeros((layers, groups, count)), np.zeros((layers, groups, count))  # of x, of x'
        self.within = np.zeros((groups, count, count), np.float32)  # sum of (x' - its mean) (x' - its mean)^T
        self.left = np.zeros((groups, count, count), np.float32)  # sum of (x - x' - its mean) (x' - its mean)^T

    @property
    def number(self) -> float:
        return float(self.numbers.sum())

    def add(self, sample: np.ndarray, scale: float, layer: int = 0) -> None:
        """
        Args:
            sample: float32 [G, K, n] as Columns.sample gives it.
            scale: of the activation.
            layer: which of the layers reads it.
        """
        shape = (*sample.shape[:2], sample.shape[2] + 1)  # beside the columns: the means' distance
        pairs = [np.empty(shape, np.float32) for _ in range(2)]
        left, rounded = (pair[:, :, :-1] for pair in pairs)
        np.divide(sample, np.float32(scale), out=left)
        rounded[...] = self.number_format.nearest(left, symmetric=False)
        left -= rounded
        means = [values.mean(axis=2, dtype=np.float64) for values in (left, rounded)]
        for pair, mean, apart in zip(pairs, means, self._join(layer, sample.shape[2], means[0] + means[1], means[1])):
            pair[:, :, :-1] -= mean.astype(np.float32)[:, :, None]
            pair[:, :, -1:] = apart
        self._add_products(*pairs)

    @staticmethod
    def of(parts: Sequence[Sums]) -> Sums:
        """Everything that these have seen; at least one."""
        layers, groups, count = parts[0].mean.shape
        total, apart = Sums(groups, count, layers, parts[0].number_format), []
        for part in parts:
            total.within += part.within
            total.left += part.left
            for layer, number in enumerate(part.numbers):
                if number:
                    apart.append(total._join(layer, number, part.mean[layer], part.quantized_mean[layer]))
        if apart:
            total._add_products(*(np.concatenate(vectors, axis=2) for vectors in zip(*apart)))
        return total

    def _add_products(self, left: np.ndarray, rounded: np.ndarray) -> None:
        """[G, K, n] each."""
        transposed = rounded.transpose(0, 2, 1)
        self.within += rounded @ transposed
        self.left += left @ transposed

    def _join(self, layer: int, number: float, mean: np.ndarray, quantized_mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take in means; (of x - x', of x') float32 [G, K, 1] whose products with themselves and each other are still to be added, as what
        the sums gain by the distance of the means (Chan, Golub and LeVeque, "Updating Formulae", 1979)."""
        share = number / (self.numbers[layer] + number)
        apart, quantized_apart = mean - self.mean[layer], quantized_mean - self.quantized_mean[layer]
        root = np.sqrt(self.numbers[layer] * share)
        self.mean[layer] += share * apart
        self.quantized_mean[layer] += share * quantized_apart
        self.numbers[layer] += number
        return tuple((root * vector).astype(np.float32)[:, :, None] for vector in (apart - quantized_apart, quantized_apart))


def rows_wanted(columns: Columns) -> int:
    """Sampled positions, of all data together."""
    return int(np.clip(ROWS_PER_COLUMN * columns.count, FEWEST_ROWS, MOST_ROWS))


@dataclass(frozen=True, eq=False)
class Inputs:
    """What inputs do to any weights: found once for all layers that read them, float32 [G, K, K] each."""

    sums: Sums
    gram: np.ndarray  # Cov[x', x'] + ridge: what an error of the weights costs
    change: np.ndarray  # the best weights are W + W change


def learn(sums: Sums, with_means: bool) -> Inputs:
    """
    Args:
        sums: of at least one sample.
        with_means: the weights alone have to get the means right: E[x' x'^T] and E[(x - x') x'^T] stand for the covariances.
    """
    _, groups, count = sums.mean.shape
    spread = np.einsum("gkk->gk", sums.within).mean(axis=1) / sums.number
    strength = (RIDGE + RIDGE_PER_SCARCITY * count / sums.number) * spread
    gram, left = (products / np.float32(sums.number) for products in (sums.within, sums.left))
    diagonal = np.arange(count)
    gram[:, diagonal, diagonal] += np.where(strength > 0, strength, 1.0)[:, None]  # a group that never changes keeps its weights
    if not with_means:
        return Inputs(sums, gram, left @ inverse(gram))
    # The means are added to the solution without them (Sherman, Morrison and Woodbury): squares far above the variance would leave
    # nothing of it in float32.
    roots = np.sqrt(sums.numbers / sums.number)[:, None, None]
    average, lost = ((roots * means).transpose(1, 2, 0) for means in (sums.quantized_mean, sums.mean - sums.quantized_mean))  # [G, K, L]
    solved = inverse(gram) @ np.concatenate([left.transpose(0, 2, 1), average.astype(np.float32)], axis=2)
    change, along_means = solved[:, :, :count], solved[:, :, count:].astype(np.float64)
    within = np.eye(len(roots)) + average.transpose(0, 2, 1) @ along_means
    missing = lost.transpose(0, 2, 1) - average.transpose(0, 2, 1) @ change  # [G, L, K]
    change += (along_means @ np.linalg.solve(within, missing)).astype(np.float32)
    gram += (average @ average.transpose(0, 2, 1)).astype(np.float32)
    return Inputs(sums, gram, change.transpose(0, 2, 1))


def inverse(gram: np.ndarray) -> np.ndarray:
    """Of symmetric, positive definite matrices [G, K, K], float32; by blocks (Schur complement), whose products take a fifth of the time of
    numpy's solution, which is one of float64. The ridge keeps the condition below K / RIDGE: 3e-7 of the result are lost, where weights
    are rounded to 4e-3."""
    size = gram.shape[1]
    if size <= SMALL:
        return np.linalg.inv(gram)
    half = size // 2
    across = gram[:, :half, half:]
    first = inverse(gram[:, :half, :half])
    moved = first @ across
    second = inverse(gram[:, half:, half:] - across.transpose(0, 2, 1) @ moved)
    result = np.empty_like(gram)
    result[:, half:, half:] = second
    result[:, :half, half:] = -moved @ second
    result[:, half:, :half] = result[:, :half, half:].transpose(0, 2, 1)
    result[:, :half, :half] = first - result[:, :half, half:] @ moved.transpose(0, 2, 1)
    return result


def solve(
    columns: Columns, weight: np.ndarray, known: Sequence[Inputs], units: Sequence[float], biased: bool = True
) -> list[list[Rounded]]:
    """Weights, their scales and a bias for each of the layers that read one weight; they differ in the bias alone. Once for each of several
    sets of inputs: rounding takes many small steps, which take hardly longer for several small weights at once.

    The scales are such that FP16 can hold, whether they will be stored in it or not: so one fit serves both routes.

    Args:
        weight: float32.
        known: what each set of inputs does to any weights.
        units: the INT8 scale of each layer's inputs.
        biased: the layers can take a bias (qdq.takes_bias).
    """
    rows, number_format = columns.rows(weight), known[0].sums.number_format
    axis = columns.axis if number_format.per_channel else None
    targets = [rows + rows @ inputs.change for inputs in known]
    scales = [weight_scales(columns.weight(target), axis, True, number_format) for target in targets]
    steps = [columns.rows(np.broadcast_to(along(own, axis, weight.ndim), weight.shape))[:, :, :1] for own in scales]
    exact = np.concatenate([target / step for target, step in zip(targets, steps)])
    settled = np.split(settle(exact, np.concatenate([inputs.gram for inputs in known]), number_format), len(known))
    found, exact_rows = [], rows.astype(np.float64) if biased else rows
    for inputs, integers, step, own in zip(known, settled, steps, scales):
        rounded = Rounded(number_format.stored(columns.weight(integers)), own, None)
        if not biased:
            found.append([rounded] * len(units))
            continue
        means, fitted = inputs.sums, (integers * step).astype(np.float64)
        wrong = _of_means(exact_rows, means.mean) - _of_means(fitted, means.quantized_mean)
        found.append([replace(rounded, bias=columns.channels(one * unit).astype(np.float32)) for one, unit in zip(wrong, units)])
    return found


def _of_means(rows: np.ndarray, means: np.ndarray) -> np.ndarray:
    """[L, G, O] of [G, O, K] and [L, G, K]."""
    return (rows @ means.transpose(1, 2, 0)).transpose(2, 0, 1)
