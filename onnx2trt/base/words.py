"""Names in sentences."""

from __future__ import annotations

import os
from collections.abc import Sequence


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many there are besides: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def base_name(path: str) -> str:
    """The last part of a path, for lines that must not be long."""
    return os.path.basename(os.path.normpath(path)) or path
