"""Data files -> the arrays that a model takes. Calibration, validation and the test image all pass through here.

The only place that decodes images (OpenCV).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from onnx2trt.base.errors import ConversionError, DataError, ExitCode
from onnx2trt.base.model_info import BoundInput, ImageInput, Profile, TensorSpec
from onnx2trt.base.opencv import MAX_PIXELS, opencv
from onnx2trt.base.padded import Padded
from onnx2trt.base.read_ahead import read_ahead
from onnx2trt.data.arrays import load_arrays, synthetic_arrays
from onnx2trt.data.image_files import check_complete, with_more
from onnx2trt.data.pixels import Preprocessing, image_tensor
from onnx2trt.data.reused_arrays import ReusedArrays
from onnx2trt.data.rows import Rows, file_and_row
from onnx2trt.data.samples import Dataset
from onnx2trt.plan.parts import Preprocess

BLOCK = 8  # pixels of a JPEG's block along each axis
DARK = 2**14  # 16-bit pixels below this are those of a camera with 10, 12 or 14 bits, most likely
COLORS = {1: ("gray",), 3: ("rgb", "bgr"), 4: ("rgb", "bgr")}  # channels -> orders, the default first


Arrays = dict[str, np.ndarray]  # input name -> array of one inference


def make_preprocessing(flags: Preprocess, image: ImageInput) -> Preprocessing:
    """Flags + the model's image input -> a complete preprocessing.

    Raises:
        ConversionError: USAGE, where a flag does not fit the input.
    """
    color = flags.color or COLORS[image.channels][0]
    if color not in COLORS[image.channels]:
        raise ConversionError(
            f"--color {color}, but input {image.name!r} has {image.channels} channel{'s' * (image.channels > 1)}",
            hint=f"It takes --color {' or '.join(COLORS[image.channels])}.",
            code=ExitCode.USAGE,
        )
    if image.dtype == "uint8" and (flags.mean or flags.std):
        raise ConversionError(
            f"--mean and --std do not go with input {image.name!r}: it is uint8 and takes pixels as they are", code=ExitCode.USAGE
        )
    values = {}
    for flag, given, default in (("mean", flags.mean, 0.0), ("std", flags.std, 1.0)):
        values[flag] = given * image.channels if len(given) == 1 else given or (default,) * image.channels
        if len(values[flag]) != image.channels:
            raise ConversionError(
                f"--{flag} has {len(given)} numbers, but input {image.name!r} has {image.channels} channels", code=ExitCode.USAGE
            )
    return Preprocessing(
        height=image.height,
        width=image.width,
        channels=image.channels,
        layout=image.layout,
        dtype=image.dtype,
        color=color,
        resize=flags.resize,
        input_range=255 if image.dtype == "uint8" else flags.input_range,
        **values,
    )


def load_image(path: str, pre: Preprocessing, out: np.ndarray | None = None, dark: dict[str, int] | None = None) -> np.ndarray:
    """Image file -> tensor.

    Args:
        out: C-contiguous, of pre.shape and pre.dtype, to write into.
        dark: takes path -> largest value of an image of 16 bits that has none of the upper three quarters.

    Returns:
        `out`, or a fresh array: C-contiguous [C, H, W] (NCHW) or [H, W, C] (NHWC) of pre.dtype.

    Raises:
        DataError: the file is no complete image.
    """
    image, most = _decoded(read_image(path), pre.channels)
    if dark is not None and 0 < most < DARK:
        dark.setdefault(path, most)
    return image_tensor(image, pre, out)


def read_image(path: str) -> bytes:
    """The file's bytes; read by Python, because cv2.imread blocks on a pipe."""
    try:
        if not os.path.isfile(path):
            raise DataError("is not a regular file")
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise DataError("is empty")
    check_complete(data)
    return data


