"""How the cost of a conversion grows with the model: seconds of each stage, in passes of all samples through the FP32 model.

    python benchmarks/scaling.py [--families transformer detector classifier] [--most MB] [--precision int8] [--json FILE]
    python benchmarks/scaling.py --models model.onnx:1x3x224x224 ...      # others, with made-up data for their only input

A pass is bare ONNX Runtime inference over the same samples, one after another, measured before and after the conversion in a process of its
own; the smaller time counts. Targets: ranges at most 1.5 passes, calibration 1.6, the whole without TensorRT's parser and build 25; memory
at most 1.5 GB and twice the model. The exponent says how the seconds without TensorRT grow with those of a pass: 1 is in proportion.

Column "CPU" is the CPU time of the whole command, TensorRT's parser and build included, in CPU time of a pass: it can be read where other
processes take their share of the machine.

The weights are random and the samples noise, so what INT8 loses means nothing here: the search for layers takes as long as it takes.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

from benchmarks import workers  # noqa: E402

SAMPLES = 20
STAGES = ("ranges", "equalize", "calibrate", "fit", "choose", "validate")
RANGES, CALIBRATION, PASSES, MEMORY_MB, MEMORY_MODELS = 1.5, 1.6, 25.0, 1500.0, 2.0  # the targets
FAMILIES = {
    "transformer": [(layers, width) for width in (256, 768, 1024) for layers in (4, 8, 12)],
    "detector": [(320,), (640,), (960,)],
    "classifier": [(1,), (8,), (32,)],
}


def infer(model: str, data: str) -> None:
    """ONNX Runtime as anybody would call it; the second of two passes over the samples is timed."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = [dict(np.load(path)) for path in sorted(Path(data).iterdir())]
    for feed in feeds:
        session.run(None, feed)
    yield
    for feed in feeds:
        session.run(None, feed)


def make_data(shape: tuple[int, ...], name: str, folder: Path) -> None:
    """SAMPLES files, each one inference."""
    import numpy as np

    folder.mkdir()
    for index in range(SAMPLES):
        np.savez(folder / f"{index:03}.npz", **{name: np.random.default_rng(index).standard_normal(shape).astype(np.float32)})


def convert(model: Path, shape: tuple[int, ...], precision: str, folder: Path) -> tuple[dict, float, float]:
    """(result, peak memory in MB of the process that does the work, seconds of CPU time of all of it)"""
    command = [sys.executable, str(ROOT / "onnx2trt.py"), "--onnx", str(model), "--precision", precision, "--calibration-dir", "data"]
    command += ["--opt-shapes", "x".join(map(str, shape)), "-o", "e.engine", "--json", "r.json", "-q"]
    with open(folder / "said", "wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 7):  # 7: noise through random weights does not reach the limit
        raise RuntimeError(f"{command} failed:\n{(folder / 'said').read_text()[-2000:]}")
    return json.loads((folder / "r.json").read_text()), usage.ru_maxrss * 1024 / 1e6, usage.ru_utime + usage.ru_stime


def measure(name: str, model: Path, shape: tuple[int, ...], args) -> dict:
    """One row."""
    import onnx

    source = next(value.name for value in onnx.load(model, load_external_data=False).graph.input)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_data(shape, source, folder / "data")
        worker = [str(model), str(folder / "data")]
        bare = [workers.measured(__file__, worker, args.threads)]
        result, peak, cpu = convert(model, shape, args.precision, folder)
        bare.append(workers.measured(__file__, worker, args.threads))
    timings, megabytes = result["timings_s"], model.stat().st_size / 1e6
    one_pass, one_cpu_pass = (min(one[key] for one in bare) for key in ("seconds", "cpu_seconds"))
    own = timings["total"] - timings.get("parse", 0.0) - timings.get("build", 0.0)
    passes = {stage: timings.get(stage, 0.0) / one_pass for stage in STAGES}
    return {
        "network": name,
        "model_mb": megabytes,
        "pass_s": one_pass,
        "exit_code": result["exit_code"],
        "total_s": timings["total"],
        "own_s": own,
        "own_passes": own / one_pass,
        "cpu_s": cpu,
        "cpu_passes": cpu / one_cpu_pass,
        "stages_s": {stage: timings.get(stage, 0.0) for stage in STAGES},
        "stages_passes": passes,
        "peak_mb": peak,
        "reached": {
            "ranges": passes["ranges"] <= RANGES,
            "calibrate": passes["calibrate"] <= CALIBRATION,
            "whole": own / one_pass <= PASSES,
            "memory": peak <= MEMORY_MB + MEMORY_MODELS * megabytes,
        },
    }


def exponent(rows: list[dict]) -> float | None:
    """Slope of log seconds over log seconds of a pass, by least squares; None for fewer than two rows."""
    points = [(math.log(row["pass_s"]), math.log(row["own_s"])) for row in rows]
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points)) if points else (0, 0)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / square if square else None


