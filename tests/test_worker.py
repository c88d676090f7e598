"""worker.py: how the child ends, with its report and its last message, whatever has become of the conversion."""

import os
from types import SimpleNamespace

import made_results
import pytest
from helpers import quiet_run
from html_page import Page

from onnx2trt import worker
from onnx2trt.base.errors import ConversionError, ExitCode
from onnx2trt.conversion.run import Run
from onnx2trt.report import html
from onnx2trt.report.result import Failure, Result


class Told:
    """As process.channel.Channel; keeps the last message, and does not end this process."""

    def __init__(self):
        self.result = self.files = self.left = None

    def stage(self, name) -> None:
        pass

    def temporary(self, path) -> None:
        pass

    def publish(self, *finished, required=True) -> None:
        pass

    def done(self, result, files, table, optional) -> None:
        self.result, self.files, self.table = result, [*files, *optional], table
        self.optional = list(optional)

    def leave(self, code) -> None:
        self.left = code


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker.sys, "argv", ["onnx2trt.py", "--onnx", "net.onnx"])
    return tmp_path


def run_of() -> Run:
    run = quiet_run(keep_evidence=True)
    run.channel = Told()
    return run


def arguments(report="r.html", json=None) -> SimpleNamespace:
    return SimpleNamespace(report=report, json=json)


def converted() -> Result:
    return Result.from_dict(made_results.result(warnings=[]))


def end(run: Run, result: Result, args=None, error=None) -> Told:
    worker._end(args or arguments(), result, run, error)
    assert run.channel.left == result.exit_code == run.channel.result["exit_code"]
    return run.channel


def page_of(told: Told) -> Page:
    with open(told.files[-1][0], "rb") as stream:
        return Page(stream.read())


# ---- what is written


def names_on_the_page(told: Told) -> str:
    return page_of(told).sections["command"].partition("Written by this run: ")[2].strip()


def test_every_file_that_the_run_writes_is_named(folder):
    run = run_of()
    run.write_now({"c.cache": b"scales"})
    for name in ("net.engine", "saved.onnx", "net.engine.json"):
        run.write_at_end(name, b"contents")
    told = end(run, converted(), arguments(json="r.json"))
    assert names_on_the_page(told) == "net.engine, saved.onnx, net.engine.json, c.cache, r.json, r.html"


@pytest.mark.parametrize("json", ["-", None, "net.engine.json"])
def test_stdout_is_no_file_and_no_file_is_named_twice(folder, json):
    (folder / "pages").mkdir()
    run = run_of()
    run.write_at_end("net.engine.json", b"contents")
    told = end(run, converted(), arguments(folder / "pages" / "r.html", json))
    assert names_on_the_page(told) == f"net.engine.json, {os.path.join('pages', 'r.html')}"


def test_without_report_none_is_made(folder, monkeypatch):
    monkeypatch.setattr(html, "render", None)
    told = end(run_of(), converted(), arguments(report=None))
    assert told.files == [] and told.result["warnings"] == [] and "INT8" in told.table


# ---- a report that cannot be made takes no engine down


def broken(*_):
    raise ZeroDivisionError("a defect")


def no_room(self, *_, required=True):
    raise ConversionError("cannot write r.html: No space left on device", hint="Free some space.", code=ExitCode.OUTPUT)


@pytest.mark.parametrize(
    "place, name, fault, words",
    [
        (html, "render", broken, "there is no report: unforeseen ZeroDivisionError: a defect"),
        (Run, "write_at_end", no_room, "there is no report: cannot write r.html: No space left on device"),
    ],
    ids=["a defect", "a full disk"],
)
def test_a_report_that_cannot_be_made_is_a_warning_and_the_engine_is_delivered(folder, monkeypatch, place, name, fault, words):
    run, result = run_of(), converted()
    run.files.append(("temporary", "net.engine"))
    monkeypatch.setattr(place, name, fault)
    told = end(run, result)
    assert told.files == [("temporary", "net.engine")] and told.left == 0 and told.table
    assert told.result["error"] is None and told.result["status"] == "simulated" and told.result["warnings"] == [words]


