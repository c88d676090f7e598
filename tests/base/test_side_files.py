"""base/side_files.py: what others may have written is bounded in size, depth and types before anybody works with it."""

import json
import os
import resource
from dataclasses import dataclass, field

import numpy as np
import pytest

from onnx2trt.base.side_files import MOST_BYTES, MOST_DEPTH, NotTaken, parse_json, read_json, record_of


@pytest.mark.parametrize("value", [None, True, 0, -(2**62), 1.5, "é\ud800", [], {}, {"a": [{"b": [1, "x"]}]}])
def test_what_json_has_comes_back(tmp_path, value):
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(str(tmp_path / "a.json")) == value == parse_json(json.dumps(value))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        (b"\xff\xfe{", "utf-8"),
        (b"\0" * 100, "Expecting value"),
        ("[" * 10**6, "nested"),
        ('{"a":' * 10**5, "nested"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "nested"),
        ('{"a":' + "9" * 5000 + "}", "too large"),
        (str(2**63), "too large"),
        (str(-(2**63)), "too large"),
        ("1e999", "too large"),
        ("NaN", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("1 " + " " * MOST_BYTES, "at most"),
    ],
)
def test_what_is_not_taken(text, words):
    with pytest.raises(NotTaken, match=words):
        parse_json(text)


def test_the_limits_themselves_are_taken():
    assert parse_json("[" * MOST_DEPTH + "]" * MOST_DEPTH)
    assert parse_json(str(2**63 - 1)) == 2**63 - 1
    assert parse_json('"' + "x" * (MOST_BYTES - 2) + '"')
    assert np.isnan(parse_json("NaN", finite=False))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/dev/zero", tmp_path / "zero")
    for name in ("pipe", "zero"):
        with pytest.raises(NotTaken, match="regular"):
            read_json(str(tmp_path / name))
    with pytest.raises(OSError):
        read_json(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_json(str(tmp_path / "none"))


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "huge", "wb") as stream:
        stream.truncate(3 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NotTaken, match="3221225472 bytes"):
        read_json(str(tmp_path / "huge"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # kB


@dataclass(frozen=True)
class Point:
    x: float
    name: str | None = None
    of: tuple[str, ...] = ()
    parts: list[dict] = field(default_factory=list)
    counts: dict[str, int] | None = None


def test_a_record_is_made_of_what_its_fields_say():
    assert record_of(Point, {"x": 1, "of": ["a"], "counts": {"b": 2}}) == Point(1, of=("a",), counts={"b": 2})


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"x": None},
        {"x": True},
        {"x": "1"},
        {"x": 1.0, "y": 2},
        {"x": 1, "name": 5},
        {"x": 1, "of": "abc"},
        {"x": 1, "of": [1]},
        {"x": 1, "parts": [3]},
        {"x": 1, "counts": {"a": 1.5}},
        {"x": 1, "counts": {"a": True}},
    ],
)
def test_a_record_of_other_types_is_not_taken(values):
    with pytest.raises(NotTaken):
        record_of(Point, values)
