"""A fleet that is killed again and again: what is finished is never built twice, and in the end everything is there.

    python benchmarks/fleet_kills.py --models 100 --kills 10 --json kills.json

Makes small convolutional networks, converts each for three GPUs of TensorRT-RTX with python -m onnx2trt.fleet, and sends SIGKILL at random
moments, in turn to the driver, to a worker of Ray, to a conversion and to Ray's raylet. What the kill has ended is started again. How
often each engine is built is counted from outside: a thread looks ten times a second which file stands under its name.

The exit code is 1 where an engine is missing, was built twice, or the run that has nothing left to do takes longer than 10 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"ampere": "sm_86", "ada": "sm_89", "blackwell": "sm_120"}
VICTIMS = ("driver", "worker", "conversion", "raylet")
ENDS_ALL = ("driver", "raylet")  # the command is run again afterwards
WORKING = ("ray::convert", "onnx2trt", "/raylet/raylet ", "gcs_server")  # signs in command lines
SECOND_RUN_SECONDS = 10.0  # target
LEFT_SECONDS = 10.0  # that what a dead driver has started may take to end


def network(number: int) -> onnx.ModelProto:
    """Two convolutions with weights of their own: [1, 3, 16, 16] -> [1, 4, 16, 16]."""
    random_numbers = np.random.default_rng(number)
    weights = {
        name: random_numbers.standard_normal(shape).astype(np.float32) for name, shape in (("w1", (8, 3, 3, 3)), ("w2", (4, 8, 1, 1)))
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["y"]),
    ]
    ends = (("x", [1, 3, 16, 16]), ("y", [1, 4, 16, 16]))
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends)
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_plan(folder: Path, models: int) -> Path:
    (folder / "models").mkdir()
    for number in range(models):
        onnx.save(network(number), folder / "models" / f"net{number:03}.onnx")
    targets = "".join(f"  - {{name: {name}, gpu_arch: {arch}}}\n" for name, arch in TARGETS.items())
    plan = folder / "plan.yaml"
    plan.write_text(f"models: ['models/*.onnx']\ntargets:\n{targets}flags: --precision fp16 --quiet\n")
    return plan


class Watch(threading.Thread):
    """Counts the builds of each engine: every file that stands under its name is one."""

    def __init__(self, folder: Path):
        super().__init__(daemon=True)
        self.builds: dict[str, set[tuple[int, int]]] = {}  # engine -> (inode, time of its last change in ns)
        self._folder, self._ended = folder, threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._ended.wait(0.1)

    def look(self) -> None:
        for path in self._folder.glob("engines/*/*.engine"):
            with contextlib.suppress(OSError):
                status = path.stat()
                self.builds.setdefault(str(path.relative_to(self._folder)), set()).add((status.st_ino, status.st_mtime_ns))

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self.look()


def descendants(pid: int) -> dict[int, str]:
    """Process id -> command line of all that a process has started, directly or not."""
    parents, commands = {}, {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError):
            stat = Path("/proc", entry, "stat").read_text()
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
            commands[int(entry)] = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found, todo = {}, [pid]
    while todo:
        children = [child for child, parent in parents.items() if parent == todo[-1] and child not in found]
        todo.pop()
        todo += children
        found.update((child, commands[child]) for child in children)
    return found


def victims(kind: str, driver: int) -> list[int]:
    signs = {"worker": "ray::convert", "conversion": "onnx2trt.fleet.leash", "raylet": "/raylet/raylet "}
    return [driver] if kind == "driver" else [pid for pid, command in descendants(driver).items() if signs[kind] in command]


def start(plan: Path, folder: Path) -> subprocess.Popen:
    log = open(folder / "log.txt", "ab")  # noqa: SIM115 - its process has it
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "onnx2trt.fleet", str(plan), "--json", str(folder / "fleet.json")]
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def kill_one(kind: str, driver: subprocess.Popen, choose: random.Random) -> tuple[bool, int]:
    """(whether there was such a process, how many processes of a dead driver were still there after LEFT_SECONDS)"""
    found = victims(kind, driver.pid)
    if not found:
        return False, 0
    others = descendants(driver.pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(choose.choice(found), signal.SIGKILL)
    if kind not in ENDS_ALL:
        return True, 0
    if kind == "driver":
        driver.wait()
    deadline = time.monotonic() + LEFT_SECONDS
    while kind == "driver" and still_there(others) and time.monotonic() < deadline:
        time.sleep(0.1)
    return True, still_there(others) if kind == "driver" else 0


def still_there(processes: dict[int, str]) -> int:
    """How many of the processes that convert, or that could start such, live; Ray's agents for its dashboard take half a minute to end."""
    return sum(same(pid, command) for pid, command in processes.items() if any(sign in command for sign in WORKING))


