"""Stage 'load': the engine on the GPU of this machine, for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnx2trt.base.errors import in_words
from onnx2trt.conversion.run import Run
from onnx2trt.plan.plan import Plan
from onnx2trt.trt.engine import Engine
from onnx2trt.trt.library import Library
from onnx2trt.trt.memory import Cuda, open_cuda


@contextmanager
def loaded_engine(library: Library, plan: Plan, data, run: Run, host_code: bool = False) -> Iterator[Engine | None]:
    """The engine on the GPU of this machine for the length of a block; None where it cannot be executed here.

    Raises:
        ConversionError: MACHINE, where it should load, but does not.
    """
    if not plan.executes_here:
        yield None
        return
    cuda = open_cuda()
    try:
        with run.stage("load", "loading the engine"):
            engine = Engine(library, data, cuda, run.console.library, host_code)
        try:
            yield engine
        finally:
            _close(engine, run)
    finally:
        _close(cuda, run)


def _close(what: Engine | Cuda, run: Run) -> None:
    """What cannot be given back (after an error of CUDA, everything fails) is no reason to lose an engine that was found good."""
    try:
        what.close()
    except Exception as error:
        run.console.debug(f"closing the {type(what).__name__}: {in_words(error)}")
