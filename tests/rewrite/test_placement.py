"""rewrite/placement.py: what reads INT8 between INT8 layers: residual additions, Concat, Resize, pooling."""

import numpy as np
import onnx
import pytest
from helpers import network
from models import node, profiles, random
from onnx import helper

from onnx2trt.model.session import Session
from onnx2trt.rewrite.as_built import InInt8, as_built
from onnx2trt.rewrite.fit import Fit
from onnx2trt.rewrite.placement import between, moved, readings, results, tensors
from onnx2trt.rewrite.prepare import Int8Plan, prepare_calibrated
from onnx2trt.rewrite.qdq import Reading, insert, quantizable_layers


def run(graph, inner=(), **feed):
    return Session.from_graph(graph, tuple(inner)).run(feed, tuple(inner) or None)


def convs(*names, channels=4):
    return {name: random(channels, channels, 1, 1, seed=index) for index, name in enumerate(names)}


def chosen(graph, *names):
    return tuple(layer for layer in quantizable_layers(graph) if not names or layer.node in names)


def found(graph, *names, known=None):
    return {(r.node, r.index, r.tensor, r.like) for r in readings(graph, chosen(graph, *names), known)}


def residual_block(shortcut="identity"):
    """stem -> [a -> b (+ shortcut)] -> relu -> head; the shortcut may have a convolution of its own, which comes last in the file."""
    nodes = [
        node("Conv", "x w", "s", "stem"),
        node("Relu", "s", "r", "stem_relu"),
        node("Conv", "r wa", "a", "conv_a"),
        node("Conv", "a wb", "b", "conv_b"),
        *([node("Conv", "r wd", "d", "down")] if shortcut == "down" else []),
        node("Add", "b " + ("d" if shortcut == "down" else "r"), "sum", "add"),
        node("Relu", "sum", "j", "add_relu"),
        node("Conv", "j wh", "y", "head"),
    ]
    return network(nodes, convs("w", "wa", "wb", "wd", "wh"))


def test_the_shortcut_of_an_addition_is_int8_with_the_scale_that_it_has():
    graph = residual_block()
    assert found(graph) == {("add", 1, "r", "r")}
    assert set(tensors(chosen(graph), readings(graph, chosen(graph)))) == {"x", "r", "a", "j"}


def test_a_shortcut_with_a_convolution_gets_a_scale_of_its_own():
    graph = residual_block("down")
    assert found(graph) == {("add", 1, "d", "d")}, "the addition is fused with the longer way, whatever the order in the file"
    assert "d" in tensors(chosen(graph), readings(graph, chosen(graph)))
    assert found(graph, known={"x", "r", "a", "j"}) == set(), "nothing is quantised without a scale"


def test_an_addition_whose_sum_something_reads_in_float_stays_as_it_is():
    assert found(residual_block(), "stem", "conv_a", "conv_b") == set(), "the head is FP16"
    assert found(residual_block(), "stem", "conv_a", "head") == set(), "nothing in INT8 to fuse with"
    nodes = [node("Conv", "x w", "c", "stem"), node("Add", "c x", "j", "add"), node("Conv", "j v", "y", "head")]
    both = network(nodes, convs("w", "v"), outputs={"y": [1, 4, 8, 8], "j": [1, 4, 8, 8]})
    assert found(both) == set(), "the sum is an output"


def decoder(mode="linear", constant=False):
    """deep -> Resize -> Concat with a skip that another layer reads, too -> head."""
    resize = helper.make_node("Resize", ["e1", "", "up"], ["u"], name="up", mode=mode, coordinate_transformation_mode="half_pixel")
    nodes = [
        node("Conv", "x w0", "e0", "skip"),
        node("Conv", "e0 w1", "e1", "deep", strides=[2, 2]),
        resize,
        node("Concat", "u " + ("k" if constant else "e0"), "j", "join", axis=1),
        node("Conv", "j w2", "y", "head"),
    ]
    weights = {**convs("w0", "w1"), "w2": random(4, 8, 1, 1, seed=9), "up": np.float32([1, 1, 2, 2]), "k": random(1, 4, 8, 8)}
    return network(nodes, weights)


def test_concat_and_resize_hand_the_scale_on():
    expected = {("join", 0, "u", "j"), ("join", 1, "e0", "e0"), ("up", 0, "e1", "j")}
    assert found(decoder()) == expected == found(decoder("nearest"))
    assert found(decoder("cubic")) == expected - {("up", 0, "e1", "j")}, "cubic leaves the range of what it reads"
    assert found(decoder(constant=True)) == set()
    assert found(decoder(), "skip", "deep") == set()


