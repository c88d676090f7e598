"""Convert random valid models, and hold what comes of them against the models.

    python -m tests.fuzz.valid --count 1000 [--first 0] [--keep FOLDER]

Each model is converted to FP16 and to INT8 by the pipeline of the command, TensorRT-RTX's build included, in a process for some models; one
that dies is started again behind the model that killed it. A case fails where the exit code is 1 or the process dies, where inputs or
outputs have another name, type or shape, where what was prepared is not what the model computes (FP16), and where INT8 is more than 1 dB
below the better of `--quantization-effort fast` and plain min-max in an output, on samples that nothing has seen. From number 1000000 on
the layers of the models stand in bodies of If, Loop and Scan.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from random_networks import RandomNetwork, prepared_by  # noqa: E402

from onnx2trt.base.errors import ConversionError, unforeseen  # noqa: E402
from tests.fuzz.valid_models import random_model  # noqa: E402

CALIBRATED, MEASURED = 12, 24  # samples
MANY = 20  # times as many tell where few do not: one sample may rule 24 (of 2000 models 20 had lost more than 1 dB so, and none of 480)
LEAST_DB = 25.0  # of FP16, where the model's outputs are tame
NOTHING_DB = 50.0  # less noise than that is none
MOST_LOST_DB = 1.0
BRANCHED = 0.25  # of the samples
PROCESS_MODELS = 25  # models of one process
MOST_SECONDS = 120  # for a model


@dataclass
class Verdict:
    """What was found of one model."""

    seed: int
    opset: int
    kinds: tuple[str, ...]
    codes: dict[str, int] = field(default_factory=dict)  # precision -> exit code
    errors: dict[str, str] = field(default_factory=dict)
    worst_db: dict[str, float] = field(default_factory=dict)  # way -> signal to noise of the worst output
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def judge(seed: int, folder: Path) -> Verdict:
    """Convert the model of this number in an empty folder, which becomes the current one."""
    started, found = time.monotonic(), random_model(seed)
    verdict = Verdict(seed, found.model.opset_import[0].version, found.kinds)
    os.chdir(folder)
    onnx.save(found.model, "model.onnx")
    os.makedirs("data")
    for number in range(CALIBRATED):
        np.savez(f"data/{number:02}.npz", **found.feed(number))
    measure = Measure(found)
    for precision in ("fp16", "int8"):
        flags = ["--precision", precision, "--max-accuracy-drop", "100"]
        flags += ["--calibration-dir", "data"] if precision == "int8" else ["--validate", "data"]
        _convert(verdict, precision, flags, measure)
    if verdict.codes.get("int8") == 0:
        hold_against_simpler_ways(verdict, found, measure)
    verdict.seconds = time.monotonic() - started
    return verdict


class Measure:
    """How near a graph comes to the model, on samples that no conversion has seen.

    Where an If decides by what was computed, rounding sends a sample that is near its threshold into the other branch: there the quarter of
    the samples that comes out worst does not count.
    """

    def __init__(self, found: RandomNetwork, samples: int = MEASURED):
        from onnx2trt.model.graph import Graph
        from onnx2trt.model.session import Session

        self.model, self._branches = found.model, any(kind.startswith("If") for kind in found.kinds)
        self._feeds = [found.feed(1000 + number) for number in range(samples)]
        session = Session.from_graph(Graph.from_model(found.model))
        self._expected = [session.run(feed) for feed in self._feeds]

    def __call__(self, graph) -> dict[str, float]:
        """Output of floating point -> signal to noise in dB, at most NOTHING_DB."""
        from onnx2trt.model.session import Session
        from onnx2trt.quant.candidates import sqnr_db

        session = Session.from_graph(graph)
        found = [session.run(feed) for feed in self._feeds]
        dbs = {}
        for name, first in self._expected[0].items():
            pairs = [(a[name], b[name]) for a, b in zip(self._expected, found)]
            if first.dtype.kind == "f" and self._branches:
                dbs[name] = min(float(np.quantile([sqnr_db([pair]) for pair in pairs], BRANCHED)), NOTHING_DB)
            elif first.dtype.kind == "f":
                dbs[name] = min(sqnr_db(pairs), NOTHING_DB)
        return dbs


def _convert(verdict: Verdict, precision: str, flags: list[str], measure: Measure) -> None:
    """By the pipeline; exit code, inputs and outputs, and of FP16 the accuracy go into the verdict."""
    from helpers import parse, quiet_run

    from onnx2trt.model.graph import Graph
    from onnx2trt.pipeline.convert import convert
    from onnx2trt.report.result import Result
    from onnx2trt.rewrite.simulate import simulation

    run = quiet_run()
    args = parse(*flags, "--save-onnx", "prepared.onnx", "--backend", "tensorrt-rtx")
    try:
        convert(args, Result(), run)
        verdict.codes[precision] = 0
    except Exception as error:  # what the command would make exit code 1 of
        known = error if isinstance(error, ConversionError) else unforeseen(error)
        verdict.codes[precision], verdict.errors[precision] = int(known.code), known.message
        if known.code == 1:
            verdict.problems.append(f"{precision}: exit 1, {type(error).__name__}: {error}")
        return
    prepared = onnx.load(next(path for path, final in run.files if final.endswith("prepared.onnx")))
    if ends(prepared) != ends(measure.model):
        verdict.problems.append(f"{precision}: other inputs and outputs, {ends(prepared)} instead of {ends(measure.model)}")
        return
    found = measure(simulation(Graph.from_model(prepared)))
    verdict.worst_db[precision] = min(found.values(), default=NOTHING_DB)
    if precision == "fp16" and verdict.worst_db[precision] < LEAST_DB:
        verdict.problems.append(f"fp16: {found} dB")
    for path, _ in run.files:
        os.unlink(path)


def ends(model: onnx.ModelProto) -> tuple:
    """(name, type, sizes) of inputs and outputs."""
    weights = {tensor.name for tensor in model.graph.initializer}

    def told(value: onnx.ValueInfoProto) -> tuple:
        kind = value.type.tensor_type
        return value.name, kind.elem_type, tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)

    return tuple(tuple(told(value) for value in values if value.name not in weights) for values in (model.graph.input, model.graph.output))


def hold_against_simpler_ways(verdict: Verdict, network: RandomNetwork, measure: Measure) -> None:
    """All layers in INT8, by the default effort, and by the simpler ones."""
    ways = {"default": ("default",), "fast": ("fast",), "minmax": ("fast", "--calibration-method", "minmax")}
    graphs = {name: prepared_by(*flags) for name, flags in ways.items()}
    found = {name: measure(graph) for name, graph in graphs.items()}
    verdict.worst_db |= {name: min(dbs.values(), default=NOTHING_DB) for name, dbs in found.items()}
    if not lost_by_default(found):
        return
    more = Measure(network, MANY * MEASURED)
    for name, (db, better) in lost_by_default({way: more(graph) for way, graph in graphs.items()}).items():
        verdict.problems.append(f"int8: output {name} at {db:.1f} dB, where a simpler way has {better:.1f}")


def lost_by_default(found: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Output -> signal to noise by default, and by the better of the simpler ways, where it is too much less.

    Args:
        found: way -> output -> signal to noise in dB.
    """
    better = {name: max(found["fast"][name], found["minmax"][name]) for name in found["default"]}
    return {name: (db, better[name]) for name, db in found["default"].items() if db < better[name] - MOST_LOST_DB}


