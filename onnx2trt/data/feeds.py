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

LEAST_USABLE = 0.5  # share of the calibration files that must be readable
RANGE_SAMPLES = 8  # for the largest values of every tensor; the margin of rewrite.keep_fp32.KEPT_FP32_ABOVE covers the others


@dataclass
class Feeds:
    """A data set as arrays for a graph, any number of times; counts what was skipped."""

    reader: Reader
    data: Dataset
    console: Progress
    label: str
    used: int = 0  # samples of the last pass
    skipped: list[tuple[str, str]] = field(default_factory=list)
    paths: tuple[str, ...] = ()  # files of the present arrays
    cuts: tuple[Dataset, ...] = ()  # the data in pieces, where no batch may reach from one into the next
    refuses_flat: bool = True  # samples of one constant value each are an error where there are no others; else noise stands in for them

    def __call__(self) -> Iterator[dict[str, np.ndarray]]:
        """One pass.

        Raises:
            ConversionError: the data's own code, where too few files are usable.
        """
        self.used, self.skipped, flat, arrays = 0, [], 0, {}
        batches = chain.from_iterable(self.reader.batches(piece, self.skipped) for piece in self.cuts or (self.data,))
        for batch in self.console.track(batches, max(len(self.data.paths), 1), self.label):
            check_shapes(batch.arrays, self.reader.profiles, self.data)
            self.used += len(batch.paths)
            self.paths = tuple(batch.paths)
            flat += _is_flat(batch.arrays)
            arrays = batch.arrays
            yield arrays
        self._judge(flat)
        if flat and flat == self.used and not self.refuses_flat:
            yield noise(arrays, self.reader.preprocessing)

    def _judge(self, flat: int) -> None:
        total = self.used + len(self.skipped)
        reasons = "; ".join(f"{path} {reason}" for path, reason in self.skipped[:3])
        if self.skipped and self.used < LEAST_USABLE * total:
            raise ConversionError(
                f"only {self.used} of {total} files of {self.data.origin} can be used: {reasons}",
                hint="Remove or replace the damaged files.",
                code=self.data.code,
            )
        if self.skipped:
            self.console.warn(f"{len(self.skipped)} of {total} files of {self.data.origin} were skipped: {reasons}")
        if flat:
            if flat == self.used and self.data.kind != "synthetic" and self.refuses_flat:
                raise ConversionError(
                    f"every sample of {self.data.origin} is one constant value",
                    hint="Give real data: constant samples say nothing about the ranges of a model.",
                    code=self.data.code,
                )
            instead = "" if flat < self.used or self.data.kind == "synthetic" else ": the ranges are those of random values, too"
            self.console.warn(f"{flat} of {self.used} samples of {self.data.origin} are one constant value{instead}")


def _is_flat(arrays: dict[str, np.ndarray]) -> bool:
    """Whether each array is one constant value; those of one element cannot be anything else."""
    several = [array for array in arrays.values() if array.size > 1]
    return bool(several) and all(array.min() == array.max() for array in several)


def batches_to_compare(data: Data, pieces: Iterable[Dataset]) -> Iterator[Batch]:
    """Data sets to measure accuracy on. Damaged files of calibration data are left out, as in calibration, which has said so.

    Raises:
        ConversionError: VALIDATION, for a damaged file of data that was given to be measured on.
    """
    for piece in pieces:
        yield from data.reader.batches(piece, [] if piece.code is ExitCode.CALIBRATION else None)


def range_feeds(data: Data, console: Progress) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    """A few samples of the richest data, for the ranges of all tensors."""
    return Feeds(data.reader, data.any().at_most(RANGE_SAMPLES), console, "measuring ranges", refuses_flat=False)