def table(found: dict) -> str:
    lines = [f"{'':24}{'pass s':>8}" + "".join(f"{stage:>10}" for stage in STAGES) + f"{'whole':>8}{'CPU':>8}{'s':>8}{'peak MB':>9}"]
    for row in found["rows"]:
        cells = "".join(f"{row['stages_passes'][stage]:10.1f}" for stage in STAGES)
        missed = ", ".join(name for name, reached in row["reached"].items() if not reached)
        text = f"{row['network']:24}{row['pass_s']:8.2f}{cells}{row['own_passes']:8.1f}"
        text += f"{row['cpu_passes']:8.1f}{row['total_s']:8.1f}{row['peak_mb']:9.0f}"
        lines.append(text + (f"  MISSED: {missed}" if missed else "  reached"))
    lines += [f"{family}: seconds grow as those of a pass to the power of {value:.2f}" for family, value in found["exponents"].items()]
    return "\n".join(lines)


def made(family: str, most: float, folder: Path):
    """(name, file, input shape) of each network whose file has at most so many MB; made by processes of their own: what this one has ever
    held would count as memory of those that it starts."""
    for sizes in FAMILIES[family]:
        path = folder / f"{family}-{'x'.join(map(str, sizes))}.onnx"
        command = [sys.executable, __file__, "--make", family, ",".join(map(str, sizes)), str(path)]
        shape = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        if path.stat().st_size <= most * 1e6:
            yield path.stem, path, tuple(map(int, shape))
        path.unlink(missing_ok=True)


def make(family: str, sizes: str, path: str) -> None:
    """Write a network, and its input's shape to stdout."""
    import onnx

    from benchmarks import networks

    model = getattr(networks, family)(*map(int, sizes.split(",")))
    onnx.save(model, path)
    print(*(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", choices=tuple(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--models", nargs="*", default=[], metavar="FILE:SHAPE", help="others, with noise for their only input")
    parser.add_argument("--precision", choices=("fp16", "int8"), default="int8")
    parser.add_argument("--most", type=float, default=math.inf, metavar="MB", help="leave larger models out")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(*args.make)
        return 0
    if args.worker:
        workers.run(infer(*args.worker))
        return 0
    compileall.compile_dir(ROOT / "onnx2trt", quiet=2)  # as pip does; else each conversion would, where Python may not write there
    found: dict = {"samples": SAMPLES, "threads": args.threads, "precision": args.precision, "rows": [], "exponents": {}}
    with tempfile.TemporaryDirectory() as place:
        for family in args.families:
            rows = [_told(measure(*one, args)) for one in made(family, args.most, Path(place))]
            found["rows"] += rows
            if exponent(rows) is not None:
                found["exponents"][family] = exponent(rows)
    for one in args.models:
        path, _, shape = one.rpartition(":")
        sizes = tuple(int(size) for size in shape.split("x"))
        found["rows"].append(_told(measure(Path(path).resolve().parent.name + "/" + Path(path).stem, Path(path).resolve(), sizes, args)))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    return 0 if all(all(row["reached"].values()) for row in found["rows"]) else 1


def _told(row: dict) -> dict:
    """The row, said on the way: the whole takes long."""
    print(f"{row['network']}: {row['own_passes']:.1f} passes of {row['pass_s']:.2f} s", file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
