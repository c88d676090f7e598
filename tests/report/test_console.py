"""report/console.py: what is said while a conversion runs, to a terminal and to a file."""

import os
import pty
import re
import subprocess
import sys
import time

import pytest
from command import ROOT

from onnx2trt.report import console as console_module
from onnx2trt.report.console import Console, _Count

BEGINS = """
from onnx2trt.report.console import Console, _Count
console = Console()
"""
TALKS = (
    BEGINS
    + """
with console.stage("probe", "looking"):
    for _ in console.track(range(3), 3, "counting"):
        pass
console.warn("careful")
"""
)


def test_a_stage_that_runs_twice_says_its_own_time_and_sums_up_in_the_result(capsys):
    console = Console()
    with console.stage("ranges", "measuring"):
        time.sleep(0.3)
    with console.stage("ranges", "measuring again"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["measuring: 0.3 s", "measuring again: 0.0 s"]
    assert console.timings["ranges"] >= 0.3


CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def said(script: str, terminal: bool, **variables: str) -> str:
    """What a script writes to stderr, which is a terminal or a pipe."""
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")}
    environment |= {"TERM": "xterm-256color", **variables}
    master, slave = pty.openpty() if terminal else os.pipe()
    done = subprocess.Popen([sys.executable, "-c", script], stderr=slave, cwd=ROOT, env=environment)
    os.close(slave)
    text = b""
    try:
        while block := os.read(master, 2**16):
            text += block
    except OSError:  # how a terminal ends
        pass
    assert done.wait() == 0
    os.close(master)
    return text.decode()


def test_no_terminal_no_control_characters():
    assert said(TALKS, terminal=False).splitlines()[1:] == ["warning: careful"]
    assert "\x1b" not in said(TALKS, terminal=False)


def test_colours_on_a_terminal_and_none_with_no_color():
    assert "\x1b[33mwarning: careful" in said(TALKS, terminal=True)
    plain = said(TALKS, terminal=True, NO_COLOR="1")
    assert "warning: careful" in plain and "\x1b[33m" not in plain


def shown(script: str) -> str:
    """What a terminal was given to show, without control characters; afterwards it shows the cursor again."""
    text = said(BEGINS + script, terminal=True)
    assert re.findall(r"\x1b\[\?25[hl]", text)[-1] == "\x1b[?25h"
    return CONTROL.sub("", text)


def together(text: str, *labels: str) -> bool:
    """Whether these lines stood below each other at one time, the first at the margin and each other one further in."""
    lines = (rf"\S {'  ' * depth}{re.escape(label)} [^\n]*" for depth, label in enumerate(labels))
    return re.search(r"\n".join(lines), text) is not None


def test_a_stage_inside_a_stage():
    text = shown("""
with console.stage("latency", "timing"):
    with console.stage("load", "loading"):
        for _ in console.track(range(3), 3, "reading"):
            pass
    for _ in console.track(range(3), 3, "running"):
        pass
""")
    assert together(text, "timing", "loading", "reading") and together(text, "timing", "running")
    assert re.findall(r"([a-z]+): 0\.\d s\n", text) == ["loading", "timing"]


def test_a_stage_of_another_console_of_the_run_inside_a_stage():
    text = shown("""
with console.stage("compare", "comparing"), console.labelled("fp16").stage("build", "building"):
    pass
""")
    assert together(text, "comparing", "fp16: building")


def test_an_error_in_the_innermost_stage_and_what_comes_after_it():
    text = shown("""
try:
    with console.stage("latency", "timing"), console.stage("load", "loading"):
        for _ in console.track(range(3), 3, "reading"):
            raise ValueError
except ValueError:
    pass
with console.stage("build", "building"):
    pass
""")
    assert together(text, "timing", "loading", "reading")
    assert "loading" not in text.split("building")[1]


def test_progress_that_outlives_its_stage_counts_on_unseen_and_leaves_the_next_one_alone():
    text = shown("""
with console.stage("first", "one"):
    outliving = console.track(range(3), 3, "outliving")
    seen = [next(outliving)]
with console.stage("second", "two"):
    for _ in console.track(range(2), 2, "own"):
        seen += outliving
        with console.stage("third", "three"):
            pass
console.info(f"seen {seen}")
""")
    assert together(text, "one", "outliving") and together(text, "two", "own", "three")
    assert "outliving" not in text[text.index("one: 0.") :] and "seen [0, 1, 2]" in text


@pytest.mark.parametrize("quiet, verbose", [(True, 0), (False, 0), (False, 1), (False, 2)])
def test_quiet_and_verbose(capsys, quiet, verbose):
    console = Console(verbose=verbose, quiet=quiet)
    with console.stage("probe", "looking"):
        console.debug("detail")
        console.library("[TensorRT WARNING] odd", True)
        console.library("[TensorRT VERBOSE] a kernel", False)
    console.warn("careful")
    console.warn("careful")
    err = capsys.readouterr().err
    assert ("detail" in err) == ("odd" in err) == (verbose >= 1) and ("a kernel" in err) == (verbose == 2)
    assert ("looking" in err) != quiet and err.count("careful") == (0 if quiet else 1)
    assert console.warnings == ["careful"]


def test_a_terminal_gets_no_broken_word_and_a_file_no_broken_line():
    sentence = "warning: " + " ".join(f"word{number}-of-the-sentence" for number in range(12))
    script = BEGINS + f"console.warn({sentence.removeprefix('warning: ')!r})"
    for columns in (60, 80):
        lines = CONTROL.sub("", said(script, terminal=True, COLUMNS=str(columns), NO_COLOR="1")).splitlines()
        assert max(map(len, lines)) <= columns and " ".join(" ".join(lines).split()) == sentence
    assert said(script, terminal=False, COLUMNS="60").splitlines() == [sentence]


def test_what_is_true_of_several_engines_is_said_once(capsys):
    console = Console()
    for told in (console, console, console.labelled("fp16")):
        for count in (2, 3):
            told.once(f"TensorRT warned {count} times: harmless", meaning="harmless")
    console.once("another")
    assert capsys.readouterr().err.splitlines() == ["TensorRT warned 2 times: harmless", "another"]


# ---- how far it has come


def test_stages_are_numbered_as_soon_as_it_is_known_which_ones_may_come(capsys):
    console = Console()
    with console.stage("probe", "looking"):
        pass
    console.expect(("probe", "parse", "fit", "build", "write"))
    for name in ("parse", "other", "build", "parse", "write"):  # one is left out, one was not expected, one comes twice
        with console.stage(name, name):
            pass
    numbered = zip((2, 2, 4, 4, 5), ("parse", "other", "build", "parse", "write"))
    assert capsys.readouterr().err.splitlines() == ["looking: 0.0 s", *(f"[{number}/5] {name}: 0.0 s" for number, name in numbered)]
    with console.labelled("fp16").stage("build", "building"):
        pass
    assert capsys.readouterr().err == "fp16: building: 0.0 s\n", "of several engines nobody knows how many stages there will be"


def test_without_a_terminal_long_stages_give_signs_of_life(monkeypatch, capsys):
    monkeypatch.setattr(console_module, "BEGINS_SECONDS", 0.1)
    monkeypatch.setattr(console_module, "HEARTBEAT_SECONDS", 0.3)
    console, said_so_far = Console(), ""
    with console.stage("fit", "fitting"):
        layers = console.track(range(4), 4, "layers")
        assert [next(layers) for _ in range(3)] == [0, 1, 2], "two are done, however long it takes"
        for _ in range(200):
            said_so_far += capsys.readouterr().err
            if "layers: 2 of 4" in said_so_far:
                break
            time.sleep(0.05)
        assert list(layers) == [3]
    with console.stage("write", "writing"):
        pass
    lines = (said_so_far + capsys.readouterr().err).splitlines()
    assert lines[0] == "fitting ..." and re.fullmatch(r"fitting: \d+\.\d s", lines[-2]) and lines[-1] == "writing: 0.0 s"
    assert re.fullmatch(r"fitting \.\.\. \(for 0:\d\d\) layers: 2 of 4", lines[1]), "two took no time: that tells nothing of the third"


def test_what_is_no_stage_is_shown_while_it_runs_and_leaves_nothing(monkeypatch, capsys):
    monkeypatch.setattr(console_module, "BEGINS_SECONDS", 0.1)
    for quiet, line in ((False, "loading ...\n"), (True, "")):
        console = Console(quiet=quiet)
        with console.running("loading"):
            time.sleep(0.3)
        assert capsys.readouterr().err == line and not console.timings
    text = shown("""
import time
with console.running("loading"):
    time.sleep(0.3)
with console.stage("probe", "looking"):
    pass
""")
    assert "loading " in text and "loading: " not in text and "loading" not in text[text.index("looking: ") :]


def test_the_time_left_goes_down_and_is_not_told_where_a_step_is_longer_than_those_before(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    count = _Count("steps", 6, started=now[0])
    assert str(count) == "steps: 0 of 6"
    for _ in range(4):
        now[0] += 5
        count.step()
    said = []
    for _ in range(4):
        said.append(str(count).removeprefix("steps: 4 of 6"))
        now[0] += 4
    assert said == [", about 0:10 left", ", about 0:06 left", ", about 0:02 left", ""]


WORKS = """
import time
console.expect(("fit", "build"))
with console.stage("fit", "fitting INT8 weights of " + "a_long_name" * 10):
    for _ in console.track(range(30), 30, "layers of a network with a long name"):
        time.sleep(0.1)
"""


def test_a_count_that_is_told_from_elsewhere():
    text = shown("""
import time
with console.stage("build", "building"), console.counted("steps") as step:
    for done in (0, 1, 1, 3, 9):
        step(done, 4)
    time.sleep(0.3)
with console.stage("build", "again"), console.counted("no steps") as step:
    pass
""")
    assert together(text, "building", "steps") and "4/4" in text and "no steps" not in text


def test_a_count_that_is_complete_stays_until_something_else_is_shown():
    text = shown("""
import time
with console.stage("fit", "fitting"):
    for _ in console.track(range(3), 3, "first"):
        pass
    time.sleep(0.5)
    for _ in console.track(range(2), 2, "second"):
        time.sleep(0.2)
    time.sleep(0.3)
with console.stage("build", "building"):
    time.sleep(0.3)
""")
    waiting = text[text.index("3/3") : text.index("second")]
    assert waiting.count("3/3") >= 3 and "first" not in text[text.index("second") :]
    assert "2/2" in text and "second" not in text[text.index("fitting: ") :]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_bar_count_and_clock_are_shown_on_a_terminal_of_any_width(columns):
    text = said(BEGINS + WORKS, terminal=True, COLUMNS=str(columns))
    frames = [CONTROL.sub("", line) for line in re.split(r"[\r\n]+", text)]
    counted = [frame for frame in frames if re.search(r"\d+/30\b", frame)]
    assert len(counted) > 10 and all(re.search(r"[━╸╺]{12} +\d+/30.* \d:\d\d\s*$", frame) and len(frame) <= columns for frame in counted)
    assert any(re.search(r"/30 [\d.]+/s +0:0\d left", frame) for frame in counted), "samples a second, and the time that is left"
    assert "0/?" not in text and any(frame.lstrip("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ").startswith("[1/2] fit") for frame in frames)
