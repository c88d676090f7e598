"""INT8 of PP-OCRv4 text detection: how much of the text mask is left, for how much of the work in INT8.

    python benchmarks/int8_accuracy.py [--json FILE]

Converts with 20 calibration images and nothing else, by --quantization-effort and --max-accuracy-drop; no GPU is needed.
ONNX Runtime then runs the prepared models (--save-onnx) on 16 other images: IoU of output > 0.3 with the FP32 model's, all
intersections over all unions; the worst image; SQNR; share of the multiply-accumulates in INT8, counted from the ONNX file alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402

from benchmarks.entropy_scales import DATA, MASK, SHAPE, images  # noqa: E402
from onnx2trt.model.session import Session  # noqa: E402
from tests.macs import int8_share  # noqa: E402
from tests.real_models import ppocr  # noqa: E402

RUNS = {
    "effort fast": ("--quantization-effort", "fast"),
    "effort default": (),
    "effort best": ("--quantization-effort", "best"),
    "default, drop at most 0.4": ("--max-accuracy-drop", "0.4"),
    "default, no limit": ("--max-accuracy-drop", "100"),
}


def convert(folder: Path, flags: tuple[str, ...]) -> dict:
    """One conversion -> its result, with `wall_s`; status failed where the limit cannot be met."""
    command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", str(ppocr("det")), "--opt-shapes", "x:" + "x".join(map(str, SHAPE))]
    command += ["--precision", "int8", "--calibration-dir", str(DATA / "calibration"), "-o", "m.engine", "--save-onnx", "m.onnx"]
    started = time.monotonic()
    subprocess.run([*command, "--json", "r.json", "-q", *flags], cwd=folder, capture_output=True, check=False)
    return {**json.loads((folder / "r.json").read_text()), "wall_s": round(time.monotonic() - started, 1)}


def agreement(path: Path) -> dict[str, float]:
    """Of the saved model with the FP32 model, on the test images."""
    model, reference = Session.from_path(str(path)), Session.from_path(str(ppocr("det")))
    inside, union, error, energy = [], [], 0.0, 0.0
    for feed in images(DATA / "test"):
        found, expected = (next(iter(session.run(feed).values())) for session in (model, reference))
        inside.append(((found > MASK) & (expected > MASK)).sum())
        union.append(((found > MASK) | (expected > MASK)).sum())
        error += float(((found - expected) ** 2).sum())
        energy += float((expected**2).sum())
    worst = min(1.0 if not u else i / u for i, u in zip(inside, union))
    return {"iou": float(sum(inside) / sum(union)), "worst": float(worst), "sqnr_db": 10 * np.log10(energy / error)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    rows = []
    print(f"{'':28s} {'IoU':>6s} {'worst':>6s} {'SQNR':>6s} {'INT8':>6s} {'MB':>5s} {'s':>6s}")
    for name, flags in RUNS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            result = convert(folder, flags)
            if result["status"] == "failed":
                print(f"{name:28s} failed: {result['error']['message']}", flush=True)
                continue
            row = {"name": name, **agreement(folder / "m.onnx"), "share": int8_share(folder / "m.onnx", x=SHAPE)}
            row |= {"mb": result["engine"]["bytes"] / 1e6, "seconds": result["wall_s"]}
        rows.append(row)
        figures = f"{row['iou']:6.3f} {row['worst']:6.3f} {row['sqnr_db']:6.1f} {row['share']:6.1%} {row['mb']:5.1f} {row['seconds']:6.1f}"
        print(f"{name:28s} {figures}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
