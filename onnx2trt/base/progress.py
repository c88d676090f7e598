"""What a long piece of work needs to speak to the user; report/console.py is the one that the command has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol


class Progress(Protocol):
    """Counts what passes through, and says what has to be said."""

    def track(self, items: Iterable, total: int, label: str) -> Iterator: ...

    def info(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def debug(self, text: str) -> None: ...
