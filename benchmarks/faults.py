"""Files where the system fails: is anything lost, is anything half?

    python benchmarks/faults.py [calls] [memory] [kills] [writers] [--every N] [--kills N] [--rounds N] [--json FILE]

calls    every write, sync, rename, link, lock, map, open for writing and new folder of a run fails once (tests/faulty_system.c)
memory   ten limits of memory (ulimit -v)
kills    SIGKILL, SIGTERM and SIGINT at random moments
writers  eight conversions at once to the same files

Each run begins with the files of an earlier one, and is looked at afterwards: the code is a documented one and not 1; a failure has said
so in a sentence and without frames; each file is the old one or a complete new one; those that belong together fit; no temporary file is
left. Ends with 1 where one of them is not so.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from faulty_system import CALLS, SHORT, Fault, System, compiled, missing  # noqa: E402

ONNX2TRT = ("onnx2trt.py", "net.onnx", "--quiet")
BUILD = (*ONNX2TRT, "--precision", "fp16", "--json", "r.json", "--report", "r.html", "--save-onnx", "s.onnx")
CALIBRATE = (*ONNX2TRT, "--precision", "int8", "--quantization-effort", "fast", "--max-accuracy-drop", "100", "--calibration-dir", "images")
RUNS = {  # a door and its words
    "engine": BUILD,
    "cache": (*CALIBRATE, "--calibration-cache", "c.cache", "--json", "r.json"),
    "array": ("preprocess.py", "images/0.png", "--onnx", "net.onnx", "--quiet", "--output", "x.npz", "--json", "r.json"),
}
ERRORS = {  # call -> what it can fail with
    "write": (errno.ENOSPC, SHORT, errno.EIO, errno.EDQUOT),
    "sync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "rename": (errno.EACCES, errno.EIO, errno.ENOSPC),
    "link": (errno.EPERM, errno.EMLINK, errno.ENOSPC),
    "lock": (errno.ENOLCK, errno.EIO, errno.EINTR),
    "map": (errno.ENOMEM, errno.EACCES),
    "open": (errno.EACCES, errno.ENOSPC, errno.EMFILE, errno.EIO),
    "truncate": (errno.EIO,),
    "folder": (errno.EACCES, errno.ENOSPC),
}
CODES = {0, 2, 3, 4, 5, 6, 7, 8, 129, 130, 143}  # documented, and not 1
MEMORY_MB = (60, 120, 200, 350, 500, 700, 1000, 1500, 2500, 4000)
EARLY = ("r.json", "r.html", "c.cache", "c.cache.json", "c.cache.fit.npz")  # of a run that fails these may be new all the same


def command(door: str, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / door), *words]


class Place:
    """A folder with a model, images and the files of an earlier run, as it was before each run."""

    def __init__(self, folder: Path, run: str):
        import cv2
        import models
        import numpy as np
        import onnx

        self.origin, self.work, self.run = folder / "origin", folder / "place" / "work", run
        (self.origin / "images").mkdir(parents=True)
        onnx.save(models.conv_net(), self.origin / "net.onnx")
        for index in range(4):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)
            cv2.imwrite(str(self.origin / "images" / f"{index}.png"), pixels)
        self.renew()
        earlier = {"engine": [word.replace("fp16", "fp32") for word in BUILD], "cache": [*ONNX2TRT, "--json", "r.json"]}
        self.start(*earlier.get(run, RUNS[run])).communicate()
        shutil.copytree(self.work, self.origin, dirs_exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        folders = {
            "HOME": self.work.parent / "home",
            "TMPDIR": self.work.parent / "temporary",
            "MPLCONFIGDIR": self.origin.parent / "fonts",
        }
        return {"XDG_CACHE_HOME": "", **{name: str(path) for name, path in folders.items()}}  # matplotlib takes seconds to look for fonts

    def renew(self) -> None:
        shutil.rmtree(self.work.parent, ignore_errors=True)
        shutil.copytree(self.origin, self.work)
        for name in ("home", "temporary"):
            (self.work.parent / name).mkdir()

    def start(self, *words: str, **how) -> subprocess.Popen:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
        return subprocess.Popen(command(*words), cwd=self.work, env={**os.environ, **self.environment}, **streams, **how)

    def contents(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.work)): path.read_bytes() for path in sorted(self.work.rglob("*")) if path.is_file()}

    def problems(self, before: dict[str, bytes], code: int, said: str, killed: bool = False) -> list[str]:
        """What is not as it should be after a run."""
        before = {name: data for name, data in before.items() if not name.endswith(".tmp")}  # of a killed run; the next one removes them
        after, found = self.contents(), []
        if code not in CODES and not (killed and code < 0):
            found.append(f"code {code}")
        if "Traceback" in said or "Exception ignored" in said:
            found.append("frames")
        if code > 0 and "error: " not in said:
            found.append("no sentence")
        left = [str(path) for path in self.work.parent.rglob("*.tmp")]
        found += [f"left {path}" for path in left if not killed]
        after = {name: data for name, data in after.items() if not name.endswith(".tmp")}
        found += [f"lost {name}" for name in before if name not in after]
        changed = {name for name, data in after.items() if before.get(name) != data and not name.endswith(".lock")}
        if code > 0:
            found += [f"new {name} of a run that failed" for name in sorted(changed - set(EARLY))]
        found += [f"half {name}" for name in sorted(changed) if not _complete(name, after[name])]
        return found + _apart(after)


def _complete(name: str, data: bytes) -> bool:
    """Whether the content of a file is whole by itself."""
    if name.endswith(".json"):
        try:
            return bool(json.loads(data))
        except ValueError:
            return False
    if name.endswith(".html"):
        return data.rstrip().endswith(b"</html>")
    if name.endswith(".onnx"):
        import onnx

        onnx.checker.check_model(onnx.load_from_string(data))
    return len(data) > 0


def _apart(after: dict[str, bytes]) -> list[str]:
    """Files that belong together and do not fit."""
    found = []
    side = json.loads(after.get("net.engine.json", b"{}"))
    if "engine" in side and side["engine"] and side["engine"]["sha256"] != _sha256(after["net.engine"]):
        found.append("engine and its JSON do not fit")
    if "c.cache" in after:
        record = json.loads(after.get("c.cache.json", b"{}"))
        if record.get("cache_sha256") != _sha256(after["c.cache"]):
            found.append("cache and its side file do not fit")
        if "c.cache.fit.npz" in after and record.get("fit_sha256") != _sha256(after["c.cache.fit.npz"]):
            found.append("fit file and side file do not fit")
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- the four ways


def calls(folder: Path, args) -> Iterator[tuple[str, list[str]]]:
    """(what was done, what is wrong afterwards) of each call that fails."""
    if missing():
        print(f"calls: left out, {missing()}")
        return
    library = compiled(folder)
    for run in RUNS:
        place = Place(folder / run, run)
        system = System(library, place.work.parent, folder / "state")
        words = command(*RUNS[run])
        how = {"cwd": place.work, "env": place.environment, "capture_output": True, "text": True, "errors": "replace"}
        for call in CALLS:
            place.renew()
            system.run(words, Fault(call, 0), **how)
            counted = system.calls
            print(f"{run}: {counted} calls of {call}", flush=True)
            for index, number in enumerate(range(1, counted + 1, args.every)):
                for error in ERRORS[call] if args.thorough else ERRORS[call][index % len(ERRORS[call]) :][:1]:
                    fault = Fault(call, number, error, onward=call in ("write", "sync") and index % 3 == 2 and error != SHORT)
                    place.renew()
                    before = place.contents()
                    done = system.run(words, fault, **how)
                    if system.faults:
                        yield f"{run}: {fault}: code {done.returncode}", place.problems(before, done.returncode, done.stderr)


def memory(folder: Path, args) -> Iterator[tuple[str, list[str]]]:
    """The same for limits of memory."""
    for run in RUNS:
        place = Place(folder / run, run)
        for limit in MEMORY_MB:
            place.renew()
            before = place.contents()

            def limited(limit=limit) -> None:
                resource.setrlimit(resource.RLIMIT_AS, (limit * 2**20, limit * 2**20))

            process = place.start(*RUNS[run], preexec_fn=limited)
            _, said = process.communicate()
            yield f"{run}: {limit} MB: code {process.returncode}", place.problems(before, process.returncode, said)


def kills(folder: Path, args) -> Iterator[tuple[str, list[str]]]:
    """The same for signals; after SIGKILL files of a dead run may be there, which the next one removes."""
    chosen = random.Random(0)
    for run in RUNS:
        place = Place(folder / run, run)
        started = time.monotonic()
        place.start(*RUNS[run]).communicate()
        seconds = time.monotonic() - started
        for _ in range(args.kills // len(RUNS)):
            number, moment = chosen.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)), chosen.uniform(0, 1.05 * seconds)
            if number != signal.SIGKILL or not list(place.work.rglob("*.tmp")):
                place.renew()
            before = place.contents()
            process = place.start(*RUNS[run], preexec_fn=_heeding)
            time.sleep(moment)
            process.send_signal(number)
            _, said = process.communicate()
            killed = number == signal.SIGKILL
            time.sleep(0.3 if killed else 0)  # the child ends with its parent
            found = place.problems(before, process.returncode, said, killed=killed or process.returncode == -number)
            yield f"{run}: {number.name} after {moment:.2f} s: code {process.returncode}", found
        _, said = place.start(*RUNS[run]).communicate()
        left = [f"left {path}" for path in place.work.parent.rglob("*.tmp")]
        yield f"{run}: once more", left + _apart(place.contents())


def _heeding() -> None:
    """A shell in the background has its children ignore Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def writers(folder: Path, args) -> Iterator[tuple[str, list[str]]]:
    """The same for conversions at once; two of the eight are killed."""
    place = Place(folder / "writers", "engine")
    for index in range(args.rounds):
        before = place.contents()
        ways = (RUNS["engine"], RUNS["cache"], (*ONNX2TRT, "--precision", "fp32"), (*RUNS["cache"], "--calibration-method", "minmax")) * 2
        started = [place.start(*words) for words in ways]
        time.sleep(1.0 + 0.5 * index)
        for process in started[:2]:
            process.kill()
        said = [process.communicate()[1] for process in started]
        for process, text in zip(started, said):
            stale = process.returncode == 5 and "is stale" in text  # of another's method, which is said
            done = place.problems(before, 0 if stale else process.returncode, text, killed=True)
            found = [text for text in done if not text.startswith("new ")]
            yield f"round {index}: code {process.returncode}", found
    place.start(*RUNS["engine"]).communicate()
    yield "once more", [f"left {path}" for path in place.work.rglob("*.tmp")] + _apart(place.contents())


