"""What the user sees while a conversion runs: on stderr, a line a stage, with elapsed seconds and a rate where the total is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

HEARTBEAT_SECONDS = 30.0  # between signs of life where stderr is no terminal


class _Rate(ProgressColumn):
    """Samples per second of a task whose total is known."""

    def render(self, task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed and task.total else "")


class _Display:
    """The lines at the foot of the terminal: what runs at present, the outermost first, each further in than the one around it.

    There is one for all consoles of a run: rich before 14.1 refuses a second live display.
    """

    def __init__(self):
        self.console = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None  # it hides the cursor, so it is there only while there are lines
        self._lines: list[TaskID] = []

    @property
    def shown(self) -> bool:
        return self._progress is not None

    @contextmanager
    def line(self, label: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """One line more while the block runs.

        Args:
            total: steps, where their number is known.

        Yields:
            What counts a step.
        """
        progress, depth = self._progress or self._start(), len(self._lines)
        task = progress.add_task("  " * depth + label, total=total)
        self._lines.append(task)

        def is_there() -> bool:  # a generator may be used, or closed, when the stage in which it began is over
            return progress is self._progress and task in self._lines

        try:
            yield lambda: progress.advance(task) if is_there() else None
        finally:
            if is_there():
                self._end(depth)

    def _start(self) -> Progress:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._progress.start()
        return self._progress

    def _end(self, depth: int) -> None:
        """Remove the line at this depth and all that are further in; with the last one the display goes."""
        for task in self._lines[depth:]:
            self._progress.remove_task(task)
        del self._lines[depth:]
        if not self._lines:
            self._progress.stop()
            self._progress = None


class Console:
    """Stages, progress, warnings and details of one run."""

    def __init__(self, verbose: bool = False, quiet: bool = False, label: str = "", display: _Display | None = None):
        """
        Args:
            label: stands before every line, where several things are done in turn.
            display: of the run's first console, for another one of the same run.
        """
        self._label = f"{label}: " if label else ""
        self._display = display or _Display()
        self._rich = self._display.console
        self._verbose, self._quiet = verbose, quiet
        self.timings: dict[str, float] = {}  # stage -> seconds, of all times that it ran
        self.warnings: list[str] = []

    def labelled(self, label: str) -> Console:
        """Another console of the same kind, for one of several things that are done in turn."""
        return Console(self._verbose, self._quiet, label, self._display)

    @contextmanager
    def stage(self, name: str, label: str) -> Iterator[None]:
        """Show that a stage runs, and how long it took when it is done. A stage may run inside another."""
        label = self._label + label
        started = time.monotonic()
        try:
            with self._display.line(label) if self._live else self._heartbeat(label, started):
                yield
        finally:
            seconds = time.monotonic() - started
            self.timings[name] = self.timings.get(name, 0.0) + seconds
        self.info(f"[{seconds:6.1f} s] {label}")

    def track(self, items: Iterable, total: int, label: str) -> Iterator:
        """Pass the items through and count them, below the stage that runs."""
        with self._display.line(label, total) if self._display.shown else nullcontext(lambda: None) as advance:
            for item in items:
                yield item
                advance()

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

    @contextmanager
    def _heartbeat(self, label: str, started: float) -> Iterator[None]:
        """A line now and then while the block runs, where there is no display."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                self.info(f"[{time.monotonic() - started:6.0f} s] {label} ...")

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            stop.set()
