"""fleet/plan_file.py: what a plan may say, and the line of what it may not."""

import random

import pytest

pytest.importorskip("yaml", reason="PyYAML is not installed")

from onnx2trt.base.errors import ConversionError
from onnx2trt.fleet import plan_file
from onnx2trt.fleet.plan_file import Model, Target, Workers, read_plan

WHOLE = """\
models:
  - nets/*.onnx
  - {model: other/seg.onnx, name: road, flags: --imgsz 64, targets: [ada]}
  - model: other/*.onnx
    flags: [--max-batch-size, 4]
targets:
  - {name: ada, gpu_arch: [sm_86, 8.9], flags: "--report 'a b.html'"}
  - {name: a100, backend: tensorrt, gpu: A100}
  - {name: orin, backend: tensorrt, resource: orin}
flags: --precision fp16
output: out/{target}/{model}.plan
workers: {cpus: 0.5, retries: 3, wait_seconds: 5}
"""
LEAST = "models: [nets/a.onnx]\ntargets: [{name: ada}]\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("nets/a.onnx", "nets/b.onnx", "other/seg.onnx", "odd/{x}.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def read(folder, text):
    (folder / "plan.yaml").write_text(text)
    return read_plan(str(folder / "plan.yaml"))


def test_everything_that_a_plan_can_say(folder):
    plan = read(folder, WHOLE)
    assert plan.models == (
        Model("a", "nets/a.onnx", 2),
        Model("b", "nets/b.onnx", 2),
        Model("road", "other/seg.onnx", 3, ("--imgsz", "64"), ("ada",)),
        Model("seg", "other/seg.onnx", 4, ("--max-batch-size", "4")),
    )
    assert plan.targets == (
        Target("ada", gpu_archs=("sm_86", "8.9"), flags=("--report", "a b.html")),
        Target("a100", "tensorrt", gpu="A100"),
        Target("orin", "tensorrt", resource="orin"),
    )
    assert [target.hides_gpus for target in plan.targets] == [True, False, False]
    assert plan.flags == ("--precision", "fp16") and plan.output == "out/{target}/{model}.plan" and plan.workers == Workers(0.5, 3, 5.0)
    assert plan.folder == str(folder)


def test_the_least_that_a_plan_must_say(folder):
    plan = read(folder, LEAST)
    assert plan.workers == Workers() and plan.flags == () and plan.output == plan_file.DEFAULT_OUTPUT


