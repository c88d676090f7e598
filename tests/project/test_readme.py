"""README*.md and docs/*.md: flags, commands, tables and links are those of the code and of the files that are there."""

import ast
import json
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest
from command import ROOT

import onnx2trt
from onnx2trt.base.errors import ExitCode
from onnx2trt.fleet.__main__ import build_parser as build_fleet_parser
from onnx2trt.plan.arguments import build_parser
from onnx2trt.plan.door_arguments import DOORS as PARTS
from onnx2trt.plan.door_arguments import build_door_parser
from onnx2trt.plan.effects import COLUMNS, TABLE
from onnx2trt.plan.rules import flag_problem

READMES = sorted(ROOT.glob("README*.md"))
DOCS = sorted((ROOT / "docs").glob("*.md"))
LINKING = [*sorted(ROOT.glob("*.md")), *DOCS, ROOT / "benchmarks" / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
FLAGS = ROOT / "docs" / "flags.md"
MOST_LINES = 200  # of README.md
FLAG = re.compile(r"--?[a-z][a-z0-9-]*")


# The doors at the root -> the word by which the installed command knows them
DOORS = {"onnx2trt": "", "calibration": "calibrate", "preprocess": "preprocess", "validate": "validate"}
COMMAND = re.compile(
    rf"(?:python3? ({'|'.join(DOORS)})\.py|python3? -m (onnx2trt)|(?:^|`)(onnx2trt)(?= (?:-|(?:{'|'.join(PARTS)}) [^`])))[ ]([^`\n]*)",
    re.MULTILINE,
)


def parser_of(door: str) -> ArgumentParser:
    return build_door_parser(DOORS[door], f"{door}.py") if DOORS[door] else build_parser()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cells, the header first."""
    found = re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "| ---" not in line] for table in found
    ]


def flags_in(text: str) -> set[str]:
    """Flags at the beginning of code between backticks."""
    return {name for name in re.findall(r"`(--?[a-z][a-z0-9-]*)", text) if FLAG.fullmatch(name)}


def commands(text: str) -> list[tuple[str, str]]:
    """(door, what follows it) of every command, up to a comment or the next command."""
    found = []
    for *names, line in COMMAND.findall(text):
        door, arguments = "".join(names), re.split(r" #|&&|;|\|", line)[0].strip()
        word, _, rest = arguments.partition(" ")
        found.append((next(name for name in DOORS if DOORS[name] == word), rest) if word in PARTS else (door, arguments))
    return found


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    outside, found = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), []
    for title in re.findall(r"^#{1,6} (.+?)\s*$", outside, re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return set(found)


def links(text: str) -> list[str]:
    """The targets of all relative links and images."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


def python_nodes(path: Path) -> list[ast.AST]:
    """Of the syntax trees of all Python examples."""
    return [node for block in re.findall(r"^```python\n(.*?)^```", read(path), re.M | re.S) for node in ast.walk(ast.parse(block))]


def broken(path: Path) -> list[str]:
    """Links of a file that lead nowhere."""
    found = []
    for target in links(read(path)):
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        if not there.exists() or anchor and anchor not in headings(read(there)):
            found.append(target)
    return found


# ---- flags


def known_flags() -> set[str]:
    return {option for action in build_parser()._actions for option in action.option_strings}


def test_the_flag_tables_are_those_of_the_parser():
    rows = [row for table in tables(read(FLAGS)) if table[0][0] == "Flag" for row in table[1:]]
    listed = [name for row in rows for name in re.findall(r"`(--?[a-z][a-z0-9-]*)", row[0])]
    assert sorted(listed) == sorted(known_flags())


@pytest.mark.parametrize("action", [action for action in build_parser()._actions if action.dest != "help"], ids=lambda action: action.dest)
def test_choices_and_defaults_stand_beside_the_flag(action):
    flag = max(action.option_strings, key=len)
    (row,) = [row for table in tables(read(FLAGS)) for row in table[1:] if flag in re.findall(FLAG, row[0])]
    if not isinstance(action.choices, range):
        assert all(f"`{choice}`" in " ".join(row) for choice in action.choices or ())
    if isinstance(action.default, (str, int, float)) and not isinstance(action.default, bool):
        assert row[1].strip("`") == (action.default if isinstance(action.default, str) else f"{action.default:g}")


@pytest.mark.parametrize("door", [door for door in DOORS if DOORS[door]])
def test_the_flags_of_the_other_doors_are_theirs(door):
    (row,) = [row for table in tables(read(FLAGS)) for row in table if row[0] == f"`python {door}.py`"]
    assert row[1] == f"`onnx2trt {DOORS[door]}`"
    assert flags_in(row[3]) == {option for action in parser_of(door)._actions for option in action.option_strings}


@pytest.mark.parametrize("path", READMES, ids=by_name)
def test_a_table_of_all_flags_elsewhere_is_complete(path):
    for table in tables(read(path)):
        found = flags_in(" ".join(cell for row in table for cell in row))
        if {"--onnx", "--help"} <= found:
            assert found == known_flags()


@pytest.mark.parametrize("path", [*READMES, *DOCS], ids=by_name)
def test_every_flag_that_is_named_exists(path):
    of_others = r"`(python|tritonserver|ray)[^`]*`"  # commands of other programs
    known = known_flags() | {option for option in build_fleet_parser()._option_string_actions if path.name == "fleet.md"}
    assert flags_in(re.sub(of_others, "", read(path))) - known == set()


# ---- commands


@pytest.mark.parametrize("path", [*READMES, *DOCS], ids=by_name)
def test_every_command_parses(path):
    for door, arguments in commands(read(path)):
        try:
            args = parser_of(door).parse_args(shlex.split(arguments))
        except SystemExit as end:
            assert not end.code, arguments  # --help
        else:
            assert flag_problem(args) == "", arguments


def test_the_readme_shows_every_door():
    assert {*DOORS.values()} == {"", *PARTS} and all((ROOT / f"{door}.py").exists() for door in DOORS)
    for path in READMES:
        assert {name for name, _ in commands(read(path))} == set(DOORS)


def test_the_quick_start_is_one_block_of_two_lines():
    """.ci/run runs them as they are."""
    texts = [read(path) for path in READMES]
    (lines,) = re.findall(r"^## Quick start\n.*?```bash\n(.*?)```\n(?:(?!```bash).)*?^## ", texts[0], re.MULTILINE | re.DOTALL)
    assert len(lines.splitlines()) == 2
    assert all(lines in text for text in texts[1:]), "the Chinese README has other lines"


def test_the_readme_is_short():
    assert len(read(ROOT / "README.md").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", [*READMES, *DOCS], ids=by_name)
def test_the_keywords_of_the_python_examples_are_flags(path):
    calls = [node for node in python_nodes(path) if isinstance(node, ast.Call) and ast.unparse(node.func) == "onnx2trt.convert"]
    assert {keyword.arg for call in calls for keyword in call.keywords} <= {action.dest for action in build_parser()._actions}


@pytest.mark.parametrize("path", [*READMES, *DOCS], ids=by_name)
def test_the_python_examples_use_what_is_there(path):
    for node in python_nodes(path):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "onnx2trt":
            assert hasattr(onnx2trt, node.attr), node.attr


# ---- tables that the code decides


def test_the_effects_of_flags_are_those_of_the_rules():
    (table,) = [table for table in tables(read(ROOT / "docs" / "tensorrt-versions.md")) if table[0][0] == "Flag"]
    assert {row[0].strip("`"): tuple(row[1:]) for row in table[1:]} == {
        flag: tuple(row[column].effect.value for column in COLUMNS) for flag, row in TABLE.items()
    }


def test_every_exit_code_and_status_is_explained():
    schema = json.loads(read(ROOT / "onnx2trt" / "report" / "result.schema.json"))
    found = {table[0][0]: [row[0] for row in table[1:]] for table in tables(read(ROOT / "docs" / "results.md"))}
    assert {int(code) for cell in found["Code"] for code in cell.split(", ")} == set(map(int, ExitCode))
    assert [cell.strip("`") for cell in found["`status`"]] == schema["properties"]["status"]["enum"]
    assert {name for cell in found["Key"] for name in re.findall(r"`(\w+)`", cell)} == set(schema["properties"])


def test_every_stage_is_explained():
    sources = "".join(map(read, (ROOT / "onnx2trt").rglob("*.py")))
    (row,) = [row for table in tables(read(ROOT / "docs" / "results.md")) for row in table if row[0] == "`timings_s`"]
    stages = set(re.findall(r'run\.stage\("(\w+)"', sources))
    assert len(stages) > 10 and stages | {"variants", "total"} == set(re.findall(r"`(\w+)`", row[1]))


# ---- links


@pytest.mark.parametrize("path", LINKING, ids=by_name)
def test_every_link_leads_somewhere(path):
    assert broken(path) == []


def test_every_page_of_docs_is_linked_from_the_readmes():
    for path in READMES:
        assert {by_name(page) for page in DOCS} <= {target.partition("#")[0] for target in links(read(path))}


# ---- the tests themselves


def test_commands_are_found_in_lines_and_in_text():
    text = "do `python onnx2trt.py --inspect e` or\n.venv/bin/python onnx2trt.py --onnx m -q && rm m # gone\nonnx2trt -q\n"
    assert commands(text) == [("onnx2trt", "--inspect e"), ("onnx2trt", "--onnx m -q"), ("onnx2trt", "-q")]
    assert commands("`python validate.py a.onnx --onnx b`\npython3 -m onnx2trt -q") == [("validate", "a.onnx --onnx b"), ("onnx2trt", "-q")]
    assert commands("`onnx2trt validate`: `onnx2trt calibrate -q` or python -m onnx2trt validate a") == [
        ("calibration", "-q"),
        ("validate", "a"),
    ]
    assert commands("python benchmarks/calibration.py --json r\nonnx2trt is a tool\nmy-onnx2trt -q") == []


def test_tables_and_flags_are_found():
    text = "| a | `--onnx FILE` |\n| --- | --- |\n| b | `--help` `-h`, `x --no` |\n\n| `--old` | gone |\n"
    assert tables(text) == [[["a", "`--onnx FILE`"], ["b", "`--help` `-h`, `x --no`"]], [["`--old`", "gone"]]]
    assert flags_in(text) == {"--onnx", "--help", "-h", "--old"}


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "a.md").write_text("# One `--two`?\n```\n# code\n```\n# 中文 (x)\n# One `--two`\n")
    (tmp_path / "b.md").write_text(
        "[1](a.md#one---two-1) [2](a.md#code) [3](gone.md) [4](#no) [5](a.md#中文-x) [6](https://x.y/z) ![7](a.md)"
    )
    assert headings(read(tmp_path / "a.md")) == {"one---two", "one---two-1", "中文-x"}
    assert broken(tmp_path / "b.md") == ["a.md#code", "gone.md", "#no"]
