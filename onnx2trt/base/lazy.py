"""Names of a module that are loaded when they are asked for: what --help does not need costs it nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(module: str, places: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a module (PEP 562) whose names live elsewhere.

    Args:
        module: its own name, for the message.
        places: name -> the module that has it.
    """

    def get(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(places[name]), name)

    return get
