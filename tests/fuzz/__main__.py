"""Throw damaged files and random flags at the command, and see that it stays calm.

    python -m tests.fuzz onnx --count 2000 --seed 1 [--jobs 2] [--keep FOLDER]
    python -m tests.fuzz cache | images | flags ...

A case fails where the process crashes, hangs, prints a traceback, takes more than 4 GB, leaves a temporary file, gives an exit code
that is none of ours, or succeeds with a prepared model that is not what ONNX Runtime computes from the damaged file.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402

from tests.fuzz import cases  # noqa: E402

KNOWN_CODES = {0, 2, 3, 4, 5, 6, 7, 8}
MOST_SECONDS = 240
MOST_BYTES = 4 * 2**30


@dataclass
class Verdict:
    code: int | None  # None: it hung
    problems: list[str]
    error: str
    seconds: float
    megabytes: float


def run_case(kind: str, seed: int, number: int, folder: Path) -> Verdict:
    """Make the files of one case in `folder` and run it."""
    arguments = cases.make(kind, np.random.default_rng([seed, number]), folder)
    started = time.monotonic()
    with open(folder / "stdout", "wb") as out, open(folder / "stderr", "wb") as err:
        child = subprocess.Popen([sys.executable, str(ROOT / "onnx2trt.py"), *arguments], cwd=folder, stdout=out, stderr=err)
        code, usage = _wait(child, started + MOST_SECONDS)
    stderr = (folder / "stderr").read_text(errors="replace")
    problems = []
    if code is None:
        problems.append("hung")
    elif code not in KNOWN_CODES:
        problems.append(f"exit code {code}")
    if "Traceback" in stderr:
        problems.append("traceback")
    if code and "error:" not in stderr:
        problems.append("no explanation")
    if usage > MOST_BYTES:
        problems.append(f"{usage / 1e9:.1f} GB")
    if list(folder.rglob(".*.tmp")):
        problems.append("temporary files left")
    if code == 0:
        problems += cases.check_success(kind, folder)
    error = next((line for line in stderr.splitlines() if line.startswith("error:")), "")
    return Verdict(code, problems, error, time.monotonic() - started, usage / 1e6)


def _wait(child: subprocess.Popen, deadline: float) -> tuple[int | None, int]:
    """(exit code, largest resident size of the process or any that it has waited for)"""
    while time.monotonic() < deadline:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode, usage.ru_maxrss * 1024
        time.sleep(0.02)
    child.kill()
    child.wait()
    return None, 0


def one(kind: str, seed: int, number: int, keep: Path | None) -> tuple[int, Verdict]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        verdict = run_case(kind, seed, number, folder)
        if verdict.problems and keep:
            shutil.copytree(folder, keep / f"{kind}-{seed}-{number}", dirs_exist_ok=True)
    return number, verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=cases.KINDS)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the files of cases that failed")
    args = parser.parse_args()
    codes: collections.Counter = collections.Counter()
    failed, slowest, largest = [], 0.0, 0.0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        numbers = range(args.first, args.first + args.count)
        for number, verdict in pool.map(lambda number: one(args.kind, args.seed, number, args.keep), numbers):
            codes[verdict.code] += 1
            slowest, largest = max(slowest, verdict.seconds), max(largest, verdict.megabytes)
            if verdict.problems:
                failed.append({"number": number, "problems": verdict.problems, "code": verdict.code, "error": verdict.error})
                print(json.dumps(failed[-1]), flush=True)
    summary = {
        "kind": args.kind,
        "seed": args.seed,
        "count": args.count,
        "codes": {str(code): n for code, n in sorted(codes.items(), key=str)},
    }
    print(json.dumps({**summary, "failed": len(failed), "slowest_s": round(slowest, 1), "largest_mb": round(largest)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
