"""conversion/run.py: what a run says of itself, and what one of several engines leaves to it."""

import time

import pytest
from helpers import quiet_run

from onnx2trt.base.files import sha256
from onnx2trt.base.memory import HeldMemory
from onnx2trt.base.under_way import UnderWay
from onnx2trt.conversion import run as running


def test_what_a_run_says_of_itself():
    run = quiet_run()
    with run.stage("probe", "looking"):
        run.console.warn("odd")
    said = run.said()
    assert set(said) == {"timings_s", "inferences_on", "warnings"} and said["warnings"] == ["odd"]
    assert list(said["timings_s"]) == ["probe", "total"]
    assert 0 <= said["timings_s"]["probe"] <= said["timings_s"]["total"] and said["timings_s"]["total"] == round(
        said["timings_s"]["total"], 3
    )
    said["warnings"].append("later")
    assert run.said()["warnings"] == ["odd"]


def test_one_of_several_engines_speaks_for_itself_and_writes_for_all():
    run = quiet_run(keep_evidence=True)
    run.abort = print
    one = run.labelled("int8")
    assert one.files is run.files and one.written is run.written and one.abort is print and one.channel is run.channel
    assert one.evidence.wanted and one.evidence is not run.evidence
    one.console.warn("of one")
    with one.stage("build", "building"):
        pass
    assert run.console.warnings == [] and "build" not in run.console.timings, "until it is the one that is chosen"


def test_what_the_chosen_engine_left_is_the_runs():
    run = quiet_run()
    run.console.warn("of both")
    run.console.timings["build"] = 1.0
    one = run.labelled("int8")
    for text in ("of both", "of one"):
        one.console.warn(text)
    one.console.timings.update(build=2.0, choose=0.5)
    one.rejected = [("temporary", "net.engine.rejected")]
    run.adopt(one)
    assert run.console.warnings == ["of both", "of one"] and run.console.timings == {"build": 3.0, "choose": 0.5}
    assert run.rejected == one.rejected and run.evidence is one.evidence


def test_files_are_written_at_once_and_named_at_the_end(tmp_path):
    run, final = quiet_run(), tmp_path / "net.engine"
    assert run.write_at_end(str(final), b"an ", b"engine") == sha256(b"an engine")
    ((temporary, name),) = run.files
    assert name == str(final) and not final.exists()
    with open(temporary, "rb") as stream:
        assert stream.read() == b"an engine"


def test_a_later_rejected_engine_takes_the_place_of_an_earlier_one(tmp_path):
    run = quiet_run()
    for data in (b"first", b"second"):
        run.keep_rejected(str(tmp_path / "net.engine.rejected"), data)
    ((temporary, _),) = run.rejected
    with open(temporary, "rb") as stream:
        assert stream.read() == b"second"
    assert run.files == []


def test_what_was_written_before_the_end_is_known_by_its_hash(tmp_path):
    run, final = quiet_run(), tmp_path / "c.cache"
    run.write_now({str(final): b"scales"})
    assert run.written == {str(final): sha256(b"scales")}


def waited_for(run, seconds=5.0):
    """The warnings, once there is one."""
    until = time.monotonic() + seconds
    while not run.console.warnings and time.monotonic() < until:
        time.sleep(0.01)
    return run.console.warnings


def watched(monkeypatch):
    """(the time, calls of libraries by it, a run that watches them)"""
    now = [0.0]
    calls = UnderWay(lambda: now[0])
    monkeypatch.setattr(running, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(running, "UNDER_WAY", calls)
    monkeypatch.setattr(running, "HELD", HeldMemory(lambda: None))
    run = quiet_run()
    run.watch(0)
    return now, calls, run


def test_more_memory_than_usual_is_said_once(monkeypatch):
    monkeypatch.setattr(running, "WATCH_SECONDS", 0.01)
    held = [10**9, 10**9, 3 * 10**9, 4 * 10**9]  # the last is not asked for
    monkeypatch.setattr(running, "HELD", HeldMemory(lambda: held.pop(0)))
    run = quiet_run()
    run.watch(500_000_000)
    (said,) = waited_for(run)
    assert "holds 3.0 GB of memory already, for a model of 500.0 MB" in said and held == [4 * 10**9]


def test_a_library_of_any_size_is_no_reason_to_warn(monkeypatch):
    monkeypatch.setattr(running, "WATCH_SECONDS", 0.01)
    system = [10**8]
    memory = HeldMemory(lambda: system[0])
    monkeypatch.setattr(running, "HELD", memory)
    run = quiet_run()
    run.watch(0)
    with memory.library_starts():
        system[0] += 3 * 10**9
    assert waited_for(run, 0.1) == []
    system[0] += 2 * 10**9
    (said,) = waited_for(run)
    assert "holds 2.1 GB of memory already, for a model of 0.0 MB" in said, "of tensors, whatever the library holds"


def test_where_nobody_tells_nothing_is_said(monkeypatch):
    monkeypatch.setattr(running, "HELD", HeldMemory(lambda: None))
    run = quiet_run()
    run.watch(0)
    assert waited_for(run, 0.1) == []


@pytest.mark.parametrize("what", ["one inference", "what is constant in the model"])
def test_what_onnx_runtime_works_on_for_long_is_said_once_before_it_has_ended(what, monkeypatch):
    now, calls, run = watched(monkeypatch)
    for _ in range(2):  # two that are short together are not one that is long
        with calls.call(what):
            now[0] += 20
            assert waited_for(run, 0.05) == []
    with calls.call(what):
        now[0] += 40
        (said,) = waited_for(run)
        assert f"ONNX Runtime has computed {what} for 40 s" in said
        now[0] += 40
        time.sleep(0.05)
    assert run.console.warnings == [said]


def test_an_inference_that_is_slow_is_said_once_it_has_ended(monkeypatch):
    now, calls, run = watched(monkeypatch)
    for often, seconds in ((True, 7), (False, 12)):
        with calls.call("one inference", often):
            now[0] += seconds
        assert waited_for(run, 0.05) == [], "it is short, or nothing like it comes again"
    with calls.call("one inference", often=True):
        now[0] += 9
    (said,) = waited_for(run)
    assert "one inference took ONNX Runtime 9 s" in said
    with calls.call("one inference", often=True):
        now[0] += 15
    time.sleep(0.05)
    assert run.console.warnings == [said]


def test_what_takes_long_is_said_once_and_what_does_not_is_not():
    run = quiet_run()
    said: list[str] = []
    run.console.once = lambda text, meaning: said.append((text, meaning))
    with run.told_after(0.01, "it takes long here"):
        deadline = time.monotonic() + 5
        while not said and time.monotonic() < deadline:
            time.sleep(0.005)
    with run.told_after(0.05, "and here"):
        pass
    time.sleep(0.1)
    assert said == [("it takes long here", running.TAKES_LONG)]
