"""How many calibration samples INT8 needs: accuracy, work in INT8 and time, by their number.

    python benchmarks/calibration_samples.py [--model example] [--counts 1 5 10 20 120] [--draws 3] [--effort default] [--json FILE]

Converts with that many images of the calibration folder and nothing else, so accuracy is also guarded on these alone; no GPU is
needed. Where there are more, several draws are made: evenly spaced over the sorted names, each beginning at another image. The prepared
model (--save-onnx), with its FP16 and INT8 rounding, is then measured on the test images, which no conversion has seen:

    example   mIoU against the ground truth of 40 images (the FP32 model's is printed first)
    ppocr     agreement of the text mask with the FP32 model's on 16 images: IoU pooled over them

A row gives the median over the draws, and the worst.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

EXAMPLE = ROOT / "examples" / "ultralight_segmentation"


def example_score(path: Path) -> float:
    """mIoU of a model of the example, 0..1."""
    command = [sys.executable, str(EXAMPLE / "evaluate.py"), str(path), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["miou"]


def ppocr_score(path: Path) -> float:
    """IoU of its text mask with the FP32 model's, 0..1."""
    from benchmarks.int8_accuracy import agreement

    return agreement(path)["iou"]


def setup(model: str) -> tuple[Path, Path, list[str]]:
    """(ONNX file, calibration images, further flags)"""
    if model == "example":
        return EXAMPLE / "model.onnx", EXAMPLE / "calibration", []
    from benchmarks.entropy_scales import DATA, SHAPE
    from tests.real_models import ppocr

    return ppocr("det"), DATA / "calibration", ["--opt-shapes", "x:" + "x".join(map(str, SHAPE))]


def draws_of(paths: list[Path], count: int, draws: int) -> list[list[Path]]:
    """Different choices of `count` evenly spaced paths: as many as were asked for, fewer where there are not so many."""
    step = len(paths) / count
    starts = {int(step * draw / draws) for draw in range(draws)}
    return [[paths[int(step * i + start)] for i in range(count)] for start in sorted(starts)]


def convert(onnx: Path, images: list[Path], flags: list[str]) -> dict:
    """One conversion -> its result, with `wall_s` and the `score` of the model that it has prepared."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "calibration").mkdir()
        for path in images:
            shutil.copy(path, folder / "calibration")
        command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", str(onnx), "--precision", "int8"]
        command += ["--calibration-dir", "calibration", "-o", "m.engine", "--save-onnx", "m.onnx", "--json", "r.json", "-q", *flags]
        started = time.monotonic()
        subprocess.run(command, cwd=folder, capture_output=True, check=False)
        result = {**json.loads((folder / "r.json").read_text()), "wall_s": round(time.monotonic() - started, 1)}
        if result["status"] != "failed":
            result["score"] = (example_score if onnx.parent == EXAMPLE else ppocr_score)(folder / "m.onnx")
    return result


def row_of(count: int, results: list[dict]) -> dict:
    """The figures of all draws of one number of samples; those that failed are only counted."""
    good = [result for result in results if result["status"] != "failed"]
    errors = [result["error"]["message"] for result in results if result["status"] == "failed"]
    row = {"samples": count, "draws": len(results), "failed": errors, "seconds": statistics.median(r["wall_s"] for r in results)}
    if good:
        scores, shares = [r["score"] for r in good], [r["precision"]["int8_mac_share"] for r in good]
        row |= {"scores": scores, "median": statistics.median(scores), "worst": min(scores)}
        row |= {"int8_mac_share": statistics.median(shares), "methods": sorted({r["calibration"]["method"] for r in good})}
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("example", "ppocr"), default="example")
    parser.add_argument("--counts", metavar="N", type=int, nargs="+", default=[1, 5, 10, 20, 120])
    parser.add_argument("--draws", metavar="N", type=int, default=3)
    parser.add_argument("--effort", choices=("fast", "default", "best"), default="default")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    onnx, folder, flags = setup(args.model)
    paths = sorted(folder.glob("*.jpg"))
    rows = []
    if args.model == "example":
        print(f"FP32 {example_score(onnx):.4f}")
    print(f"{'samples':>7s} {'draws':>5s} {'median':>7s} {'worst':>7s} {'INT8':>6s} {'s':>6s}")
    for count in sorted({min(count, len(paths)) for count in args.counts}):
        chosen = draws_of(paths, count, args.draws)
        row = row_of(count, [convert(onnx, images, [*flags, "--quantization-effort", args.effort]) for images in chosen])
        rows.append(row)
        figures = f"{'-':>7s} {'-':>7s} {'-':>6s}"
        if "scores" in row:
            figures = f"{row['median']:7.4f} {row['worst']:7.4f} {row['int8_mac_share']:6.1%}"
        print(f"{count:7d} {row['draws']:5d} {figures} {row['seconds']:6.1f}", flush=True)
        for message in row["failed"]:
            print(f"        failed: {message}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"model": args.model, "effort": args.effort, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
