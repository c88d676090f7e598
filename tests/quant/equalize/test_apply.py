"""quant/equalize/apply.py and groups.py, with the rules: networks stay what they are, and what may not change is left alone."""

import numpy as np
import pytest
from models import model, node, profiles, random
from onnx import TensorProto, helper

from onnx2trt.model.graph import Graph
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.session import Session
from onnx2trt.quant.equalize import apply as eq
from onnx2trt.quant.equalize.groups import scale_groups, shift_groups
from onnx2trt.quant.equalize.relations import FIXED, Group, Place

C = 6


def factors(size, seed=0):
    return np.exp(np.random.default_rng(seed).uniform(-2, 2, size))


def offsets(size, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, size)


WAYS = {"scale": (scale_groups, eq.equalize, factors), "shift": (shift_groups, eq.shift, offsets)}


def between(nodes, weights=None, x=(2, 4, 8, 8), joined=C, side=True):
    """conv(x) -> a; `nodes` make b of a, with `joined` channels; conv(b) -> y, and on the side conv(a) -> z."""
    first = node("Conv", "x first first_bias", "a", "first")
    last = [node("Conv", "b last last_bias", "y", "last"), node("Conv", "a side", "z", "side")][: 2 if side else 1]
    own = {"first": random(C, x[1], 1, 1, seed=1), "first_bias": random(C, seed=2), "last_bias": random(3, seed=4)}
    own |= {"last": random(3, joined, 1, 1, seed=3), "side": random(2, C, 1, 1, seed=5)}
    outputs = dict.fromkeys(["y", "z"] if side else ["y"], [None] * 4)
    return Graph.from_model(model([first, *nodes, *last], {"x": list(x)}, outputs, {**own, **(weights or {})}))


def rewritten(graph, way="scale", x=(2, 4, 8, 8)):
    """(groups, the graph with a random choice applied to all of them), after checking that nothing but constants changed."""
    find, apply, draw = WAYS[way]
    groups = find(graph, static_shapes(graph, profiles(x=x)))
    before = graph.proto.SerializeToString(), {name: array.copy() for name, array in graph.weights.items()}
    result = apply(graph, groups, [draw(group.size, seed) for seed, group in enumerate(groups)])
    assert graph.proto.SerializeToString() == before[0], "the given graph stays as it is"
    assert all(np.array_equal(graph.weights[name], array) for name, array in before[1].items())
    assert [(n.op_type, n.name, list(n.output)) for n in result.nodes] == [(n.op_type, n.name, list(n.output)) for n in graph.nodes]
    return groups, result


def assert_changed(graph, result, groups, way, x, tensors):
    """Outputs are equal, and each of `tensors` really is divided (or moved) by what was chosen."""
    draw = WAYS[way][2]
    feed = {"x": random(*x, seed=9)}
    names = tuple(tensors)
    old, new = (Session.from_graph(g, names, optimize=False).run(feed, (*g.output_names, *names)) for g in (graph, result))
    for name in graph.output_names:
        np.testing.assert_allclose(new[name], old[name], rtol=2e-4, atol=2e-4)
    for name in names:
        seed, group = next((pair for pair in enumerate(groups) if name in pair[1].places), (None, None))
        assert group is not None, f"{name} is in no group"
        place = group.places[name]
        values = group.expand(name, draw(group.size, seed), 1.0 if way == "scale" else 0.0)
        values = values.reshape([-1 if axis == place.axis else 1 for axis in range(place.rank)])
        expected = old[name] / values if way == "scale" else old[name] - values
        np.testing.assert_allclose(new[name], expected, rtol=2e-4, atol=2e-4)


def const(array, dtype=np.int64):
    return np.array(array, dtype)


