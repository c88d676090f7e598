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
from functools import cached_property

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
    """What inputs do to any weights: found once for all layers that read them."""

    sums: Sums
    gram: np.ndarray  # Cov[x', x'] + ridge, float32 [G, K, K]
    left: np.ndarray  # Cov[x - x', x'], float32 [G, K, K]
    average: np.ndarray  # of x' [G, K, L], by layers weighed as in the sums; none (L = 0) where a bias makes up for the means
    lost: np.ndarray  # of x - x', likewise

    def change(self, rows: np.ndarray) -> np.ndarray:
        """By how much the best weights differ from these, [G, O, K]."""
        if 2 * rows.shape[1] > rows.shape[2]:
            return rows @ self._of_any
        return self._solved(rows @ self.left, rows @ self.lost)

    @cached_property
    def _of_any(self) -> np.ndarray:
        """What weights are multiplied by, [G, K, K]: it costs less than to solve for the rows themselves, where they are many."""
        return self._solved(self.left, self.lost)

    def _solved(self, left: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """The means are added to the solution without them (Sherman, Morrison and Woodbury): squares far above the variance would leave
        nothing of it in float32."""
        average = self.average.transpose(0, 2, 1)
        solved = divided(np.concatenate([left, average.astype(np.float32)], axis=1), self.gram)
        found, along = solved[:, : left.shape[1]], solved[:, left.shape[1] :].astype(np.float64)
        within = np.eye(average.shape[1]) + along @ self.average
        missing = lost - found @ self.average  # [G, O, L]
        return found + (np.linalg.solve(within, missing.transpose(0, 2, 1)).transpose(0, 2, 1) @ along).astype(np.float32)


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
    roots = np.sqrt(sums.numbers / sums.number)[:, None, None][: None if with_means else 0]
    average, lost = ((roots * means[: len(roots)]).transpose(1, 2, 0) for means in (sums.quantized_mean, sums.mean - sums.quantized_mean))
    return Inputs(sums, gram, left, average, lost)


def divided(rows: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The X for which X gram = rows; by blocks (Schur complement), whose products take a fifth of the time of numpy's solution, which is
    one of float64. The ridge keeps the condition below K / RIDGE: 3e-7 of the result are lost, where weights are rounded to 4e-3.

    Args:
        rows: float32 [G, O, K].
        gram: float32 [G, K, K], symmetric and positive definite.
    """
    size = gram.shape[1]
    if size <= SMALL:
        return rows @ np.linalg.inv(gram)
    half = size // 2
    across = gram[:, :half, half:]
    both = divided(np.concatenate([across.transpose(0, 2, 1), rows[:, :, :half]], axis=1), gram[:, :half, :half])
    moved, first = both[:, : size - half], both[:, size - half :]
    second = divided(rows[:, :, half:] - first @ across, gram[:, half:, half:] - moved @ across)
    return np.concatenate([first - second @ moved, second], axis=2)


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant, and the layers that read it."""

    columns: Columns
    values: np.ndarray  # float32
    units: Sequence[float]  # the INT8 scale of each layer's inputs
    biased: bool = True  # the layers can take a bias (qdq.takes_bias)

    @cached_property
    def rows(self) -> np.ndarray:
        return self.columns.rows(self.values)

    def steps(self, rows: np.ndarray, number_format: NumberFormat) -> tuple[np.ndarray, np.ndarray]:
        """Scales for weights with these rows: (as qdq.quantize_weights gives them, one for each row [G, O, 1])."""
        axis = self.columns.axis if number_format.per_channel else None
        scales = weight_scales(self.columns.weight(rows), axis, True, number_format)
        every = np.broadcast_to(along(scales, axis, self.values.ndim), self.values.shape)
        return scales, self.columns.rows(every)[:, :, :1]

    def rounded(self, values: np.ndarray, steps: tuple[np.ndarray, np.ndarray], means: Sums) -> list[Rounded]:
        """For each layer, of the rows' values in 8 bits."""
        scales, of_rows = steps
        found = Rounded(means.number_format.stored(self.columns.weight(values)), scales, None)
        if not self.biased:
            return [found] * len(self.units)
        fitted = (values * of_rows).astype(np.float64)
        wrong = _of_means(self.rows.astype(np.float64), means.mean) - _of_means(fitted, means.quantized_mean)
        return [replace(found, bias=self.columns.channels(one * unit).astype(np.float32)) for one, unit in zip(wrong, self.units)]


def solve(weights: Sequence[Weight], known: Sequence[Inputs]) -> list[list[list[Rounded]]]:
    """Of each weight, once for each of several sets of inputs: what each of its layers gets, scales and a bias; they differ in the bias
    alone. All at once: rounding takes many small steps, which take hardly longer for several small weights.

    The scales are such that FP16 can hold, whether they will be stored in it or not: so one fit serves both routes.

    Args:
        weights: all of them read these inputs.
        known: what each set of inputs does to any weights.
    """
    number_format, ends = known[0].sums.number_format, np.cumsum([weight.rows.shape[1] for weight in weights])[:-1]
    rows = _joined([weight.rows for weight in weights], 1)
    targets = [np.split(rows + inputs.change(rows), ends, axis=1) for inputs in known]
    steps = [[weight.steps(own, number_format) for weight, own in zip(weights, target)] for target in targets]
    exact = [_joined([own / step for own, (_, step) in zip(target, some)], 1) for target, some in zip(targets, steps)]
    gram, average = (_joined(each, 0) for each in zip(*((inputs.gram, inputs.average) for inputs in known)))
    settled = np.split(settle(_joined(exact, 0), gram, number_format, average), len(known))
    found: list[list[list[Rounded]]] = [[] for _ in weights]
    for inputs, values, some in zip(known, settled, steps):
        for weight, own, step, fits in zip(weights, np.split(values, ends, axis=1), some, found):
            fits.append(weight.rounded(own, step, inputs.sums))
    return found


def _joined(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    return np.concatenate(arrays, axis) if len(arrays) > 1 else arrays[0]


def _of_means(rows: np.ndarray, means: np.ndarray) -> np.ndarray:
    """[L, G, O] of [G, O, K] and [L, G, K]."""
    return (rows @ means.transpose(1, 2, 0)).transpose(2, 0, 1)
