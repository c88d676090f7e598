"""Outputs that are images, drawn over the image that the model was given; as data that stands inside the page."""

from __future__ import annotations

import base64
import colorsys

import numpy as np

from onnx2trt.base.opencv import opencv
from onnx2trt.compare.evidence import Output

SMALLEST_SIDE = 240  # pixels; smaller images are enlarged, pixel by pixel
LOSSLESS_PIXELS = 40_000  # up to which an image stays a PNG
OPACITY = 0.55
GREY = 128  # behind an output without an image
BASE_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))  # Okabe and Ito
MODEL_ONLY, ENGINE_ONLY, BOTH, DIFFERENT = (86, 180, 233), (230, 159, 0), (0, 158, 115), (255, 0, 60)
LEGEND_ROWS = 12

Pixels = np.ndarray  # uint8 BGR [H, W, 3]


def plain(image: Pixels, longest: int) -> str:
    """The image itself, its longest side at most `longest` pixels."""
    return _uri(image, *_size(image.shape[:2], longest))


def classes(output: Output, image: Pixels | None, longest: int) -> dict:
    """Class numbers of each pixel as tints; the class that most pixels have is left clear.

    Returns:
        model, engine, difference: images; legend: rows (color, class, share in the model's, share in the engine's), how many more.
    """
    shares = [_shares(labels) for labels in (output.reference, output.candidate)]
    known = sorted(shares[0].keys() | shares[1].keys(), key=lambda number: -max(share.get(number, 0.0) for share in shares))
    clear = max(shares[0], key=shares[0].get)
    size = _size(output.reference.shape if image is None else image.shape[:2], longest)
    drawn = []
    for labels in (output.reference, output.candidate):
        tint = np.zeros((*labels.shape, 3), np.uint8)
        for number in known:
            tint[labels == number] = _color(number)[::-1]
        drawn.append(_uri(_tinted(image, tint, labels != clear, size)))
    rows = [
        {
            "color": None if number == clear else _hex(_color(number)),
            "name": f"class {number}",
            "model": shares[0].get(number, 0.0),
            "engine": shares[1].get(number, 0.0),
        }
        for number in known[:LEGEND_ROWS]
    ]
    return {
        "model": drawn[0],
        "engine": drawn[1],
        "difference": _uri(_marked(image, output.differing, size)),
        "wide": _drawn_wide(output.differing),
        "legend": rows,
        "more": len(known) - len(rows),
    }


def masks(output: Output, image: Pixels | None, longest: int) -> dict:
    """What lies above the threshold, in both and in one of them only."""
    a, b = output.reference, output.candidate
    size = _size(a.shape if image is None else image.shape[:2], longest)
    pale = None if image is None else _faded(image)
    drawn = [_uri(_tinted(pale, _flat(mask, color), mask, size, 0.9)) for mask, color in ((a, MODEL_ONLY), (b, ENGINE_ONLY))]
    only = output.differing
    tint = _flat(a, BOTH)
    tint[only & a] = MODEL_ONLY[::-1]
    tint[only & ~a] = ENGINE_ONLY[::-1]
    return {
        "model": drawn[0],
        "engine": drawn[1],
        "difference": _uri(_tinted(pale, tint, a | b | only, size, 0.9)),
        "legend": [
            {"color": _hex(BOTH), "name": "both", "share": float((a & b).mean())},
            {"color": _hex(MODEL_ONLY), "name": "the model only", "share": float((a & ~b).mean())},
            {"color": _hex(ENGINE_ONLY), "name": "the other only", "share": float((b & ~a).mean())},
        ],
    }