# ---- many


def work(first: int, count: int, keep: Path | None) -> None:
    """Print a line of JSON for each model."""
    home = os.getcwd()
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory(prefix="valid-") as name:
            try:
                verdict = judge(seed, Path(name))
            except Exception as error:  # of the judge itself
                verdict = Verdict(seed, 0, (), problems=[f"not judged: {type(error).__name__}: {error}"])
            if verdict.problems and keep:
                shutil.copytree(name, keep / str(seed), dirs_exist_ok=True)
            os.chdir(home)
        print("verdict:" + json.dumps(vars(verdict)), flush=True)


def run_all(first: int, count: int, keep: Path | None, log: Path | None) -> int:
    """All of them by processes; the number of those with problems."""
    counts: collections.Counter = collections.Counter()
    failed, seed = 0, first
    while seed < first + count:
        batch = min(PROCESS_MODELS, first + count - seed)
        command = [sys.executable, "-m", "tests.fuzz.valid", "--work", "--first", str(seed), "--count", str(batch)]
        command += ["--keep", str(keep)] if keep else []
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MOST_SECONDS * batch)
            lines, end = done.stdout, done.returncode
        except subprocess.TimeoutExpired as error:
            lines, end = (error.stdout or b"").decode(), "hung"
        rows = [json.loads(line[8:]) for line in lines.splitlines() if line.startswith("verdict:")]
        if len(rows) < batch:
            rows.append({**vars(Verdict(seed + len(rows), 0, ())), "problems": [f"the process ended: {end}"]})
        for row in rows:
            counts.update(f"{precision} exit {code}" for precision, code in row["codes"].items())
            failed += bool(row["problems"])
            if row["problems"]:
                print(json.dumps(row), flush=True)
            if log:
                with log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        seed += len(rows)
    print(json.dumps({"models": count, "failed": failed, **dict(sorted(counts.items()))}))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first model")
    parser.add_argument("--keep", type=Path, help="folder for the files of models that failed")
    parser.add_argument("--log", type=Path, help="file that gets a line of JSON for each model")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.first, args.count, args.keep)
        return 0
    return 1 if run_all(args.first, args.count, args.keep, args.log) else 0


if __name__ == "__main__":
    sys.exit(main())
