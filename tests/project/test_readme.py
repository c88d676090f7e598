"""README*.md: every flag of --help stands in the flag table and the other way round, and every command parses."""

import re
import shlex

import pytest
from command import ROOT

from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.rules import flag_problem

READMES = sorted(ROOT.glob("README*.md"))
COMMAND = re.compile(r"python3? onnx2trt\.py ([^`\n]*)")


def flag_table(text: str) -> set[str]:
    """The flags of the one table that holds both --onnx and --help."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    (table,) = [table for table in tables if "`--onnx`" in table and "`--help`" in table]
    return set(re.findall(r"`(--?[a-z][a-z0-9-]*)`", table))


def commands(text: str) -> list[str]:
    """What follows onnx2trt.py in every command, up to a comment or the next command."""
    return [re.split(r" #|&&|;|\|", line)[0].strip() for line in COMMAND.findall(text)]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_flag_table_is_that_of_the_parser(path):
    known = {option for action in build_parser()._actions for option in action.option_strings}
    assert flag_table(path.read_text(encoding="utf-8")) == known


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_every_command_parses(path):
    found = commands(path.read_text(encoding="utf-8"))
    assert len(found) >= 5, "the commands are not found any more"
    for command in found:
        try:
            args = build_parser().parse_args(shlex.split(command))
        except SystemExit as end:
            assert not end.code, command  # --help
        else:
            assert flag_problem(args) == "", command


def test_commands_are_found_in_lines_and_in_text():
    text = "do `python onnx2trt.py --inspect e` or\n.venv/bin/python onnx2trt.py --onnx m -q && rm m # gone"
    assert commands(text) == ["--inspect e", "--onnx m -q"]


def test_a_flag_that_is_missing_is_seen():
    assert flag_table("| a | `--onnx` |\n| b | `--help` `-h` |\n\n| `--old` | gone |\n") == {"--onnx", "--help", "-h"}
