"""What an exporter has written beside the graph about the model: image size, stride, task, names of classes. Standard library only.

Ultralytics writes such metadata_props; the values are Python or JSON literals.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    known = {int(number): str(name) for number, name in names.items() if str(number).isdecimal()} if isinstance(names, dict) else {}
    return Told(
        pair[:2] if len(pair) >= 2 and all(map(_is_size, pair[:2])) else None,
        stride if _is_size(stride) else 1,
        metadata.get("task", "").strip().lower(),
        known,
    )


def _is_size(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**16


def _literal(text: str):
    """The value of a Python or JSON literal; None for anything else."""
    if len(text) > MOST_CHARACTERS:
        return None
    for read in (ast.literal_eval, json.loads):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None
