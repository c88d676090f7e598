"""stages/timing_cache.py: one file of kernel timings, several conversions at once."""

import json
import os
import subprocess
import time
from dataclasses import replace

import pytest
from command import IMPORTABLE, others_get_the_lock, python
from helpers import LIBRARIES, parse, refused, small_disk, wait_until

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.locks import LOCK_SECONDS, lock_path
from onnx2trt.plan.plan import make_plan

# ---- which file

WITH_FOLDER = {name: replace(library, cache_folder="/c") for name, library in LIBRARIES.items()}


@pytest.mark.parametrize(
    ("library", "flags", "path", "named"),
    [
        ("weak", (), "/c/timing/tensorrt-10.16.0.72-Tesla_T4-sm75.cache", False),
        ("strong", (), "/c/timing/tensorrt-11.2.1.3-NVIDIA_H200-sm90.cache", False),
        ("rtx", (), None, False),
        ("weak", ("--timing-cache", "t"), "t", True),
        ("weak", ("--timing-cache", "./none"), "./none", True),
        ("weak", ("--timing-cache", "none"), None, False),
        ("rtx", ("--timing-cache", "none"), None, False),
    ],
)
def test_it_is_used_unless_it_is_switched_off_or_useless(library, flags, path, named):
    build = make_plan(parse(*flags), WITH_FOLDER[library]).build
    assert build.timing_cache == path and (build.timing_cache is None or build.timing_cache_named is named)


# ---- conversions; TensorRT's merging is replaced by that of sets of lines

CHILD = """
import os, signal, sys, time
from onnx2trt.process.channel import attach
from onnx2trt.base.errors import ConversionError
from onnx2trt.plan.plan import make_plan
from dataclasses import replace
from types import SimpleNamespace
from helpers import LIBRARIES, parse
from onnx2trt.stages import timing_cache as timing
from onnx2trt.conversion.run import Run
from onnx2trt.report.console import Console
from onnx2trt.report.result import Result

path, named, line, how = sys.argv[1:]
flags = ["--timing-cache", path] if named == "named" else []
plan = make_plan(parse(*flags), LIBRARIES["weak"])
plan = replace(plan, build=replace(plan.build, timing_cache=path))

class Built:  # what timing_cache needs of trt.builder.BuiltEngine
    timing_cache_refused = how == "refused"

    def __init__(self, ours):
        self.timing_cache = ours

class Builder:  # and of EngineBuilder
    def __init__(self, library, plan, show):
        pass

    def merge_timing_caches(self, ours, theirs):
        time.sleep(0.3)  # long enough for others to come between, were there no lock
        return b"".join(sorted(set(ours.splitlines(True)) | set(theirs.splitlines(True))))

timing.EngineBuilder = Builder
job = SimpleNamespace(library=None, plan=plan)
run, result = Run(attach(), Console(quiet=True)), Result()
before, about = timing.read(plan, run)
if how == "other writes":
    open(path, "wb").write(b"other\\n")
if how.startswith("wait for"):
    while not os.path.exists(how[9:]):
        time.sleep(0.01)
if how == "turned into a folder":
    real = run.temporary
    def temporary(final):
        made = real(final)
        os.mkdir(path)
        return made
    run.temporary = temporary
if how == "killed":
    run.channel.publish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # written, locked, not renamed yet
ours = b"".join(sorted(set((before or b"").splitlines(True)) | {line.encode() + b"\\n"}))
try:
    result.take(timing_cache=timing.write(job, Built(ours), before, about, run))
except ConversionError as error:
    result.fail(error)
result.take(**run.said())
run.channel.done(result.to_dict(), [], "")
os._exit(0)
"""

PARENT = """
import json
from onnx2trt.base.errors import ConversionError
from onnx2trt.process.supervision import Supervisor
try:
    print(json.dumps(Supervisor().run([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])["result"]))
except ConversionError as error:
    print(json.dumps({"failed": error.message, "code": error.code}))
"""


def convert(path, line: str, how: str = "", named: str = "default") -> subprocess.Popen:
    return python(PARENT, IMPORTABLE + CHILD, path, named, line, how)


def result_of(process: subprocess.Popen) -> dict:
    out, error = process.communicate(timeout=60)
    assert out, error
    return json.loads(out)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "onnx2trt" / "timing" / "t.cache"


def test_the_folder_is_made_and_the_result_says_what_was_used(path):
    first = result_of(convert(path, "a"))
    assert first["timing_cache"] == {"path": str(path), "state": "new", "written": True} and path.read_bytes() == b"a\n"
    second = result_of(convert(path, "b"))
    assert second["timing_cache"] == {"path": str(path), "state": "read", "written": True} and path.read_bytes() == b"a\nb\n"
    assert sorted(os.listdir(path.parent)) == ["t.cache", "t.cache.lock"]


