"""The process of one conversion: the command itself, which ends with who has started it, and which nobody else runs for the same engine.

    python -m onnx2trt.fleet.leash LIFELINE ENGINE WORDS...

LIFELINE is the number of a descriptor that is at its end when the starter is gone: a worker that was killed, the driver that it was of.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading

from onnx2trt.base.files import make_folder
from onnx2trt.base.locks import locked
from onnx2trt.cli import main as command


def main(lifeline: int, engine: str, words: list[str]) -> int:
    """
    Returns:
        The command's exit code.
    """
    os.set_inheritable(lifeline, False)
    threading.Thread(target=_watch, args=(lifeline,), name="lifeline", daemon=True).start()
    make_folder(os.path.dirname(engine))
    name = lock_name(engine)
    with locked(name, 0.0) as held:
        if held:
            return command(words)
    print(f"[fleet] waiting: {engine} is being made, or the file system has no locks", file=sys.stderr, flush=True)
    with locked(name, math.inf):  # without locks this comes back at once
        return command(words)


def lock_name(engine: str) -> str:
    """What base.locks.locked shall lock for an engine: a hidden file beside it, .NAME.lock, which stays."""
    folder, name = os.path.split(os.path.realpath(engine))
    return os.path.join(folder, f".{name}")


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes to it
    os.kill(os.getpid(), signal.SIGTERM)  # the command ends its child, and removes what is half done


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
