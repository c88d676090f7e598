"""base/words.py: names in sentences."""

import random
import shlex
import unicodedata

import pytest

from onnx2trt.base.words import base_name, in_lines, listed, printable, to_type


@pytest.mark.parametrize(
    "count, text",
    [(0, ""), (1, "a"), (2, "a, b"), (3, "a, b and 1 more"), (5, "a, b and 3 more")],
)
def test_the_first_names_and_how_many_there_are_besides(count, text):
    assert listed(list("abcde")[:count], 2) == text


@pytest.mark.parametrize("path, name", [("a/b/c.onnx", "c.onnx"), ("images/", "images"), (".", "."), ("synthetic", "synthetic")])
def test_the_last_part_of_a_path(path, name):
    assert base_name(path) == name


@pytest.mark.parametrize("name", ["images", "x:0", "a b", "$(touch PWNED)", "`id`; rm x", "it's", "x\n--output y", ""])
def test_a_name_is_one_word_of_a_shell_whatever_stands_in_it(name):
    assert shlex.split(f"--opt-shapes {to_type(name, '1x3')}") == ["--opt-shapes", f"{name}:1x3"]


def test_a_plain_name_is_not_quoted():
    assert to_type("images", "1x3x8x8") == "images:1x3x8x8" and to_type("sr", "16000", "=") == "sr=16000"


def test_what_a_terminal_acts_upon_is_written_out():
    evil = "\x1b]0;title\x07\x1b[2J\x9b31m\u202etxt.exe\u2066 a\tb"
    assert printable(evil) == r"\x1b]0;title\x07\x1b[2J\x9b31m\u202etxt.exe\u2066 a" + "\tb"
    assert printable("b\udcffd: \u00e4 \u4f60 \U0001f600") == "b\\udcffd: \u00e4 \u4f60 \U0001f600", "what is text stays"


def test_no_line_but_the_first_begins_like_a_message():
    assert printable("name 'a\r\nerror: forged\x85x\u2028y'") == "name 'a\\r\n  error: forged\\x85x\\u2028y'"
    assert printable("a\nb", "") == "a\nb"


def test_nothing_that_is_left_moves_a_cursor_or_turns_text():
    draw = random.Random(5)
    for _ in range(300):
        text = "".join(chr(draw.choice((draw.randrange(256), draw.randrange(0x2000, 0x2100), draw.randrange(0x11000)))) for _ in range(40))
        shown = printable(text)
        kinds = {unicodedata.category(letter) for letter in shown if letter not in "\t\n"}
        assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
        assert not any(
            unicodedata.bidirectional(letter) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI") for letter in shown
        )
        assert all(not line or line[0].isspace() for line in shown.split("\n")[1:]) and printable(shown, "") == shown


@pytest.mark.parametrize("columns", [0, 20, 60, 80])
def test_lines_are_broken_between_words_and_no_word_is_lost(columns):
    draw = random.Random(columns)
    for _ in range(100):
        words = ["x-" * draw.randrange(1, 30) + "y" for _ in range(draw.randrange(1, 40))]
        indent = " " * draw.randrange(4)
        text = "first\n" + indent + " ".join(words)
        shown = in_lines(text, columns).split("\n")
        assert shown[0] == "first" and shown[1].startswith(indent) and [word for line in shown[1:] for word in line.split()] == words
        assert all(line.startswith(indent + "  ") for line in shown[2:]), "what goes on is no line of its own"
        assert all(len(line) <= max(columns, 20) or len(line.split()) == 1 for line in shown)


def test_what_fits_stays_as_it_is():
    assert in_lines("a  b\n\n  c", 80) == "a  b\n\n  c"
