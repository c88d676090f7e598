"""python -m onnx2trt.fleet as users call it: on this machine, with and without Ray."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import onnx
import pytest
from command import IMPORTABLE, ROOT
from models import conv_net

from onnx2trt.fleet.__main__ import build_parser
from onnx2trt.fleet.outcome import STATES
from onnx2trt.fleet.plan_file import DEFAULT_OUTPUT, Workers, read_plan
from onnx2trt.fleet.tasks import tasks_of

pytest.importorskip("yaml", reason="PyYAML is not installed")

PLAN = "models: [models/*.onnx]\ntargets: [{name: ada, gpu_arch: sm_89}]\nflags: --precision fp32 --no-validate --quiet\n"
WITHOUT_RAY = "sys.modules['ray'] = None\n"
MAIN = "from onnx2trt.fleet.__main__ import main\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    for number in (1, 2):
        onnx.save(conv_net(batch=1, classes=number), tmp_path / "models" / f"net{number}.onnx")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def start(folder, *words, ray=True):
    """As from a clone in which nothing is installed: only the command itself knows where the package is."""
    program = ["-c", IMPORTABLE + ("" if ray else WITHOUT_RAY) + MAIN]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def heed():  # what runs in the background of a script ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen([sys.executable, *program, *words], env=environment, preexec_fn=heed, **how)


def fleet(folder, *words, ray=True):
    """(exit code, stdout, stderr)"""
    process = start(folder, *words, ray=ray)
    out, said = process.communicate(timeout=240)
    assert "Traceback" not in said, said
    return process.returncode, out, said


def conversions() -> list[str]:
    """Command lines of the conversions that run now."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as stream:
                line = stream.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "onnx2trt.fleet.leash" in line or "onnx2trt/__main__.py" in line:
            found.append(line)
    return found


def until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_the_page_shows_a_plan_and_calls_that_are_right(folder, monkeypatch):
    text = (ROOT / "docs" / "fleet.md").read_text()
    (plan,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (folder / "plan.yaml").write_text(plan)
    (folder / "other").mkdir()
    shutil.copy(folder / "models" / "net1.onnx", folder / "other" / "road.onnx")
    monkeypatch.chdir(folder)
    read = read_plan("plan.yaml")
    assert len(tasks_of(read)) == 2 * 4 + 2 and read.workers == Workers() and read.output == DEFAULT_OUTPUT
    calls = re.findall(r"^python -m onnx2trt\.fleet ([^#\n]*)", text, re.MULTILINE)
    assert len(calls) == 2
    for call in calls:
        build_parser().parse_args(shlex.split(call))
    states = [cells[0].strip(" `") for cells in (line.strip("|").split("|") for line in text.splitlines()) if len(cells) == 2]
    assert [state for state in states if state in STATES] == list(STATES)


def test_a_plan_and_a_call_that_are_wrong(folder):
    (folder / "plan.yaml").write_text(PLAN + "flag: --tf32\n")
    code, out, said = fleet(folder, "plan.yaml", ray=False)
    assert code == 2 and out == "" and said.startswith("error: plan.yaml, line 4: a plan has no key 'flag'\nhint: It takes ")
    (folder / "plan.yaml").write_text(PLAN.replace("--quiet", "--quite"))
    code, _, said = fleet(folder, "plan.yaml", "--json", "f.json", ray=False)
    assert code == 2 and "did you mean --quiet?" in said and not (folder / "f.json").exists()
    assert fleet(folder, ray=False)[0] == 2
    code, _, said = fleet(folder, "plan.yaml", "--json", "none/f.json", ray=False)
    assert code == 2, "the plan is looked at first"
    (folder / "plan.yaml").write_text(PLAN)
    code, _, said = fleet(folder, "plan.yaml", "--json", "none/f.json", ray=False)
    assert code == 8 and "f.json" in said


def test_without_ray_a_dry_run_says_what_would_be_built_and_a_run_how_to_install_it(folder):
    code, out, said = fleet(folder, "plan.yaml", "--dry-run", "--json", "f.json", ray=False)
    assert code == 0 and "2 conversions: 2 planned" in out, said
    assert json.loads((folder / "f.json").read_text())["counts"]["planned"] == 2
    code, out, said = fleet(folder, "plan.yaml", "--json", "f.json", ray=False)
    assert code == 4 and 'pip install "onnx2trt[fleet]"' in said and "2 not done" in out
    found = json.loads((folder / "f.json").read_text())
    assert found["exit_code"] == 4 and found["status"] == "failed"
    assert not (folder / "engines").exists()


@pytest.mark.slow
def test_interrupted_and_run_again_and_then_nothing_is_left_to_do(folder):
    """Ctrl-C ends the conversions, too; the run after it makes what is missing; the one after that needs no Ray."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    pytest.importorskip("ray", reason="Ray is not installed")

    def ours():
        return [line for line in conversions() if str(folder) in line]

    onnx.save(conv_net(batch=1, classes=3), folder / "models" / "net3.onnx")
    (folder / "plan.yaml").write_text(f"{PLAN}workers: {{cpus: {os.cpu_count()}}}\n")  # one after the other, so that something is left
    process = start(folder, "plan.yaml", "--json", "f.json")
    until(ours)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    found = json.loads((folder / "f.json").read_text())
    assert process.returncode == 130 and found["status"] == "interrupted" and found["exit_code"] == 130, said
    assert "not done" in out and "Traceback" not in said
    until(lambda: not ours(), 20)
    assert not list(folder.rglob("*.tmp"))

    code, out, said = fleet(folder, "plan.yaml", "--json", "-")
    found = json.loads(out)
    assert code == 0 and found["counts"]["built"] + found["counts"]["unchanged"] == 3, said
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.engine")}
    assert len(made) == 3

    code, out, said = fleet(folder, "plan.yaml", ray=False)
    assert code == 0 and "3 unchanged" in out, said
    assert made == {path: path.stat().st_mtime_ns for path in folder.rglob("*.engine")}
