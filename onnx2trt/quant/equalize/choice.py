"""Which scales and shifts to give to channels, so that each fills the range of INT8 by itself (pure).

The scales are those of SmoothQuant [1] with alpha = 1: the measured reach of each channel, so that weights take in all the difference.
Cross-layer equalization [2] does the same for the ranges of the weights of neighbouring layers. The shifts are those of
Outlier Suppression+ [3]: the middle of each channel's range. The range itself is not that of the extremes, see ranges.py.

[1] Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023
[2] Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019
[3] Wei et al., "Outlier Suppression+: Accurate Quantization of Large Language Models by Equivalent and Optimal Shifting and Scaling",
    EMNLP 2023
"""

from __future__ import annotations

import numpy as np

DOUBT, DOUBT_OF_TAILS = 8, 128  # values of a channel that count as much as the mean of all channels (see `believed`)
LIMIT = 64.0  # scales stay within this factor of their mean: beyond it, weights would leave what FP16 resolves


def choose_scales(largest: np.ndarray, anchor: float = 0.0, limit: float = LIMIT) -> np.ndarray:
    """Scales after which every channel reaches equally far.

    SmoothQuant's compromise with what scaling does to the weights (its alpha below 1) brought nothing: with a scale for each output
    channel, and weights fitted afterwards (quant.weight_solver), they have bits to spare.

    Args:
        largest: [size], how far each channel reaches from 0; 0 or not finite for channels without values.
        anchor: how far those channels of the same tensors reach that cannot be scaled (Group.anchor); 0 if there are none. The scaled
            channels get that reach, as far as a common factor within the limit goes; without an anchor their scales have mean 1.
        limit: scales stay between mean / limit and mean * limit (geometric mean).

    Returns:
        [size], float64, above 0; those of channels without values are the mean.
    """
    largest = np.asarray(largest, np.float64)
    live = np.isfinite(largest) & (largest > 0)
    logs = np.zeros_like(largest)
    if not live.any():
        return np.exp(logs)
    logs[live] = np.log(largest[live])
    logs[live] -= logs[live].mean()
    scales = np.exp(np.clip(logs, -np.log(limit), np.log(limit)))
    common = (largest[live] / scales[live]).max() / anchor if anchor > 0 else 1.0
    return scales * np.clip(common, 1 / limit, limit)


def believed(reach: np.ndarray, spread: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How far channels reach, as far as the values that were seen can tell.

    Of few values, the largest says little about those to come: where every channel just holds its own, the next values are clipped. So
    reaches are taken nearer to what all channels have in common: the ratio of reach and spread soon, the spread itself later.

    Args:
        reach: [C]; 0 or not finite for channels without values.
        spread: [C], root mean square.
        seen: [C], number of values.
    """
    live = np.isfinite(reach) & (reach > 0) & (spread > 0)
    logs = np.zeros(len(reach))
    for values, doubt in ((spread, DOUBT), (reach / np.where(live, spread, 1.0), DOUBT_OF_TAILS)):
        own = np.log(values, out=np.zeros(len(reach)), where=live)
        middle = np.average(own, weights=live * seen) if (live * seen).any() else 0.0
        logs += middle + (own - middle) * seen / (seen + doubt)
    return np.where(live, np.exp(logs), reach)


def choose_shifts(minima: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """The middle of each channel's range, [size]; 0 for channels without values (not finite)."""
    with np.errstate(invalid="ignore"):  # no values: minimum inf, maximum -inf
        middle = (np.asarray(minima, np.float64) + np.asarray(maxima, np.float64)) / 2
    return np.where(np.isfinite(middle), middle, 0.0)
