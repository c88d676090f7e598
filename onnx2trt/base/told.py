"""What an exporter has written beside the graph about the model: image size, stride, task, names of classes. Standard library only.

Ultralytics writes such metadata_props; the values are Python or JSON literals.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx2trt.base.side_files import parse_json

DETECTORS = ("detect", "segment", "pose", "obb")  # tasks whose outputs hold boxes; such models are trained on letterboxed images
MOST_CHARACTERS = 2**20  # of a value that is looked into


@dataclass(frozen=True)
class Told:
    """What is known; empty where nothing is told, or nothing that makes sense."""

    size: tuple[int, int] | None = None  # height and width of images
    stride: int = 1  # heights and widths are multiples of it
    task: str = ""  # detect | segment | pose | obb | classify | ...
    names: Mapping[int, str] = field(default_factory=dict)  # number -> name of a class

    @property
    def detector(self) -> bool:
        return self.task in DETECTORS


def told_by(metadata: Mapping[str, str]) -> Told:
    """
    Args:
        metadata: key -> value of metadata_props.
    """
    size, stride, names = (_literal(metadata.get(key, "")) for key in ("imgsz", "stride", "names"))
    pair = (size, size) if _is_size(size) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if isinstance(stride, (list, tuple)) and stride and all(map(_is_size, stride)):
        stride = max(stride)
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    named = names.items() if isinstance(names, dict) else ()
    known = {int(number): str(name) for number, name in named if isinstance(name, (str, int)) and _is_number(number)}
    return Told(
        pair[:2] if len(pair) >= 2 and all(map(_is_size, pair[:2])) else None,
        stride if _is_size(stride) else 1,
        metadata.get("task", "").strip().lower(),
        known,
    )


def _is_size(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**16


def _is_number(key) -> bool:
    """Whether a key is the number of a class, as an integer or in digits."""
    if isinstance(key, str):
        return len(key) < 10 and key.isdecimal()
    return isinstance(key, int) and 0 <= key < 10**9


def _literal(text: str):
    """The value of a JSON or Python literal; None for anything else."""
    if len(text) > MOST_CHARACTERS:
        return None
    for read in (parse_json, ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None