def maps(output: Output, longest: int) -> dict:
    """Values of each pixel, dark to bright over the same range in both, and the size of the error over its own."""
    both = np.stack([output.reference, output.candidate])
    finite = both[np.isfinite(both)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    with np.errstate(invalid="ignore"):
        error = np.abs(both[1] - both[0])
    error = np.where(np.isfinite(error), error, 0.0)
    most = float(error.max())
    size = _size(output.reference.shape, longest)
    return {
        "model": _uri(_colored(both[0], low, high), *size),
        "engine": _uri(_colored(both[1], low, high), *size),
        "difference": _uri(_colored(error, 0.0, most), *size),
        "low": low,
        "high": high,
        "most": most,
    }


def _shares(labels: np.ndarray) -> dict[int, float]:
    numbers, counts = np.unique(labels, return_counts=True)
    return {int(number): int(count) / labels.size for number, count in zip(numbers, counts)}


def _color(number: int) -> tuple[int, int, int]:
    """RGB of a class; the same for a number in every image."""
    if number < len(BASE_COLORS):
        return BASE_COLORS[number]
    hue = (number * 0.618034) % 1.0  # the golden section: neighbours in number are far apart in colour
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (number % 2), 0.95 - 0.25 * (number % 3 == 0)))


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _flat(mask: np.ndarray, color: tuple[int, int, int]) -> Pixels:
    tint = np.zeros((*mask.shape, 3), np.uint8)
    tint[:] = color[::-1]
    return tint


def _size(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """(height, width) in which an image of this shape is drawn."""
    factor = min(longest / max(shape[:2]), 1.0)
    if max(shape[:2]) < SMALLEST_SIDE:
        factor = -(-SMALLEST_SIDE // max(shape[:2]))
    return max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1)


def _scaled(pixels: np.ndarray, height: int, width: int, smooth: bool = True) -> np.ndarray:
    cv2 = opencv()
    if pixels.shape[:2] == (height, width):
        return pixels
    smaller = pixels.shape[0] > height or pixels.shape[1] > width
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smooth and smaller else cv2.INTER_NEAREST)


def _tinted(image: Pixels | None, tint: Pixels, where: np.ndarray, size: tuple[int, int], opacity: float = OPACITY) -> Pixels:
    """The image with a tint where it holds; without an image, the tint alone on grey."""
    base = np.full((*size, 3), GREY, np.uint8) if image is None else _scaled(image, *size)
    opacity = 1.0 if image is None else opacity
    colors, chosen = _scaled(tint, *size, smooth=False), _scaled(where.astype(np.uint8), *size, smooth=False) > 0
    result = base.astype(np.float32)
    result[chosen] = (1 - opacity) * result[chosen] + opacity * colors[chosen]
    return np.rint(result).astype(np.uint8)


def _marked(image: Pixels | None, differing: np.ndarray, size: tuple[int, int]) -> Pixels:
    """What differs, in red on the faded image; of large ones single pixels are drawn three wide, to be seen."""
    cv2 = opencv()
    wide = cv2.dilate(differing.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 if _drawn_wide(differing) else differing
    return _tinted(None if image is None else _faded(image), _flat(wide, DIFFERENT), wide, size, 1.0)


def _drawn_wide(differing: np.ndarray) -> bool:
    return max(differing.shape) >= SMALLEST_SIDE


def _faded(image: Pixels) -> Pixels:
    """Grey and pale, so that colours on it stand out."""
    grey = image.astype(np.float32).mean(2, keepdims=True)
    return np.rint(np.repeat(110 + 0.5 * grey, 3, axis=2)).clip(0, 255).astype(np.uint8)


def _colored(values: np.ndarray, low: float, high: float) -> Pixels:
    cv2 = opencv()
    with np.errstate(invalid="ignore"):
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return cv2.applyColorMap(np.nan_to_num(scaled).clip(0, 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)


def _uri(pixels: Pixels, height: int = 0, width: int = 0) -> str:
    """A data URI: JPEG without subsampled colours, PNG where it is small."""
    cv2 = opencv()
    if height:
        pixels = _scaled(pixels, height, width)
    if pixels.shape[0] * pixels.shape[1] <= LOSSLESS_PIXELS:
        kind, options = "png", []
    else:
        kind, options = "jpeg", [cv2.IMWRITE_JPEG_QUALITY, 85, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode("." + kind, pixels, options)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
