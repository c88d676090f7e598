"""Where the tool runs: on Linux, and on other POSIX systems as far as a job needs no TensorRT, which none of them has."""

from __future__ import annotations

from importlib.util import find_spec

from onnx2trt.base.errors import ConversionError, ExitCode


def check_system() -> None:
    """To be called before anything is imported that needs POSIX.

    Raises:
        ConversionError: MACHINE.
    """
    if find_spec("fcntl") is None:
        raise ConversionError(
            "onnx2trt does not run on Windows: it needs the locks, signals and pipes of POSIX",
            hint="Use WSL2, which reaches the GPU, too: install onnx2trt in there, and run it there.",
            code=ExitCode.MACHINE,
        )
