"""How much faster new weights get into an engine than a build makes one: --refit against a build, of ResNet-50, on the GPU of this machine.

    python benchmarks/refit.py [--batch 32] [--runs 3] [--strongly-typed] [--folder DIR] [--json FILE]

The network is that of benchmarks/networks.py. Its engine is built with --refittable and without kernel timings (--timing-cache none). So is
one of the same network with other weights; then these weights are refitted into the first. Each is validated on the same samples, which
are random. Seconds are those of the stages (build, refit) and of the whole command; of several refits the median.
The exit code is 1 where the refit is less than 20 times as fast as the build, or its engine is further from the model than the fresh one by
more than rounding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

from benchmarks.networks import resnet50  # noqa: E402

TIMES, ROUNDING_DB = 20.0, 3.0  # the targets: how many times as fast, and how much less of signal to noise
EQUAL_DB = 60.0  # above it, differences are rounding in any case


def with_other_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of the same network; each weight keeps its spread, so no activation grows."""
    other, made_up = onnx.ModelProto(), np.random.default_rng(1)
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            changed = values * np.float32(0.9) + made_up.standard_normal(values.shape, np.float32) * values.std() * np.float32(0.3)
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(values.dtype), tensor.name))
    return other


def convert(folder: Path, *flags: str) -> dict:
    """The result of the command, with its seconds; it ends this program where it fails."""
    free = ("--max-accuracy-drop", "100")  # random weights have nothing to lose
    command = [sys.executable, str(ROOT / "onnx2trt.py"), *flags, "--validate", "x.npz", *free, "--json", "r.json", "--quiet"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(flags)}: {done.stderr}")
    return {**json.loads((folder / "r.json").read_text()), "seconds": time.monotonic() - started}


def measure(folder: Path, options) -> dict:
    model = resnet50(options.batch)
    onnx.save(model, folder / "old.onnx")
    onnx.save(with_other_weights(model), folder / "new.onnx")
    np.savez(folder / "x.npz", x=np.random.default_rng(2).standard_normal((options.batch, 3, 224, 224), np.float32))
    build = ("--timing-cache", "none", *(["--strongly-typed"] if options.strongly_typed else []))
    old = convert(folder, "old.onnx", *build, "--refittable")
    fresh = convert(folder, "new.onnx", *build, "-o", "fresh.engine")
    refits = [convert(folder, "new.onnx", "--refit", "old.engine", "-o", "new.engine") for _ in range(options.runs)]
    built_s = min(result["timings_s"]["build"] for result in (old, fresh))
    refit_s = statistics.median(result["timings_s"]["refit"] for result in refits)
    return {
        "gpu": old["environment"]["gpu"],
        "tensorrt": old["environment"]["tensorrt"],
        "batch": options.batch,
        "route": old["plan"]["route"],
        "build_s": built_s,
        "refit_s": refit_s,
        "times_as_fast": built_s / refit_s,
        "whole_build_s": min(old["seconds"], fresh["seconds"]),
        "whole_refit_s": statistics.median(result["seconds"] for result in refits),
        "p50_ms": {name: of["latency"]["p50_ms"] for name, of in (("fresh", fresh), ("refittable", old), ("refitted", refits[-1]))},
        "sqnr_db": {name: of["accuracy"][0]["sqnr_db"] for name, of in (("fresh", fresh), ("refitted", refits[-1]))},
        "engine_bytes": {name: of["engine"]["bytes"] for name, of in (("fresh", fresh), ("refittable", old), ("refitted", refits[-1]))},
    }


def judged(found: dict) -> list[tuple[str, bool]]:
    """(what was asked for, whether it was reached)"""
    fresh, refitted = found["sqnr_db"]["fresh"], found["sqnr_db"]["refitted"]
    return [
        (f"a refit is {found['times_as_fast']:.1f} times as fast as a build (at least {TIMES:g})", found["times_as_fast"] >= TIMES),
        (
            f"outputs: {refitted:.1f} dB, {fresh:.1f} dB of a fresh engine (rounding: {ROUNDING_DB:g} dB)",
            refitted >= min(fresh, EQUAL_DB) - ROUNDING_DB,
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3, help="refits, of which the median counts")
    parser.add_argument("--strongly-typed", action="store_true", help="TensorRT 10: the precision in the ONNX")
    parser.add_argument("--folder", type=Path, help="for models and engines (default: one that is removed)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(folder.resolve(), options)
    for name, value in found.items():
        print(f"{name}: {value}")
    for what, reached in judged(found):
        print(f"{'reached' if reached else 'MISSED'}: {what}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(not all(reached for _, reached in judged(found)))


if __name__ == "__main__":
    sys.exit(main())
