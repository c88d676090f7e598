"""The verdict table through the door: pairs of ONNX models for validate.py.

PYTHONPATH=.:tests python -m verdicts.onnx_pairs FOLDER writes for every kind a folder with original.onnx, data/ and the candidates
harmless_*.onnx and harmful_*.onnx; with --run it gives each of them to validate.py and prints what it says of them, as a table.

The kinds of the table are looked up: the models hold what they answer to each sample, and their input is the number of the sample. Those
of NETS compute their outputs from what they are given.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from command import ROOT
from helpers import quiet_run
from models import model, node
from onnx import TensorProto

from onnx2trt.base.errors import ConversionError
from onnx2trt.compare.accuracy import Accuracy, worst_of
from onnx2trt.pipeline.validate import validate
from onnx2trt.plan.door_arguments import build_door_parser
from onnx2trt.report.result import Result
from verdicts.base import Kind, Outputs
from verdicts.nets import NETS
from verdicts.table import LIMIT, TABLES, candidates, kinds_of, made

INT64 = TensorProto.INT64


def looked_up(samples: list[Outputs], batched: bool) -> onnx.ModelProto:
    """A model that answers sample number `at`; lists of any length one by one."""
    nodes, weights, outputs = [], {}, {}
    for name in samples[0]:
        arrays = [np.asarray(sample[name]) for sample in samples]
        elem_type = onnx.helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
        if batched:
            weights[f"{name}_table"] = np.stack(arrays)
            nodes.append(node("Gather", f"{name}_table at", name, axis=0))
            outputs[name] = (elem_type, ["N", *arrays[0].shape])
            continue
        longest = max(len(array) for array in arrays)
        padded = [np.concatenate([array, np.zeros((longest - len(array), *array.shape[1:]), array.dtype)]) for array in arrays]
        weights |= {f"{name}_table": np.stack(padded), f"{name}_rows": np.array([len(array) for array in arrays], np.int64)}
        nodes.append(node("Gather", f"{name}_table at", f"{name}_padded", axis=0))
        nodes.append(node("Squeeze", f"{name}_padded zero", f"{name}_list"))
        nodes.append(node("Gather", f"{name}_rows at", f"{name}_count", axis=0))
        nodes.append(node("Slice", f"{name}_list zero {name}_count zero", name))
        weights["zero"] = np.zeros(1, np.int64)
        outputs[name] = (elem_type, [f"{name}_found", *arrays[0].shape[1:]])
    return model(nodes, {"at": (INT64, ["N"] if batched else [1])}, outputs, weights)


def write(folder: Path, name: str, seed: int, count: int) -> list[tuple[bool, Path]]:
    """One kind's models and data; (harmless, candidate) of each."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    found = []
    if name in NETS:
        original, good, bad, feeds = NETS[name](np.random.default_rng([seed, count]), count)
        pairs = [(True, what, one) for what, one in good.items()] + [(False, what, one) for what, one in bad.items()]
    else:
        kind: Kind = made(name, seed, count)
        original, feeds = looked_up(kind.reference, kind.batched), [{"at": np.array([index])} for index in range(count)]
        pairs = [(harmless, what, looked_up(samples, kind.batched)) for harmless, what, samples in candidates(kind)]
    onnx.save(original, folder / "original.onnx")
    for index, feed in enumerate(feeds):
        np.savez(folder / "data" / f"{index:04}.npz", **feed)
    for harmless, what, candidate in pairs:
        path = folder / f"{'harmless' if harmless else 'harmful'}_{re.sub('[^a-zA-Z0-9]+', '_', what)}.onnx"
        onnx.save(candidate, path)
        found.append((harmless, path))
    return found


@dataclass(frozen=True)
class Verdict:
    """What validate.py says of a candidate."""

    code: int
    rows: tuple[Accuracy, ...]  # of all outputs; empty where the comparison ended before

    @property
    def worst(self) -> Accuracy | None:
        return worst_of(self.rows, LIMIT) if self.rows else None


def verdict(candidate: Path) -> Verdict:
    """Of one that was written here, by the door's own pipeline in this process."""
    folder, result = candidate.parent, Result()
    words = [str(candidate), "--onnx", str(folder / "original.onnx"), "--validation-dir", str(folder / "data"), "-q"]
    try:
        validate(build_door_parser("validate", "").parse_args(words), result, quiet_run())
    except ConversionError as error:
        result.take(exit_code=int(error.code))
    return Verdict(result.exit_code, tuple(Accuracy(**row) if isinstance(row, dict) else row for row in result.accuracy or ()))


def verdict_of_a_process(candidate: Path) -> Verdict:
    """The same by the command, as a user gives it."""
    folder, said = candidate.parent, candidate.with_suffix(".json")
    command = [sys.executable, str(ROOT / "validate.py"), str(candidate), "--onnx", str(folder / "original.onnx")]
    done = subprocess.run([*command, "--validation-dir", str(folder / "data"), "-q", "--json", str(said)], capture_output=True, text=True)
    return Verdict(done.returncode, tuple(Accuracy(**row) for row in json.loads(said.read_text())["accuracy"] or ()))


def lookable(table: str) -> list[str]:
    """The kinds of a table that are outputs of samples; models with a state are among NETS."""
    return [name for name in kinds_of(table) if isinstance(made(name, 0, 3), Kind)]


def line(kind: str, harmless: bool, path: Path, found: Verdict) -> str:
    """One row of the table."""
    worst, right = found.worst, found.code == (0 if harmless else 7)
    what = path.stem.partition("_")[2].replace("_", " ")
    said = ["-"] * 7
    if worst:
        signal = "-" if worst.signal_percent is None else f"{worst.signal_percent:.2g}"
        said = [worst.output, worst.kind, worst.metric, f"{worst.drop_percent:.3g}", f"{worst.shown:.3g}", signal, f"{worst.sqnr_db:.1f}"]
    cells = [kind.replace("_", " "), what, "harmless" if harmless else "harmful", *said, str(found.code), "right" if right else "WRONG"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="The verdict table as ONNX pairs.")
    parser.add_argument("folder", type=Path, nargs="?", help="where they are written; default: a temporary one")
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--table", choices=TABLES, default="first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--run", action="store_true", help="give them to validate.py, in this process")
    parser.add_argument("--processes", action="store_true", help="the same, a process for each as a user starts it")
    args = parser.parse_args()
    if args.run or args.processes:
        print("| kind | candidate | it is | output | taken for | metric | drop % | shown % | lost signal % | SQNR dB | exit | verdict |")
        print("| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    judge = verdict_of_a_process if args.processes else verdict
    counts = {True: [0, 0], False: [0, 0]}  # harmless -> (wrong, all)
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.kinds or [*lookable(args.table), *(NETS if args.table == "first" else ())]:
            for harmless, path in write((args.folder or Path(temporary)) / name, name, args.seed, args.samples):
                if args.run or args.processes:
                    found = judge(path)
                    print(line(name, harmless, path, found), flush=True)
                    counts[harmless][0] += found.code != (0 if harmless else 7)
                    counts[harmless][1] += 1
    print("{1[0]} of {1[1]} harmful missed, {0[0]} of {0[1]} harmless refused".format(counts[True], counts[False]))


if __name__ == "__main__":
    main()
