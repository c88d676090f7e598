"""Long runs: does memory stay where it is, does anything stay behind?

    python benchmarks/endurance.py [--images 200 2000] [--conversions 200] [--json FILE]

1. INT8 of the example, calibrated on some and on many images: peak memory (ru_maxrss) of the process that calibrates, within 5 %.
2. FP16 conversions of a small net in one shell loop: no file stays in the working folder, the home or the folder for temporary files,
   but the engine and its JSON; all engines are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "ultralight_segmentation" / "model.onnx"
MEMORY_GROWTH = 0.05  # the target
LOOP = 'for i in $(seq "$1"); do "$2" "$3" --onnx net.onnx --quiet > /dev/null || echo "failed: $?"; sha256sum net.engine; done'


def images(folder: Path, count: int) -> None:
    """JPEG files of 320x256: noise on a gradient, so that no two are alike."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    slope = np.linspace(0, 160, 320)[None, :, None]
    for number in range(count):
        coarse = cv2.resize(random.integers(0, 96, (8, 10, 3)).astype(np.float32), (320, 256))
        cv2.imwrite(str(folder / f"{number:05}.jpg"), (slope + coarse).astype(np.uint8))


def calibrate(count: int) -> dict:
    """One conversion to INT8, with all of `count` images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        images(folder / "images", count)
        flags = ("--precision", "int8", "--calibration-dir", "images", "--calibration-samples", str(count), "--max-accuracy-drop", "100")
        command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", str(EXAMPLE), "--output", "e", *flags, "--json", "r.json", "-q"]
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        result = json.loads((folder / "r.json").read_text())
        seconds = round(time.perf_counter() - started, 1)
    return {
        "images": result["calibration"]["samples_used"],
        "peak_mb": result["calibration"]["peak_memory_mb"],
        "calibration_s": result["calibration"]["seconds"],
        "seconds": seconds,
    }


def convert(count: int) -> dict:
    """Conversions one after another, where everything that they could leave is seen."""
    with tempfile.TemporaryDirectory() as name:
        folders = {key: Path(name) / key for key in ("work", "home", "temporary")}
        for folder in folders.values():
            folder.mkdir()
        net = f"import sys, onnx; sys.path[:0] = [{str(ROOT / 'tests')!r}]; import models; onnx.save(models.conv_net(), 'net.onnx')"
        subprocess.run([sys.executable, "-c", net], cwd=folders["work"], check=True)
        hidden = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        environment |= {"HOME": str(folders["home"]), "TMPDIR": str(folders["temporary"])}
        command = ["bash", "-c", LOOP, "loop", str(count), sys.executable, str(ROOT / "onnx2trt.py")]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folders["work"], env=environment, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
        lines = done.stdout.splitlines()
        left = sorted(str(path.relative_to(name)) for path in Path(name).rglob("*") if path not in folders.values())
    return {
        "conversions": count,
        "failed": sum(line.startswith("failed") for line in lines),
        "engines": len({line for line in lines if not line.startswith("failed")}),
        "left": [path for path in left if path not in ("work/net.onnx", "work/net.engine", "work/net.engine.json")],
        "stderr_lines": len(done.stderr.splitlines()),
        "seconds_each": round(seconds / count, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="N", type=int, nargs=2, default=(200, 2000))
    parser.add_argument("--conversions", metavar="N", type=int, default=200)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    loop, few, many = convert(args.conversions), *map(calibrate, args.images)
    growth = many["peak_mb"] / few["peak_mb"] - 1
    reached = growth <= MEMORY_GROWTH and not loop["failed"] and not loop["left"] and loop["engines"] == 1
    found = {"loop": loop, "calibration": [few, many], "growth": round(growth, 4), "reached": reached}
    for row in (loop, few, many):
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    print(f"peak memory {growth:+.1%} (within {MEMORY_GROWTH:.0%}): {'reached' if reached else 'MISSED'}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
