"""tests/ mirrors the package: whoever looks for the tests of a module finds them under its name, in the folder of its room."""

from collections import Counter
from pathlib import Path

import pytest
from command import ROOT

PACKAGE, TESTS = ROOT / "onnx2trt", ROOT / "tests"
OF_THE_WHOLE = {"end_to_end", "project"}  # folders: what the command does, and what the repository is

# tests of a room that belong to no module of it -> what they are of
SPANNING = {
    "trt/test_symbols.py": "what all of the room uses of TensorRT's classes, release by release",
}


def place(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


FILES = sorted(TESTS.rglob("test_*.py"))
OF_ROOMS = [path for path in FILES if place(path).split("/")[0] not in OF_THE_WHOLE]


def module_of(test: Path) -> str | None:
    """'quant/equalize/apply.py' for tests/quant/equalize/test_apply.py; None where the room has no such module.

    The folder's name may stand before the module's, where two rooms have one of that name, and more words behind it, where a
    module has several files of tests.
    """
    folder, name = test.parent.relative_to(TESTS), test.stem.removeprefix("test_")
    stems = [path.stem for path in (PACKAGE / folder).glob("*.py") if path.stem not in ("__init__", "__main__")]
    for stem in sorted(stems, key=len, reverse=True):  # of read and read_ahead the longer one
        if any(f"{name}_".startswith(f"{told}_") for told in (stem, f"{folder.name}_{stem}")):
            return (folder / f"{stem}.py").as_posix()
    return None


@pytest.mark.parametrize("test", [path for path in OF_ROOMS if place(path) not in SPANNING], ids=place)
def test_it_is_named_after_a_module_and_says_so_first(test):
    module = module_of(test)
    assert module, f"{test.parent.relative_to(TESTS)} of the package has no module of this name"
    assert test.read_text(encoding="utf-8").startswith(f'"""{module}')


def test_what_belongs_to_no_module_is_there_and_really_belongs_to_none():
    for name in SPANNING:
        assert (TESTS / name).exists() and module_of(TESTS / name) is None, name


def test_no_two_files_have_one_name():
    """pytest imports them by it."""
    assert [name for name, count in Counter(path.name for path in FILES).items() if count > 1] == []


@pytest.mark.parametrize(
    "test, module",
    [
        ("rewrite/test_fp16.py", "rewrite/fp16.py"),
        ("rewrite/test_rewrite_prepare.py", "rewrite/prepare.py"),
        ("data/test_reader_batches.py", "data/reader.py"),
        ("data/test_fp16.py", None),  # of another room
        ("data/test_read.py", None),  # less than a name
        ("data/test_readers.py", None),  # more than a name
        ("nowhere/test_fp16.py", None),
    ],
)
def test_names_are_told_apart(test, module):
    assert module_of(TESTS / test) == module
