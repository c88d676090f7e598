"""trt/profile.py: which parts of two engines do the same work, and how long each takes for it."""

from dataclasses import replace

import pytest
from fake_engines import layer

from onnx2trt.trt.profile import Part, parts_of


def test_layers_of_two_engines_meet_where_both_fuse():
    first = ((layer("a + b", "a", "b"), layer("c", "c"), layer("d", "d")), {"a + b": 1.0, "c": 2.0, "d": 3.0})
    second = ((layer("a", "a"), layer("b + c", "b", "c"), layer("d", "d")), {"a": 0.5, "b + c": 0.7, "d": 5.0})
    parts = {part.nodes: (part.first_ms, part.second_ms) for part in parts_of(first, second)}
    assert parts == {frozenset("abc"): (3.0, pytest.approx(1.2)), frozenset("d"): (3.0, 5.0)}


def test_conversions_of_formats_count_for_the_layer_that_they_serve():
    copy = layer("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1")
    lonely = layer("Reformatting CopyNode for Network Output y")
    engine = (
        (layer("conv1 + relu1", "conv1", "relu1"), copy, lonely, layer("relu1")),
        {"conv1 + relu1": 1.0, copy.name: 0.5, lonely.name: 9.0},
    )
    (part,) = parts_of(engine, ((layer("conv1", "conv1"), layer("relu1", "relu1")), {"conv1": 0.8, "relu1": 0.1}))
    assert part == Part(frozenset({"conv1", "relu1"}), 1.5, pytest.approx(0.9))


def test_a_conversion_counts_for_the_int8_layer_that_makes_it_necessary():
    """Of what it reads; a conversion before an INT8 layer counts for that one."""
    after = layer("Reformatting CopyNode for Input Tensor 0 to b", reads=("t",), writes=("t2",))
    before = layer("Reformatting CopyNode for Input Tensor 0 to c", reads=("u",), writes=("u2",))
    layers = {
        "a": layer("a", "a", writes=("t",)),
        "b": layer("b", "b", precision="fp16", reads=("t2",), writes=("u",)),
        "c": layer("c", "c", reads=("u2",)),
    }
    times = {"a": 1.0, "b": 2.0, "c": 4.0, after.name: 0.5, before.name: 0.25}
    plain = tuple(layer(name, name, precision="fp16") for name in "abc")
    parts = parts_of(((*layers.values(), after, before), times), (plain, dict.fromkeys("abc", 1.0)))
    assert {"".join(part.nodes): part.first_ms for part in parts} == {"a": 1.5, "b": 2.0, "c": 4.25}
    half = (replace(layers["a"], precision="fp16"), layers["b"], layers["c"], after, before)
    parts = parts_of((half, times), (plain, dict.fromkeys("abc", 1.0)))
    assert {"".join(part.nodes): part.first_ms for part in parts} == {"a": 1.0, "b": 2.5, "c": 4.25}
