"""Inputs for models that come without any, made up with a fixed seed, and what ONNX Runtime makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx

from .case import Case, shape_flags, write_arrays, write_samples

SAMPLES = 8


def samples(inputs: dict[str, dict], count: int = SAMPLES) -> list[dict[str, np.ndarray]]:
    """
    Args:
        inputs: name -> shape; `whole` for token ids or what else is no float; `ones` for masks; `sound`; `low`, `high`, `dtype` where they
            matter.
    """
    rng = np.random.default_rng(0)
    return [{name: _array(rng, entry) for name, entry in inputs.items()} for _ in range(count)]


def _array(rng: np.random.Generator, entry: dict) -> np.ndarray:
    shape = entry["shape"]
    if "value" in entry:
        return np.full(shape, entry["value"], entry.get("dtype", "float32"))
    if entry.get("ones"):
        return np.ones(shape, entry.get("dtype", "int64"))
    if entry.get("whole"):
        return rng.integers(entry.get("low", 5), entry.get("high", 1000), shape).astype(entry.get("dtype", "int64"))
    if entry.get("sound"):
        return _tone(rng, shape)
    if len(shape) == 4:  # like an image: large areas that differ, and noise
        return _picture(rng, shape, entry)
    low, high = entry.get("low"), entry.get("high")
    values = rng.standard_normal(shape) if low is None else rng.uniform(low, high, shape)
    return values.astype(entry.get("dtype", "float32"))


def _tone(rng: np.random.Generator, shape: list[int]) -> np.ndarray:
    """A voice, roughly: a tone of 100 to 400 Hz at 16 kHz with harmonics, and some noise; in -1..1."""
    time = np.arange(np.prod(shape)) / 16000
    pitch = rng.uniform(100, 400)
    tone = sum(np.sin(2 * np.pi * step * pitch * time) / step for step in (1, 2, 3))
    return (0.3 * tone + 0.02 * rng.standard_normal(time.size)).astype(np.float32).reshape(shape)


def _picture(rng: np.random.Generator, shape: list[int], entry: dict) -> np.ndarray:
    low, high = entry.get("low", 0.0), entry.get("high", 1.0)
    axes = (2, 3) if shape[1] <= 4 or shape[3] > 4 else (1, 2)
    coarse = [size if axis not in axes else -(-size // 16) for axis, size in enumerate(shape)]
    areas = rng.random(coarse)
    for axis in axes:
        areas = np.repeat(areas, 16, axis=axis)
    areas = areas[tuple(slice(size) for size in shape)]
    values = np.clip(areas * 0.9 + rng.random(shape) * 0.1, 0, 1)
    return (low + (high - low) * values).astype(entry.get("dtype", "float32"))


def finish(folder: Path, inputs: dict[str, dict], about: dict, flags: tuple[str, ...] = ()) -> Case:
    """The case of a model in `folder` that ONNX Runtime runs on made-up inputs.

    Args:
        about: fields of Case besides folder and flags.
        flags: besides those for free dimensions and for the data.
    """
    from onnx2trt.model.session import Session

    made = samples(inputs)
    write_samples(folder / "data", made)
    path = folder / "model.onnx"
    found = Session.from_path(str(path)).run(made[0])
    write_arrays(folder, list(inputs), list(made[0].values()), list(found.values()))
    shapes = shape_flags(onnx.load(path, load_external_data=False), made[0])
    case = Case(folder=str(folder), flags=(*shapes, f"--validation-dir={folder / 'data'}", *flags), **about)
    case.save()
    return case


def read_inputs(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "about.json").read_text())