WAYS = {"calls": calls, "memory": memory, "kills": kills, "writers": writers}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"{', '.join(WAYS)} (default: all)")
    parser.add_argument("--every", metavar="N", type=int, default=1, help="of the calls each N-th (default: all)")
    parser.add_argument("--thorough", action="store_true", help="each call with all errors that it can fail with, not with one of them")
    parser.add_argument("--kills", metavar="N", type=int, default=100)
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="of eight writers")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the counts as JSON")
    args = parser.parse_args()
    counts: dict[str, dict] = {}
    for way in args.ways or WAYS:
        ended, wrong = Counter(), []
        with tempfile.TemporaryDirectory() as name:
            for title, found in WAYS[way](Path(name).resolve(), args):
                ended[title.rpartition(" ")[2]] += 1
                if found:
                    wrong.append(f"{title}: {'; '.join(found)}")
                    print(f"{way}: {wrong[-1]}", flush=True)
        counts[way] = {"runs": sum(ended.values()), "codes": dict(ended), "wrong": wrong}
        codes = ", ".join(f"{count} with {code}" for code, count in sorted(ended.items()))
        print(f"{way}: {counts[way]['runs']} runs ({codes}), {len(wrong)} not as they should be", flush=True)
    if args.json:
        args.json.write_text(json.dumps(counts, indent=2) + "\n")
    return 1 if any(row["wrong"] for row in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