PADS = const([0, 0, 1, 2, 0, 0, 3, 0])
PASSING = {  # name -> nodes from a to b, and their constants
    "relu": ([node("Relu", "a", "b")], {}),
    "leaky": ([node("LeakyRelu", "a", "b", alpha=0.3)], {}),
    "prelu": ([node("PRelu", "a slope", "b")], {"slope": random(C, 1, 1)}),
    "abs": ([node("Abs", "a", "b")], {}),
    "neg": ([node("Neg", "a", "b")], {}),
    "clip at zero": ([node("Clip", "a zero", "b")], {"zero": np.float32(0)}),
    "max pool": ([node("MaxPool", "a", "b", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}),
    "average pool": ([node("AveragePool", "a", "b", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)], {}),
    "global average": ([node("GlobalAveragePool", "a", "b")], {}),
    "global max": ([node("GlobalMaxPool", "a", "b")], {}),
    "reduce": ([node("ReduceMean", "a", "b", axes=[2, -1])], {}),
    "pad": ([node("Pad", "a pads", "b")], {"pads": PADS}),
    "pad by edge": ([node("Pad", "a pads", "b", mode="edge")], {"pads": PADS}),
    "identity": ([node("Identity", "a", "b")], {}),
    "dropout": ([node("Dropout", "a", "b")], {}),
    "spatial slice": ([node("Slice", "a s e ax", "b")], {"s": const([1]), "e": const([-1]), "ax": const([2])}),
    "add to itself": ([node("Add", "a a", "b")], {}),
    "sub": ([node("Relu", "a", "r"), node("Sub", "a r", "b")], {}),
    "max of two": ([node("Neg", "a", "r"), node("Max", "a r", "b")], {}),
    "sum of three": ([node("Relu", "a", "r"), node("Neg", "a", "n"), node("Sum", "a r n", "b")], {}),
    "add scalar": ([node("Add", "a k", "b")], {"k": np.float32(0.7)}),
    "add vector": ([node("Add", "k a", "b")], {"k": random(C, 1, 1)}),
    "add map": ([node("Add", "a k", "b")], {"k": random(8, 8)}),
    "max with a constant": ([node("Max", "a k", "b")], {"k": random(1, C, 1, 1)}),
    "constant less": ([node("Sub", "k a", "b")], {"k": np.float32([0.7])}),
    "mul scalar": ([node("Mul", "k a", "b")], {"k": np.float32([-1.7])}),
    "mul vector": ([node("Mul", "a k", "b")], {"k": random(1, C, 1, 1)}),
    "div": ([node("Div", "a k", "b")], {"k": np.float32(3)}),
    "affine": ([node("Mul", "m a", "t"), node("Add", "t s", "b")], {"m": np.float32([2]), "s": np.float32([0.4])}),
    "depthwise": ([node("Conv", "a w bias", "b", group=C, pads=[1, 1, 1, 1])], {"w": random(C, 1, 3, 3), "bias": random(C)}),
    "grouped": ([node("Conv", "a w", "b", group=2)], {"w": random(C, C // 2, 1, 1)}),
    "transposed": ([node("ConvTranspose", "a w", "b", strides=[2, 2])], {"w": random(C, C, 2, 2)}),
    "batch norm": (
        [node("BatchNormalization", "a scale bias mean var", "b")],
        {"scale": random(C, seed=5), "bias": random(C), "mean": random(C, seed=7), "var": np.abs(random(C, seed=8))},
    ),
}


@pytest.mark.parametrize("name", PASSING)
def test_scales_pass(name):
    graph = between(*PASSING[name])
    groups, result = rewritten(graph)
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "b"])


def test_resize_passes_scales_and_shifts():
    for mode in ("nearest", "linear"):
        resize = helper.make_node("Resize", ["t", "", "sizes"], ["b"], "resize", mode=mode)
        nodes = [node("Add", "a k", "t"), resize]
        graph = between(nodes, {"sizes": np.float32([1, 1, 2, 1.5]), "k": random(C, 1, 1)})
        for way in WAYS:
            groups, result = rewritten(graph, way)
            assert_changed(graph, result, groups, way, (2, 4, 8, 8), ["t", "b"])


SHIFTING = {
    "relu before": ([node("Relu", "a", "r"), node("Add", "r k", "b")], {"k": np.float32([0.3])}),
    "sub": ([node("Sub", "a k", "b")], {"k": np.float32([0.3])}),
    "constant less": ([node("Sub", "k a", "b")], {"k": random(C, 1, 1)}),
    "max pool": ([node("MaxPool", "a", "b", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}),
    "average pool": ([node("AveragePool", "a", "b", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}),
    "global average": ([node("GlobalAveragePool", "a", "b")], {}),
    "reduce": ([node("ReduceMax", "a", "b", axes=[2, 3])], {}),
    "pad by reflection": ([node("Pad", "a pads", "b", mode="reflect")], {"pads": PADS}),
    "grouped": ([node("Conv", "a w", "b", group=2)], {"w": random(C, C // 2, 3, 3)}),
    "grouped transposed": ([node("ConvTranspose", "a w bias", "b", group=2)], {"w": random(C, C // 2, 2, 2), "bias": random(C)}),
    "transposed": ([node("ConvTranspose", "a w", "b", strides=[2, 2], pads=[1, 0, 0, 1])], {"w": random(C, C, 2, 2)}),
    "residual": ([node("Relu", "a", "r"), node("Conv", "r w", "c"), node("Add", "r c", "b")], {"w": random(C, C, 1, 1)}),
    "batch norm": (PASSING["batch norm"]),
}


@pytest.mark.parametrize("name", SHIFTING)
def test_shifts_pass(name):
    graph = between(*SHIFTING[name])
    groups, result = rewritten(graph, "shift")
    assert_changed(graph, result, groups, "shift", (2, 4, 8, 8), ["b"])


REFUSED = {  # name -> nodes from a to b, their constants; nothing may be scaled
    "sigmoid": ([node("Sigmoid", "a", "b")], {}),
    "hard sigmoid": ([node("HardSigmoid", "a", "b")], {}),
    "relu6": ([node("Clip", "a zero six", "b")], {"zero": np.float32(0), "six": np.float32(6)}),
    "hard swish": ([node("HardSigmoid", "a", "g"), node("Mul", "a g", "b")], {}),
    "square": ([node("Mul", "a a", "b")], {}),
    "softmax": ([node("Softmax", "a", "b", axis=1)], {}),
    "pad with ones": ([node("Pad", "a pads one", "b")], {"pads": PADS, "one": np.float32(1)}),
    "reduce over channels": ([node("ReduceMean", "a", "m", axes=[1]), node("Add", "m s", "b"), node("Sigmoid", "a", "s")], {}),
    "divided constant": ([node("Div", "k a", "b")], {"k": np.float32([0.7])}),
    "division by itself": ([node("Abs", "a", "d"), node("Div", "d d", "b")], {}),
    "slope by data": ([node("Sigmoid", "x", "unused"), node("PRelu", "a a", "b")], {}),
    "dropout in training": ([node("Dropout", "a ratio yes", "b")], {"ratio": np.float32(0.5), "yes": np.array(True)}),
    "one scale for all weights": ([node("ConvTranspose", "a w bias", "b", group=2)], {"w": random(C, C // 2, 2, 2), "bias": random(C)}),
    "instance norm": ([node("InstanceNormalization", "a s s", "t"), node("Sigmoid", "t", "b")], {"s": random(C)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_scales_are_refused(name):
    graph = between(*REFUSED[name])
    groups, _ = rewritten(graph)
    touched = {tensor for group in groups for tensor in group.places}
    assert not touched & {"a", "b"}, touched


SHIFTS_REFUSED = {
    "relu": [node("Relu", "a", "b")],
    "mul": [node("Mul", "a two", "b")],
    "product": [node("Mul", "a a", "b")],
    "zeros in the average": [node("AveragePool", "a", "b", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
    "padding": [node("Pad", "a pads", "b")],
    "sum of shared terms": [node("Add", "a a", "b")],
}


@pytest.mark.parametrize("name", SHIFTS_REFUSED)
def test_shifts_are_refused(name):
    groups, _ = rewritten(between(SHIFTS_REFUSED[name], {"two": np.float32([2]), "pads": PADS}), "shift")
    assert not groups


@pytest.mark.parametrize("attributes", [{"pads": [1, 1, 1, 1]}, {"auto_pad": "SAME_UPPER"}])
def test_a_shift_before_a_padded_convolution_is_refused(attributes):
    nodes = [node("Conv", "a w", "b", kernel_shape=[3, 3], **attributes)]
    groups, _ = rewritten(between(nodes, {"w": random(C, C, 3, 3)}), "shift")
    assert [set(group.places) for group in groups] == [{"b"}], "its output may be shifted, its input not"


def test_a_shift_before_a_transposed_convolution_is_refused():
    groups, _ = rewritten(between(*PASSING["transposed"]), "shift")
    assert [set(group.places) for group in groups] == [{"b"}]


def test_inputs_and_outputs_of_the_model_stay():
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "y"), node("Conv", "y v", "z")]
    weights = {"w": random(C, 4, 1, 1), "v": random(C, C, 1, 1)}
    graph = Graph.from_model(model(nodes, {"x": [2, 4, 8, 8]}, {"y": [2, C, 8, 8], "z": [2, C, 8, 8]}, weights))
    for way in WAYS:
        assert rewritten(graph, way)[0] == ()


def test_what_a_subgraph_reads_stays():
    def body(name):
        return helper.make_graph([node("Relu", "a", "inner")], name, [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])

    branch = helper.make_node("If", ["flag"], ["i"], name="if", then_branch=body("then"), else_branch=body("else"))
    weights = {"flag": np.array(True)}
    assert rewritten(between([node("Relu", "a", "b")]))[0], "free without it"
    graph = between([branch, node("Identity", "i", "j"), node("Add", "a j", "b")], weights)
    assert rewritten(graph)[0] == ()


def test_an_operator_without_a_rule_fixes_what_it_touches():
    shapes = dict.fromkeys("ab", (2, C, 8, 8))
    assert scale_groups(between([node("Relu", "a", "b")]), shapes)
    foreign = between([helper.make_node("Relu", ["a"], ["b"], "foreign", domain="com.example")])
    foreign.proto.opset_import.append(helper.make_opsetid("com.example", 1))
    assert scale_groups(foreign, shapes) == ()


def test_operators_on_constants_alone_are_passed_over():
    graph = between(
        [node("Mul", "k k", "kk"), node("Mul", "a kk", "m"), node("Max", "k k", "km"), node("Add", "m km", "b")], {"k": random(1, C, 1, 1)}
    )
    for way in WAYS:
        groups, result = rewritten(graph, way)
        feed = {"x": random(2, 4, 8, 8)}
        old, new = (Session.from_graph(g).run(feed)["y"] for g in (graph, result))
        np.testing.assert_allclose(new, old, rtol=2e-4, atol=2e-4)


def test_tensors_of_unknown_shape_stay():
    graph = between([node("Relu", "a", "b")])
    assert scale_groups(graph, {"a": (2, C, 8, 8)}) == ()


def test_weights_of_several_layers_stay_one():
    """An unrolled loop: what its rounds read is scaled alike, and so is what they write."""
    nodes = [node("Conv", "a w bias", "c"), node("Relu", "c", "d"), node("Conv", "d w bias", "b")]
    graph = between(nodes, {"w": random(C, C, 1, 1), "bias": random(C)})
    groups, result = rewritten(graph)
    assert len(groups) == 1
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "c", "d", "b"])
    assert result.nodes[1].input[1:] == result.nodes[3].input[1:] and len(result.weights) == len(graph.weights)
    assert not np.array_equal(result.weights[result.nodes[1].input[1]], graph.weights["w"])


def test_what_binds_one_reader_of_weights_binds_the_others():
    nodes = [node("Conv", "a w bias", "c"), node("Sigmoid", "c", "d"), node("Conv", "d w bias", "b")]
    groups, _ = rewritten(between(nodes, {"w": random(C, C, 1, 1), "bias": random(C)}))
    assert groups == ()


def test_weights_that_are_laid_out_in_two_ways_become_two():
    nodes = [node("Conv", "a w bias", "c"), node("Relu", "c", "d"), node("ConvTranspose", "d w bias", "b")]
    graph = between(nodes, {"w": random(C, C, 1, 1), "bias": random(C)})
    groups, result = rewritten(graph)
    assert len(groups) == 3 and result.nodes[1].input[1] != result.nodes[3].input[1]
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "c", "d", "b"])


def test_weights_that_are_data_too_stay_what_they_are_as_data():
    nodes = [
        node("Conv", "a w", "c"),
        node("GlobalMaxPool", "x", "p"),
        node("ArgMax", "p", "i", axis=1, keepdims=0),
        node("Gather", "w i", "g"),
        node("Reshape", "g shape", "r"),
        node("Add", "c r", "b"),
    ]
    graph = between(nodes, {"w": random(C, C, 1, 1), "shape": const([2, C, 1, 1])})
    groups, result = rewritten(graph)
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a"])
    gather = next(n for n in result.nodes if n.op_type == "Gather")
    assert np.array_equal(result.weights[gather.input[0]], graph.weights["w"])


def test_a_constant_that_one_of_its_readers_keeps_is_not_written_over():
    nodes = [node("Conv", "a w k", "c"), node("Sigmoid", "c", "s"), node("Conv", "s v k", "d"), node("Relu", "d", "b")]
    graph = between(nodes, {"w": random(C, C, 1, 1), "v": random(C, C, 1, 1, seed=6), "k": random(C)})
    groups, result = rewritten(graph)
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "d", "b"])
    assert result.nodes[1].input[2] == "k" and result.nodes[3].input[2] != "k" and np.array_equal(result.weights["k"], graph.weights["k"])


def test_constants_that_feed_several_nodes_are_copied():
    nodes = [node("Mul", "a k", "t"), node("Sigmoid", "t2", "g"), node("Mul", "a k", "t2"), node("Mul", "t g", "b")]
    graph = between(nodes, {"k": np.float32([1.5])})
    groups, result = rewritten(graph)
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "t", "b"])
    assert not any("t2" in group.places for group in groups)


def test_concatenated_channels_keep_their_own_scales_and_fixed_neighbours():
    nodes = [
        node("Sigmoid", "a", "s"),
        node("Conv", "a w", "c"),
        node("Relu", "c", "r"),
        node("Concat", "r k s", "j", axis=1),
        node("MaxPool", "j", "b", kernel_shape=[2, 2]),
    ]
    graph = between(nodes, {"w": random(4, C, 1, 1), "k": random(2, 1, 8, 8)}, joined=4 + 1 + C)
    groups, result = rewritten(graph)
    (group,) = groups
    assert group.size == 4 and (group.places["b"].slots == [0, 1, 2, 3, *[FIXED] * (1 + C)]).all()
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["c", "r", "j", "b"])


def test_split_and_slice_by_channel():
    nodes = [
        node("Split", "a parts", "p q", axis=1),
        node("Slice", "a s e ax", "t"),
        node("Add", "q t", "u"),
        node("Concat", "p u", "b", axis=1),
    ]
    weights = {"parts": const([2, 4]), "s": const([1]), "e": const([5]), "ax": const([1])}
    graph = between(nodes, weights)
    groups, result = rewritten(graph)
    (group,) = groups
    assert group.size == 2, "0 alone; 1 to 5 follow from a[i + 2] = a[i + 1]"
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "p", "q", "t", "u", "b"])


def test_a_gate_leaves_the_scale_to_what_it_gates():
    nodes = [
        node("Relu", "a", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Conv", "p down", "d"),
        node("HardSigmoid", "d", "g"),
        node("Mul", "g r", "m"),
        node("Add", "r m", "b"),
    ]
    graph = between(nodes, {"down": random(C, C, 1, 1)})
    groups, result = rewritten(graph)
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "r", "p", "m", "b"])
    (group,) = groups
    assert group.size == C


def test_a_product_takes_its_scale_from_the_operand_that_is_free():
    nodes = [node("Sigmoid", "a", "s"), node("GlobalAveragePool", "t", "g"), node("Conv", "a w", "t"), node("Mul", "s g", "b")]
    graph = between(nodes, {"w": random(C, C, 1, 1)})
    groups, result = rewritten(graph)
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["t", "g", "b"])


def test_a_gate_with_one_channel_stays():
    nodes = [node("Conv", "a w", "g"), node("Mul", "a g", "b")]
    graph = between(nodes, {"w": random(1, C, 1, 1)})
    groups, result = rewritten(graph)
    assert_changed(graph, result, groups, "scale", (2, 4, 8, 8), ["a", "b"])
    assert not any("g" in group.places for group in groups)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attributes", [{}, {"transB": 1, "alpha": 0.5, "beta": 2.0}])
def test_classifier_behind_flatten(way, attributes):
    nodes = [
        node("Conv", "x w", "a", "conv"),
        node("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f v bias", "h", "hidden", **attributes),
        node("Gemm", "h u", "y", "out"),
    ]
    weights = {"w": random(3, 4, 1, 1), "bias": random(5), "u": random(5, 2)}
    weights["v"] = random(5, 12) if attributes else random(12, 5)
    graph = Graph.from_model(model(nodes, {"x": [2, 4, 4, 4]}, {"y": [2, 2]}, weights))
    groups, result = rewritten(graph, way, (2, 4, 4, 4))
    assert [group.size for group in groups] == [3, 5]
    assert_changed(graph, result, groups, way, (2, 4, 4, 4), ["a", "p", "f", "h"])


def test_matrix_products_over_tokens():
    nodes = [
        node("LayerNormalization", "x gamma beta", "n", "norm", axis=-1),
        node("MatMul", "n w", "m", "up"),
        node("Add", "m bias", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r v", "y", "down"),
    ]
    weights = {"gamma": random(8), "beta": random(8, seed=2), "w": random(8, 12), "bias": random(12), "v": random(12, 3)}
    graph = Graph.from_model(model(nodes, {"x": [2, 5, 8]}, {"y": [2, 5, 3]}, weights))
    groups, result = rewritten(graph, x=(2, 5, 8))
    assert [group.size for group in groups] == [8, 12]
    assert_changed(graph, result, groups, "scale", (2, 5, 8), ["n", "m", "h", "r"])


def test_transposed_to_tokens():
    nodes = [
        node("Conv", "x w", "a"),
        node("Transpose", "a", "t", perm=[0, 2, 3, 1]),
        node("MatMul", "t v", "y"),
    ]
    graph = Graph.from_model(model(nodes, {"x": [1, 4, 5, 5]}, {"y": [1, 5, 5, 3]}, {"w": random(C, 4, 1, 1), "v": random(C, 3)}))
    groups, result = rewritten(graph, x=(1, 4, 5, 5))
    assert_changed(graph, result, groups, "scale", (1, 4, 5, 5), ["a", "t"])


def test_products_with_variable_weights_stay():
    nodes = [node("Conv", "x w", "a"), node("Sigmoid", "a", "s"), node("MatMul", "a s", "m"), node("Conv", "m v", "y")]
    weights = {"w": random(C, 4, 1, 1), "v": random(2, C, 1, 1)}
    graph = Graph.from_model(model(nodes, {"x": [1, 4, 5, 5]}, {"y": [1, 2, 5, 5]}, weights))
    assert rewritten(graph, x=(1, 4, 5, 5))[0] == ()


def random_net(seed):
    """A chain of 14 random operators on [1, C, 8, 8] with residual sums, gates and concatenations."""
    rng = np.random.default_rng(seed)
    weights, nodes, made = {"w0": random(C, 4, 1, 1, seed=seed)}, [node("Conv", "x w0", "t0", "n0", pads=[0] * 4)], ["t0"]
    for index in range(1, 15):
        kind = rng.choice(["conv", "depthwise", "relu", "add", "mul", "scalar", "offset", "gate", "concat", "hardswish", "pool", "div"])
        a, b = (made[int(rng.integers(len(made)))] if rng.random() < 0.4 else made[-1] for _ in range(2))
        w, out = f"w{index}", f"t{index}"
        pads = [int(rng.integers(2))] * 4
        if kind in ("conv", "depthwise"):
            weights[w] = random(C, 1 if kind == "depthwise" else C, 3 if pads[0] else 1, 3 if pads[0] else 1, seed=index, scale=0.4)
            weights[w + "b"] = random(C, seed=index)
            nodes.append(node("Conv", f"{a} {w} {w}b", out, pads=pads, group=C if kind == "depthwise" else 1))
        elif kind in ("scalar", "offset", "div"):
            weights[w] = random(*[(1,), (), (C, 1, 1)][rng.integers(3)], seed=index) + np.float32(3)
            op = {"scalar": "Mul", "offset": "Add", "div": "Div"}[kind]
            nodes.append(node(op, f"{a} {w}", out))
        elif kind == "gate":
            weights[w] = random(C, C, 1, 1, seed=index)
            nodes += [
                node("GlobalAveragePool", a, out + "p"),
                node("Conv", f"{out}p {w}", out + "c"),
                node("Sigmoid", out + "c", out + "s"),
            ]
            nodes.append(node("Mul", f"{a} {out}s", out))
        elif kind == "concat":
            weights[w] = random(C, 2 * C, 1, 1, seed=index, scale=0.4)
            nodes += [node("Concat", f"{a} {b}", out + "j", axis=1), node("Conv", f"{out}j {w}", out)]
        elif kind == "hardswish":
            nodes += [node("HardSigmoid", a, out + "h"), node("Mul", f"{a} {out}h", out)]
        elif kind == "pool":
            nodes.append(node("MaxPool", a, out, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        else:
            nodes.append(node({"relu": "Relu", "add": "Add", "mul": "Mul"}[kind], a if kind == "relu" else f"{a} {b}", out))
        made.append(out)
    weights["last"] = random(3, C, 1, 1, seed=99)
    nodes += [node("Relu", made[-1], "r"), node("Conv", "r last", "y", "last")]
    return Graph.from_model(model(nodes, {"x": [1, 4, 8, 8]}, {"y": [1, 3, 8, 8]}, weights))


@pytest.mark.parametrize("way", WAYS)
def test_random_networks_compute_the_same(way):
    found = 0
    for seed in range(25):
        graph = random_net(seed)
        groups, result = rewritten(graph, way, (1, 4, 8, 8))
        found += len(groups)
        feed = {"x": random(1, 4, 8, 8, seed=seed)}
        old, new = (Session.from_graph(g, optimize=False).run(feed)["y"] for g in (graph, result))
        assert np.abs(new - old).max() <= 2e-3 * np.abs(old).max() + 1e-5, seed
    assert found > 8, "they hold something to change"


# ---- values that cannot be applied


@pytest.mark.parametrize(
    "apply, bad", [(eq.equalize, [0.0, 1.0]), (eq.equalize, [-1.0, 1.0]), (eq.equalize, [np.inf, 1]), (eq.shift, [np.nan, 1])]
)
def test_values_that_cannot_be_applied_are_refused(apply, bad):
    group = Group({"t0": Place(np.array([0, 1]), 1, 4)}, 2)
    with pytest.raises(ValueError, match="have to be finite"):
        apply(between([node("Relu", "a", "b")]), (group,), [np.array(bad)])
    with pytest.raises(ValueError, match="sizes"):
        apply(between([node("Relu", "a", "b")]), (group,), [np.ones(3)])
