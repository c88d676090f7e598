"""What the user sees while a conversion runs: on stderr, a line a stage, with its seconds; signs of life where it takes longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from onnx2trt.base.words import in_lines, printable
from onnx2trt.report.live_lines import LiveLines, in_minutes

BEGINS_SECONDS = 1.0  # from which on a stage says that it runs, where stderr is no terminal
HEARTBEAT_SECONDS = 4.5  # between signs of life there: who sees none for longer asks whether it hangs


@dataclass(eq=False)
class _Count:
    """How far something has come that is counted."""

    label: str
    total: int
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    stepped: float = 0.0  # when the last step was done

    def step(self) -> None:
        self.done, self.stepped = self.done + 1, time.monotonic()

    def __str__(self) -> str:
        text = f"{self.label}: {self.done} of {self.total}"
        if not 0 < self.done < self.total:
            return text
        left = (self.stepped - self.started) * (self.total - self.done) / self.done - (time.monotonic() - self.stepped)
        return f"{text}, about {in_minutes(left)} left" if left > 0 else text  # else this step is none like those before


class Console:
    """Stages, progress, warnings and details of one run."""

    def __init__(self, verbose: int = 0, quiet: bool = False, label: str = "", display: LiveLines | None = None):
        """
        Args:
            verbose: 1 shows details, 2 the libraries' messages as well.
            label: stands before every line, where several things are done in turn.
            display: of the run's first console, for another one of the same run.
        """
        self._label = f"{label}: " if label else ""
        self._display = display or LiveLines()
        self._rich = self._display.console
        self._verbose, self._quiet = verbose, quiet
        self._expected: tuple[str, ...] = ()
        self._reached = 0  # of the expected stages
        self._counts: list[_Count] = []  # what is counted at present, the outermost first
        self.timings: dict[str, float] = {}  # stage -> seconds, of all times that it ran
        self.warnings: list[str] = []
        self._told: set[str] = set()  # by `once`

    def labelled(self, label: str) -> Console:
        """Another console of the same kind, for one of several things that are done in turn."""
        other = Console(self._verbose, self._quiet, label, self._display)
        other._told = self._told
        return other

    def expect(self, stages: tuple[str, ...]) -> None:
        """From now on, stages are numbered: those that may come, in order. Some may be left out."""
        self._expected = stages

    @contextmanager
    def stage(self, name: str, label: str) -> Iterator[None]:
        """Show that a stage runs, and how long it took when it is done. A stage may run inside another."""
        label = self._number(name) + self._label + label
        started = time.monotonic()
        try:
            with self.running(label, started):
                yield
        finally:
            seconds = time.monotonic() - started
            self.timings[name] = self.timings.get(name, 0.0) + seconds
        self.info(f"{label}: {seconds:.1f} s")

    def running(self, label: str, started: float | None = None) -> AbstractContextManager:
        """Show that something runs, as long as it does; nothing is left of it where it is short, or on a terminal.

        Args:
            started: by time.monotonic; None: now.
        """
        if self._live:
            return self._display.line(label)
        return nullcontext() if self._quiet else self._signs_of_life(label, started or time.monotonic())  # no thread that would say nothing

    def _number(self, name: str) -> str:
        """Of a stage that runs again, or that nobody expected: that of the stage before it."""
        if not self._expected:
            return ""
        if name in self._expected:
            self._reached = max(self._reached, self._expected.index(name) + 1)
        return f"[{self._reached}/{len(self._expected)}] "

    def track(self, items: Iterable, total: int, label: str) -> Iterator:
        """Pass the items through and count them, below the stage that runs."""
        count = _Count(label, total)
        self._counts.append(count)
        try:
            with self._display.line(label, total) if self._display.shown else nullcontext(lambda: None) as advance:
                for item in items:
                    yield item
                    count.step()
                    advance()
        finally:
            self._counts.remove(count)

    @contextmanager
    def counted(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Below the stage that runs, a count that is told from elsewhere: what is yielded takes steps done, and of how many."""
        with ExitStack() as stack:
            began: list[tuple[_Count, Callable[[], None]]] = []

            def step(done: int, total: int) -> None:
                if not began:
                    line = self._display.line(label, total) if self._display.shown else nullcontext(lambda: None)
                    began.append((_Count(label, total), stack.enter_context(line)))
                    self._counts.append(began[0][0])
                    stack.callback(self._counts.remove, began[0][0])
                count, advance = began[0]
                while count.done < min(done, count.total):
                    count.step()
                    advance()

            yield step

    def info(self, text: str) -> None:
        if not self._quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """A warning; kept for the result, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            if not self._quiet:
                self._print(f"warning: {self._label}{text}", style="yellow")

    def once(self, text: str, meaning: str = "") -> None:
        """As info, but said once in the run, however many engines it is true of.

        Args:
            meaning: by which it is known again, where a number in the text differs.
        """
        if (meaning or text) not in self._told:
            self._told.add(meaning or text)
            self.info(text)

    def debug(self, text: str) -> None:
        """Only with --verbose."""
        if self._verbose:
            self._print(text, style="dim")

    def library(self, text: str, warning: bool) -> None:
        """What a library says by itself: its warnings with -v, all of it with -vv. Called from its callbacks, so it must not raise."""
        if self._verbose >= (1 if warning else 2):
            self._print(text, style="dim")

    @property
    def _live(self) -> bool:
        return self._rich.is_terminal and not self._quiet and not self._verbose

    def _print(self, text: str, style: str | None = None) -> None:
        text = printable(text)
        if self._rich.file.isatty():  # which would break a line within a word
            text = in_lines(text, self._rich.width)
        self._rich.print(text, style=style, markup=False)

    @contextmanager
    def _signs_of_life(self, label: str, started: float) -> Iterator[None]:
        """Where there is no display: a line when the block has run for a while, and others now and then."""
        stop = threading.Event()

        def beat() -> None:
            if stop.wait(BEGINS_SECONDS):
                return
            self.info(f"{label} ...")
            while not stop.wait(HEARTBEAT_SECONDS):
                counts = "".join(f" {count}" for count in self._counts[-1:])
                self.info(f"{label} ... (for {in_minutes(time.monotonic() - started)}){counts}")

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            stop.set()
