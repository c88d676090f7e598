"""What this tool costs beside the work itself: against a bare script over TensorRT-RTX's API, and `--help` against an empty Python.

    python benchmarks/overhead.py [--runs 5] [--models example ppocr big] [--json FILE]

1. --help: at most 0.1 s over `python -c pass`.
2. A conversion, without inference and without TensorRT's parser and build: at most 10 % of the whole, or 3 s.

Three models of growing size; each is converted
    as it is  (--precision fp32 --no-validate): there is no inference, so all that it takes longer than the script is our own cost;
    to FP16   with validation; the script gets the FP16 model that we prepared, and the stages that run inference are counted apart.
Ours and the script's runs alternate; the medians are given. Compiled Python modules are kept between the runs, as in daily use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: our package stands one folder up
    sys.path[0] = str(ROOT)

EXAMPLE = ROOT / "examples" / "ultralight_segmentation" / "model.onnx"
INFERENCE = ("ranges", "equalize", "calibrate", "fit", "choose", "validate", "latency")  # stages that are mostly that
HELP_SECONDS, OWN_SHARE, OWN_SECONDS = 0.1, 0.10, 3.0  # the targets
BIG = (12, 2048)  # matrix products, and rows and columns of each: 200 MB
WAYS = {"as it is": ("--precision", "fp32", "--no-validate"), "to FP16": ()}


def build_raw(model: str, engine: str) -> None:
    """What one has to write at least."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        sys.exit(f"cannot parse {model}")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 in tensor.shape:
            shape = SHAPES[Path(model).stem.partition("-")[0]]
            profile.set_shape(tensor.name, shape, shape, shape)
    if SHAPES.get(Path(model).stem.partition("-")[0]):
        config.add_optimization_profile(profile)
    data = builder.build_serialized_network(network, config)
    with open(engine, "wb") as stream:
        stream.write(data)


SHAPES = {"example": (1, 3, 256, 320), "ppocr": (1, 3, 640, 640)}  # where the model leaves them free


def big_model(path: Path) -> Path:
    """Matrix products one after another, with random weights."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    count, size = BIG
    values = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(count):
        weight = values.standard_normal((size, size), np.float32) / size**0.5
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"y{index}"], name=f"product{index}"))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"], name=f"relu{index}"))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [8, size]) for name in ("x0", f"x{count}")]
    graph = helper.make_graph(nodes, "big", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def find_model(name: str, folder: Path) -> Path | None:
    if name == "example":
        return EXAMPLE
    if name == "big":
        return big_model(folder / "big.onnx")
    from tests.real_models import ppocr

    try:
        return ppocr("det")
    except RuntimeError as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


def timed(command: list, folder: Path, environment: dict) -> float:
    """Seconds of a process from start to end."""
    return measured(command, folder, environment)[0]


def measured(command: list, folder: Path, environment: dict) -> tuple[float, float]:
    """(seconds, processor seconds) of a process and its children; the latter are the steadier ones on a busy machine."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def compare_conversions(name: str, way: str, runs: int, folder: Path, environment: dict) -> dict | None:
    """Alternating runs of one model, ours and the script's."""
    model = find_model(name, folder)
    if model is None:
        return None
    ours = [ROOT / "onnx2trt.py", "--onnx", model, "-o", "ours.engine", "--json", "r.json", "-q", *WAYS[way]]
    if name in SHAPES:
        ours += ["--opt-shapes", "x".join(map(str, SHAPES[name]))]
    prepared = folder / f"{name}-prepared.onnx"
    timed([*ours, "--save-onnx", prepared], folder, environment)  # which warms up, too
    script: list = [Path(__file__).resolve(), "--raw", prepared, folder / "raw.engine"]
    timed(script, folder, environment)
    rows = []
    for _ in range(runs):
        seconds, cpu = measured(ours, folder, environment)
        stages = json.loads((folder / "r.json").read_text())["timings_s"]
        inference = sum(stages.get(stage, 0.0) for stage in INFERENCE)
        tensorrt = stages["parse"] + stages["build"]
        raw_seconds, raw_cpu = measured(script, folder, environment)
        rows.append((seconds, raw_seconds, tensorrt, inference, seconds - tensorrt - inference, cpu, raw_cpu))
    ours_s, raw_s, tensorrt_s, inference_s, own_s, ours_cpu_s, raw_cpu_s = (statistics.median(column) for column in zip(*rows))
    return {
        "model": name,
        "way": way,
        "model_mb": model.stat().st_size / 1e6,
        "ours_s": ours_s,
        "raw_s": raw_s,
        "ratio": ours_s / raw_s,
        "tensorrt_s": tensorrt_s,
        "inference_s": inference_s,
        "own_s": own_s,
        "own_share": own_s / ours_s,
        "ours_cpu_s": ours_cpu_s,
        "raw_cpu_s": raw_cpu_s,
        "skipped_s": statistics.median(timed([*ours, "--skip-unchanged"], folder, environment) for _ in range(runs)),
        "reached": own_s <= max(OWN_SECONDS, OWN_SHARE * ours_s),
    }


def compare_help(runs: int, folder: Path, environment: dict) -> dict:
    commands = {"bare_s": ["-c", "pass"], "help_s": [ROOT / "onnx2trt.py", "--help"]}
    timed(commands["help_s"], folder, environment)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(4 * runs):
        for name, command in commands.items():
            times[name].append(timed(command, folder, environment))
    found = {name: statistics.median(seconds) for name, seconds in times.items()}
    over = found["help_s"] - found["bare_s"]
    return {**found, "over_s": over, "ratio": found["help_s"] / found["bare_s"], "reached": over <= HELP_SECONDS}


COLUMNS = (  # title, key, format
    ("MB", "model_mb", "8.1f"),
    ("script s", "raw_s", "10.2f"),
    ("ours s", "ours_s", "8.2f"),
    ("ratio", "ratio", "7.2f"),
    ("TensorRT s", "tensorrt_s", "12.2f"),
    ("inference s", "inference_s", "13.2f"),
    ("our own s", "own_s", "11.2f"),
    ("share", "own_share", "7.0%"),
    ("skipped s", "skipped_s", "11.2f"),
    ("CPU s", "ours_cpu_s", "8.2f"),
    ("script's", "raw_cpu_s", "10.2f"),
)


def table(found: dict) -> str:
    lines = [" " * 18 + "".join(f"{title:>{int(form.split('.')[0])}}" for title, _, form in COLUMNS)]
    for row in found["conversions"]:
        lines.append(f"{row['model'] + ' ' + row['way']:18}" + "".join(f"{row[key]:{form}}" for _, key, form in COLUMNS) + verdict(row))
    row = found["help"]
    lines.append(f"--help {row['help_s']:.3f} s, python -c pass {row['bare_s']:.3f} s, over it {row['over_s']:.3f} s{verdict(row)}")
    return "\n".join(lines)


def verdict(row: dict) -> str:
    return "  reached" if row["reached"] else "  MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each kind (default: 5)")
    parser.add_argument("--models", nargs="+", choices=("example", "ppocr", "big"), default=["example", "ppocr", "big"])
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--raw", nargs=2, metavar=("MODEL", "ENGINE"), help="be the bare script")
    args = parser.parse_args()
    if args.raw:
        build_raw(*args.raw)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        rows = [compare_conversions(model, way, args.runs, folder, environment) for model in args.models for way in WAYS]
        found = {"runs": args.runs, "help": compare_help(args.runs, folder, environment), "conversions": [row for row in rows if row]}
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    return 0 if all(row["reached"] for row in (found["help"], *found["conversions"])) else 1


if __name__ == "__main__":
    sys.exit(main())
