"""What every stage of the child is given beside its values: the way to speak, and the way to write files."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from onnx2trt.base import files
from onnx2trt.base.computed_on import COMPUTED_ON
from onnx2trt.base.files import Temporary
from onnx2trt.base.memory import HELD, HeldMemory, return_freed
from onnx2trt.base.under_way import UNDER_WAY, UnderWay
from onnx2trt.compare.evidence import Evidence
from onnx2trt.process.channel import Channel
from onnx2trt.report.console import Console

USUAL_BYTES, USUAL_MODELS = 1_300_000_000, 2  # that a conversion holds at most: so many bytes, and the model so often
LONG_SECONDS = 20.0  # of one inference on the CPU; large networks at usual shapes take some seconds
SLOW_SECONDS = 8.0  # of one that has ended, of which tens will follow
WATCH_SECONDS = 0.1
TAKES_LONG = "it takes long"  # what told_after says, in whatever words
RENAME_SECONDS = 5.0  # the parent renames at once, or it is gone and so are we


class Run:
    """One conversion in progress."""

    def __init__(self, channel: Channel, console: Console, keep_evidence: bool = False):
        """
        Args:
            keep_evidence: for the report.
        """
        self.channel, self.console = channel, console
        self.evidence = Evidence(wanted=keep_evidence)
        self.files: list[tuple[str, str]] = []  # (temporary, final) in the order in which the parent renames them
        self.optional: list[tuple[str, str]] = []  # the same, of files whose loss is only a warning
        self.written: dict[str, str] = {}  # final name -> SHA-256, of the files that had their name before the end
        self.rejected: list[tuple[str, str]] = []  # as `files`, where the run fails
        self.abort: Callable[[BaseException], None] = _cannot_abort  # ends the process with this error; see worker.py
        self._started = time.monotonic()

    @contextmanager
    def stage(self, name: str, label: str) -> Iterator[None]:
        """A stage that the user sees, and that the parent names if we die in it."""
        self.channel.stage(name)
        gc.collect()  # trt.library.load_library has switched the automatic collection off, and says why
        return_freed()
        with self.console.stage(name, label):
            yield
            while COMPUTED_ON.remarks:
                self.console.warn(COMPUTED_ON.remarks.pop(0))

    @contextmanager
    def told_after(self, seconds: float, text: str) -> Iterator[None]:
        """Say this, once in the run, when what is within has taken so long; nothing where it ends before."""
        timer = threading.Timer(seconds, self.console.once, (text, TAKES_LONG))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def watch(self, model_bytes: int) -> None:
        """From now on, say once when this process holds more memory than a conversion takes, and once when ONNX Runtime works on one thing
        for long: not every size of a tensor can be known before it is there, nor how often a loop runs.

        Args:
            model_bytes: of the model, its external data included.
        """

        checks = [partial(_too_much, HELD, model_bytes), partial(_too_long, UNDER_WAY)]

        def watch() -> None:
            while checks:
                for check in tuple(checks):
                    if text := check():
                        self.console.warn(text)
                        checks.remove(check)
                time.sleep(WATCH_SECONDS)

        threading.Thread(target=watch, name="watch", daemon=True).start()

    def labelled(self, name: str) -> Run:
        """A run of its own for one of several engines, named in its messages; the files and the way to the parent are shared."""
        other = Run(self.channel, self.console.labelled(name), self.evidence.wanted)
        other.files, other.written, other.abort = self.files, self.written, self.abort
        other._started = self._started
        return other

    def adopt(self, other: Run) -> None:
        """What one of several engines left: its warnings, times, evidence and rejected engine are the run's."""
        for text in other.console.warnings:
            if text not in self.console.warnings:
                self.console.warnings.append(text)
        for name, seconds in other.console.timings.items():
            self.console.timings[name] = self.console.timings.get(name, 0.0) + seconds
        self.evidence, self.rejected = other.evidence, other.rejected

    def said(self) -> dict:
        """The fields of the result that tell of the run itself, as far as it has come."""
        timings = {**self.console.timings, "total": time.monotonic() - self._started}
        return {
            "timings_s": {name: round(seconds, 3) for name, seconds in timings.items()},
            "inferences_on": COMPUTED_ON.said(),
            "warnings": list(self.console.warnings),
        }

    def temporary(self, final: str) -> Temporary:
        """A new file beside `final` that the parent removes unless it is renamed."""
        return Temporary(final, self.channel.temporary)

    def write_at_end(self, final: str, *parts, required: bool = True) -> str:
        """Write a file completely now; the parent gives it its name when everything has succeeded.

        Args:
            required: that it cannot be renamed then is a failure; else a warning.

        Returns:
            Its SHA-256.
        """
        temporary = self.temporary(final)
        with ThreadPoolExecutor(1) as beside:  # hashing 1 GB takes about as long as writing it
            sha256 = beside.submit(files.sha256, *parts)
            temporary.write(*parts)
        (self.files if required else self.optional).append((temporary.path, temporary.final))
        return sha256.result()

    def keep_rejected(self, final: str, data) -> None:
        """Write a file that gets its name although the run fails; a later one takes its place."""
        temporary = self.temporary(final)
        temporary.write(data)
        self.rejected = [(temporary.path, temporary.final)]

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


def _too_much(memory: HeldMemory, model_bytes: int) -> str:
    """That this process holds more memory than a conversion of a model of this size; empty where it does not, or nobody tells."""
    held = memory.without_libraries()
    if held is None or held <= USUAL_BYTES + USUAL_MODELS * model_bytes:
        return ""
    return (
        f"this run holds {held / 1e9:.1f} GB of memory already, for a model of {model_bytes / 1e6:.1f} MB: its tensors are large "
        "at these shapes; smaller shapes, or a smaller batch, take less"
    )


def _too_long(calls: UnderWay) -> str:
    """That ONNX Runtime works on one thing for long, or on what comes again and again; empty where it does not."""
    seconds, what = calls.longest()
    if seconds > LONG_SECONDS:
        return (
            f"ONNX Runtime has computed {what} for {seconds:.0f} s and is not done: a run needs several inferences, so it takes long, "
            "or for ever where a loop of the model never ends; smaller shapes, or a smaller batch, take less"
        )
    if calls.slowest > SLOW_SECONDS:
        return (
            f"one inference took ONNX Runtime {calls.slowest:.0f} s: FP16 needs several, INT8 tens of them, so this takes minutes; "
            "smaller shapes, a smaller batch, or fewer samples take less"
        )
    return ""


def _cannot_abort(error: BaseException) -> None:
    """Outside of a supervised child there is nobody to tell."""
    raise error
