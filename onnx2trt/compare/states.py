"""Outputs that are fed back: a recurrent state, a cache. What they lose in one step the next step starts from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from onnx2trt.base.model_info import TensorSpec
from onnx2trt.data.reader import Batch

STEPS, MOST_STEPS = 64, 128  # in a row; the samples are gone through again where they are fewer
MOST_BYTES = 2**27  # of inputs that are remembered for it
# parts of names that say only which end a tensor is at
ENDS = frozenset(("in", "out", "input", "output", "inputs", "outputs", "i", "o", "n", "t", "to", "from", "init", "initial", "final"))
ENDS |= {"new", "next", "old", "prev", "previous", "last", "past", "present", "updated", "cur", "current", "keyvalues"}

Runner = Callable[[Batch], dict[str, np.ndarray]]


def fed_back(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> dict[str, str]:
    """Output -> the input that it feeds: of the same type and shape, and of a name that differs by its end alone, as h_in and h_out.

    A model all of whose inputs would be fed has no state: what goes in and what comes out are one thing to it, as images are.
    """
    inputs, pairs = list(inputs), {}
    for output in outputs:
        fitting = [one for one in inputs if one.name not in pairs.values() and _alike(one, output)]
        if fitting:
            pairs[output.name] = fitting[0].name
    return pairs if len(pairs) < len(inputs) else {}


def _alike(given: TensorSpec, made: TensorSpec) -> bool:
    if given.dtype != made.dtype or given.shape is None or made.shape is None or len(given.shape) != len(made.shape):
        return False
    fixed = [(a, b) for a, b in zip(given.shape, made.shape) if isinstance(a, int) and isinstance(b, int)]
    return all(a == b for a, b in fixed) and given.name != made.name and bool(_stem(given.name)) and _stem(given.name) == _stem(made.name)


def _stem(name: str) -> tuple[str, ...]:
    """What is left of a name without the parts that say which end it is at: ('state',) of state, stateN, next_state and state_out."""
    parts = re.split(r"[._:/\-]+|(?<=[a-z])(?=[A-Z])", name.replace("key_values", "keyvalues"))
    words = [word for word in map(str.lower, parts) if word and word not in ENDS]
    return tuple(re.sub(r"(?<=[a-z\d])(?:in|[iont])$|(?<=[a-z])0$", "", word) if word not in ENDS else "" for word in words)


class Kept:
    """Batches that are remembered for a second pass; bounded."""

    def __init__(self, states: dict[str, str]):
        self._states = states
        self._batches: list[Batch] = []
        self._bytes = 0

    def add(self, batch: Batch) -> None:
        if not self._states or self._batches and _shapes(batch) != _shapes(self._batches[0]):
            return
        size = sum(array.nbytes for array in batch.arrays.values())
        if len(self._batches) == MOST_STEPS or self._bytes + size > MOST_BYTES:
            return
        self._bytes += size
        self._batches.append(
            Batch({name: array.copy() for name, array in batch.arrays.items()}, batch.rows, batch.real_rows, batch.samples)
        )

    def steps(self, reference: Runner, candidate: Runner) -> Iterator[tuple[Batch, dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """(batch, outputs of the reference, of the candidate) of many steps in a row, each of both fed with its own state."""
        if not self._batches:
            return
        carried: list[dict[str, np.ndarray]] = [{}, {}]
        for step in range(max(len(self._batches), STEPS)):
            batch = self._batches[step % len(self._batches)]
            found = []
            for which, run in enumerate((reference, candidate)):
                arrays = {**batch.arrays, **carried[which]}
                outputs = run(Batch(arrays, batch.rows, batch.real_rows, batch.samples))
                if any(outputs[name].shape != arrays[given].shape for name, given in self._states.items()):
                    return  # a cache that grows is no state of a fixed size
                carried[which] = {given: outputs[name].astype(arrays[given].dtype, copy=False) for name, given in self._states.items()}
                found.append(outputs)
            yield batch, *found


def _shapes(batch: Batch) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in batch.arrays.items()}