def decode(data: bytes, channels: int) -> np.ndarray:
    """Encoded image -> [H, W] (1 channel), BGR [H, W, 3] or BGRA [H, W, 4], uint8, turned as its EXIF data says (not BGRA).

    Raises:
        DataError: OpenCV cannot decode it, it has more than MAX_PIXELS, or its pixels are no integers of 8 or 16 bits.
    """
    return _decoded(data, channels)[0]


def _decoded(data: bytes, channels: int) -> tuple[np.ndarray, int]:
    """As `decode`; and the largest value of the file's pixels where they have 16 bits, else 0."""
    cv2 = opencv()
    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}[channels]
    image = _imdecode(data, flag | cv2.IMREAD_ANYDEPTH)  # without it, images of floating point become white or black ones
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"has {image.dtype} pixels; unsigned integers of 8 or 16 bits are known")
    _refuse_cut(data, image, flag | cv2.IMREAD_ANYDEPTH)
    most = _brightest(image) if image.dtype == np.uint16 else 0
    if channels == 4:
        return _with_alpha(image), most
    return (image if image.dtype == np.uint8 else _imdecode(data, flag)), most


def _brightest(image: np.ndarray) -> int:
    """The largest value of what is no alpha channel."""
    return int((image[..., :3] if image.ndim == 3 else image).max())


def _imdecode(data: bytes, flag: int) -> np.ndarray:
    cv2 = opencv()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error) or "pixels" in str(error).lower():
            raise DataError(f"has more than {MAX_PIXELS} pixels") from None
        raise DataError(f"cannot be decoded: {error.err or error}") from None
    if image is None or not image.size:
        raise DataError("is damaged, or no image of a known format")
    return image


def _refuse_cut(data: bytes, image: np.ndarray, flag: int) -> None:
    """Refuse a JPEG that was cut off and closed with an end marker all the same: decoders make something up and say nothing."""
    ends = (slice(BLOCK), slice(-BLOCK, None))
    more = with_more(data, [image[y, x] for edge in (0, -1) for end in ends for y, x in ((edge, end), (end, edge))])
    if more is not None and not np.array_equal(image, _imdecode(more, flag)):
        raise DataError("is a JPEG whose content ends before the image does (cut off, and closed with an end marker)")


def _with_alpha(image: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    return image if image.shape[2] == 4 else cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)


@dataclass(frozen=True)
class Batch:
    """The arrays of one inference.

    `real_rows` of its `rows` along the first axis are data, the rest repeats the last of them. Where the inputs have no
    common first axis, or its entries are no samples, both are 0.
    """

    arrays: dict[str, np.ndarray]
    rows: int
    real_rows: int
    samples: tuple[str, ...]  # their names

    @property
    def feed(self) -> Arrays:
        """The arrays, which know what of them is no data."""
        return Padded(self.arrays, self.rows, self.real_rows) if self.real_rows < self.rows else self.arrays


