"""(c) Architectures of torchvision and transformers with random weights, exported by whatever Python has torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .case import Case, load
from .made_up import finish, read_inputs

GROUP = "exports"
SCRIPT = Path(__file__).with_name("export_torch.py")
SECONDS = 600.0  # of one export
PRECISIONS = ("fp32", "fp16", "int8")
WITHOUT_PRODUCTS = "recurrent network"  # a kind that has no convolution and no matrix product, so nothing for INT8


def cases(work: Path, python: str) -> tuple[list[Case], list[str]]:
    """(models, what was left out and why)"""
    listed = subprocess.run([python, str(SCRIPT), "list"], capture_output=True, text=True)
    if listed.returncode:
        return [], ["(c) skipped: no torch"]
    known = json.loads(listed.stdout.splitlines()[-1])
    root, found, lost = work / f"torch-{known['torch']}", [], []
    for name, kind in known["kinds"].items():
        folder = root / name
        try:
            found.append(load(folder) if (folder / "case.json").exists() else _export(python, name, kind, folder, known["torch"]))
        except (subprocess.SubprocessError, OSError, RuntimeError) as error:
            lost.append(f"{GROUP}/{name} skipped: {error}")
    return found, lost


def _export(python: str, name: str, kind: str, folder: Path, version: str) -> Case:
    print(f"exporting {name}", file=sys.stderr, flush=True)
    done = subprocess.run([python, str(SCRIPT), name, str(folder)], capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:300])
    precisions = PRECISIONS[: -1 if kind == WITHOUT_PRODUCTS else None]
    about = {"group": GROUP, "kind": kind, "name": name, "precisions": precisions, "source": f"torch {version}"}
    return finish(folder, read_inputs(folder), about)
