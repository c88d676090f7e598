"""What the command does over a matrix of conversions: recorded, and compared with another recording. For changes that must change nothing.

    python benchmarks/behaviour.py record OUT.json --command "python onnx2trt.py" [--only PATTERN] [--jobs 2] [--flags FLAGS] [--root DIR]
    python benchmarks/behaviour.py compare BEFORE.json AFTER.json [--no-engine-hashes]

A case is a folder with a model and data, and the commands that run there in turn (behaviour_cases.py). Recorded of each command: exit
code, stdout, what stands on stderr but for progress, the result (--json), and every file that is there afterwards with its hash. Left
out are seconds, latencies, memory and absolute paths. Caches and temporary files of a case stay in its folder.

Where nothing is executed, all of that is the same in every recording of the same code, to the byte of the engine, with two exceptions:
- Engines for free dimensions: TensorRT-RTX numbers and orders what computes their shapes differently each time, at least with INT8.
  Such an engine is hashed as a bag of bytes, without these numbers.
- The fit file beside a calibration cache: the order of the layers held in it is that of a Python set. Its content is compared.
Where a result names the hash of a file that was written, the name of that file is recorded instead. On a GPU, engines and figures vary:
record with --flags="--builder-optimization-level 0 --no-baseline", and compare with --no-engine-hashes.
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if __package__:
    from benchmarks.behaviour_cases import matrix, write_case
else:
    from behaviour_cases import matrix, write_case

ROOT = Path(__file__).resolve().parent.parent
RENAMED_KEYS: dict[str, str] = {
    "plan.hold_layers": "keep_layers",
    "precision.kept_high": "fallback",
    "timings_s.balance": "equalize",
}  # of the result: "plan.hold_layers" or "variants.p50_ms" -> the name of this key after, as "holds"
IGNORED = ("*.key.sha256", "*.key.versions.onnx2trt")  # paths as `compare` prints them
# With --no-engine-hashes these are ignored, too, and decimals of MEASURED and in texts
ENGINES = ("*.engine.sha256", "*.engine.bag", "*.engine.*bytes", "*.engine_bytes", "*.rejected.*")
MEASURED = ("*.accuracy[[]*", "*.variants[[]*")
DECIMAL = re.compile(r"\d+\.\d+(e[+-]?\d+)?")
NOISE = re.compile(r"\b\d+(\.\d+)?(?= (ms|s)\b)|(?<=\bp\d\d )\d+\.\d+|\b20\d\d-\d\d-\d\d\b")  # seconds, latencies, dates
HASH = re.compile("[0-9a-f]{32}")  # in names of files
COUNTED, FREE = re.compile(rb"__mye\d+"), b"_shapeInput"  # numbered names in engines; what only those for free dimensions have
TIMES = {"seconds", "build_s", "peak_memory_mb", "p50_ms", "p90_ms", "p99_ms", "fp16_p50_ms", "mean_ms", "throughput_per_s"}
TIME_COLUMNS = (2, 3, 4, 7)  # of the table of several engines
WITHOUT_MODEL = {"--onnx", "--inspect", "--help"}  # commands that are run as they are written
TIMEOUT = 600.0  # seconds of one command


@dataclass(frozen=True)
class Setting:
    command: list[str]
    flags: list[str]  # more of them, for every conversion
    root: Path  # of the checkout whose example is converted


def record_case(title: str, setting: Setting) -> list[dict]:
    """All commands of a case, or those before one that cannot be recorded."""
    model, lines = matrix()[title]
    steps: list[dict] = []
    end = ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        try:
            write_case(model, folder, setting.root)
            given = {path: digest(path) for path in folder.rglob("*") if path.is_file()}
            places = {str(folder): "<folder>", **{os.path.dirname(word): "<program>" for word in setting.command if os.path.isabs(word)}}
            for line in lines:
                if line.startswith("!"):
                    subprocess.run(["sh", "-c", line[1:]], cwd=folder, check=True)
                else:
                    steps.append(record(line, folder, given, places, setting))
        except (RuntimeError, ValueError, subprocess.SubprocessError) as error:  # a model that cannot be had, say
            end = f"; ended by {error}"
    print(f"{title}: exit {', '.join(str(step['exit']) for step in steps)}{end}", file=sys.stderr, flush=True)
    return steps


def record(line: str, folder: Path, given: dict[Path, str], places: dict[str, str], setting: Setting) -> dict:
    """Run one command.

    Args:
        given: the case's own files, with their hashes.
        places: what differs from run to run, a path or a hash -> what stands for it; hashes of new files are added.
    """
    words = shlex.split(line)
    if not WITHOUT_MODEL & {*words}:
        words = ["--onnx", "net.onnx", *words, *setting.flags]
    if not {"--json", "--help"} & {*words}:
        words += ["--json", "r.json"]
    (folder / "r.json").unlink(missing_ok=True)
    own = {"XDG_CACHE_HOME": str(folder / "caches"), "TMPDIR": str(folder / "tmp"), "COLUMNS": "1000"}  # so that no line is folded
    started = time.monotonic()
    done = subprocess.run([*setting.command, *words], cwd=folder, env={**os.environ, **own}, capture_output=True, timeout=TIMEOUT)
    seconds = round(time.monotonic() - started, 1)
    written = new_files(folder, given)
    for path in written:
        places.setdefault(digest(path), f"<sha256 of {path.name}>")
    stdout, stderr = (settled(text.decode(errors="replace"), places) for text in (done.stdout, done.stderr))
    result = None
    if stdout.startswith("{"):
        result, stdout = settled(json.loads(done.stdout), places), ""
    elif (folder / "r.json").exists():
        result = settled(json.loads((folder / "r.json").read_bytes()), places)
    return {
        "command": shlex.join(words),
        "seconds": seconds,
        "exit": done.returncode,
        "stdout": [tidy(text) for text in stdout.splitlines()],
        "stderr": [tidy(text) for text in stderr.splitlines() if not text.startswith("[")],
        "result": result,
        "files": {HASH.sub("#", str(path.relative_to(folder))): describe(path, folder, result, places) for path in written},
        "gone": sorted(str(path.relative_to(folder)) for path in given if not path.exists()),
    }


def new_files(folder: Path, given: dict[Path, str]) -> list[Path]:
    """What is there, and not as it was given."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and given.get(path) != digest(path)]