def test_concat_costs_no_accuracy_where_its_scale_is_the_only_one():
    graph = decoder("nearest")
    layers = chosen(graph, "head")
    scales, x = {"j": 0.05}, random(1, 4, 8, 8)
    more = readings(graph, layers, scales)
    assert {(reading.tensor, reading.like) for reading in more} == {("e1", "j"), ("u", "j"), ("e0", "j")}
    plain, moved = insert(graph, scales, layers, False), insert(graph, scales, layers, False, more=more)
    assert np.array_equal(run(plain, x=x)["y"], run(moved, x=x)["y"])
    onnx.checker.check_model(moved.to_model(), full_check=True)


def test_what_the_largest_is_taken_of_is_int8_and_so_is_what_is_joined_for_it():
    nodes = [
        node("Conv", "x w", "c", "stem"),
        node("Relu", "c", "r", "relu"),
        node("Concat", "r x", "j", "join", axis=1),
        node("MaxPool", "j", "p", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p v", "y", "head"),
    ]
    weights = {"w": random(4, 4, 1, 1), "v": random(4, 8, 1, 1, seed=1)}
    graph = network(nodes, weights, outputs={"y": [1, 4, 4, 4]})
    assert found(graph) == {("pool", 0, "j", "p"), ("join", 0, "r", "p"), ("join", 1, "x", "x")}
    scales = {"x": 0.05, "p": 0.04}
    late, early = (insert(graph, scales, chosen(graph), half=False, more=more) for more in ((), readings(graph, chosen(graph), {"p"})))
    x = random(1, 4, 8, 8, seed=3)
    assert len(early.nodes) == len(late.nodes) + 2, "one pair of Q and DQ in front of the pooling"
    assert np.array_equal(run(late, x=x)["y"], run(early, x=x)["y"]), "rounded before or after, the largest is the same"


def test_what_pooling_averages_is_int8_and_so_is_the_addition_before_it():
    nodes = [
        node("Conv", "x w", "c", "stem"),
        node("Add", "c x", "j", "add"),
        node("GlobalAveragePool", "j", "g", "pool"),
        node("Conv", "g v", "y", "head"),
    ]
    graph = network(nodes, convs("w", "v"), outputs={"y": [1, 4, 1, 1]})
    assert found(graph) == {("pool", 0, "j", "j"), ("add", 1, "x", "x")}


def test_a_tensor_that_a_subgraph_reads_stays_float():
    branch = helper.make_graph([helper.make_node("Identity", ["j"], ["i"])], "b", [], [helper.make_tensor_value_info("i", 1, None)])
    chooser = helper.make_node("If", ["flag"], ["z"], name="if", then_branch=branch, else_branch=branch)
    nodes = [node("Conv", "x w", "c", "stem"), node("Concat", "c x", "j", "join", axis=1), node("Conv", "j v", "y", "head"), chooser]
    weights = {"w": random(4, 4, 1, 1), "v": random(4, 8, 1, 1), "flag": np.array(True)}
    graph = network(nodes, weights, outputs={"y": [1, 4, 8, 8], "z": [1, 8, 8, 8]})
    assert found(graph) == set()


def test_operators_of_others_are_left_alone():
    join = node("Concat", "c x", "j", "join", axis=1)
    join.domain = "acme"
    graph = network(
        [node("Conv", "x w", "c", "stem"), join, node("Conv", "j v", "y", "head")], {"w": random(4, 4, 1, 1), "v": random(4, 8, 1, 1)}
    )
    assert found(graph) == set()


@pytest.mark.parametrize("make", [residual_block, lambda: residual_block("down"), decoder])
def test_the_graph_with_all_of_it_is_sound_and_near_the_original(make):
    graph = make()
    layers, x = chosen(graph), random(1, 4, 8, 8)
    names = tensors(layers, readings(graph, layers))
    values = run(graph, [name for name in names if name != "x"], x=x)
    scales = {name: float(np.abs(x if name == "x" else values[name]).max()) / 127 for name in names}
    made = Fit(scales).apply(graph, layers)
    onnx.checker.check_model(made.to_model(), full_check=True)
    pairs = [n for n in made.nodes if n.op_type == "QuantizeLinear"]
    assert len(pairs) == len({*names, *(reading.tensor for reading in readings(graph, layers))}), (
        "one for each tensor, however many read it"
    )
    expected, got = run(graph, x=x)["y"], run(made, x=x)["y"]
    assert np.sum((got - expected) ** 2) < 0.01 * np.sum(expected**2)


def test_results_of_int8_layers_that_nothing_reads_as_int8():
    graph = residual_block()
    layers = chosen(graph)
    made = results(graph, layers, readings(graph, layers))
    assert made.tensors == ("s", "r", "a", "b", "sum", "j", "y")
    assert made.float_nodes == set() and "y" not in made.scaled, "s and b are fused with what follows, y is the end"
    layers = chosen(graph, "stem", "conv_a", "conv_b")
    made = results(graph, layers, readings(graph, layers))
    assert made.tensors == ("s", "r", "a", "b", "sum", "j") and made.float_nodes == {"conv_b", "add", "add_relu"}
    assert results(graph, (), (Reading("add", 1, "r", "r"),)).tensors == ()


def test_the_calibrator_gets_the_scale_that_is_handed_on():
    graph = decoder()
    layers = chosen(graph)
    fit = Fit({"x": 0.1, "e0": 0.2, "j": 0.3})
    plan, others = Int8Plan(graph, profiles(x=(1, 4, 8, 8)), layers, fit, {}, {}), {"e1": 9.0, "u": 9.0, "y": 0.4}
    made = prepare_calibrated(plan, others, strict=True)
    assert made.scales == {"x": 0.1, "e0": 0.2, "j": 0.3, "u": 0.3, "e1": 0.3} and not made.half_outputs, "an end stays as precise as it is"
    assert made.constraints == {layer.node: "int8" for layer in layers}
    free = prepare_calibrated(plan, others, strict=False)
    assert free.scales == {**made.scales, "y": 0.4} and not free.constraints and not free.half_outputs


def test_what_a_hard_swish_reads_is_not_int8():
    nodes = [
        node("Conv", "x w", "c", "stem"),
        node("HardSigmoid", "c", "h", "gate"),
        node("Mul", "c h", "s", "swish"),
        node("Conv", "s v", "y", "head"),
    ]
    graph = network(nodes, convs("w", "v"))
    made = results(graph, chosen(graph), ())
    assert made.tensors == ("c", "h", "s", "y") and made.scaled == ("s",) and not made.float_nodes
    made = results(graph, chosen(graph, "stem"), ())
    assert made.scaled == ("c", "h", "s") and made.float_nodes == {"stem", "gate", "swish"}, "a convolution reads it in FP16"


def test_what_fp16_reads_as_it_was_computed_is_left_to_tensorrt():
    """Bound to FP16, the last convolution of a UNet needed a conversion to FP32 before the Softmax (43 us of 985 on an H100)."""
    graph = network([node("Conv", "x w", "c", "stem"), node("Softmax", "c", "y", axis=1)], convs("w"))
    made = results(graph, chosen(graph), ())
    assert made.tensors == ("c",) and not made.scaled and not made.float_nodes


def shuffled(last="Conv"):
    """stem and the network's input, joined, their channels shuffled, halved: one half to a convolution, the other to the output."""
    head = [node("Conv", "h1 v", "y", "head")] if last == "Conv" else [node("Softmax", "h1", "y", "head", axis=1)]
    nodes = [
        node("Conv", "x w", "c", "stem"),
        node("Relu", "c", "r", "relu"),
        node("Concat", "r x", "j", "join", axis=1),
        node("Reshape", "j apart", "a", "apart"),
        node("Transpose", "a", "t", "turn", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t together", "s", "together"),
        node("Split", "s halves", "h1 h2", "halve", axis=1),
        *head,
        node("Reshape", "h2 flat", "z", "flat"),
    ]
    shapes = {"apart": [1, 2, 4, 8, 8], "together": [1, 8, 8, 8], "halves": [4, 4], "flat": [1, 256]}
    weights = convs("w", "v") | {name: np.int64(shape) for name, shape in shapes.items()}
    return network(nodes, weights, outputs={"y": [1, 4, 8, 8], "z": [1, 256]})


def scales_between(graph, layers):
    plan = Int8Plan(graph, profiles(x=(1, 4, 8, 8)), layers, Fit({layer.activation: 0.5 for layer in layers}), {}, {})
    ranges = {name: 0.01 * index for index, name in enumerate(("c", "r", "j", "a", "t", "s", "h1", "h2", "y", "z"), start=1)}
    free, bound = (prepare_calibrated(plan, ranges, strict) for strict in (False, True))
    assert bound.scales.keys() <= free.scales.keys()
    return free


def test_what_only_moves_between_int8_layers_has_a_scale_where_nothing_is_bound():
    graph = shuffled()
    made = scales_between(graph, chosen(graph))
    moved = dict.fromkeys(("r", "j", "a", "t", "s"), 0.03)  # all as the Concat
    assert made.scales == {"x": 0.5, "h1": 0.5, "c": 0.01, "y": 0.09, **moved}, "what only an output shows has none"
    x = random(1, 4, 8, 8, seed=3)
    once, always, never = (
        run(as_built(graph, made.scales, InInt8({"stem", "head"}, held, {})), x=x)["y"] for held in ({"r", "j"}, moved, ())
    )
    assert np.array_equal(once, always) and not np.array_equal(once, never), "what is moved is rounded once"


def test_what_is_not_int8_before_or_behind_it_gets_no_scale():
    graph = shuffled(last="Softmax")
    assert scales_between(graph, chosen(graph)).scales == {"x": 0.5, "c": 0.01, "r": 0.02}, "nothing reads it as INT8"
    graph = shuffled()
    assert scales_between(graph, chosen(graph, "head")).scales == {"h1": 0.5, "y": 0.09}, "it is made in FP16"


def test_values_that_are_computed_between_int8_layers_have_ranges_of_their_own():
    nodes = [
        node("Conv", "x w", "c", "stem"),
        node("Concat", "c x", "j", "join", axis=1),
        node("Sigmoid", "j", "g", "gate"),
        node("Mul", "j g", "m", "swish"),
        node("MaxPool", "m", "p", "pool", kernel_shape=[1, 1]),
        node("Conv", "p v", "y", "head"),
    ]
    graph = network(nodes, {"w": random(4, 4, 1, 1), "v": random(4, 8, 1, 1, seed=1)})
    layers = chosen(graph)
    ranges = {"c": 2.0, "j": 3.0, "g": 1.0, "m": 4.0}
    found = between(graph, {"x": 0.5, "p": 0.5}, {"c": 2.0, "y": 9.0}, ranges)
    assert found == {"j": 3.0, "g": 1.0, "m": 4.0, "c": 3.0} and len(layers) == 2


def pooled(*readers, also=""):
    """stem -> relu -> pooling -> reshape -> layers, or something else, of which something else may read `also` too."""
    nodes = [
        node("Conv", "x w", "c", "stem"),
        node("Relu", "c", "r", "relu"),
        node("MaxPool", "r", "p", "pool", kernel_shape=[1, 1]),
        node("Reshape", "p shape", "s", "reshape"),
        *(node(op, "s v" if op == "Conv" else "s", f"y{index}", f"{op}{index}") for index, op in enumerate(readers)),
        *([node("Sigmoid", also, "z", "other")] if also else []),
    ]
    outputs = [f"y{index}" for index in range(len(readers))] + ["z"] * bool(also)
    return network(nodes, convs("w", "v") | {"shape": np.int64([1, 4, 8, 8])}, outputs=dict.fromkeys(outputs, [1, 4, 8, 8]))


@pytest.mark.parametrize("strict", [False, True])
def test_what_a_layer_reads_has_its_scale_before_it_is_moved_there(strict):
    graph = pooled("Conv", "Conv")
    layers = chosen(graph)
    scales = {layer.activation: 0.5 for layer in layers}
    plan = Int8Plan(graph, profiles(x=(1, 4, 8, 8)), layers, Fit(scales), {}, {})
    made = prepare_calibrated(plan, dict.fromkeys(("c", "r", "p", "s"), 2.0), strict)
    assert made.scales | {"c": 0} == {"x": 0.5, "r": 0.5, "p": 0.5, "s": 0.5, "c": 0}
    assert not made.half_outputs, "the layer before it may write INT8"
    x = random(1, 4, 8, 8, seed=3)
    early, late = (run(as_built(graph, made.scales, InInt8({layer.node for layer in layers}, held, {})), x=x) for held in ({"r"}, {"s"}))
    assert all(np.array_equal(early[name], late[name]) for name in early)


@pytest.mark.parametrize(
    "graph, read, expected",
    [
        (pooled("Conv"), {"s": 0.5}, {"p": 0.5, "r": 0.5}),
        (pooled("Conv", "Sigmoid"), {"s": 0.5}, {"p": 0.5, "r": 0.5}),  # of both, s is what is read
        (pooled("Conv", also="r"), {"s": 0.5}, {"p": 0.5}),
        (pooled("Conv", also="p"), {"s": 0.5}, {}),
        (pooled("Conv", also="p"), {"s": 0.5, "p": 0.25}, {"r": 0.25}),
        (pooled("Sigmoid"), {"x": 0.5}, {}),
        (shuffled(), {"x": 0.5, "h1": 0.25}, {}),  # the other half goes to the output
        (shuffled(), {"x": 0.5, "h1": 0.25, "h2": 0.25}, {"s": 0.25, "t": 0.25, "a": 0.25, "j": 0.25}),
        (shuffled(), {"x": 0.5, "h1": 0.25, "h2": 0.125}, {}),
    ],
)
def test_only_what_is_moved_and_nothing_else_gets_the_scale_of_its_reader(graph, read, expected):
    assert moved(graph, read) == expected
