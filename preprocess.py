"""Data files -> the arrays that a model takes. Calibration, validation and the test picture all pass through here.

The only place that decodes pictures (OpenCV).
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

from core.arrays import load_arrays, stackable, synthetic_arrays
from core.cores import usable_cores
from core.errors import ConversionError, DataError, ExitCode
from core.model_info import PictureInput, Profile, TensorSpec
from core.opencv import MAX_PIXELS, opencv
from core.picture_files import check_complete
from core.plan import Preprocess
from core.samples import Dataset

LETTERBOX_GREY = 114  # what YOLO-style models were trained with
COLORS = {1: ("gray",), 3: ("rgb", "bgr"), 4: ("rgb", "bgr")}  # channels -> orders, the default first


Arrays = dict[str, np.ndarray]  # input name -> array of one inference


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a tensor: decode, colour order, resize (INTER_LINEAR), range, (x - mean) / std, layout."""

    height: int
    width: int
    channels: int
    layout: str  # NCHW | NHWC
    dtype: str  # float32 | float16 | uint8
    color: str  # rgb | bgr | gray; with four channels alpha comes last
    resize: str  # stretch | letterbox | crop
    input_range: int  # 1 | 255; uint8 models take 0..255 as they are
    mean: tuple[float, ...]  # one for each channel, in the units of input_range
    std: tuple[float, ...]

    def describe(self) -> dict:
        """As it stands in the result, so that a deployment can repeat it."""
        values = asdict(self)
        return {
            "size": [values["width"], values["height"]],
            "layout": values["layout"],
            "channels": values["channels"],
            "dtype": values["dtype"],
            "color": values["color"],
            "resize": values["resize"],
            "interpolation": "linear",
            "range": values["input_range"],
            "mean": list(values["mean"]),
            "std": list(values["std"]),
        }


def make_preprocessing(wish: Preprocess, picture: PictureInput) -> Preprocessing:
    """Flags + the model's picture input -> a complete preprocessing.

    Raises:
        ConversionError: USAGE, where a flag does not fit the input.
    """
    color = wish.color or COLORS[picture.channels][0]
    if color not in COLORS[picture.channels]:
        raise ConversionError(
            f"--color {color}, but input {picture.name!r} has {picture.channels} channel{'s' * (picture.channels > 1)}",
            hint=f"It takes --color {' or '.join(COLORS[picture.channels])}.",
            code=ExitCode.USAGE,
        )
    if picture.dtype == "uint8" and (wish.mean or wish.std):
        raise ConversionError(
            f"--mean and --std do not go with input {picture.name!r}: it is uint8 and takes pixels as they are", code=ExitCode.USAGE
        )
    values = {}
    for flag, given, default in (("mean", wish.mean, 0.0), ("std", wish.std, 1.0)):
        values[flag] = given * picture.channels if len(given) == 1 else given or (default,) * picture.channels
        if len(values[flag]) != picture.channels:
            raise ConversionError(
                f"--{flag} has {len(given)} numbers, but input {picture.name!r} has {picture.channels} channels", code=ExitCode.USAGE
            )
    return Preprocessing(
        height=picture.height,
        width=picture.width,
        channels=picture.channels,
        layout=picture.layout,
        dtype=picture.dtype,
        color=color,
        resize=wish.resize,
        input_range=255 if picture.dtype == "uint8" else wish.input_range,
        **values,
    )


def load_picture(path: str, pre: Preprocessing) -> np.ndarray:
    """Picture file -> tensor.

    Returns:
        C-contiguous [C, H, W] (NCHW) or [H, W, C] (NHWC) of pre.dtype.

    Raises:
        DataError: the file is no complete picture.
    """
    return picture_tensor(decode(read_picture(path), pre.channels), pre)


def read_picture(path: str) -> bytes:
    """The file's bytes; read by Python, because cv2.imread fails on non-ASCII names on Windows and blocks on a pipe."""
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
    """Encoded picture -> [H, W] (1 channel), BGR [H, W, 3] or BGRA [H, W, 4], uint8, turned as its EXIF data says (not BGRA).

    Raises:
        DataError: OpenCV cannot decode it, or it has more than MAX_PIXELS.
    """
    cv2 = opencv()
    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}[channels]
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error) or "pixels" in str(error).lower():
            raise DataError(f"has more than {MAX_PIXELS} pixels") from None
        raise DataError(f"cannot be decoded: {error.err or error}") from None
    if picture is None or not picture.size:
        raise DataError("is damaged, or no picture of a known format")
    return _with_alpha(picture) if channels == 4 else picture


def _with_alpha(picture: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    if picture.dtype == np.uint16:
        picture = (picture // 257).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise DataError(f"has {picture.dtype} pixels; 8 or 16 bits are known")
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2BGRA)
    return picture if picture.shape[2] == 4 else cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)