def describe(path: Path, folder: Path, result: dict | None, places: dict[str, str]):
    """What is known of a file that was written."""
    name = str(path.relative_to(folder))
    if name == "r.json" or name.startswith(("caches", "t.cache")):  # kernel timings, say
        return "present"
    if path.suffix == ".json":
        content = settled(json.loads(path.read_bytes()), places)
        return "the result" if content == result else content
    if path.suffix == ".html":
        page = path.read_text()
        sections = re.findall(r'<section[^>]* id="([^"]*)"', page)
        return {"sections": sections, "pictures": page.count("<img"), "plots": page.count("<svg")}
    if path.name.endswith(".fit.npz") and zipfile.is_zipfile(path):
        return describe_fit(path)
    data = path.read_bytes()
    if FREE in data:
        data = COUNTED.sub(b"", data)
        return {"bytes": len(data), "bag": hashlib.sha256(repr([data.count(byte) for byte in range(256)]).encode()).hexdigest()}
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def describe_fit(path: Path) -> dict:
    """The file beside a calibration cache, whatever the order of its layers is."""
    import numpy as np

    with np.load(path) as arrays:
        about = json.loads(arrays["about"].tobytes())
        return {"about": about, **{name: hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays.files if name != "about"}}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def settled(value, places: dict[str, str]):
    """A JSON value or a text without what differs from run to run."""
    if isinstance(value, dict):
        found = {key: "#" if key in TIMES and item is not None else settled(item, places) for key, item in value.items()}
        return found | ({"timings_s": sorted(value["timings_s"])} if "timings_s" in value else {})
    if isinstance(value, list):
        return [settled(item, places) for item in value]
    if not isinstance(value, str):
        return value
    for place, word in places.items():
        value = value.replace(place, word)
    return NOISE.sub("#", re.sub(r"(python (-m )?)?onnx2trt(\.py)?\b", "onnx2trt", value))


def tidy(line: str) -> str:
    """A line of stdout without the widths of tables and the times in them."""
    line = re.sub(r" +", " ", re.sub(r"-{3,}", "---", line)).replace(" |", "|")
    cells = line.split("|")
    if line.startswith("|seconds"):
        return DECIMAL.sub("#", line)
    if len(cells) == 10 and cells[1] in ("fp32", "fp16", "int8"):
        return "|".join("#" if index - 1 in TIME_COLUMNS and cell != " -" else cell for index, cell in enumerate(cells))
    return line


# ---- comparing


