#!/usr/bin/env python3
"""Draw the images of the example: shapes on textured backgrounds, with exact masks.

Everything is generated from fixed seeds with numpy and OpenCV, nothing is downloaded.
As a script it writes the committed subset (calibration images, test images, test
masks); as a module it serves `train.py` with as many training images as it asks for.

    python make_dataset.py            # rewrites calibration/, test/ and test_masks/
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 256, 320
CLASSES = ("background", "disc", "ring", "square", "triangle", "star", "zebra")
PLAIN, BUSY = ("flat", "gradient", "noise"), ("stripes", "checkers", "blobs")

# The first number of every seed. Different streams never share an image.
STREAMS = {"training": 0, "calibration": 1, "test": 2}
CALIBRATION_COUNT, TEST_COUNT = 120, 40
JPEG_QUALITY = 78  # of the committed images; training varies around it

MIN_VISIBLE = 0.7  # of an object's area: less would make its class a guess
MIN_CONTRAST = 80.0  # distance between mean colours of an object and what it covers


# --------------------------------------------------------------------------- textures


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Return a BGR colour, float32 [3], each channel in 15..240."""
    return rng.uniform(15, 240, 3).astype(np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> np.ndarray:
    """Return smooth random bumps about `cell` pixels wide, float32 [height, width] in 0..1."""
    grid = rng.random((int(height / cell) + 2, int(width / cell) + 2), dtype=np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)


def ramp(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a linear ramp in a random direction, float32 [height, width], exactly 0..1."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(np.sin(angle))
    field = y[:, None] + x[None, :]
    return (field - field.min()) / max(float(np.ptp(field)), 1e-6)


def wave(rng: np.random.Generator, height: int, width: int, crossed: bool) -> np.ndarray:
    """Return stripes (or checkers when `crossed`), float32 [height, width] in 0..1."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(7, 22)
    sharpness, phase = rng.uniform(1, 5), rng.uniform(0, 2 * np.pi, 2)
    x = np.arange(width, dtype=np.float32) * np.float32(2 * np.pi / period)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(2 * np.pi / period)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    field = np.sin(x * cos + y * sin + np.float32(phase[0]))
    if crossed:
        field = field * np.sin(y * cos - x * sin + np.float32(phase[1]))
    return np.clip(field * np.float32(sharpness) * 0.5 + 0.5, 0, 1)


def pattern(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """Return the scalar field of one texture kind, float32 [height, width] in 0..1."""
    if kind == "flat":
        return np.zeros((height, width), np.float32)
    if kind == "gradient":
        return ramp(rng, height, width)
    if kind == "noise":
        cell = rng.uniform(4, 30)
        coarse = smooth_noise(rng, height, width, cell)
        return 0.6 * coarse + 0.4 * smooth_noise(rng, height, width, cell / 3)
    if kind == "blobs":
        field = smooth_noise(rng, height, width, rng.uniform(8, 30))
        return np.clip((field - 0.5) * 12 + 0.5, 0, 1)
    return wave(rng, height, width, crossed=kind == "checkers")


def random_kind(rng: np.random.Generator) -> str:
    """Return the name of a texture; two of three are plain."""
    return str(rng.choice(PLAIN if rng.random() < 0.67 else BUSY))


def texture(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """Return a texture of two similar colours, float32 BGR [height, width, 3] in 0..255."""
    first = random_colour(rng)
    second = np.clip(first + rng.uniform(-50, 50, 3).astype(np.float32), 0, 255)
    if kind == "stripes":  # they define a class, so they must be visible
        second = np.where(first > 128, first - 65, first + 65)
    mix = np.stack([second - first, first], 1)  # colour = field * (second - first) + first
    return cv2.transform(pattern(rng, kind, height, width)[..., None], mix)


def grey(field: np.ndarray) -> np.ndarray:
    """Repeat a field for the three colours, float32 [h, w] to [h, w, 3] (faster than broadcasting)."""
    field = np.asarray(field, np.float32)
    return cv2.merge((field, field, field))


# ----------------------------------------------------------------------------- shapes


def polygon_of(rng: np.random.Generator, name: str) -> np.ndarray:
    """Return the outline of a shape of radius about 1, float64 [points, 2], not yet turned."""
    if name in ("disc", "ring"):
        turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        return np.stack([np.cos(turn), np.sin(turn)], 1)
    if name == "square":
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.82
    if name == "triangle":
        turn = np.arange(3) * 2 * np.pi / 3
        return np.stack([np.cos(turn), np.sin(turn)], 1) * 1.15
    if name == "star":
        turn = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.15, rng.uniform(0.42, 0.5))
        return np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]
    # The irregular outline of zebras and of the distractors that look like them.
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.ones_like(turn)
    for waves in (2, 3, 4, 5):
        radius += rng.uniform(0.08, 0.2) * np.cos(waves * turn + rng.uniform(0, 2 * np.pi))
    return np.stack([np.cos(turn), np.sin(turn)], 1) * radius[:, None]


def shape_mask(rng: np.random.Generator, name: str, margin: int = 14) -> tuple[np.ndarray, int, int]:
    """Draw one randomly sized, turned and placed shape.

    Returns (mask, top, left): mask is uint8 [h, w] with 0 or 1, a crop around the shape
    with `margin` free pixels on each side; its corner (top, left) may lie outside the image.
    """
    radius = 21 * 2.6 ** rng.random()
    angle, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.0)
    spin = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = polygon_of(rng, name) * radius * [1, squeeze] @ spin
    low = np.floor(outline.min(0)).astype(int) - margin
    size = np.ceil(outline.max(0)).astype(int) + margin - low
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(mask, [np.round((outline - low) * 16).astype(np.int32)], 1, shift=4)
    if name == "ring":
        inner = outline * rng.uniform(0.5, 0.66)
        cv2.fillPoly(mask, [np.round((inner - low) * 16).astype(np.int32)], 0, shift=4)
    centre = rng.uniform([0, 0], [WIDTH, HEIGHT])
    left, top = np.round(centre + low).astype(int)
    return mask, int(top), int(left)


def crop_to_image(mask: np.ndarray, top: int, left: int) -> tuple[np.ndarray, slice, slice]:
    """Cut a crop's mask to the image; return it with the rows and columns it covers."""
    rows = slice(max(top, 0), min(top + mask.shape[0], HEIGHT))
    cols = slice(max(left, 0), min(left + mask.shape[1], WIDTH))
    return mask[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left], rows, cols


# ---------------------------------------------------------------------------- images


def contrasting(rng: np.random.Generator, skin: np.ndarray, mask: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Shift a texture until its mean colour under `mask` differs enough from what it covers.

    skin and under are float32 [h, w, 3] in 0..255, mask is uint8 [h, w]; returns such a skin.
    """
    covered = np.array(cv2.mean(under, mask)[:3], np.float32)
    own = np.array(cv2.mean(skin, mask)[:3], np.float32)
    wanted = own
    while np.linalg.norm(wanted - covered) < MIN_CONTRAST:
        wanted = random_colour(rng)
    return np.clip(skin + (wanted - own), 0, 255)


def paint(rng: np.random.Generator, image: np.ndarray, kind: str, mask: np.ndarray, rows: slice, cols: slice) -> None:
    """Paint one object with texture `kind`, shading and perhaps a shadow into the image.

    image is float32 [256, 320, 3] in 0..255 and changes in place; mask is uint8 [h, w].
    """
    area = image[rows, cols]
    soft = grey(cv2.GaussianBlur(mask.astype(np.float32), (3, 3), 0))
    skin = contrasting(rng, texture(rng, kind, *mask.shape), mask, area)
    skin *= grey(1 - rng.uniform(0, 0.45) * ramp(rng, *mask.shape))
    if rng.random() < 0.5:
        shift = np.float32([[1, 0, rng.uniform(-6, 6)], [0, 1, rng.uniform(-6, 6)]])
        shadow = cv2.warpAffine(mask.astype(np.float32), shift, mask.shape[::-1])
        area = area * grey(1 - rng.uniform(0.25, 0.6) * cv2.blur(shadow, (7, 7)))
    image[rows, cols] = area + soft * (skin - area)


def add_distractors(rng: np.random.Generator, image: np.ndarray) -> None:
    """Add things that are background although they look like objects (in place)."""
    for _ in range(rng.integers(0, 2)):
        mask, rows, cols = crop_to_image(*shape_mask(rng, "blob"))
        if mask.any():
            paint(rng, image, str(rng.choice(PLAIN)), mask, rows, cols)  # a striped one is a zebra
    for _ in range(rng.integers(0, 3)):
        ends = rng.integers([-20, -20], [WIDTH + 20, HEIGHT + 20], (2, 2))
        colour = random_colour(rng).tolist()
        cv2.line(image, ends[0].tolist(), ends[1].tolist(), colour, int(rng.integers(1, 9)), cv2.LINE_AA)


def add_objects(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Paint up to 10 objects over each other (in place); return the class mask, uint8 [256, 320]."""
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    owner = np.zeros((HEIGHT, WIDTH), np.uint8)  # the number of the object on top, 0 is none
    least, visible = [0], np.array([HEIGHT * WIDTH])  # pixels of each object: needed, seen now
    for _ in range(rng.integers(4, 11)):
        label = int(rng.integers(1, len(CLASSES)))
        full, top, left = shape_mask(rng, CLASSES[label])
        mask, rows, cols = crop_to_image(full, top, left)
        enough = MIN_VISIBLE * full.sum()
        inside = mask > 0
        seen = visible - np.bincount(owner[rows, cols][inside], minlength=len(visible))
        if inside.sum() < enough or (seen < least).any():
            continue
        kind = "stripes" if CLASSES[label] == "zebra" else random_kind(rng)
        paint(rng, image, kind, mask, rows, cols)
        owner[rows, cols][inside] = len(visible)
        classes[rows, cols][inside] = label
        least, visible = [*least, enough], np.append(seen, inside.sum())
    return classes


def camera(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light, exposure, blur and noise of a simulated camera; float32 in, uint8 [256, 320, 3] out."""
    light = 1 + rng.uniform(0, 0.6) * (ramp(rng, HEIGHT, WIDTH) - 0.5)
    if rng.random() < 0.3:  # a soft shadow falls over a part of the scene
        light *= 1 - rng.uniform(0.2, 0.5) * np.clip(smooth_noise(rng, HEIGHT, WIDTH, 90) * 6 - 3, 0, 1)
    if rng.random() < 0.5:  # dusk: real cameras meet both dark and bright scenes
        light *= 0.12 ** rng.random()
    image = image * grey(light)
    if rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.1))
    grain = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    image = image + grey(grain * rng.uniform(0, 5))
    return np.clip(image, 0, 255).astype(np.uint8)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return one image, uint8 BGR [256, 320, 3], and its classes, uint8 [256, 320]."""
    image = texture(rng, random_kind(rng), HEIGHT, WIDTH)
    add_distractors(rng, image)
    classes = add_objects(rng, image)
    return camera(rng, image), classes


def sample(stream: str, index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return image `index` of a stream ("training", "calibration" or "test"), as `draw` does."""
    return draw(np.random.default_rng((STREAMS[stream], seed, index)))


def training_sample(index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return training image `index` after JPEG: uint8 RGB [3, 256, 320], uint8 [256, 320]."""
    image, classes = sample("training", index, seed)
    quality = JPEG_QUALITY - 10 + index % 21
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)), classes


def write_dataset(folder: Path) -> None:
    """Write calibration/NNN.jpg, test/NNN.jpg and test_masks/NNN.png below `folder`."""
    for name in ("calibration", "test", "test_masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    for stream, count in (("calibration", CALIBRATION_COUNT), ("test", TEST_COUNT)):
        for index in range(count):
            image, classes = sample(stream, index)
            cv2.imwrite(str(folder / stream / f"{index:03d}.jpg"), image, jpeg)
            if stream == "test":
                cv2.imwrite(str(folder / "test_masks" / f"{index:03d}.png"), classes)


def main() -> None:
    """Write the committed images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent, help="folder to write to (default: the folder of this script)"
    )
    folder = parser.parse_args().out
    write_dataset(folder)
    size = sum(f.stat().st_size for d in ("calibration", "test", "test_masks") for f in (folder / d).iterdir())
    print(f"{CALIBRATION_COUNT} calibration and {TEST_COUNT} test images in {folder}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
