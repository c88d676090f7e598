"""What the kinds are made of: samples of a reference, and candidates for them.

A harmless candidate differs as good INT8 or FP16 does: by 30 dB and less of what each quantity tells. A harmful one has lost something that
a user would miss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Outputs = dict[str, np.ndarray]  # of one sample, without the batch axis
NOISE_DB = (30.0, 36.0, 45.0)


@dataclass
class Kind:
    """Samples of the reference, and candidates."""

    reference: list[Outputs]
    harmless: dict[str, list[Outputs]] = field(default_factory=dict)
    harmful: dict[str, list[Outputs]] = field(default_factory=dict)
    batched: bool = True  # the first axis of the outputs is the batch


@dataclass
class Stateful:
    """A model with a state, as functions of (inputs, state) -> (output, state)."""

    inputs: np.ndarray  # [n, features]
    state: np.ndarray  # [features], at the start
    reference: Callable
    harmless: dict[str, Callable]
    harmful: dict[str, Callable]


KINDS: dict[str, Callable[[np.random.Generator, int], Kind | Stateful]] = {}


def kind(make):
    """A kind of output: a function of a random generator and a number of samples."""
    KINDS[make.__name__] = make
    return make


def outputs(**arrays) -> list[Outputs]:
    """Arrays with all samples along the first axis -> outputs of each sample."""
    count = len(next(iter(arrays.values())))
    return [{name: np.asarray(array[index]) for name, array in arrays.items()} for index in range(count)]


def spread(values: np.ndarray, axes) -> np.ndarray:
    """Standard deviation over the samples and `axes`, to be broadcast; of a quantity that never changes a hundredth of its size."""
    found = values.std(axes, keepdims=True)
    return np.where(found > 0, found, 0.01 * np.abs(values).mean() + 1e-6)


def noisy(random, values: np.ndarray, db: float, axes) -> np.ndarray:
    """Independent noise of 10^(-db/20) of each quantity's standard deviation; zeros stay what a ReLU makes of them."""
    found = values + random.standard_normal(values.shape) * spread(values, axes) * 10 ** (-db / 20)
    return np.where(values == 0, 0, found).astype(np.float32)


def half(values: np.ndarray) -> np.ndarray:
    """As FP16 has it."""
    return values.astype(np.float16).astype(np.float32)


def rounded(values: np.ndarray, axes) -> np.ndarray:
    """To 8 bits of each quantity's range, as an INT8 tensor with a scale for each channel."""
    scale = np.maximum(np.abs(values).max(axes, keepdims=True), 1e-9) / 127
    return (np.rint(values / scale) * scale).astype(np.float32)


def usual(random, values: np.ndarray, axes) -> dict[str, np.ndarray]:
    """Candidates as good INT8 and FP16 make them."""
    found = {f"noise of {db:g} dB": noisy(random, values, db, axes) for db in NOISE_DB}
    return found | {"FP16": half(values)}


def smooth(random, *shape) -> np.ndarray:
    """Random numbers in 0..1 that vary smoothly over the last two axes."""
    *first, height, width = shape
    coarse = random.random((*first, max(height // 4, 2) + 1, max(width // 4, 2) + 1))
    rows = np.linspace(0, coarse.shape[-2] - 1.001, height)
    columns = np.linspace(0, coarse.shape[-1] - 1.001, width)
    y, x = rows.astype(int), columns.astype(int)
    fy, fx = (rows - y)[:, None], columns - x
    upper = coarse[..., y, :][..., x] * (1 - fx) + coarse[..., y, :][..., x + 1] * fx
    lower = coarse[..., y + 1, :][..., x] * (1 - fx) + coarse[..., y + 1, :][..., x + 1] * fx
    return (upper * (1 - fy) + lower * fy).astype(np.float32)


def softmax(values: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(values - values.max(axis, keepdims=True))
    return (powers / powers.sum(axis, keepdims=True)).astype(np.float32)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-values))).astype(np.float32)


def dead(values: np.ndarray, index, axis: int, by: float = 0.0) -> np.ndarray:
    """One slice lost."""
    found = values.copy()
    np.moveaxis(found, axis, 0)[index] = by
    return found


def alive(values: np.ndarray, axis: int, axes) -> int:
    """The slice that tells most of those that are not the most: some class that occurs, but not the largest."""
    energy = values.var(axes)
    order = np.argsort(energy)
    return int(order[-2]) if len(order) > 1 else int(order[-1])


def mean_of(values: np.ndarray) -> np.ndarray:
    """The same answer for every sample: the best one."""
    return np.broadcast_to(values.mean(0, keepdims=True), values.shape).astype(values.dtype).copy()


def single(values: np.ndarray, usual_ones: dict, harmful: dict, name: str = "y") -> Kind:
    """A kind with one output."""
    return Kind(
        outputs(**{name: values}),
        {what: outputs(**{name: found}) for what, found in usual_ones.items()},
        {what: outputs(**{name: found}) for what, found in harmful.items()},
    )
