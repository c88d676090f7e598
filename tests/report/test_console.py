"""report/console.py: what is said while a conversion runs, to a terminal and to a file."""

import os
import pty
import subprocess
import sys
import time

import pytest
from helpers import ROOT

from onnx2trt.report.console import Console

TALKS = """
from onnx2trt.report.console import Console
console = Console()
with console.stage("probe", "looking"):
    for _ in console.track(range(3), 3, "counting"):
        pass
console.warn("careful")
"""


def test_a_stage_that_runs_twice_says_its_own_time_and_sums_up_in_the_result(capsys):
    console = Console()
    with console.stage("ranges", "measuring"):
        time.sleep(0.3)
    with console.stage("ranges", "measuring again"):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["[   0.3 s] measuring", "[   0.0 s] measuring again"]
    assert console.timings["ranges"] >= 0.3


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
