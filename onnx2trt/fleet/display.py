"""What a person sees of a fleet: its progress on stderr, one table at the end."""

from __future__ import annotations

import io
import os
from collections import Counter

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from onnx2trt.base.words import printable
from onnx2trt.fleet.outcome import Outcome, Record
from onnx2trt.report.result import mega

STYLES = {"built": "green", "unchanged": "cyan", "failed": "red", "lost": "red", "not_done": "yellow", "planned": ""}
FAILURES_SHOWN = 20


class Progress:
    """On a terminal a table that changes, a row for each target; else a line for each conversion."""

    def __init__(self, record: Record, quiet: bool = False):
        self._record, self._quiet = record, quiet
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._live = Live(self._table(), console=self._console, transient=True) if self._console.is_terminal and not quiet else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(printable(text), soft_wrap=True)

    def tell(self, place: int, outcome: Outcome) -> None:
        """A conversion has ended, or is tried again."""
        task, done, total = self._record.tasks[place], len(self._record.outcomes), len(self._record.tasks)
        again = place not in self._record.outcomes
        if self._live:
            self._live.update(self._table())
        if not self._live or again:
            self.say(f"[{done}/{total}] {task.label}: {cell(outcome)}{f', tried again: {outcome.message}' if again else ''}")

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("target", "done", "of", "built", "unchanged", "failed"):
            table.add_column(column, justify="left" if column == "target" else "right")
        of = Counter(task.target.name for task in self._record.tasks)
        states = Counter((self._record.tasks[place].target.name, outcome.state) for place, outcome in self._record.outcomes.items())
        for target, count in of.items():
            built, unchanged, *failed = (states[target, state] for state in ("built", "unchanged", "failed", "lost"))
            table.add_row(target, *map(str, (built + unchanged + sum(failed), count, built, unchanged, sum(failed))))
        return table


def cell(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.state == "built":
        size = f", {mega(outcome.engine_bytes)}" if outcome.engine_bytes is not None else ""
        return f"built{size}" + (f", {outcome.seconds:.1f} s" if outcome.seconds is not None else "")
    if outcome.state in ("failed", "lost"):
        return f"{outcome.state} ({outcome.exit_code})"
    return outcome.state.replace("_", " ")


def render(record: Record, width: int, color: bool) -> str:
    """The table at the end: a row for each model, a column for each target; below it what failed.

    Args:
        width: columns of the terminal.
        color: with ANSI colours.
    """
    targets = list(dict.fromkeys(task.target.name for task in record.tasks))
    table = Table(box=box.SIMPLE_HEAD if color else box.ASCII2, pad_edge=False)
    table.add_column("model", overflow="fold")
    for target in targets:
        table.add_column(target, overflow="fold")
    places = {(task.model, task.target.name): place for place, task in enumerate(record.tasks)}
    for model in dict.fromkeys(task.model for task in record.tasks):
        cells = [places.get((model, target)) for target in targets]
        outcomes = [None if place is None else record.outcome(place) for place in cells]
        table.add_row(_safe(model), *(Text(cell(one), style=STYLES[one.state]) if one else Text("-") for one in outcomes))
    stream = io.StringIO()
    plain = not color or bool(os.environ.get("NO_COLOR"))
    console = Console(file=stream, width=max(width, 60), force_terminal=color, no_color=plain, highlight=False, markup=False)
    console.print(table)
    for line in (*_failures(record), _sum(record)):
        console.print(_safe(line), soft_wrap=True)
    return stream.getvalue()


def _failures(record: Record) -> list[str]:
    failed = [(task, record.outcome(place)) for place, task in enumerate(record.tasks) if record.outcome(place).state in ("failed", "lost")]
    lines = []
    for task, outcome in failed[:FAILURES_SHOWN]:
        lines.append(f"{task.label} (exit code {outcome.exit_code}): {outcome.message}")
        if outcome.hint:
            lines.append(f"  hint: {outcome.hint}")
    if len(failed) > FAILURES_SHOWN:
        lines.append(f"and {len(failed) - FAILURES_SHOWN} more failures, which are in the JSON (--json)")
    return lines


def _sum(record: Record) -> str:
    told = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in record.counts().items() if count)
    return f"{len(record.tasks)} conversions: {told}; {record.seconds:.1f} s"


def _safe(text: str) -> Text:
    """Names of files may hold what no terminal can show."""
    return Text(printable(text, ""))
