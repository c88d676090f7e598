"""What one sample is in a file of arrays: a row, that is an entry along the first axis of every input, wherever rows are independent."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnx2trt.base.errors import DataError
from onnx2trt.base.model_info import Profile, TensorSpec
from onnx2trt.data.array_files import announced

ROW_NAME = re.compile(r"(?P<path>.*\.np[yz])\[(?P<row>\d+)\]", re.IGNORECASE | re.DOTALL)  # no array file ends with a bracket


@dataclass(frozen=True)
class Rows:
    """How files of arrays divide into samples, and how many of them one inference takes."""

    block: int = 1  # entries along the first axis that make one sample; 0: a file is one sample, as it is
    batch: int = 1  # such samples in one inference
    images: int = 1  # images in one inference, each of which is one entry
    separate: bool = True  # the first axis counts samples, in the arrays of an inference and in the outputs, too
    shared: frozenset[str] = frozenset()  # inputs that have no rows: all samples of a file get them as they are

    def count(self, path: str, inputs: tuple[TensorSpec, ...]) -> int:
        """The samples in a file, by its headers alone, which may say anything; 1 where it cannot be told, so that reading it says what is
        wrong."""
        rowed = [spec for spec in inputs if spec.name not in self.shared]
        if not self.block or not rowed:
            return 1
        try:
            shapes = {name: array.shape for name, array in announced(path, inputs[0].name).items()}
            counts = {shapes[spec.name][0] if len(shapes[spec.name]) == len(spec.shape) else self.block for spec in rowed}
        except (DataError, KeyError):
            return 1
        entries = counts.pop()
        return entries // self.block if not counts and entries and entries % self.block == 0 else 1


WHOLE_FILE = Rows(0)


def rows_of(inputs: tuple[TensorSpec, ...], profiles: tuple[Profile, ...], independent: bool = True) -> Rows:
    """How files divide into samples.

    Args:
        independent: the outputs for a row do not depend on the other rows of its inference. Where they do, a file is one sample, or
            several where the first axis is fixed; so are files of sequences whose first axis is time.
    """
    shaped = [(spec, profile) for spec, profile in zip(inputs, profiles) if spec.shape != ()]
    free = [pair for pair in shaped if _free(pair[0])]
    fixed = [pair for pair in shaped if not _free(pair[0])]
    shared = {spec.name for spec in inputs if spec.shape == ()}
    if free and not any(spec.dynamic for spec, _ in fixed):
        shared |= {spec.name for spec, _ in fixed}
        rowed = free
    else:
        rowed = shaped
    if any(spec.shape is None for spec, _ in rowed) or free and len(rowed) > len(free):
        return WHOLE_FILE
    least, most = ({getattr(profile, bound)[0] for _, profile in rowed} for bound in ("min", "max"))
    if len(least) != 1 or len(most) != 1 or most == {0}:
        return WHOLE_FILE
    size = max(least.pop(), 1)
    if independent or most == {1}:
        return Rows(0) if shared and size > 1 else Rows(1, size, size, shared=frozenset(shared))
    return Rows(0 if free else size, images=size, separate=False, shared=frozenset(shared))


def has_fixed_batch(inputs: tuple[TensorSpec, ...]) -> bool:
    """Whether all inputs are of fixed shape, and may be a batch of several samples; a scalar is of none."""
    firsts = {spec.shape[0] if spec.shape else 1 for spec in inputs}
    return not any(spec.dynamic for spec in inputs) and len(firsts) == 1 and min(firsts) > 1


def _free(spec: TensorSpec) -> bool:
    return spec.shape is not None and not isinstance(spec.shape[0], int)


def row_name(path: str, row: int) -> str:
    """How a sample is called that is one of several in its file."""
    return f"{path}[{row}]"


def file_and_row(sample: str) -> tuple[str, int | None]:
    """(file, row) of a sample by its name; None where the sample is all of the file."""
    found = ROW_NAME.fullmatch(sample)
    return (found["path"], int(found["row"])) if found else (sample, None)
