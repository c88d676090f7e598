"""fleet/display.py: the table at the end and the lines on the way."""

from onnx2trt.fleet.display import Progress, cell, render
from onnx2trt.fleet.outcome import Outcome, Record
from onnx2trt.fleet.plan_file import Target
from onnx2trt.fleet.tasks import Task

BUILT = Outcome("built", 0, engine_bytes=1_500_000, seconds=2.25, attempts=1)
TASKS = tuple(Task(model, Target(target), f"{model}.onnx", f"{model}.engine", ()) for model in ("[a]", "b") for target in ("ada", "x"))


def record() -> Record:
    failed = Outcome("failed", 7, message="too far off by [50]%", hint="Calibrate.")
    return Record("plan.yaml", TASKS, {0: BUILT, 1: Outcome("unchanged", 0), 2: failed}, seconds=61.24)


def test_a_row_for_each_model_a_column_for_each_target_and_what_failed():
    text = render(record(), 100, False)
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows == [["model", "ada", "x"], ["[a]", "built, 1.5 MB, 2.2 s", "unchanged"], ["b", "failed (7)", "not done"]]
    assert "b for ada (exit code 7): too far off by [50]%\n  hint: Calibrate.\n" in text
    assert text.endswith("4 conversions: 1 built, 1 unchanged, 1 failed, 1 not done; 61.2 s\n") and "\x1b" not in text


def test_a_model_that_is_not_for_a_target_and_a_name_that_no_terminal_shows():
    tasks = (TASKS[0], Task("caf\udce9", Target("x"), "o", "e", ()))
    text = render(Record("p", tasks, {0: BUILT, 1: BUILT}), 100, True)
    assert "\\udce9" in text and "\x1b" in text and " - " in text


def test_many_failures_are_counted():
    tasks = tuple(Task(f"m{i}", Target("x"), "o", f"e{i}", ()) for i in range(30))
    text = render(Record("p", tasks, {i: Outcome("failed", 3, message="broken") for i in range(30)}), 100, False)
    assert text.count(": broken") == 20 and "and 10 more failures" in text


def test_lines_where_there_is_no_terminal(capsys):
    found = record()
    with Progress(found) as progress:
        progress.tell(0, BUILT)
        progress.tell(3, Outcome("lost", 4, message="the node died", attempts=1))
    with Progress(found, quiet=True) as progress:
        progress.tell(0, BUILT)
    out, said = capsys.readouterr()
    assert out == "" and said.splitlines() == [
        "[3/4] [a] for ada: built, 1.5 MB, 2.2 s",
        "[3/4] b for x: lost (4), tried again: the node died",
    ]


def test_a_changing_table_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Progress(record()) as progress:
        progress.tell(0, BUILT)
    said = capsys.readouterr().err
    assert "blackwell" not in said and "ada" in said and said.rstrip().endswith("\x1b[?25h") or "\x1b[2K" in said


def test_cells():
    assert cell(Outcome("not_done")) == "not done" and cell(Outcome("built", 0)) == "built" and cell(Outcome("lost", 4)) == "lost (4)"