def test_the_page_is_no_file_that_a_good_run_can_fail_for(folder):
    told = end(run_of(), converted())
    assert [os.path.basename(final) for _, final in told.optional] == ["r.html"] and told.files == told.optional


def test_a_page_that_cannot_be_written_does_not_hide_why_the_run_failed(folder):
    told = end(run_of(), converted(), arguments("nowhere/r.html"), ConversionError("the reason", code=ExitCode.VALIDATION))
    assert told.result["error"]["message"] == "the reason" and told.left == 7 and told.table == ""
    (warning,) = told.result["warnings"]
    assert "there is no report: cannot write nowhere/r.html" in warning


def test_the_same_reason_is_not_said_twice(folder, monkeypatch):
    monkeypatch.setattr(Run, "write_at_end", no_room)
    told = end(run_of(), converted(), error=ConversionError("cannot write r.html: No space left on device", code=ExitCode.OUTPUT))
    assert told.left == 8 and told.result["warnings"] == []


# ---- how it ends


def test_what_nobody_has_foreseen_is_said_to_be_so(folder):
    result = converted()
    told = end(run_of(), result, error=KeyError("scale"))
    assert told.left == ExitCode.UNFORESEEN and result.error == Failure("unforeseen KeyError: 'scale'", result.error.hint)
    assert "Failed, exit code 1" in page_of(told).text


def test_an_error_inside_a_callback_of_tensorrt_is_reported_too(folder, monkeypatch):
    """TensorRT swallows exceptions: the callback ends the run by `abort`."""
    run = run_of()

    def pipeline(args, result, run):
        run.abort(ConversionError("bad data", code=ExitCode.CALIBRATION))
        raise SystemExit  # the real channel does not come back

    monkeypatch.setattr(worker, "_pipeline", lambda args: pipeline)
    monkeypatch.setattr("onnx2trt.conversion.run.Run", lambda channel, console, keep_evidence: run)
    with pytest.raises(SystemExit):
        worker.work(SimpleNamespace(report=str(folder / "r.html"), json=None, verbose=False, quiet=True), run.channel)
    ((_, final),) = run.channel.files
    assert final == str(folder / "r.html") and run.channel.left == 5
    assert "Failed, exit code 5" in page_of(run.channel).text


def test_what_stands_beside_the_engine_is_what_the_run_says(folder):
    """The pipeline has taken times and warnings before it wrote the side file."""
    run, result = run_of(), converted()
    run.console.warn("odd")
    result.take(**run.said())
    beside = result.to_dict()
    with run.stage("report", "drawing"):
        pass
    assert end(run, result).result == beside and beside["warnings"] == ["odd"]


def test_a_failure_tells_of_times_and_warnings_up_to_its_end(folder):
    run, result = run_of(), converted()
    result.take(**run.said())
    with run.stage("build", "building"):
        run.console.warn("odd")
    told = end(run, result, error=ConversionError("no", code=ExitCode.BUILD))
    assert "build" in told.result["timings_s"] and told.result["warnings"] == ["odd"]


@pytest.mark.parametrize("memory_left", [True, False])
def test_a_run_that_cannot_even_make_a_result_is_told_to_the_parent(monkeypatch, memory_left):
    told = []

    def failed(*what):
        if not memory_left:
            raise MemoryError
        told.append(what)

    def starve(args, channel, reserve):
        assert len(reserve[0]) == worker.RESERVE
        raise MemoryError

    channel = SimpleNamespace(failed=failed, exhausted=lambda: told.append("exhausted"), leave=lambda code: told.append(code))
    monkeypatch.setattr(worker, "_work", starve)
    worker.work(SimpleNamespace(verbose=0), channel)
    assert told[0] == "exhausted" if not memory_left else told[0][0] == "out of memory"
    assert told[1:] == [ExitCode.MACHINE]