def flat(value, path: str) -> Iterator[tuple[str, object]]:
    """(path, leaf) of all leaves of a JSON value."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from flat(item, f"{path}[{index}]")
    else:
        yield path, value


def renamed(value, path: str = ""):
    """A result with the new names of RENAMED_KEYS."""
    if isinstance(value, list):
        return [renamed(item, path) for item in value]
    if not isinstance(value, dict):
        return value
    return {RENAMED_KEYS.get(path + key, key): renamed(item, f"{path}{key}.") for key, item in value.items()}


def is_meant(path: str, old, new, engines: bool) -> bool:
    """Whether a difference is one that may be.

    Args:
        engines: they are compared by hash, and by what was measured on them.
    """
    if path.endswith("schema_version") and isinstance(old, int) and isinstance(new, int):
        return new > old
    if not engines and isinstance(old, float) and isinstance(new, float) and any(fnmatch.fnmatchcase(path, name) for name in MEASURED):
        return True
    return any(fnmatch.fnmatchcase(path, name) for name in IGNORED + (() if engines else ENGINES))


def differences(before: dict, after: dict, engines: bool) -> Iterator[str]:
    """Between two recordings of one command, a line each."""

    def mask(value):
        return DECIMAL.sub("#", value) if not engines and isinstance(value, str) else value

    for key in ("stdout", "stderr"):
        lines = ([mask(line) for line in step[key]] for step in (before, after))
        changes = list(difflib.unified_diff(*lines, n=0, lineterm=""))[2:]
        yield from (f"{key} {line}" for line in changes if not line.startswith("@@"))
    files = {name: renamed(content) for name, content in before["files"].items()}
    both = ({**before, "result": renamed(before["result"]), "files": files}, after)
    old, new = (dict(flat({key: step[key] for key in ("exit", "result", "files", "gone")}, "")) for step in both)
    for path in dict.fromkeys((*old, *new)):
        a, b = (mask(side.get(path, "nothing")) for side in (old, new))
        if a != b and not is_meant(path, a, b, engines):
            yield f"{path}: {a!r} -> {b!r}"


def compare(before: dict, after: dict, engines: bool) -> int:
    """Print what differs, of the cases in both where --only has left some out; returns the number of differences."""
    count, partly = 0, before["only"] or after["only"]
    for title in dict.fromkeys((*before["cases"], *after["cases"])):
        old, new = (side["cases"].get(title, []) for side in (before, after))
        if len(old) != len(new) and not (partly and not (old and new)):
            print(f"{title}: {len(old)} commands before, {len(new)} after")
            count += 1
        for a, b in zip(old, new):
            found = list(differences(a, b, engines))
            count += len(found)
            if found:
                print("\n    ".join((f"{title}: {a['command']}", *found)))
    print(f"{count} differences")
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("record", help="run all cases")
    verb.add_argument("out", type=Path)
    verb.add_argument("--command", required=True, type=shlex.split, help='as "python onnx2trt.py"')
    verb.add_argument("--only", default="", metavar="PATTERN", help="cases whose titles match, as '*cache*'")
    verb.add_argument("--jobs", type=int, default=2, help="cases at a time (default: 2)")
    verb.add_argument("--flags", type=shlex.split, default=[], help='more flags for each conversion, as --flags="--no-baseline"')
    verb.add_argument("--root", type=Path, default=ROOT, help="the checkout whose example is converted (default: this one)")
    verb = verbs.add_parser("compare", help="exit code 1 where anything differs")
    verb.add_argument("before", type=Path)
    verb.add_argument("after", type=Path)
    verb.add_argument("--no-engine-hashes", action="store_true", help="nor sizes of engines, nor figures that may be measured on them")
    args = parser.parse_args()
    if args.verb == "compare":
        before, after = (json.loads(path.read_text()) for path in (args.before, args.after))
        return 1 if compare(before, after, not args.no_engine_hashes) else 0
    command = [os.path.abspath(word) if os.path.isfile(word) else word for word in args.command]
    setting, started = Setting(command, args.flags, args.root.resolve()), time.monotonic()
    titles = [title for title in matrix() if fnmatch.fnmatchcase(title, args.only or "*")]
    with ThreadPoolExecutor(args.jobs) as workers:
        cases = dict(zip(titles, workers.map(lambda title: record_case(title, setting), titles)))
    seconds = round(time.monotonic() - started)
    found = {"command": args.command, "flags": args.flags, "only": args.only, "seconds": seconds, "cases": cases}
    args.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(f"{sum(map(len, cases.values()))} commands of {len(cases)} cases in {seconds} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
