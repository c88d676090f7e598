"""The timing cache of a build: read before it, merged with what others have written meanwhile and written after it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from onnx2trt.base.errors import ConversionError
from onnx2trt.base.locks import locked
from onnx2trt.base.side_files import NotTaken, read_bounded
from onnx2trt.conversion.job import Job
from onnx2trt.conversion.run import Run
from onnx2trt.plan.plan import Plan
from onnx2trt.report.result import TimingCache
from onnx2trt.trt.builder import BuiltEngine, EngineBuilder

LARGEST = 2**29  # bytes; the timings of all layers of a large network are some MB


def read(plan: Plan, run: Run) -> tuple[bytes | None, TimingCache | None]:
    """(contents, empty where there are none yet and None where none are to be used; what the result says of it)"""
    path = plan.build.timing_cache
    if path is None:
        return None, None
    try:
        with locked(path):
            contents = _contents(path)
    except OSError as error:
        run.console.warn(f"timing cache {path} cannot be read ({error.strerror}); a new one is started")
        contents = b""
    return contents, TimingCache(path, "read" if contents else "new")


def write(job: Job, built: BuiltEngine, before: bytes | None, about: TimingCache | None, run: Run) -> TimingCache | None:
    """Write the timings of this build, together with those that others have written since we read.

    The lock is held from reading until the parent has renamed the new file, so that no writer's timings are lost.

    Args:
        before, about: what `read` returned.

    Returns:
        What the result says of it now.

    Raises:
        ConversionError: OUTPUT, where a cache that the user has named cannot be written; the default one only warns.
    """
    plan, path = job.plan, job.plan.build.timing_cache
    if path is None or built.timing_cache is None:
        return about
    if built.timing_cache_refused:
        run.console.warn(f"timing cache {path} is damaged, or of another TensorRT or GPU; a new one is started")
        about = replace(about, state="replaced")
    try:
        if not plan.build.timing_cache_named:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with locked(path) as held:
            if not held:
                run.console.debug(f"timing cache {path} cannot be locked; it is written all the same")
            return replace(about, written=_merge_and_write(job, built, before, run))
    except (ConversionError, OSError) as error:
        if plan.build.timing_cache_named:
            raise
        reason = error.message if isinstance(error, ConversionError) else f"cannot write {path}: {error.strerror}"
        run.console.warn(f"the timing cache is not kept: {reason}; --timing-cache none goes without")
        return about


def _merge_and_write(job: Job, built: BuiltEngine, before: bytes | None, run: Run) -> bool:
    """Whether the file holds our timings now."""
    path, ours = job.plan.build.timing_cache, built.timing_cache
    try:
        present = _contents(path)
    except OSError:
        present = b""
    if present and present != before:  # another process was faster
        ours = EngineBuilder(job.library, job.plan, run.console.library).merge_timing_caches(ours, present)
    if ours == present:
        return True
    return run.replace_now(path, ours, required=job.plan.build.timing_cache_named)


def _contents(path: str) -> bytes:
    try:
        return read_bounded(path, LARGEST)
    except FileNotFoundError:
        return b""
    except NotTaken as error:
        raise OSError(errno.EFBIG, str(error), path) from None
