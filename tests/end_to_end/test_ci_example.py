"""examples/ci: a folder of models for several GPUs, as a CI runner converts it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import onnx
import pytest
from command import ROOT, check_schema
from models import conv_net, model, node, offset_net

from onnx2trt.fleet.__main__ import build_parser
from onnx2trt.fleet.plan_file import read_plan
from onnx2trt.fleet.tasks import tasks_of

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
SCRIPT = ROOT / "examples" / "ci" / "convert_all.sh"


def convert_all(folder, *flags, archs="sm_89 sm_120"):
    environment = {**os.environ, "PYTHON": sys.executable, "ARCHS": archs, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    command = ["bash", str(SCRIPT), "models", "out", *flags]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    onnx.save(conv_net(), tmp_path / "models" / "net.onnx")
    return tmp_path


def test_every_model_for_every_gpu(folder):
    onnx.save(conv_net(batch=1, classes=2), folder / "models" / "other.onnx")
    (folder / "models" / "net.flags").write_text("--max-batch-size 2\n  --metric noise")
    done = convert_all(folder)
    assert done.returncode == 0, done.stderr
    for arch, capability in (("sm_89", "8.9"), ("sm_120", "12.0")):
        for name in ("net", "other"):
            result = json.loads((folder / "out" / arch / f"{name}.engine.json").read_text())
            check_schema(result)
            assert result["engine"]["gpu_archs"] == [capability] and (folder / "out" / arch / f"{name}.engine").stat().st_size > 1000
            assert json.loads((folder / "out" / arch / f"{name}.json").read_text()) == result
            assert result["plan"]["profiles"][0]["max"][0] == (2 if name == "net" else 1)
    assert (folder / "summary.md").read_text().count("| made | 0 |") == 4


def test_a_model_at_fault_fails_the_run_and_not_the_others(folder):
    """The first failure decides the code; accuracy is one."""
    onnx.save(offset_net(), folder / "models" / "a_far_off.onnx")
    (folder / "models" / "a_far_off.flags").write_text("--disable-strict-types --metric noise --max-accuracy-drop 0")
    odd = node("Mystery", "x", "y", "odd")
    onnx.save(model([odd], {"x": [1, 4]}, {"y": [1, 4]}), folder / "models" / "b_odd.onnx")
    done = convert_all(folder, archs="sm_89")
    assert done.returncode == 7, done.stderr
    out = folder / "out" / "sm_89"
    assert json.loads((out / "a_far_off.json").read_text())["exit_code"] == 7 and not (out / "a_far_off.engine").exists()
    assert json.loads((out / "b_odd.json").read_text())["exit_code"] == 3
    assert (out / "net.engine").exists(), "the one that is sound"
    summary = (folder / "summary.md").read_text()
    assert (
        "| a_far_off | sm_89 | accuracy | 7 |" in summary
        and "| b_odd | sm_89 | model | 3 |" in summary
        and "| net | sm_89 | made | 0 |" in summary
    )


def test_a_model_that_lacks_a_shape_fails_the_run_and_not_the_others_and_what_is_there_stays(folder):
    free = model([node("Relu", "x", "y")], {"x": [1, 3, "h", "w"]}, {"y": [1, 3, "h", "w"]})
    onnx.save(free, folder / "models" / "a_free.onnx")
    done = convert_all(folder, archs="sm_89")
    engine = folder / "out" / "sm_89" / "net.engine"
    assert done.returncode == 2 and engine.exists(), done.stderr
    assert "| a_free | sm_89 | flags | 2 |" in (folder / "summary.md").read_text()
    made = engine.stat().st_mtime_ns
    (folder / "models" / "a_free.flags").write_text("--imgsz 32")
    done = convert_all(folder, archs="sm_89")
    assert done.returncode == 0 and engine.stat().st_mtime_ns == made and "unchanged:" in done.stderr, done.stderr


def test_what_would_fail_for_all_ends_it(folder):
    done = convert_all(folder, "--no-such-flag")
    assert done.returncode == 2 and done.stdout.count("===") == 1
    done = convert_all(folder, archs="sm_61")
    assert done.returncode == 4 and "sm_61" in done.stderr


def test_a_folder_without_models_and_a_call_without_folders(tmp_path):
    (tmp_path / "models").mkdir()
    assert convert_all(tmp_path).returncode == 3
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 2 and "convert_all.sh MODELS OUT" in done.stdout


def test_the_workflow_runs_the_script():
    text = (ROOT / "examples" / "ci" / "convert.yml").read_text()
    assert "examples/ci/convert_all.sh models engines" in text and "if: always()" in text
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    steps = yaml.safe_load(text)["jobs"]["convert"]["steps"]
    assert [step["uses"].split("@")[0] for step in steps if "uses" in step][-1] == "actions/upload-artifact"


def fleet_calls(name: str) -> list[list[str]]:
    """The words behind python -m onnx2trt.fleet in a template, as its YAML has them."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    template = yaml.safe_load((ROOT / "examples" / "ci" / name).read_text())
    if name == "gitlab-ci.yml":
        job = template["engines"]
        assert job["artifacts"] == {"when": "always", "paths": ["engines", "fleet.json"]} and job["image"] == "python:3.11"
        lines = [shlex.split(line) for line in job["script"]]
    else:
        assert template["apiVersion"] == "batch/v1" and template["kind"] == "Job"
        spec = template["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
        lines = [container["command"] + container["args"]]
    assert all(isinstance(word, str) for line in lines for word in line)
    return [line[line.index("onnx2trt.fleet") + 1 :] for line in lines if "onnx2trt.fleet" in line]


@pytest.mark.parametrize("name", ["gitlab-ci.yml", "kubernetes-job.yaml"])
def test_the_templates_call_the_fleet_with_flags_that_it_has(name):
    (words,) = fleet_calls(name)
    args = build_parser().parse_args(words)
    assert os.path.basename(args.plan) == "fleet.yaml" and os.path.basename(args.json) == "fleet.json"


def test_a_template_installs_what_the_requirements_files_are_called():
    named = re.findall(r"onnx2trt/(requirements[a-z-]*\.txt)", (ROOT / "examples" / "ci" / "gitlab-ci.yml").read_text())
    assert named and all((ROOT / name).exists() for name in named)


def test_the_plan_of_the_templates_is_one(folder, monkeypatch):
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    shutil.copy(ROOT / "examples" / "ci" / "fleet.yaml", folder)
    monkeypatch.chdir(folder)
    tasks = tasks_of(read_plan("fleet.yaml"))
    assert [os.path.relpath(task.engine, folder) for task in tasks] == [
        f"engines/{arch}/net.engine" for arch in ("sm_86", "sm_89", "sm_120")
    ]