def same(pid: int, command: str) -> bool:
    """Whether the process is still that one, and no zombie."""
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") == command != ""
    except OSError:
        return False


def measure(folder: Path, models: int, kills: int, choose: random.Random) -> dict:
    plan = make_plan(folder, models)
    watch = Watch(folder)
    watch.start()
    total = models * len(TARGETS)
    started, done, runs, left, codes = time.monotonic(), [], 1, 0, []
    driver = start(plan, folder)
    while len(done) < kills:
        # the moments are spread over the run by what is finished, not by the clock: machines differ
        goal = total * (len(done) + choose.random()) / kills * 0.95
        while sum(map(bool, watch.builds.values())) < goal and driver.poll() is None:
            time.sleep(0.05)
        kind = VICTIMS[len(done) % len(VICTIMS)]
        deadline = time.monotonic() + 120
        while driver.poll() is None and time.monotonic() < deadline and not victims(kind, driver.pid):
            time.sleep(0.05)
        time.sleep(choose.uniform(0, 2))
        hit, remaining = kill_one(kind, driver, choose) if driver.poll() is None else (False, 0)
        if not hit and driver.poll() is None:
            continue  # it went in the meantime
        if hit:
            done.append({"victim": kind, "built": len(watch.builds), "left": remaining})
            print(f"killed: {kind}, {len(watch.builds)} of {total} engines are there, {remaining} processes left", flush=True)
        if kind in ENDS_ALL or driver.poll() is not None:
            codes.append(driver.wait())
            driver, runs = start(plan, folder), runs + 1
        left += remaining
    codes.append(driver.wait())
    if codes[-1]:  # a kill that the last run did not survive, or that cost a conversion all its retries: the run after it
        driver, runs = start(plan, folder), runs + 1
        codes.append(driver.wait())
    first = time.monotonic() - started
    again = time.monotonic()
    second_code = start(plan, folder).wait()
    second = time.monotonic() - again
    watch.stop()
    counts = json.loads((folder / "fleet.json").read_text())["counts"]
    return {
        "engines": total,
        "there": len(watch.builds),
        "builds": sum(map(len, watch.builds.values())),
        "built_twice": sorted(name for name, builds in watch.builds.items() if len(builds) > 1),
        "kills": done,
        "runs": runs,
        "exit_codes": codes,
        "processes_left": left,
        "seconds": round(first, 1),
        "second_run_s": round(second, 1),
        "second_run_code": second_code,
        "second_run_counts": counts,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.models, args.kills, random.Random(args.seed))
        print(json.dumps(found, indent=1))
        if args.json:
            Path(args.json).write_text(json.dumps(found, indent=1))
        if found["exit_codes"][-1]:
            print((Path(folder) / "log.txt").read_text()[-3000:], file=sys.stderr)
    complete = found["there"] == found["engines"] == found["second_run_counts"]["unchanged"] and found["second_run_code"] == 0
    reached = complete and not found["built_twice"] and not found["processes_left"] and found["second_run_s"] <= SECOND_RUN_SECONDS
    print("reached" if reached else "MISSED")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
