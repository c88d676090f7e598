#!/usr/bin/env python3
"""From Python: convert a model to FP16 and to INT8, and keep the smaller engine of those that agree with the model.

    python examples/smallest_engine.py model.onnx images/ --output model.engine

Each conversion runs in a process of its own: where one fails, or the library crashes in it, the other goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a clone without `pip install .`

import onnx2trt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnx")
    parser.add_argument("images", help="folder to calibrate with; accuracy is measured on what calibration leaves out")
    parser.add_argument("--output", default="model.engine")
    args = parser.parse_args()
    made = {}
    for precision in ("fp16", "int8"):
        try:
            made[precision] = onnx2trt.convert(
                args.onnx, precision=precision, calibration_dir=args.images, output=f"{args.output}.{precision}", quiet=True
            )
        except onnx2trt.ConversionError as error:
            print(f"{precision}: no engine (exit code {int(error.code)}): {error}\n      {error.hint}")
    for precision, result in made.items():
        worst = max(result.accuracy, key=lambda row: row.drop_percent, default=None)
        accuracy = f"drop {worst.drop_percent:.2f} % ({worst.metric})" if worst else "accuracy not measured"
        print(f"{precision}: {result.engine.bytes / 1e6:.1f} MB, {accuracy}, {result.status}, {result.timings_s['total']:.0f} s")
    if not made:
        return 1
    best = min(made, key=lambda precision: made[precision].engine.bytes)
    os.replace(made[best].engine.path, args.output)
    os.replace(f"{made[best].engine.path}.json", f"{args.output}.json")
    print(f"kept: {best}, as {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