WRONG = [
    ("models: [nets/a.onnx]\n", 1, "lacks 'targets'"),
    ("models: []\ntargets: [{name: x}]\n", 1, "at least one entry"),
    (LEAST + "model: x\n", 3, "has no key 'model'"),
    (LEAST + "flags: a\nflags: b\n", 4, "stands there twice"),
    (LEAST + "flags: '--mean \"1'\n", 3, "cannot be split"),
    (LEAST + "flags: [[--tf32]]\n", 3, "must stand a text"),
    (LEAST + "flags:\n  - --tf32\n  -\n", 5, "must stand a text"),
    (LEAST + 'flags: ["a\\0b"]\n', 3, "NUL"),
    (LEAST + "workers: {cpus: many}\n", 3, "'many' is no number"),
    (LEAST + "workers: {cpus: 0}\n", 3, "'0' is no number"),
    (LEAST + "workers: {retries: 1.5}\n", 3, "no whole number"),
    (LEAST + "workers: {retries: .nan}\n", 3, "is no number"),
    ("models: [none/*.onnx]\ntargets: [{name: x}]\n", 1, "there is no file none/*.onnx"),
    ("models: [nets]\ntargets: [{name: x}]\n", 1, "there is no file nets"),
    ("models:\n- nets/a.onnx\n- nets/*.onnx\ntargets: [{name: x}]\n", 3, "a second model is called 'a'"),
    ("models:\n- {model: nets/*.onnx, name: one}\ntargets: [{name: x}]\n", 2, "one name for 2 models"),
    ("models:\n- {model: nets/a.onnx, name: a/b}\ntargets: [{name: x}]\n", 2, "'a/b' cannot stand in a file's name"),
    ("models:\n- {model: nets/a.onnx, name: ..}\ntargets: [{name: x}]\n", 2, "'..' cannot stand"),
    ("models:\n- odd/*.onnx\ntargets: [{name: x}]\n", 2, "cannot be named after its file"),
    ("models:\n- {model: nets/a.onnx, targets: [y]}\ntargets: [{name: x}]\n", 2, "there is no target 'y'"),
    ("models: [nets/a.onnx]\ntargets:\n- {name: x}\n- {name: x}\n", 4, "a second target is called 'x'"),
    ("models: [nets/a.onnx]\ntargets: [ada]\n", 2, "must be a mapping"),
    ("models: [nets/a.onnx]\ntargets:\n- {name: x, backend: trt}\n", 3, "none of tensorrt-rtx, tensorrt"),
    ("models: [nets/a.onnx]\ntargets:\n- {name: x, backend: tensorrt}\n", 3, "needs a GPU"),
    ("models: [nets/a.onnx]\ntargets:\n- {name: x, backend: tensorrt, gpu: A100, gpu_arch: 80}\n", 3, "gpu_arch cannot go with"),
    ("models: [nets/*.onnx]\ntargets: [{name: x}]\noutput: '{target}.engine'\n", 3, "one name"),
    ("models: [nets/a.onnx\ntargets: x", 2, "no YAML"),
    ("models: !!python/object/apply:os.system ['true']\ntargets: [{name: x}]\n", 1, "there is no file true"),
    ("- a\n", 1, "must be a mapping"),
    ("models: &m [*m]\ntargets: [{name: x}]\n", 1, "must be a mapping"),
]


@pytest.mark.parametrize("text, line, message", WRONG)
def test_what_is_wrong_is_named_with_its_line(folder, text, line, message):
    with pytest.raises(ConversionError) as caught:
        read(folder, text)
    assert caught.value.code == 2 and f"plan.yaml, line {line}: " in caught.value.message and message in caught.value.message


@pytest.mark.parametrize(
    "text, message",
    [("", "is empty"), ("[" * 1_000, "nested too deeply"), ("a: \x07", "no YAML"), ("#" * (2**20 + 1), "at most 1048576 are read")],
)
def test_what_has_no_line(folder, text, message):
    with pytest.raises(ConversionError, match=message) as caught:
        read(folder, text)
    assert caught.value.code == 2


def test_no_file_and_bytes_that_are_no_text(folder):
    with pytest.raises(ConversionError, match="cannot be read"):
        read_plan(str(folder / "none.yaml"))
    (folder / "plan.yaml").write_bytes(b"models: \xff\xfe")
    with pytest.raises(ConversionError, match="no YAML"):
        read_plan(str(folder / "plan.yaml"))


def test_a_list_of_lists_of_lists_is_not_unfolded(folder):
    """What aliases make of a small file."""
    lines = ["a: &a0 [x, x]"] + [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(ConversionError, match="has no key 'a'"):
        read(folder, "\n".join(lines))


def test_more_than_anybody_converts(folder, monkeypatch):
    monkeypatch.setattr(plan_file, "MOST_TASKS", 1)
    with pytest.raises(ConversionError, match="line 1: 2 models for 1 targets are more than 1"):
        read(folder, "models: [nets/*.onnx]\ntargets: [{name: x}]\n")


@pytest.mark.parametrize("seed", range(60))
def test_a_plan_with_characters_changed_is_read_or_refused(folder, seed):
    """Nothing but a ConversionError that names the file leaves the reader."""
    choose = random.Random(seed)
    text = list(WHOLE)
    for _ in range(choose.randint(1, 4)):
        text[choose.randrange(len(text))] = choose.choice("[]{}:,-&*!|>'\"%@`#? \n\tax0\\é")
    try:
        read(folder, "".join(text))
    except ConversionError as error:
        assert error.code == 2 and "plan.yaml" in error.message
