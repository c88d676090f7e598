"""What every stage of the child is given: the way to speak, and the result as far as it is known."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.channel import Channel
from core.errors import ConversionError, unforeseen
from core.evidence import Evidence
from core.files import Temporary
from report.console import Console
from report.result import fail, new_result


class Run:
    """One conversion in progress."""

    def __init__(self, channel: Channel, verbose: bool, quiet: bool, report: str | None = None):
        self.channel = channel
        self.console = Console(verbose, quiet)
        self.result = new_result()
        self.evidence = Evidence(wanted=report is not None)
        self._report = report
        self._started = time.monotonic()
        self.files: list[tuple[str, str]] = []  # (temporary, final) in the order in which the parent renames them
        self.engine_details: dict = {}  # what the loaded engine says of itself
        self.rejected: list[tuple[str, str]] = []  # the same, where the run fails

    @contextmanager
    def stage(self, name: str, label: str) -> Iterator[None]:
        """A stage that the user sees, and that the parent names if we die in it."""
        self.channel.stage(name)
        gc.collect()  # trt.library.load_library has switched the automatic collection off, and says why
        try:
            with self.console.stage(name, label):
                yield
        finally:
            self.result["timings_s"] = {**self.console.timings, "total": time.monotonic() - self._started}
            self.result["timings_s"] = {key: round(value, 3) for key, value in self.result["timings_s"].items()}
            self.result["warnings"] = list(self.console.warnings)

    def temporary(self, final: str) -> Temporary:
        """A new file beside `final` that the parent removes unless it is renamed."""
        return Temporary(final, self.channel.temporary)

    def write_at_end(self, final: str, *parts) -> None:
        """Write a file completely now; the parent gives it its name when everything has succeeded."""
        temporary = self.temporary(final)
        temporary.write(*parts)
        self.files.append((temporary.path, temporary.final))

    def keep_rejected(self, final: str, data) -> None:
        """Write a file that gets its name although the run fails; a later one takes its place."""
        temporary = self.temporary(final)
        temporary.write(data)
        self.rejected = [(temporary.path, temporary.final)]

    def abort(self, error: BaseException) -> None:
        """End the process now with this error; for callbacks of TensorRT, which swallows exceptions and builds on for minutes."""
        known = error if isinstance(error, ConversionError) else unforeseen(error)
        self.result["timings_s"] = {key: round(value, 3) for key, value in self.console.timings.items()}
        self.result, self.files = fail(self.result, known), []
        self.write_report()
        self.channel.done(self.result, self.files, "")
        os._exit(int(known.code))

    def write_report(self) -> None:
        """The page of --report, of failed runs, too. Where it cannot be made, the run has failed, but the rest is delivered."""
        if self._report is None:
            return
        self.channel.stage("report")
        self.result["warnings"] = list(self.console.warnings)
        try:
            from report import html

            self.write_at_end(self._report, html.render(self.result, self.evidence, sys.argv[1:]))
        except Exception as error:
            known = error if isinstance(error, ConversionError) else unforeseen(error)
            if self.result["error"] is None:
                self.result = fail(self.result, known)
            elif self.result["error"]["message"] != known.message:  # the reason of the failure is not the same one
                self.console.warn(f"there is no report: {known.message}")

    def write_now(self, final: str, data) -> None:
        """Write a file that is worth having whatever comes of the rest."""
        temporary = self.temporary(final)
        temporary.write(data)
        self.channel.publish(temporary.path, temporary.final)
