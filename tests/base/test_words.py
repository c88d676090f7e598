"""base/words.py: names in sentences."""

import shlex

import pytest

from onnx2trt.base.words import base_name, listed, to_type


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
