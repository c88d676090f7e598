"""What to do with a result: the last lines of the table, and of the page's first part."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from onnx2trt.plan.parser import COMMAND

MORE_DATA = "--validate FILE_OR_FOLDER compares it on data of yours: these inputs were made up"
LIBRARIES = {  # backend -> what loads its engines, what does not
    "tensorrt": ("TensorRT", "not in TensorRT-RTX"),
    "tensorrt-rtx": ("the TensorRT-RTX runtime", "not in TensorRT or trtexec"),
}


def next_steps(result: dict) -> list[str]:
    """Sentences, the most important one last; none where nothing is left to be done. A command in one stands behind a newline."""
    if result["status"] == "calibrated":
        found = ("--precision", "int8", "--calibration-cache", result["calibration"]["cache"])
        return ["with these scales:\n" + _run(result["model"]["path"], *found)]
    if result["status"] == "preprocessed":
        return [] if result["preprocessed"]["written"] else ["-o FILE.npy or FILE.npz writes it to a file"]
    if result["status"] == "planned":
        return ["leave --dry-run out to build it"]
    if result["status"] == "failed" or result["status"] == "inspected":
        return []
    return [*_of_data(result), *_of_engine(result)]


def _of_data(result: dict) -> Iterator[str]:
    if any(row["inputs"] == "synthetic" for row in result["accuracy"][:1]):
        yield MORE_DATA


def _of_engine(result: dict) -> Iterator[str]:
    engine, environment = result["engine"], result["environment"]
    if engine is None or environment["backend"] not in LIBRARIES:
        return
    runtime, others = LIBRARIES[environment["backend"]]
    yield f"this engine loads in {runtime} (made with {environment['tensorrt']}), {others}"
    if result["status"] != "validated" and result["model"]:
        yield f"on a machine with a GPU for it:\n{_run(result['model']['path'], '--validate-only', engine['path'])}"


def _run(*words: str) -> str:
    return shlex.join([*COMMAND, *words])
