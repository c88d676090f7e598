"""Which samples are the data: found, sorted, chosen. Reading them is data/reader.py's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from onnx2trt.base.errors import ConversionError, DataError, ExitCode
from onnx2trt.base.words import base_name
from onnx2trt.data.array_files import announced, read
from onnx2trt.data.rows import file_and_row, row_name
from onnx2trt.plan.plan import Plan

IMAGE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".gif", ".avif"]
)
ARRAY_SUFFIXES = frozenset((".npz", ".npy"))
MOST_ROWS = 2**20  # of one file; each has a name


@dataclass(frozen=True)
class Dataset:
    """Samples of one kind in the order of their use; synthetic data has none.

    A sample is called by its file, or FILE[ROW] where the file holds several.
    """

    kind: str  # images | arrays | synthetic
    origin: str  # the folder or file as typed, for messages
    samples: tuple[str, ...]
    code: ExitCode  # who is at fault where the data cannot be used
    unused: tuple[str, ...] = ()  # samples of the folder beyond the number asked for

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the samples, each once, in the order of their use."""
        return files_of(self.samples)

    @property
    def called(self) -> str:
        """Where it comes from, for the line of a stage."""
        return "made-up inputs" if self.kind == "synthetic" else base_name(self.origin)

    def at_most(self, count: int) -> Dataset:
        """The same data, `count` of its samples evenly spaced."""
        return replace(self, samples=evenly_spaced(self.samples, count))


def find(directory: str, flag: str, most: int, code: ExitCode, rows: Callable[[str], int] = lambda _: 1) -> Dataset:
    """The samples below a folder, sorted by the relative names of their files; `most` of them evenly spaced, where there are more.

    Args:
        rows: samples in a file of arrays.

    Raises:
        ConversionError: `code`, where the folder cannot be read, holds nothing usable, or both kinds.
    """
    if not os.path.isdir(directory):
        what = "is not a folder" if os.path.exists(directory) else "does not exist"
        raise ConversionError(f"{flag} {directory} {what}", hint=f"Give {flag} a folder of images, or of .npz / .npy files.", code=code)
    images, arrays, others = [], [], 0
    problems: list[OSError] = []
    for folder, subfolders, names in os.walk(directory, onerror=problems.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                images.append(os.path.join(folder, name))
            elif is_array(name):
                arrays.append(os.path.join(folder, name))
            else:
                others += 1
    if problems:
        raise ConversionError(f"{flag} {directory} cannot be read: {problems[0].filename}: {problems[0].strerror}", code=code)
    if images and arrays:
        raise ConversionError(
            f"{flag} {directory} holds {len(images)} images and {len(arrays)} .npz / .npy files",
            hint="Keep one kind of data in a folder.",
            code=code,
        )
    if not images and not arrays:
        raise ConversionError(
            f"{flag} {directory} holds no image and no .npz / .npy file ({others} other files)",
            hint="Images are known by their suffix: " + " ".join(sorted(IMAGE_SUFFIXES)),
            code=code,
        )
    paths = sorted(images or arrays, key=lambda path: os.path.relpath(path, directory))
    samples = paths if images else [sample for path in paths for sample in samples_in(path, rows(path), code)]
    chosen = evenly_spaced(samples, most)
    taken = frozenset(chosen)
    unused = tuple(sample for sample in samples if sample not in taken)
    return Dataset("images" if images else "arrays", directory, chosen, code, unused)


def is_array(name: str) -> bool:
    """Whether a file is one of arrays, by its suffix."""
    return os.path.splitext(name)[1].lower() in ARRAY_SUFFIXES


def holds_arrays(directory: str) -> bool:
    """Whether a folder has such a file in it, or below it."""
    return any(is_array(name) for _, _, names in os.walk(directory) for name in names)


def samples_in(path: str, count: int, code: ExitCode) -> tuple[str, ...]:
    """The names of the samples in a file that holds so many.

    Raises:
        ConversionError: `code`, where there are more than MOST_ROWS.
    """
    if count > MOST_ROWS:
        hint = "Divide it into several files, or keep those of its rows that are wanted."
        raise ConversionError(f"{path} holds {count} samples; one file may hold {MOST_ROWS}", hint=hint, code=code)
    return (path,) if count == 1 else tuple(row_name(path, row) for row in range(count))


def files_of(samples: Iterable[str]) -> tuple[str, ...]:
    """The files of some samples, each once, in their order."""
    return tuple(dict.fromkeys(file_and_row(sample)[0] for sample in samples))


def single(path: str, flag: str, code: ExitCode, rows: Callable[[str], int] = lambda _: 1) -> Dataset:
    """One file as data; a suffix that is no array's is taken for an image."""
    if not os.path.isfile(path):
        what = "is not a file" if os.path.exists(path) else "does not exist"
        raise ConversionError(f"{flag} {path} {what}", hint=f"Give {flag} one image, or one .npz / .npy file.", code=code)
    if is_array(path):
        return Dataset("arrays", path, samples_in(path, rows(path), code), code)
    return Dataset("images", path, (path,), code)


def synthetic() -> Dataset:
    """Made-up data, where the user gave none."""
    return Dataset("synthetic", "synthetic", (), ExitCode.VALIDATION)


def evenly_spaced(items, count: int) -> tuple:
    """`count` items spread over the list, the first and the last among them; all where there are fewer.

    >>> evenly_spaced(list(range(10)), 4)
    (0, 3, 6, 9)
    """
    if len(items) <= count:
        return tuple(items)
    if count == 1:
        return (items[0],)
    return tuple(items[round(i * (len(items) - 1) / (count - 1))] for i in range(count))


def array_files(plan: Plan) -> list[str]:
    """The files of arrays that the user has given, without a look into them; none where a folder cannot be read."""
    found = [path for path in (plan.validation.test_image,) if path and is_array(path) and os.path.isfile(path)]
    for folder in filter(None, (plan.calibration.directory, plan.validation.directory)):
        for root, folders, names in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [os.path.join(root, name) for name in sorted(names) if is_array(name) and not name.startswith(".")]
    return found


def arrays_of(plan: Plan, name: str) -> Iterator[np.ndarray]:
    """The arrays of an input in the user's .npz files; those that cannot be read are left to the reader, which says what is wrong."""
    for path in array_files(plan):
        try:
            found = read(path, None, (name,)) if name in announced(path, None) else {}
        except DataError:
            continue
        yield from found.values()
