"""fleet/tasks.py: the commands of a plan, and flags that the command would refuse."""

import os

import pytest

pytest.importorskip("yaml", reason="PyYAML is not installed")

from onnx2trt.base.errors import ConversionError
from onnx2trt.fleet.plan_file import read_plan
from onnx2trt.fleet.tasks import tasks_of
from onnx2trt.plan.arguments import build_parser

HEAD = (
    "models: [a.onnx, {model: b.onnx, targets: [ada], flags: --imgsz 64}]\ntargets: [{name: ada, gpu_arch: [sm_86, sm_89]}, {name: any}]\n"
)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"")

    def make(more="", head=HEAD):
        (tmp_path / "plan.yaml").write_text(head + more)
        return tasks_of(read_plan("plan.yaml"))

    return make


def test_models_times_targets_in_the_order_of_the_plan(tasks, tmp_path):
    found = tasks("flags: --precision fp16 --report r/{target}/{model}.html")
    assert [(task.model, task.target.name) for task in found] == [("a", "ada"), ("a", "any"), ("b", "ada")]
    parsed = [build_parser().parse_args(task.arguments) for task in found]
    assert [args.gpu_arch for args in parsed] == [[("86",), ("89",)], [], [("86",), ("89",)]]
    assert [args.imgsz for args in parsed] == [None, None, (64, 64)]
    for args, task in zip(parsed, found):
        assert args.output == task.engine == str(tmp_path / "engines" / task.target.name / f"{task.model}.engine")
        assert args.skip_unchanged and args.precision == "fp16" and args.backend == "tensorrt-rtx"
        assert task.report == str(tmp_path / "r" / task.target.name / f"{task.model}.html")


def test_flags_of_a_model_stand_behind_those_of_the_target_and_of_all(tasks):
    head = "models: [{model: a.onnx, flags: --precision int8}]\ntargets: [{name: x, flags: --precision fp16 --tf32}]\n"
    args = build_parser().parse_args(tasks("flags: --precision fp32", head)[0].arguments)
    assert args.precision == "int8" and args.tf32


def test_a_relative_path_of_a_flag_begins_at_the_plan(tasks, tmp_path):
    """--validate looks whether it is a folder."""
    (tmp_path / "images").mkdir()
    assert build_parser().parse_args(tasks("flags: --validate images")[0].arguments).validation_dir == "images"


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--no-such-flag", "unrecognized arguments"),
        ("--precison fp16", "did you mean --precision"),
        ("--precision fp7", "invalid choice"),
        ("--no-validate --require-execution", "contradict"),
        ("c.onnx", "unrecognized arguments: c.onnx"),
        ("--help", "end the command"),
        ("--onnx c.onnx", "--onnx cannot stand among the flags"),
        ("--output=x.engine", "--output=x.engine cannot stand"),
        ("--gpu-arch 89", "--gpu-arch cannot stand"),
        ("--json x.json", "--json cannot stand"),
        ("--validate-only x", "--validate-only cannot stand"),
    ],
)
def test_flags_that_the_command_would_refuse_are_refused_before_anything_starts(tasks, flags, message, capsys):
    with pytest.raises(ConversionError) as caught:
        tasks(f"flags: {flags}\n")
    assert caught.value.code == 2 and message in caught.value.message and "plan.yaml, line 1: a for ada: " in caught.value.message
    assert capsys.readouterr() == ("", ""), "the parser has said nothing by itself"


def test_two_conversions_do_not_write_one_file(tasks):
    with pytest.raises(ConversionError, match="a for ada and a for any would both write .*r.html"):
        tasks("flags: --report r.html\n")
    head = "models: [a.onnx, b.onnx]\ntargets: [{name: x}, {name: y}]\n"
    os.symlink("x", "y")
    with pytest.raises(ConversionError, match="a for x and a for y would both write"):
        tasks("output: '{target}/{model}.engine'", head)
    assert not os.path.exists("x"), "nothing was made"


def test_what_cannot_be_seen_from_outside_is_decided_by_the_command(tasks):
    assert not any(task.decided_beforehand for task in tasks("flags: --triton-repository t/{target}"))
