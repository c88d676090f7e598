"""What the user sees while a conversion runs: on stderr, a line a stage, with elapsed seconds and a rate where the total is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

HEARTBEAT_SECONDS = 30.0  # between signs of life where stderr is no terminal


class _Rate(ProgressColumn):
    """Samples per second of a task whose total is known."""

    def render(self, task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed and task.total else "")


class Console:
    """Stages, progress, warnings and details of one run."""

    def __init__(self, verbose: bool = False, quiet: bool = False, label: str = ""):
        """
        Args:
            label: stands before every line, where several things are done in turn.
        """
        self._label = f"{label}: " if label else ""
        self._rich = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._verbose, self._quiet = verbose, quiet
        self._progress: Progress | None = None
        self.timings: dict[str, float] = {}  # stage -> seconds, of all times that it ran
        self.warnings: list[str] = []

    def labelled(self, label: str) -> Console:
        """Another console of the same kind, for one of several things that are done in turn."""
        return Console(self._verbose, self._quiet, label)

    @contextmanager
    def stage(self, name: str, label: str) -> Iterator[None]:
        """Show that a stage runs, and how long it took when it is done."""
        label = self._label + label
        started = time.monotonic()
        stop = threading.Event()
        if self._live:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _Rate(),
                TimeElapsedColumn(),
                console=self._rich,
                transient=True,
            )
            self._progress.add_task(label, total=None)
            self._progress.start()
        else:
            threading.Thread(target=self._heartbeat, args=(label, started, stop), daemon=True).start()
        try:
            yield
        finally:
            stop.set()
            if self._progress:
                self._progress.stop()
                self._progress = None
            seconds = time.monotonic() - started
            self.timings[name] = self.timings.get(name, 0.0) + seconds
        self.info(f"[{seconds:6.1f} s] {label}")

    def track(self, items: Iterable, total: int, label: str) -> Iterator:
        """Pass the items through and count them."""
        task = None
        if self._progress:
            task = self._progress.add_task("  " + label, total=total)
        try:
            for item in items:
                yield item
                if task is not None and self._progress:
                    self._progress.advance(task)
        finally:
            if task is not None and self._progress:
                self._progress.remove_task(task)

    def info(self, text: str) -> None:
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """A warning; kept for the result, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            if not self._quiet:
                self._print(f"warning: {self._label}{text}", style="yellow")

    def debug(self, text: str) -> None:
        """Only with --verbose. Called from library callbacks, so it must not raise."""
        if self._verbose:
            self._print(text, style="dim")

    @property
    def _live(self) -> bool:
        return self._rich.is_terminal and not self._quiet and not self._verbose

    def _print(self, text: str, style: str | None = None) -> None:
        safe = text.encode("utf-8", "backslashreplace").decode()  # file names may hold bytes that are no text
        self._rich.print(safe, style=style, markup=False)

    def _heartbeat(self, label: str, started: float, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            self.info(f"[{time.monotonic() - started:6.0f} s] {label} ...")
