"""Data sets as arrays for a graph, pass after pass; damaged files are counted, and too many of them refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.base.progress import Progress
from onnx2trt.data.datasets import Data, check_shapes
from onnx2trt.data.made_up import noise
from onnx2trt.data.reader import Batch, Reader
from onnx2trt.data.samples import Dataset

LEAST_USABLE = 0.5  # share of the calibration samples that must be readable
RANGE_SAMPLES = 8  # for the largest values of every tensor; the margin of rewrite.keep_fp32.KEPT_FP32_ABOVE covers the others
SCALE_SAMPLES = 64  # what is larger in others is cut off


@dataclass
class Feeds:
    """A data set as arrays for a graph, any number of times; counts what was skipped."""

    reader: Reader
    data: Dataset
    console: Progress
    label: str
    used: int = 0  # samples of the last pass
    skipped: list[tuple[str, str]] = field(default_factory=list)
    samples: tuple[str, ...] = ()  # of the present arrays
    cuts: tuple[Dataset, ...] = ()  # the data in pieces, where no batch may reach from one into the next
    must_vary: bool = False  # scales are made of them: not all may be one constant value
    noise_if_flat: bool = False  # where all samples are one constant value each, random values stand beside them

    def __call__(self) -> Iterator[dict[str, np.ndarray]]:
        """One pass.

        Raises:
            ConversionError: the data's own code, where too few samples are usable, or all are constant and must not be.
        """
        self.used, self.skipped, flat, arrays = 0, [], 0, {}
        batches = chain.from_iterable(self.reader.batches(piece, self.skipped) for piece in self.cuts or (self.data,))
        for batch in self.console.track(batches, inferences(self.reader, self.data), self.label):
            check_shapes(batch.arrays, self.reader.profiles, self.data)
            self.used += len(batch.samples)
            self.samples = batch.samples
            flat += _flat(batch)
            arrays = batch.arrays
            yield batch.feed
        self._judge(flat)
        if self.noise_if_flat and self._all_flat(flat):
            yield noise(arrays, self.reader.preprocessing)

    def _judge(self, flat: int) -> None:
        total = self.used + len(self.skipped)
        reasons = "; ".join([f"{sample} {reason}" for sample, reason in dict.fromkeys(self.skipped)][:3])
        if self.skipped and self.used < LEAST_USABLE * total:
            raise ConversionError(
                f"only {self.used} of {total} samples of {self.data.origin} can be used: {reasons}",
                hint="Remove or replace the damaged files.",
                code=self.data.code,
            )
        if self.skipped:
            self.console.warn(f"{len(self.skipped)} of {total} samples of {self.data.origin} were skipped: {reasons}")
        if flat:
            if flat == self.used and self.must_vary:
                raise ConversionError(
                    f"every sample of {self.data.origin} is one constant value",
                    hint="Give real data: constant samples say nothing about the ranges of a model.",
                    code=self.data.code,
                )
            instead = ": the ranges are those of random values, too" if self.noise_if_flat and self._all_flat(flat) else ""
            self.console.warn(f"{flat} of {self.used} samples of {self.data.origin} are one constant value{instead}")
        warn_of_dark(self.reader, self.console)

    def _all_flat(self, flat: int) -> bool:
        return flat == self.used > 0 and self.data.kind != "synthetic"


def warn_of_dark(reader: Reader, console: Progress) -> None:
    """Say of images of 16 bits that they use only a part of them: as 8 bits they are almost black. Each is spoken of once."""
    news = {path: most for path, most in sorted(reader.dark.items()) if most}
    if news:
        path, most = next(iter(news.items()))
        others, bits = f" and {len(news) - 1} more" if len(news) > 1 else "", most.bit_length()
        console.warn(
            f"{path}{others}: pixels of 16 bits, none above {most}, as of a camera of {bits} bits: that becomes {most >> 8} of 255;"
            f" multiply them by {2 ** (16 - bits)} if they shall fill the range"
        )
        reader.dark.update(dict.fromkeys(news, 0))


def _flat(batch: Batch) -> int:
    """How many samples of a batch are one constant value in every input, of those that have several values."""
    if batch.real_rows <= 1:
        return int(_constant(batch.arrays.values()))
    return sum(_constant([array[row] for array in batch.arrays.values() if len(array) == batch.rows]) for row in range(batch.real_rows))


def _constant(arrays: Iterable[np.ndarray]) -> bool:
    several = [array for array in arrays if array.size > 1]
    return bool(several) and all(array.min() == array.max() for array in several)


def inferences(reader: Reader, data: Dataset) -> int:
    """How many one pass over the data takes, for the progress that is shown."""
    return max(-(-len(data.samples) // reader.batch_size(data)), 1)


def batches_to_compare(data: Data, pieces: Iterable[Dataset]) -> Iterator[Batch]:
    """Data sets to measure accuracy on. Damaged files of calibration data are left out, as in calibration, which has said so.

    Raises:
        ConversionError: VALIDATION, for a damaged file of data that was given to be measured on.
    """
    for piece in pieces:
        yield from data.reader.batches(piece, [] if piece.code is ExitCode.CALIBRATION else None)


def range_feeds(data: Data, console: Progress, for_scales: bool = False) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    """A few samples of the richest data, for the ranges of all tensors; more of them where scales are made of these."""
    dataset = data.any().at_most(SCALE_SAMPLES if for_scales else RANGE_SAMPLES)
    return Feeds(data.reader, dataset, console, "measuring ranges", noise_if_flat=True)
