"""fleet/cluster.py: two nodes with made-up resources; a node, a worker and the driver are killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from command import ROOT
from models import conv_net

from onnx2trt.base.errors import ConversionError
from onnx2trt.fleet.__main__ import main
from onnx2trt.fleet.cluster import Cluster, needs
from onnx2trt.fleet.plan_file import ANY_GPU, Target, Workers


def test_what_a_target_needs_of_a_node():
    workers = Workers(cpus=0.5)
    assert needs(Target("a"), workers) == {"CPU": 0.5}
    assert needs(Target("a", gpu="A100"), workers) == {"CPU": 0.5, "GPU": 1.0, "accelerator_type:A100": 0.001}
    assert needs(Target("a", gpu=ANY_GPU, resource="orin"), workers) == {"CPU": 0.5, "GPU": 1.0, "orin": 1.0}


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray import cluster_utils

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(ROOT)  # of the nodes: there, the tool is as if it were installed
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"here": 1}})
    yield made
    made.shutdown()
    del os.environ["PYTHONPATH"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    for number in (1, 2):
        onnx.save(conv_net(batch=1, classes=number), tmp_path / "models" / f"net{number}.onnx")
    return tmp_path


def start(folder: Path, cluster, *words) -> subprocess.Popen:
    command = [sys.executable, "-m", "onnx2trt.fleet", "plan.yaml", "--address", cluster.address, "--json", "f.json", *words]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **how)


def finish(folder: Path, process: subprocess.Popen) -> tuple[dict, str]:
    """(the JSON, what was said) of a fleet that has come to its end."""
    _, said = process.communicate(timeout=240)
    assert "Traceback" not in said, said
    found = json.loads((folder / "f.json").read_text())
    assert found["exit_code"] == process.returncode, said
    return found, said


def running(sign: str) -> dict[int, str]:
    """Process id -> command line of those with this sign in it."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if sign in line:
            found[int(entry)] = line
    return found


def conversions(folder: Path) -> list[int]:
    return [pid for pid, line in running("onnx2trt.fleet.leash").items() if str(folder) in line]


def until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def parent_of(pid: int) -> int:
    return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])


def made(folder: Path) -> dict[str, tuple[int, int]]:
    """Engine -> what tells a file from one that was built anew."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(folder.glob("engines/*/*.engine"))}


FLAGS = "flags: --precision fp32 --no-validate --quiet\n"


@pytest.mark.slow
def test_each_conversion_goes_where_its_target_is_and_a_node_that_is_lost_costs_only_its_own(cluster, folder):
    """The node is taken away while it converts: what any node can do is done by the other one, the rest fails and says why."""
    targets = "[{name: anywhere, gpu_arch: sm_89}, {name: there, gpu_arch: sm_89, resource: there}]"
    (folder / "plan.yaml").write_text(f"models: [models/net1.onnx]\ntargets: {targets}\n{FLAGS}workers: {{wait_seconds: 2}}\n")
    node = cluster.add_node(num_cpus=1, resources={"there": 1})
    process = start(folder, cluster)
    until(lambda: any("/there/" in running("onnx2trt.fleet.leash").get(pid, "") for pid in conversions(folder)))
    cluster.remove_node(node, allow_graceful=False)
    found, said = finish(folder, process)
    anywhere, there = found["jobs"]
    assert anywhere["state"] == "built" and anywhere["exit_code"] == 0, said
    assert (
        there["state"] == "failed"
        and there["exit_code"] == 4
        and "no node has what target there needs (CPU: 1, there: 1)" in there["message"]
    )
    assert found["exit_code"] == 4 and (folder / "engines" / "anywhere" / "net1.engine").exists()
    until(lambda: not conversions(folder), 20)


@pytest.mark.slow
def test_a_worker_and_the_driver_are_killed_and_the_run_after_it_builds_nothing_twice(cluster, folder):
    (folder / "plan.yaml").write_text(f"models: [models/*.onnx]\ntargets: [{{name: ada, gpu_arch: sm_89, resource: here}}]\n{FLAGS}")
    process = start(folder, cluster)
    until(lambda: conversions(folder))
    os.kill(parent_of(conversions(folder)[0]), signal.SIGKILL)
    until(lambda: len(made(folder)) == 1)
    first = made(folder)
    until(lambda: any(name not in line for name in first for line in map(running("onnx2trt.fleet.leash").get, conversions(folder)) if line))
    process.kill()
    _, said = process.communicate()
    assert "tried again" in said, "the worker that was killed"
    until(lambda: not conversions(folder), 20)
    left = made(folder)  # a conversion that was nearly done may have come to its end
    assert left.items() >= first.items()

    found, said = finish(folder, start(folder, cluster))
    states = {f"{job['model']}.engine": (job["state"], job["attempts"]) for job in found["jobs"]}
    assert states == {name: ("unchanged", 0) if name in left else ("built", 1) for name in ("net1.engine", "net2.engine")}, said
    everything = made(folder)
    assert everything.items() >= left.items() and len(everything) == 2
    found, said = finish(folder, start(folder, cluster))
    assert found["counts"]["unchanged"] == 2 and made(folder) == everything, said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1"])
def test_an_address_where_nobody_is(address):
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.raises(ConversionError, match="no Ray cluster at") as caught:
        Cluster(address)
    assert caught.value.code == 4 and "head node" in caught.value.hint


@pytest.fixture
def signal_handlers():
    """The command leaves signals ignored, because its process ends; this one goes on, and its children would ignore them, too."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ray_client_is_refused_before_anything_is_read(capsys, signal_handlers):
    assert main(["no_such_plan.yaml", "--address", "ray://127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert "Ray Client" in said and "--address auto" in said


def test_the_json_may_name_no_file_that_is_no_result(folder, capsys, signal_handlers):
    plan = folder / "plan.yaml"
    plan.write_text("models: ['models/*.onnx']\ntargets: [{name: ada, gpu_arch: sm_89}]\n")
    before = plan.read_text()
    assert main([str(plan), "--json", str(plan), "--dry-run"]) == 8
    assert "is not overwritten" in capsys.readouterr().err and plan.read_text() == before
    assert main([str(plan), "--json", str(folder / "f.json"), "--dry-run", "--quiet"]) == 0
    assert main([str(plan), "--json", str(folder / "f.json"), "--dry-run", "--quiet"]) == 0
