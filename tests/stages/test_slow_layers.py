"""stages/slow_layers.py: which INT8 layers are slower than in FP16, and go back."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_engines import layer
from helpers import network
from models import node, profiles, random

from onnx2trt.stages.slow_layers import at_one_pace, choose_slow, left_alone, served_by, slowed_down, slower_in_int8
from onnx2trt.trt.profile import Part, parts_of

WEIGHTS = {"w": random(4, 4, 1, 1), "s": np.float32(0.1), "z": np.int8(0)}


def pair(tensor):
    """Q and DQ; the result is d."""
    quantized, dequantized = f"{tensor}__quantized", f"{tensor}__dequantized"
    return [node("QuantizeLinear", f"{tensor} s z", "q", quantized), node("DequantizeLinear", "q s z", "d", dequantized)]


def test_quantising_counts_for_those_that_read_it():
    readers = [node("Conv", "d w", "a", "first"), node("Conv", "d w", "b", "second"), node("Add", "a b", "y", "sum")]
    graph = network([*pair("x"), *readers], WEIGHTS)
    quantise, fused = (
        layer("x__quantized", "x__quantized", precision="fp32"),
        layer("second + sum", "x__dequantized", "second", "sum"),
    )
    assert [found.nodes for found in served_by(graph, (quantise, fused))] == [("first", "second"), ("second", "sum")]


def test_a_layer_that_quantizes_what_it_writes_answers_for_itself():
    """Three convolutions by Q/DQ, each of which writes INT8 for the next: the last is slower, and goes back alone."""
    nodes = [
        node("Conv", "x w", "t", "first"),
        node("QuantizeLinear", "t s z", "tq", "t__q"),
        node("DequantizeLinear", "tq s z", "td", "t__d"),
    ]
    nodes += [
        node("Conv", "td w", "u", "second"),
        node("QuantizeLinear", "u s z", "uq", "u__q"),
        node("DequantizeLinear", "uq s z", "ud", "u__d"),
    ]
    graph = network([*nodes, node("Conv", "ud w", "y", "last")], WEIGHTS)
    int8 = (layer("first", "first", "t__q"), layer("second", "t__d", "second", "u__q"), layer("last", "u__d", "last"))
    fp16 = tuple(layer(name, name, precision="fp16") for name in ("first", "second", "last"))
    times = {"first": 1.0, "second": 1.0, "last": 2.0}, {"first": 2.0, "second": 2.0, "last": 1.0}
    parts = parts_of((served_by(graph, int8), times[0]), (fp16, times[1]))
    assert set(choose_slow(parts, {"first", "second", "last"}, {}, 0)) == {"last"}


def test_what_only_passes_on_and_quantizes_counts_for_those_that_read_it():
    graph = network([node("Add", "x x", "t", "sum"), *pair("t"), node("Conv", "d w", "y", "conv")], WEIGHTS)
    (found,) = served_by(graph, (layer("sum", "sum", "t__quantized", precision="fp16"),))
    assert found.nodes == ("sum", "conv")


def test_engines_that_were_timed_at_another_pace_are_compared_at_one():
    others = [Part(frozenset({f"n{index}"}), 1.0, 2.0) for index in range(5)]
    slow = Part(frozenset({"a"}), 3.0, 4.0)
    paced = at_one_pace([slow, *others], {"a"})
    assert paced[0] == Part(frozenset({"a"}), 3.0, 2.0) and all(part.second_ms == 1.0 for part in paced[1:])
    assert at_one_pace([slow, *others[:4]], {"a"}) == [slow, *others[:4]], "too few to tell"
    assert set(choose_slow(paced, {"a"}, {}, 0)) == {"a"} and choose_slow([slow, *others], {"a"}, {}, 0) == {}


@pytest.mark.parametrize("conv_ms, share, slow", [(0.7, 0.0, False), (1.5, 0.0, True), (1.5, 1.0, False)])
def test_the_pace_is_that_of_what_no_engine_computes_in_int8(conv_ms, share, slow):
    """Here, INT8 pooling is twice as fast."""
    pools = [f"p{index}" for index in range(6)]
    nodes = [node("Conv", "x w", "c", "conv")]
    nodes += [node("MaxPool", before, after, name, kernel_shape=[1, 1]) for before, after, name in zip(["c", *pools], [*pools, "y"], pools)]
    nodes[-1].output[0] = "y"
    graph = network(nodes, WEIGHTS)
    job = SimpleNamespace(plan=SimpleNamespace(min_int8_share=share), profiles=profiles(x=(1, 4, 8, 8)))
    names = ["conv", *pools]
    int8 = (tuple(layer(name, name) for name in names), {"conv": conv_ms, **dict.fromkeys(pools, 0.5)})
    fp16 = (tuple(layer(name, name, precision="fp16") for name in names), dict.fromkeys(names, 1.0))
    assert set(slower_in_int8(job, graph, int8, fp16)) == ({"conv"} if slow else set())


def test_a_layer_answers_for_what_its_equalized_channels_slow_down():
    """A multiplication with one factor for each channel, not fused any more, is read by an INT8 layer through Q and DQ."""
    before = [node("Sigmoid", "x", "g", "gate"), node("Mul", "g f", "m", "affine")]
    graph = network([*before, *pair("m"), node("Conv", "d w", "y", "conv")], {**WEIGHTS, "f": random(4, 1, 1)})
    before = Part(frozenset({"gate", "affine"}), 3.0, 1.0)
    assert slowed_down(graph, [before], {"conv"}) == [("affine", "gate", "conv")]
    assert slowed_down(graph, [replace(before, first_ms=1.0)], {"conv"}) == [], "it is no slower"
    assert slowed_down(graph, [before], {"conv", "gate"}) == [], "it is INT8 itself"
    assert slowed_down(graph, [before], set()) == []
    timed = [(layer("gate", "gate", precision="fp16"), layer("affine", "affine", precision="fp16"), layer("conv", "conv"))]
    timed.append((layer("gate + affine", "gate", "affine", precision="fp16"), layer("conv", "conv", precision="fp16")))
    times = {"gate": 2.0, "affine": 1.0, "conv": 2.0}, {"gate + affine": 1.0, "conv": 3.0}
    (part,) = parts_of(*zip(timed, times), [("affine", "gate", "conv")])
    assert part == Part(frozenset({"gate", "affine", "conv"}), 5.0, 4.0)


def test_only_what_gains_enough_goes_back():
    parts = [Part(frozenset({"a", "r"}), 3.0, 1.0), Part(frozenset({"b"}), 1.02, 1.0), Part(frozenset({"c"}), 1.0, 4.0)]
    assert set(choose_slow(parts, {"a", "b", "c"}, {}, 0)) == {"a"}, "b is within the noise, c is faster"
    assert "3.0000 ms against 1.0000 ms in FP16" in choose_slow(parts, {"a"}, {}, 0)["a"]
    assert choose_slow([*parts, Part(frozenset({"z"}), 1000.0, 1001.0)], {"a"}, {}, 0) == {}, "two of a thousand milliseconds"
    assert choose_slow(parts, {"b", "c"}, {}, 0) == {}, "what is FP16 already cannot go back"


@pytest.mark.parametrize("least, back", [(0, "abc"), (1, "ac"), (10, "ab"), (11, "a"), (21, "c"), (30, "b"), (31, "")])
def test_what_loses_least_stays_where_a_share_was_asked_for(least, back):
    parts = [Part(frozenset({"a", "r"}), 9.0, 1.0), Part(frozenset({"b"}), 2.0, 1.0), Part(frozenset({"c"}), 2.5, 1.0)]
    work = {"a": 20, "b": 1, "c": 10, "fp16": 100}  # they lose 8, 1 and 1.5 ms
    assert "".join(sorted(choose_slow(parts, {"a", "b", "c"}, work, least))) == back


@pytest.mark.parametrize("lost, back", [(3.05, "small"), (3.8, "large")])
def test_one_large_layer_stays_rather_than_many_small_ones_that_lose_about_as_much(lost, back):
    parts = [Part(frozenset({"large"}), 10.0 + lost, 10.0), *(Part(frozenset({f"small{index}"}), 2.0, 1.0) for index in range(3))]
    work = {"large": 39, **{f"small{index}": 10 for index in range(3)}}
    assert {name.rstrip("012") for name in choose_slow(parts, set(work), work, 30)} == {back}


@pytest.mark.parametrize(
    "slow, beside_ms, room, back",
    [
        ("first", 1.0, 10, ["after", "beside"]),
        ("first", 0.5, 10, []),  # one of the two is worth the conversion that they share
        ("first", 1.0, 1, []),
        ("", 1.0, 10, []),
        ("other", 1.0, 10, []),  # their neighbour stays
        ("first other", 1.0, 10, ["after", "beside"]),
    ],
)
def test_what_gains_nothing_goes_back_with_its_neighbours(slow, beside_ms, room, back):
    """`after` and `beside` read, through Q and DQ, what `first` makes; `other` has nothing to do with them."""
    nodes = [node("Conv", "x w", "t", "first"), *pair("t"), node("Conv", "d w", "u", "after"), node("Conv", "d w", "v", "beside")]
    nodes += [node("Add", "u v", "y", "sum"), node("Conv", "x w", "o", "other")]
    times = {"first": (3.0, 1.0), "after": (1.0, 1.0), "beside": (beside_ms, 1.0), "other": (1.0, 1.0), "sum": (0.5, 1.0)}
    parts = [Part(frozenset({name}), *both) for name, both in times.items()]
    layers = {name: 1 for name in times if name != "sum"}
    assert sorted(left_alone(network(nodes, WEIGHTS), parts, {*layers}, set(slow.split()), layers, room)) == back
