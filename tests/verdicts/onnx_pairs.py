"""The verdict table through the door: pairs of ONNX models for validate.py.

PYTHONPATH=.:tests python -m verdicts.onnx_pairs FOLDER writes for every kind a folder with original.onnx, data/ and the candidates
harmless_*.onnx and harmful_*.onnx; with --run it gives each of them to validate.py and prints what is judged wrongly.

The kinds of the table are looked up: the models hold what they answer to each sample, and their input is the number of the sample. Those
of NETS compute their outputs from what they are given.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from command import ROOT
from models import model, node
from onnx import TensorProto

from verdicts.base import KINDS, Kind, Outputs
from verdicts.nets import NETS
from verdicts.table import candidates, made

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


def verdict(candidate: Path, *flags: str) -> subprocess.CompletedProcess:
    """What validate.py says of a candidate that was written here."""
    folder = candidate.parent
    command = [sys.executable, str(ROOT / "validate.py"), str(candidate), "--onnx", str(folder / "original.onnx")]
    return subprocess.run([*command, "--validation-dir", str(folder / "data"), *flags], capture_output=True, text=True)


def lookable() -> list[str]:
    """The kinds of the table that are outputs of samples; models with a state are among NETS."""
    return [name for name in KINDS if isinstance(made(name, 0, 3), Kind)]


def main() -> None:
    parser = argparse.ArgumentParser(description="The verdict table as ONNX pairs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--run", action="store_true", help="give them to validate.py")
    args = parser.parse_args()
    wrong = total = 0
    for name in args.kinds or [*lookable(), *NETS]:
        for harmless, path in write(args.folder / name, name, args.seed, args.samples):
            if not args.run:
                continue
            done = verdict(path, "-q")
            total += 1
            if done.returncode != (0 if harmless else 7):
                wrong += 1
                print(f"{path.relative_to(args.folder)}: exit {done.returncode}\n{done.stderr[-600:]}", flush=True)
        print(name, flush=True)
    print(f"{wrong} of {total} judged wrongly")


if __name__ == "__main__":
    main()
