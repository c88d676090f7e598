"""Where the tool runs: on Linux, and on other POSIX systems as far as a job needs no TensorRT, which none of them has."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec

from onnx2trt.base.errors import ConversionError, ExitCode

# bytes; Linux leaves at least 128 MiB below the stack of a program free when it starts it, so that it can grow to that
DEEP_STACK = 120 * 2**20


def deepen_stack() -> None:
    """Let the stack of this process's main thread grow further than the shell allows (8 MiB mostly), where the system lets us.

    TensorRT follows chains of nodes by recursion: its builder (TensorRT-RTX 1.7) crashed within 8 MiB on a chain of 3000. Threads that are
    started later have what they had before.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = DEEP_STACK if hard == resource.RLIM_INFINITY else min(DEEP_STACK, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


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
