"""What every stage of the child is given: the way to speak, and the result as far as it is known."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from onnx2trt.base import files
from onnx2trt.base.errors import ConversionError, unforeseen
from onnx2trt.base.files import Temporary
from onnx2trt.compare.evidence import Evidence
from onnx2trt.process.channel import Channel
from onnx2trt.report.console import Console
from onnx2trt.report.result import fail, new_result

RENAME_SECONDS = 5.0  # the parent renames at once, or it is gone and so are we


@dataclass
class Variant:
    """What came of one of several engines."""

    name: str
    result: dict = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    engine_details: dict = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)


class Run:
    """One conversion in progress."""

    def __init__(self, channel: Channel, verbose: bool, quiet: bool, report: str | None = None, json: str | None = None):
        self.channel = channel
        self.console = Console(verbose, quiet)
        self.result = new_result()
        self.evidence = Evidence(wanted=report is not None)
        self._report, self._json = report, json
        self._started = time.monotonic()
        self.files: list[tuple[str, str]] = []  # (temporary, final) in the order in which the parent renames them
        self.engine_details: dict = {}  # what the loaded engine says of itself
        self.written: dict[str, str] = {}  # final name -> SHA-256, of the files that had their name before the end
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

    @contextmanager
    def variant(self, name: str) -> Iterator[Variant]:
        """A result of its own for one of several engines; `adopt` makes it that of the run."""
        kept = (self.result, self.rejected, self.engine_details, self.console)
        common = {key: self.result[key] for key in ("model", "environment", "plan", "preprocessing")}
        self.result, self.rejected, self.engine_details = {**new_result(), **common}, [], {}
        self.console, of_all = self.console.labelled(name), self.evidence
        variant = Variant(name, evidence=Evidence(of_all.wanted))
        self.evidence = variant.evidence
        try:
            yield variant
        finally:
            variant.result, variant.rejected, variant.engine_details = self.result, self.rejected, self.engine_details
            variant.result["warnings"] = list(self.console.warnings)
            variant.timings = self.console.timings
            self.result, self.rejected, self.engine_details, self.console = kept
            self.evidence = of_all

    def adopt(self, variant: Variant) -> None:
        """The run's result is this one from now on."""
        for text in variant.result["warnings"]:
            if text not in self.console.warnings:
                self.console.warnings.append(text)
        before = self.console.timings
        self.console.timings = {**before, **{name: before.get(name, 0.0) + seconds for name, seconds in variant.timings.items()}}
        self.result = {**variant.result, "warnings": list(self.console.warnings)}
        self.rejected, self.engine_details, self.evidence = variant.rejected, variant.engine_details, variant.evidence

    def temporary(self, final: str) -> Temporary:
        """A new file beside `final` that the parent removes unless it is renamed."""
        return Temporary(final, self.channel.temporary)

    def write_at_end(self, final: str, *parts) -> str:
        """Write a file completely now; the parent gives it its name when everything has succeeded.

        Returns:
            Its SHA-256.
        """
        temporary = self.temporary(final)
        with ThreadPoolExecutor(1) as beside:  # hashing 1 GB takes about as long as writing it
            sha256 = beside.submit(files.sha256, *parts)
            temporary.write(*parts)
        self.files.append((temporary.path, temporary.final))
        return sha256.result()

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
        self.channel.leave(int(known.code))

    def write_report(self) -> None:
        """The page of --report, of failed runs, too.

        Where it cannot be written, the run has failed, and no other file is replaced; for a defect in drawing it, the rest is delivered.
        """
        if self._report is None:
            return
        self.channel.stage("report")
        self.result["warnings"] = list(self.console.warnings)
        try:
            from onnx2trt.report import html

            self.write_at_end(self._report, html.render(self.result, self.evidence, sys.argv[1:], self._all_written()))
        except Exception as error:
            known = error if isinstance(error, ConversionError) else unforeseen(error)
            if self.result["error"] is None:
                self.result = fail(self.result, known)
                if known is error:
                    self.files = []
            elif self.result["error"]["message"] != known.message:  # the reason of the failure is not the same one
                self.console.warn(f"there is no report: {known.message}")

    def _all_written(self) -> list[str]:
        """Names of all files that this run writes, its report and the parent's --json included; relative ones in this folder."""
        names = [final for _, final in self.files] + list(self.written)
        names += [os.path.realpath(path) for path in (self._json, self._report) if path not in (None, "-")]
        return [name.removeprefix(os.path.join(os.getcwd(), "")) for name in dict.fromkeys(names)]

    def write_now(self, contents: dict) -> None:
        """Write files that are worth having whatever comes of the rest, and that belong together.

        Args:
            contents: final name -> data, in the order in which they get their names.
        """
        finished = []
        for final, data in contents.items():
            temporary = self.temporary(final)
            temporary.write(data)
            finished.append((temporary.path, temporary.final))
            self.written[temporary.final] = files.sha256(data)
        self.channel.publish(*finished)

    def replace_now(self, final: str, data, required: bool) -> bool:
        """The same, and wait until the parent has renamed the file.

        Args:
            required: a file that cannot be renamed ends the run; else it is removed.

        Returns:
            Whether the file has its name.
        """
        temporary = self.temporary(final)
        temporary.write(data)
        self.channel.publish((temporary.path, temporary.final), required=required)
        deadline = time.monotonic() + RENAME_SECONDS
        while os.path.exists(temporary.path) and time.monotonic() < deadline:
            time.sleep(0.002)
        done = temporary.is_final()
        temporary.close()
        if done:
            self.written[temporary.final] = files.sha256(data)
        return done
