"""report/console.py: what is said while a conversion runs, to a terminal and to a file."""

import os
import pty
import re
import subprocess
import sys
import time

import pytest
from command import ROOT

from onnx2trt.report.console import Console

BEGINS = """
from onnx2trt.report.console import Console
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
    assert lines == ["[   0.3 s] measuring", "[   0.0 s] measuring again"]
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
    assert re.findall(r"\[ +0\.\d s\] (\w+)\n", text) == ["loading", "timing"]


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
    assert "outliving" not in text[text.index("] one\n") :] and "seen [0, 1, 2]" in text


@pytest.mark.parametrize("quiet, verbose", [(True, False), (False, True)])
def test_quiet_and_verbose(capsys, quiet, verbose):
    console = Console(verbose=verbose, quiet=quiet)
    with console.stage("probe", "looking"):
        console.debug("detail")
    console.warn("careful")
    console.warn("careful")
    err = capsys.readouterr().err
    assert ("detail" in err) == verbose and ("looking" in err) != quiet and err.count("careful") == (0 if quiet else 1)
    assert console.warnings == ["careful"]
