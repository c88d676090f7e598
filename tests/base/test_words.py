"""base/words.py: names in sentences."""

import pytest

from onnx2trt.base.words import base_name, listed


@pytest.mark.parametrize(
    "count, text",
    [(0, ""), (1, "a"), (2, "a, b"), (3, "a, b and 1 more"), (5, "a, b and 3 more")],
)
def test_the_first_names_and_how_many_there_are_besides(count, text):
    assert listed(list("abcde")[:count], 2) == text


@pytest.mark.parametrize("path, name", [("a/b/c.onnx", "c.onnx"), ("images/", "images"), (".", "."), ("synthetic", "synthetic")])
def test_the_last_part_of_a_path(path, name):
    assert base_name(path) == name