def picture_tensor(picture: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """Decoded picture -> tensor.

    Args:
        picture: uint8 [H, W], BGR [H, W, 3] or BGRA [H, W, 4], any size.

    Returns:
        C-contiguous [C, H, W] (NCHW) or [H, W, C] (NHWC) of pre.dtype.
    """
    resized = _resize(picture, pre)
    if resized.ndim == 2:
        resized = resized[:, :, None]
    order = [2, 1, 0, 3][: pre.channels] if pre.color == "rgb" else list(range(pre.channels))
    if pre.dtype == "uint8":
        planes = np.stack([resized[:, :, channel] for channel in order])
    else:
        planes = np.empty((pre.channels, pre.height, pre.width), np.float32)
        for index, table in enumerate(_tables(pre)):
            np.take(table, resized[:, :, order[index]], out=planes[index], mode="clip")  # "raise" would buffer the output
    if pre.layout == "NHWC":
        planes = planes.transpose(1, 2, 0)
    return np.ascontiguousarray(planes, dtype=pre.dtype)


def displayed(tensor: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """What a tensor of `picture_tensor` shows, as uint8 BGR [H, W, 3]; alpha is left out."""
    pixels = (tensor if pre.layout == "NHWC" else tensor.transpose(1, 2, 0)).astype(np.float32)
    if pre.dtype != "uint8":
        pixels = (pixels * np.array(pre.std, np.float32) + np.array(pre.mean, np.float32)) * (255 / pre.input_range)
    order = [0, 0, 0] if pre.channels == 1 else [2, 1, 0] if pre.color == "rgb" else [0, 1, 2]
    return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[:, :, order])


def _tables(pre: Preprocessing) -> list[np.ndarray]:
    """For each channel the value of every pixel 0..255, computed as ((pixel / 255 * range) - mean) / std in float32."""
    pixels = np.arange(256, dtype=np.float32)
    scaled = pixels / np.float32(255) if pre.input_range == 1 else pixels
    return [(scaled - np.float32(mean)) / np.float32(std) for mean, std in zip(pre.mean, pre.std)]


def _resize(picture: np.ndarray, pre: Preprocessing) -> np.ndarray:
    cv2 = opencv()
    height, width = picture.shape[:2]
    if pre.resize == "stretch":
        return cv2.resize(picture, (pre.width, pre.height), interpolation=cv2.INTER_LINEAR)
    choose = min if pre.resize == "letterbox" else max
    ratio = choose(pre.height / height, pre.width / width)
    size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    if pre.resize == "crop":
        top, left = (scaled.shape[0] - pre.height) // 2, (scaled.shape[1] - pre.width) // 2
        return scaled[top : top + pre.height, left : left + pre.width]
    canvas = np.full((pre.height, pre.width, *picture.shape[2:]), LETTERBOX_GREY, np.uint8)
    top, left = (pre.height - scaled.shape[0]) // 2, (pre.width - scaled.shape[1]) // 2
    canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas


@dataclass(frozen=True)
class Batch:
    """The arrays of one inference.

    `real_rows` of its `rows` along the first axis are data, the rest repeats the last of them. Where the inputs have no
    common first axis, both are 0.
    """

    arrays: dict[str, np.ndarray]
    rows: int
    real_rows: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """Turns a Dataset into batches for one model."""

    inputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    preprocessing: Preprocessing | None  # None: the model takes no pictures
    batch: int = 1  # samples in one inference; a fixed batch of the model overrides it

    def batches(self, data: Dataset, skipped: list[tuple[str, str]] | None = None) -> Iterator[Batch]:
        """Read all of `data` in order, files decoded ahead of the consumer.

        Args:
            skipped: takes (path, reason) of each file that cannot be used; None raises at the first.

        Raises:
            ConversionError: data.code, for an unusable file where `skipped` is None.
        """
        size = self._batch_size(data)
        samples = self._samples(data, skipped)
        while group := list(itertools.islice(samples, size)):
            yield _stack(group, size, data)

    def _batch_size(self, data: Dataset) -> int:
        shape = self.inputs[0].shape
        if data.kind == "pictures":
            return shape[0] if shape and isinstance(shape[0], int) else self.batch
        return self.batch if data.kind == "arrays" and stackable(self.inputs) else 1

    def _samples(self, data: Dataset, skipped: list | None) -> Iterator[tuple[str, Arrays]]:
        """(file, arrays of one sample); a file of arrays may hold several samples."""
        if data.kind == "synthetic":
            yield "synthetic", synthetic_arrays(self.inputs, self.profiles)
            return
        for path, result in read_ahead(data.paths, self._load_pictures if data.kind == "pictures" else self._load_arrays):
            if not isinstance(result, DataError):
                yield from ((path, arrays) for arrays in result)
            elif skipped is None:
                raise ConversionError(f"{path} {result}", hint="Give another file.", code=data.code)
            else:
                skipped.append((path, str(result)))

    def _load_pictures(self, path: str) -> list[Arrays]:
        return [{self.inputs[0].name: load_picture(path, self.preprocessing)[None]}]

    def _load_arrays(self, path: str) -> list[Arrays]:
        return load_arrays(path, self.inputs)


def read_ahead(paths: Iterable[str], load: Callable, workers: int = 0) -> Iterator[tuple[str, object]]:
    """(path, load(path)) in the order of paths, with a few loads under way ahead of the consumer; a DataError is returned."""
    workers = workers or min(usable_cores(), 8)
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        pending: deque = deque()

        def attempt(path: str):
            try:
                return load(path)
            except DataError as error:
                return error

        try:
            for path in paths:
                pending.append((path, pool.submit(attempt, path)))
                if len(pending) > 2 * workers:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _stack(samples: list[tuple[str, Arrays]], size: int, data: Dataset) -> Batch:
    """Samples joined along the first axis, the last one repeated up to `size`."""
    paths = tuple(path for path, _ in samples)
    if size == 1:
        arrays = samples[0][1]
        sizes = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
        rows = sizes.pop() if len(sizes) == 1 else 0
        return Batch(arrays, rows, rows, paths)
    filled = samples + [samples[-1]] * (size - len(samples))
    try:
        arrays = {name: np.concatenate([arrays[name] for _, arrays in filled]) for name in filled[0][1]}
    except ValueError as error:
        raise ConversionError(
            f"{data.origin}: samples of different shapes cannot share a batch of {size}: {error}", code=data.code
        ) from None
    return Batch(arrays, size, len(samples), paths)
