"""Names in sentences."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many there are besides: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def to_type(name: str, value: str, between: str = ":") -> str:
    """NAME:VALUE for a command that the user may paste into a shell: whatever stands in a name of the model is a word there."""
    return shlex.quote(f"{name}{between}{value}")


def base_name(path: str) -> str:
    """The last part of a path, for lines that must not be long."""
    return os.path.basename(os.path.normpath(path)) or path
