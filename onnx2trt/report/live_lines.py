"""The lines at the foot of a terminal while something runs: what it is, a bar, counts, a rate, and the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from onnx2trt.base.words import printable

BAR = 12  # characters
TELLING = 2  # seconds from which on a rate means something


class _Counts(ProgressColumn):
    """Steps done of all, and how many a second; nothing where their number is not known."""

    def render(self, task) -> Text:
        if not task.total:
            return Text("")
        speed = task.finished_speed or task.speed
        told = speed and task.elapsed and task.elapsed >= TELLING
        return Text(f"{int(task.completed)}/{int(task.total)}" + (f" {speed:.3g}/s" if told else ""))


class _Left(ProgressColumn):
    """Time left, where it can be known."""

    def render(self, task) -> Text:
        left = task.time_remaining if task.total else None
        return Text("" if left is None or task.finished else f"{in_minutes(left)} left")


class _Elapsed(ProgressColumn):
    def render(self, task) -> Text:
        return Text(in_minutes(task.elapsed or 0))


class LiveLines:
    """What runs at present, the outermost first, each further in than the one around it.

    There is one for all consoles of a run: rich before 14.1 refuses a second live display.
    """

    def __init__(self):
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None  # it hides the cursor, so it is there only while there are lines
        self._lines: list[TaskID] = []
        self._counted: TaskID | None = None  # the last count, complete; it stays until something else is shown, or all goes

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
        self._forget_count()
        task = progress.add_task("  " * depth + printable(label, " "), total=total)
        self._lines.append(task)

        def is_there() -> bool:  # a generator may be used, or closed, when the stage in which it began is over
            return progress is self._progress and task in self._lines

        try:
            yield lambda: progress.advance(task) if is_there() else None
        finally:
            if is_there() and total and depth and task is self._lines[-1]:
                self._counted = self._lines.pop()
            elif is_there():
                self._end(depth)

    def _start(self) -> Progress:
        words = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # what is too long gives way, not the bar
        columns = (BarColumn(bar_width=BAR), _Counts(), _Left(), _Elapsed())
        text = TextColumn("{task.description}", table_column=words, markup=False)
        self._progress = Progress(SpinnerColumn(), text, *columns, console=self.console, transient=True, expand=True)
        self._progress.start()
        return self._progress

    def _end(self, depth: int) -> None:
        """Remove the line at this depth and all that are further in; with the last one the display goes."""
        self._forget_count()
        for task in self._lines[depth:]:
            self._progress.remove_task(task)
        del self._lines[depth:]
        if not self._lines:
            self._progress.stop()
            self._progress = None

    def _forget_count(self) -> None:
        if self._counted is not None:
            self._progress.remove_task(self._counted)
            self._counted = None


def in_minutes(seconds: float) -> str:
    """As 0:42, or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