def test_timings_that_are_all_known_are_not_written_again(path):
    result_of(convert(path, "a"))
    before = path.stat()
    assert result_of(convert(path, "a"))["timing_cache"]["written"]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_processes_that_write_at_once_lose_nobodys_timings(path, tmp_path):
    """All read the same state, all build, and all want to write at the same moment."""
    result_of(convert(path, "old"))
    lines = ("a", "b", "c", "d", "e", "f", "g", "h")
    processes = [convert(path, line, f"wait for {tmp_path / 'go'}") for line in lines]
    time.sleep(3)  # until most have read
    (tmp_path / "go").touch()
    seen = {path.read_bytes()}
    while any(process.poll() is None for process in processes):
        seen.add(path.read_bytes())
        time.sleep(0.001)
    assert all(result_of(process)["timing_cache"]["written"] for process in processes)
    assert path.read_text().split() == [*lines, "old"] and sorted(os.listdir(path.parent)) == ["t.cache", "t.cache.lock"]
    assert len(seen) > 3 and all(b"old\n" in content and len(content) % 2 == 0 for content in seen), "each of them whole"


def test_a_full_disk_is_a_warning_for_the_default_and_an_error_where_it_was_asked_for(tmp_path):
    with small_disk(tmp_path / "full") as fill:
        path = tmp_path / "full" / "timing" / "t.cache"
        path.parent.mkdir()
        path.write_bytes(b"old\n")
        (path.parent / "t.cache.lock").touch()
        fill(but=0)
        result = result_of(convert(path, "a"))
        assert not result["timing_cache"]["written"] and any("No space left on device" in text for text in result["warnings"])
        named = result_of(convert(path, "a", named="named"))
        assert named["exit_code"] == ExitCode.OUTPUT and f"cannot write {path}: No space left" in named["error"]["message"]
        assert path.read_bytes() == b"old\n" and sorted(os.listdir(path.parent)) == ["t.cache", "t.cache.lock"]


def test_nobody_is_locked_out_while_an_engine_is_built(path, tmp_path):
    path.parent.mkdir(parents=True)
    building = convert(path, "a", f"wait for {tmp_path / 'go'}")
    assert wait_until(lambda: os.path.exists(lock_path(str(path))), 20)  # it has read
    assert others_get_the_lock(path, seconds=5)
    (tmp_path / "go").touch()
    assert result_of(building)["timing_cache"]["written"]


def test_what_another_has_written_meanwhile_is_kept(path):
    path.parent.mkdir(parents=True)
    result_of(convert(path, "a", "other writes"))
    assert path.read_bytes() == b"a\nother\n"


def test_a_writer_that_is_killed_leaves_the_old_cache_and_no_lock(path):
    result_of(convert(path, "a"))
    died = result_of(convert(path, "b", "killed"))
    assert "SIGKILL" in died["failed"] and path.read_bytes() == b"a\n"
    assert sorted(os.listdir(path.parent)) == ["t.cache", "t.cache.lock"], "its temporary is removed by the parent"
    started = time.monotonic()
    assert result_of(convert(path, "c"))["timing_cache"]["written"] and time.monotonic() - started < LOCK_SECONDS


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path):
    (tmp_path / "onnx2trt").write_text("a file")
    result = result_of(convert(tmp_path / "onnx2trt" / "timing" / "t.cache", "a"))
    assert result["timing_cache"]["written"] is False
    assert any("the timing cache is not kept" in text and "--timing-cache none" in text for text in result["warnings"])


def test_a_cache_that_is_no_file_is_a_warning_for_the_default_and_an_error_where_it_was_asked_for(path):
    path.mkdir(parents=True)
    result = result_of(convert(path, "a"))
    assert not result["timing_cache"]["written"] and any("it is a folder" in text for text in result["warnings"])
    named = result_of(convert(path, "a", named="named"))
    assert named["exit_code"] == ExitCode.OUTPUT and "it is a folder" in named["error"]["message"]


def test_a_rename_that_fails_in_the_parent_ends_only_a_run_that_asked_for_the_file(path):
    path.parent.mkdir(parents=True)
    assert result_of(convert(path, "a", "turned into a folder"))["timing_cache"]["written"] is False
    assert os.listdir(path) == [] and not list(path.parent.glob(".*.tmp"))
    path.rmdir()
    named = result_of(convert(path, "a", "turned into a folder", named="named"))
    assert named["code"] == ExitCode.OUTPUT and "s a directory" in named["failed"] and not list(path.parent.glob(".*.tmp"))


def test_a_cache_that_tensorrt_refuses_is_replaced_and_that_is_said(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"junk\n")
    result = result_of(convert(path, "a", "refused"))
    assert result["timing_cache"]["state"] == "replaced" and any("damaged, or of another TensorRT or GPU" in w for w in result["warnings"])


def test_a_named_cache_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    from onnx2trt.stages.preflight import _written

    plan = make_plan(parse("--timing-cache", str(tmp_path / "no" / "t")), WITH_FOLDER["weak"])
    assert plan.build.timing_cache in _written(plan)
    assert "/c/timing" not in " ".join(_written(make_plan(parse(), WITH_FOLDER["weak"])))
    from onnx2trt.base.files import check_writable

    with refused(ExitCode.OUTPUT, "cannot write"):
        check_writable(plan.build.timing_cache)