@dataclass(frozen=True)
class Reader:
    """Turns a Dataset into batches for one model."""

    inputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    preprocessing: Preprocessing | None  # None: the model takes no images
    rows: Rows = Rows()
    bound: tuple[BoundInput, ...] = ()  # inputs that are constants
    dark: dict[str, int] = field(default_factory=dict, compare=False)  # as load_image takes it; 0: spoken of

    def batches(self, data: Dataset, skipped: list[tuple[str, str]] | None = None) -> Iterator[Batch]:
        """Read all of `data` in order, files decoded ahead of the consumer.

        Args:
            skipped: takes (sample, reason) of each that cannot be used; None raises at the first.

        Raises:
            ConversionError: data.code, for an unusable sample where `skipped` is None.
        """
        if data.kind == "images":
            yield from self._image_batches(data, self.batch_size(data), skipped)
            return
        samples, size = self._samples(data, skipped), self.batch_size(data)
        while group := list(itertools.islice(samples, size)):
            yield _stack(group, size, data, self.rows.separate)

    def batch_size(self, data: Dataset) -> int:
        """Samples in one inference."""
        return {"images": self.rows.images, "arrays": self.rows.batch, "synthetic": 1}[data.kind]

    def _image_batches(self, data: Dataset, size: int, skipped: list | None) -> Iterator[Batch]:
        """Each image is decoded straight into the row that it has where no file before it is damaged; else it is moved up."""
        pre, name = self.preprocessing, self.inputs[0].name
        memory = ReusedArrays((size, *pre.shape), pre.dtype)
        batch, paths = None, []
        places = _places(data.samples, size, memory)
        for place, result in read_ahead(places, lambda place: load_image(place.path, pre, place.batch[place.row], self.dark), ahead=size):
            if isinstance(result, DataError):
                _skip(place.path, result, data, skipped)
                continue
            row = len(paths)
            batch = batch if row else place.batch
            if place.batch is not batch or place.row != row:
                batch[row] = place.batch[place.row]  # the row was that of a damaged file, or of one that was moved up itself
            paths.append(place.path)
            if len(paths) == size:
                yield Batch({name: batch}, size, size, tuple(paths))
                batch, paths = None, []
        if paths:
            batch[len(paths) :] = batch[len(paths) - 1]
            yield Batch({name: batch}, size, len(paths), tuple(paths))

    def _samples(self, data: Dataset, skipped: list | None) -> Iterator[tuple[str, Arrays]]:
        """(sample, its arrays); a file is opened once for all of its samples that follow each other."""
        if data.kind == "synthetic":
            yield "synthetic", synthetic_arrays(self.inputs, self.profiles)
            return
        groups = [(path, tuple(group)) for path, group in itertools.groupby(data.samples, lambda sample: file_and_row(sample)[0])]
        for (path, samples), result in read_ahead(groups, self._load):
            if isinstance(result, DataError):
                for _ in samples:
                    _skip(path, result, data, skipped)
                continue
            for sample, arrays in zip(samples, result):
                if isinstance(arrays, DataError):
                    _skip(sample, arrays, data, skipped)
                else:
                    yield sample, arrays

    def _load(self, group: tuple[str, tuple[str, ...]]) -> list[Arrays | DataError]:
        path, samples = group
        rows = [file_and_row(sample)[1] for sample in samples]
        return load_arrays(path, self.inputs, self.rows, None if rows == [None] else rows, self.bound)


class Place(NamedTuple):
    """Where an image is to be written."""

    path: str
    batch: np.ndarray
    row: int


def _places(paths: Iterable[str], size: int, memory: ReusedArrays) -> Iterator[Place]:
    """Row after row of one batch after the other, each begun when its first image is about to be read."""
    for index, path in enumerate(paths):
        if index % size == 0:
            batch = memory.array()
        yield Place(path, batch, index % size)


def _skip(path: str, error: DataError, data: Dataset, skipped: list | None) -> None:
    if skipped is None:
        raise ConversionError(f"{path} {error}", hint="Give another file.", code=data.code)
    skipped.append((path, str(error)))


def _stack(samples: list[tuple[str, Arrays]], size: int, data: Dataset, separate: bool) -> Batch:
    """Samples joined along the first axis, the last one repeated up to `size`.

    Args:
        separate: the entries along the first axis are samples.
    """
    names = tuple(name for name, _ in samples)
    if size == 1:
        arrays = samples[0][1]
        sizes = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
        rows = sizes.pop() if len(sizes) == 1 and separate else 0
        return Batch(arrays, rows, rows, names)
    filled = samples + [samples[-1]] * (size - len(samples))
    try:
        arrays = {name: np.concatenate([arrays[name] for _, arrays in filled]) for name in filled[0][1]}
    except ValueError as error:
        raise ConversionError(
            f"{data.origin}: samples of different shapes cannot share a batch of {size}: {error}", code=data.code
        ) from None
    return Batch(arrays, size, len(samples), names)
