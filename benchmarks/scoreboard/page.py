"""The table on the console, and docs/coverage.md."""

from __future__ import annotations

from collections import Counter

from .classes import CLASSES


def environment() -> dict:
    """What everything was run with."""
    import numpy
    import onnx
    import onnxruntime

    from onnx2trt.trt.driver import probe_driver
    from onnx2trt.trt.library import load_library

    library = load_library("auto")
    return {
        "library": f"{library.backend} {library.version}",
        "gpu": probe_driver().gpu,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": numpy.__version__,
    }


def console(rows: list[dict], about: dict) -> str:
    """Counts by group and precision."""
    lines = [f"{about['library']}, GPU: {about['gpu'] or 'none, simulated'}, onnx {about['onnx']}"]
    lines += [f"{name} skipped" if "skipped" not in name else name for name in about["skipped"]]
    counts = Counter((row["group"], row["precision"], row["class"]) for row in rows)
    for group, precision in sorted({(row["group"], row["precision"]) for row in rows}):
        found = ", ".join(f"{counts[group, precision, name]} {name}" for name in CLASSES)
        lines.append(f"{group} {precision}: {found}")
    return "\n".join(lines)


def render(rows: list[dict], about: dict) -> str:
    return console(rows, about) + "\n"
