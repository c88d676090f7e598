"""Calls of libraries that may take any time and say nothing meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class UnderWay:
    """Those that have begun and not ended, in all threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._began: dict[object, tuple[float, str]] = {}
        self.slowest = 0.0  # seconds of one that has ended, of those that are made often

    @contextmanager
    def call(self, what: str, often: bool = False) -> Iterator[None]:
        """
        Args:
            what: it does, for the user.
            often: calls like it will follow.
        """
        key = object()
        self._began[key] = self._clock(), what
        try:
            yield
        finally:
            began, _ = self._began.pop(key)
            if often:
                self.slowest = max(self.slowest, self._clock() - began)

    def longest(self) -> tuple[float, str]:
        """(seconds, what it does) of the one that began first; (0, "") where there is none."""
        now = self._clock()
        began, what = min(tuple(self._began.values()), default=(now, ""))
        return now - began, what


UNDER_WAY = UnderWay()  # the process's, whoever looks
