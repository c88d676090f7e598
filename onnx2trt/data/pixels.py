"""A decoded image -> the tensor that a model takes."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass

import numpy as np

from onnx2trt.base.opencv import opencv

LETTERBOX_GREY = 114  # what YOLO-style models were trained with


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor: decode, colour order, resize (INTER_LINEAR), range, (x - mean) / std, layout."""

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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the tensor of one image."""
        if self.layout == "NHWC":
            return self.height, self.width, self.channels
        return self.channels, self.height, self.width

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


def image_tensor(image: np.ndarray, pre: Preprocessing, out: np.ndarray | None = None) -> np.ndarray:
    """Decoded image -> tensor.

    Pixels are looked up in tables while they are written to their place: of all ways that give the same bits the fastest,
    whatever the range, mean and std (benchmarks/README.md).

    Args:
        image: uint8 [H, W], BGR [H, W, 3] or BGRA [H, W, 4], any size.
        out: C-contiguous, of pre.shape and pre.dtype, to write into.

    Returns:
        `out`, or a fresh array: C-contiguous [C, H, W] (NCHW) or [H, W, C] (NHWC) of pre.dtype.
    """
    cv2 = opencv()
    tensor = np.empty(pre.shape, pre.dtype) if out is None else out
    resized = _resize(image, pre)
    if pre.channels == 1:
        _look_up(resized, pre, 0, tensor.reshape(pre.height, pre.width))
    elif pre.layout == "NHWC":
        swap = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[pre.channels]
        _look_up(cv2.cvtColor(resized, swap) if pre.color == "rgb" else resized, pre, None, tensor)
    else:
        planes = tensor if pre.dtype == "uint8" else np.empty(pre.shape, np.uint8)
        order = [2, 1, 0, 3][: pre.channels] if pre.color == "rgb" else range(pre.channels)  # rgb to bgr is bgr to rgb
        cv2.split(resized, [planes[channel] for channel in order])
        for channel, plane in enumerate(planes if planes is not tensor else ()):
            _look_up(plane, pre, channel, tensor[channel])
    return tensor


def _look_up(pixels: np.ndarray, pre: Preprocessing, channel: int | None, out: np.ndarray) -> None:
    """Write the value of each pixel of one channel [H, W], or of all [H, W, C], to `out` of the same shape."""
    if pre.dtype == "uint8":
        np.copyto(out, pixels)
        return
    tables = _tables(pre)
    table = tables if channel is None else np.ascontiguousarray(tables[:, :, channel])
    if pre.dtype == "float16":  # OpenCV moves 16 bits as they are
        table, out = table.view(np.uint16), out.view(np.uint16)
    opencv().LUT(pixels, table, out)


def displayed(tensor: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """What a tensor of `image_tensor` shows, as uint8 BGR [H, W, 3]; alpha is left out."""
    pixels = (tensor if pre.layout == "NHWC" else tensor.transpose(1, 2, 0)).astype(np.float32)
    if pre.dtype != "uint8":
        pixels = (pixels * np.array(pre.std, np.float32) + np.array(pre.mean, np.float32)) * (255 / pre.input_range)
    order = [0, 0, 0] if pre.channels == 1 else [2, 1, 0] if pre.color == "rgb" else [0, 1, 2]
    return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[:, :, order])


@functools.lru_cache(maxsize=8)  # of the preprocessings of one run, which are used for every image
def _tables(pre: Preprocessing) -> np.ndarray:
    """[1, 256, C]: for each channel the value of every pixel 0..255, ((pixel / 255 * range) - mean) / std computed in float32."""
    pixels = np.arange(256, dtype=np.float32)
    scaled = pixels / np.float32(255) if pre.input_range == 1 else pixels
    columns = [(scaled - np.float32(mean)) / np.float32(std) for mean, std in zip(pre.mean, pre.std)]
    return np.stack(columns, axis=-1)[None].astype(pre.dtype)


def scaled_size(height: int, width: int, pre: Preprocessing) -> tuple[int, int]:
    """(width, height) that an image of this size is scaled to; what then differs from the input's size is padded or cut."""
    if pre.resize == "stretch":
        return pre.width, pre.height
    choose = min if pre.resize == "letterbox" else max
    ratio = choose(pre.height / height, pre.width / width)
    return max(round(width * ratio), 1), max(round(height * ratio), 1)


def _resize(image: np.ndarray, pre: Preprocessing) -> np.ndarray:
    scaled = opencv().resize(image, scaled_size(*image.shape[:2], pre), interpolation=opencv().INTER_LINEAR)
    if pre.resize == "stretch":
        return scaled
    if pre.resize == "crop":
        top, left = (scaled.shape[0] - pre.height) // 2, (scaled.shape[1] - pre.width) // 2
        return scaled[top : top + pre.height, left : left + pre.width]
    canvas = np.full((pre.height, pre.width, *image.shape[2:]), LETTERBOX_GREY, np.uint8)
    top, left = (pre.height - scaled.shape[0]) // 2, (pre.width - scaled.shape[1]) // 2
    canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas
