"""rewrite/fold.py: rewrites that must not change any result."""

import numpy as np
import pytest
from models import model, node, random
from onnx import TensorProto

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fold import fold, fold_affine, fold_constants
from onnx2trt.rewrite.fp16 import convert


def run(graph, **feed):
    return list(Session.from_graph(graph).run(feed).values())


def batchnorm_net(op="Conv", bias=True, extra_reader=False):
    attributes = {"pads": [1, 1, 1, 1]}
    weight = random(8, 3, 3, 3) if op == "Conv" else random(3, 8, 3, 3)
    nodes = [
        node(op, "x w b" if bias else "x w", "c", "conv", **attributes),
        node("BatchNormalization", "c s o m v", "n", "norm", epsilon=1e-3),
        node("Relu", "n", "y", "relu"),
    ]
    outputs = {"y": ["N", 8, 8, 8]}
    if extra_reader:
        nodes.append(node("Neg", "c", "z", "other"))
        outputs["z"] = ["N", 8, 8, 8]
    weights = {"w": weight, "s": random(8, seed=1), "o": random(8, seed=2), "m": random(8, seed=3), "v": np.abs(random(8, seed=4))}
    if bias:
        weights["b"] = random(8, seed=5)
    return Graph.from_model(model(nodes, {"x": ["N", 3, 8, 8]}, outputs, weights))


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("bias", [True, False])
def test_batchnorm_goes_into_the_convolution(op, bias):
    graph, x = batchnorm_net(op, bias), random(2, 3, 8, 8)
    folded = fold_affine(graph)
    assert [n.op_type for n in folded.nodes] == [op, "Relu"]
    assert folded.nodes[0].output[0] == "n", "the tensor keeps the name that calibration caches know"
    np.testing.assert_allclose(run(folded, x=x)[0], run(graph, x=x)[0], rtol=1e-4, atol=1e-5)


def test_batchnorm_stays_where_the_convolution_has_another_reader():
    folded = fold_affine(batchnorm_net(extra_reader=True))
    assert "BatchNormalization" in [n.op_type for n in folded.nodes]


CHANNELS = [8, 1, 1]  # of a constant; the convolution makes [N, 8, 8, 8]


def affine_net(op, shape, order="c k", conv="Conv", value=None, **attributes):
    """A convolution c, and an operator that has it and a constant k for operands."""
    constant = random(*shape, seed=7) + 3 if value is None else np.full(shape, value, np.float32)
    weight = random(8, 3, 3, 3) if conv == "Conv" else random(3, 8 // attributes.get("group", 1), 3, 3)
    nodes = [node(conv, "x w b", "c", "conv", pads=[1, 1, 1, 1], **attributes), node(op, order, "y", "affine")]
    weights = {"w": weight, "b": random(8, seed=5), "k": constant}
    return Graph.from_model(model(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 8]}, weights))


@pytest.mark.parametrize("conv", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("shape", [[], [1], CHANNELS, [1, *CHANNELS], [1, 1, 1, 1]])
@pytest.mark.parametrize("op, order", [(op, "c k") for op in ("Mul", "Add", "Sub", "Div")] + [(op, "k c") for op in ("Mul", "Add", "Sub")])
def test_a_constant_operand_goes_into_the_convolution(op, order, shape, conv):
    graph, x = affine_net(op, shape, order, conv), random(2, 3, 8, 8)
    folded = fold(graph)
    assert [n.op_type for n in folded.nodes] == [conv] and folded.nodes[0].output[0] == "y"
    np.testing.assert_allclose(run(folded, x=x)[0], run(graph, x=x)[0], rtol=1e-4, atol=1e-5)


def test_a_chain_goes_into_the_convolution():
    nodes = [
        node("Conv", "x w", "c", "conv", pads=[1, 1, 1, 1]),
        node("Mul", "c k", "m", "mul"),
        node("BatchNormalization", "m s o e v", "n", "norm"),
        node("Add", "n a", "y", "add"),
    ]
    weights = {"w": random(8, 3, 3, 3), "k": np.float32([2]), "a": random(1, 8, 1, 1, seed=6)}
    weights |= {"s": random(8, seed=1), "o": random(8, seed=2), "e": random(8, seed=3), "v": np.abs(random(8, seed=4))}
    graph, x = Graph.from_model(model(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 8, 8, 8]}, weights)), random(2, 3, 8, 8)
    folded = fold(graph)
    assert [(n.op_type, list(n.output)) for n in folded.nodes] == [("Conv", ["y"])]
    np.testing.assert_allclose(run(folded, x=x)[0], run(graph, x=x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "graph",
    [
        affine_net("Div", [1], "k c"),
        affine_net("Mul", [8]),  # along the last axis
        affine_net("Add", [8, 8]),
        affine_net("Mul", [1, 1, *CHANNELS]),  # the result has a dimension more
        affine_net("Mul", [1], value=2000.0),
        affine_net("Mul", CHANNELS, value=1e-4),
        affine_net("Div", [1], value=0.0),
        affine_net("Add", [1], value=np.inf),
        affine_net("Pow", [1]),
        affine_net("Mul", [1], "c c"),
        affine_net("Mul", [1], conv="ConvTranspose", group=2, value=2.0),
    ],
    ids=lambda graph: None,
)
def test_other_operands_stay(graph):
    assert len(fold(graph).nodes) == 2


@pytest.mark.parametrize("name, shape", [("w", []), ("w", [8]), ("b", [5]), ("b", [])])
def test_a_malformed_convolution_is_left_to_who_says_so(name, shape):
    graph = affine_net("Mul", [1])
    graph.weights[name] = np.ones(shape, np.float32)
    assert len(fold(graph).nodes) == 2


def test_a_node_that_an_override_names_without_its_convolution_stays():
    graph = affine_net("Mul", [1])
    assert len(fold(graph, (("affine", "fp32"),)).nodes) == 2
    assert len(fold(graph, (("*", "fp32"), ("conv", "fp16"))).nodes) == 1


def test_constants_are_computed_once():
    nodes = [node("Mul", "a b", "ab"), node("Transpose", "ab", "t", perm=[1, 0]), node("MatMul", "x t", "y")]
    graph = Graph.from_model(model(nodes, {"x": [2, 4]}, {"y": [2, 3]}, {"a": random(3, 4), "b": random(3, 4, seed=1)}))
    folded = fold_constants(graph)
    assert [n.op_type for n in folded.nodes] == ["MatMul"] and folded.weights["t"].shape == (4, 3)
    x = random(2, 4)
    np.testing.assert_array_equal(run(folded, x=x)[0], run(graph, x=x)[0])


@pytest.mark.parametrize("size, shared, kept", [(200, True, True), (200, False, False), (8, True, False)])
def test_a_large_tied_weight_is_stored_once(size, shared, kept):
    """An embedding that is read by its rows and, transposed, by the last layer; what is small, or read once, is folded."""
    rows = "emb" if shared else "other"
    nodes = [node("Gather", f"{rows} ids", "h"), node("Transpose", "emb", "t", perm=[1, 0]), node("MatMul", "h t", "y")]
    weights = {"emb": random(size, 128), **({} if shared else {"other": random(size, 128, seed=1)})}
    source = Graph.from_model(model(nodes, {"ids": (TensorProto.INT64, [2, 3])}, {"y": [2, 3, size]}, weights))
    graph = fold_constants(source, stored_once=True)
    assert ("Transpose" in [made.op_type for made in graph.nodes]) is kept
    assert "Transpose" not in [made.op_type for made in fold_constants(source).nodes]
    if kept:
        assert sum(array.nbytes for array in convert(graph, {}).weights.values()) == size * 128 * 2


# ---- constants that several nodes read


def layers_of_one_weight(handed_on):
    """x [2, 8] through four products by one weight, as exporters hand it on."""
    nodes, weights = [], {"w": random(8, 8), "w2": random(8, 8, seed=1)}
    for index in range(4):
        read = "w" if index == 0 else f"w{handed_on}{index}"
        if index and handed_on == "Identity":
            nodes.append(node("Identity", "w" if index == 1 else f"wIdentity{index - 1}", read))
        elif handed_on == "Transpose":
            read = f"wTranspose{index}"
            nodes.append(node("Transpose", "w", read, perm=[1, 0]))
        elif index and handed_on == "Reshape":
            weights[f"shape{index}"] = np.int64([8, 8])
            nodes.append(node("Identity", f"shape{index}", f"sizes{index}"))
            nodes.append(node("Reshape", f"w sizes{1 if index < 3 else index}", read))
        nodes.append(node("MatMul", f"{'x' if index == 0 else f't{index - 1}'} {read}", f"t{index}", f"product {index}"))
    nodes.append(node("MatMul", "t3 w2", "y", "other"))
    return Graph.from_model(model(nodes, {"x": [2, 8]}, {"y": [2, 8]}, weights))


@pytest.mark.parametrize("handed_on, stored", [("Identity", 1), ("Transpose", 1), ("Reshape", 3)])
def test_a_weight_of_several_layers_stays_one(handed_on, stored):
    """Three for Reshape: what it reads for its sizes are two constants, though equal ones."""
    graph = layers_of_one_weight(handed_on)
    folded = fold(graph)
    np.testing.assert_array_equal(run(folded, x=random(2, 8, seed=2))[0], run(graph, x=random(2, 8, seed=2))[0])
    products = [one for one in folded.nodes if one.op_type == "MatMul"]
    assert len(products) == len(folded.nodes) == 5
    assert len({one.input[1] for one in products[:4]}) == stored and products[4].input[1] == "w2"


def test_what_is_an_output_too_is_made_by_a_node_and_read_in_order():
    nodes = [node("Add", "a b", "c", "sum"), node("Identity", "c", "d")]
    nodes += [node("Mul", "x d", "e", "first"), node("Mul", "e c", "y", "second")]
    weights = {"a": random(4), "b": random(4, seed=1)}
    graph = Graph.from_model(model(nodes, {"x": [4]}, {"y": [4], "d": [4], "c": [4]}, weights))
    folded, x = fold_constants(graph), random(4, seed=2)
    for a, b in zip(run(folded, x=x), run(graph, x=x)):
        np.testing.assert_array_equal(a, b)
    made = set(folded.weights) | {"x"}
    for one in folded.nodes:
        assert made.issuperset(one.input), f"{one.name} reads what is made later"
        made.update(one.output)


def test_splits_into_other_numbers_of_parts_are_not_one():
    """Without sizes the number of outputs is what tells how the constant is cut."""
    nodes = [node("Split", "w", "a b", "halves"), node("Split", "w", "c d e f", "quarters")]
    nodes += [node("Concat", "x a c", "y", axis=0)]
    graph = Graph.from_model(model(nodes, {"x": [1]}, {"y": [7]}, {"w": random(8)}, opset=13))
    expected = np.concatenate([random(1), random(8)[:4], random(8)[:2]])
    for one in (graph, fold(graph)):  # ONNX Runtime 1.32 takes them for one, unless it is told not to look for such nodes
        np.testing.assert_array_equal(run(one, x=random(1))[0], expected)


def test_what_a_body_reads_of_constants_that_are_one_is_renamed_there_too():
    body = model([node("Add", "second x", "inner", "inside")], {}, {"inner": [4]}).graph
    nodes = [node("Neg", "w", "first"), node("Neg", "w", "second"), node("Mul", "x first", "p", "product")]
    nodes += [node("If", "flag", "q", then_branch=body, else_branch=body), node("Add", "p q", "y")]
    graph = Graph.from_model(model(nodes, {"x": [4], "flag": (TensorProto.BOOL, [])}, {"y": [4]}, {"w": random(4)}))
    folded, feed = fold_constants(graph), {"x": random(4, seed=1), "flag": np.array(True)}
    np.testing.assert_array_equal(run(folded, **feed)[0], run(graph, **feed)[0])
    assert "second" not in folded.weights


def test_a_constant_output_is_still_made_by_a_node():
    graph = Graph.from_model(
        model([node("Neg", "k", "y"), node("Relu", "x", "z")], {"x": [2]}, {"y": [2], "z": [2]}, {"k": np.float32([1, 2])})
    )
    folded = fold_constants(graph)
    assert "y" in folded.producers()
    assert run(folded, x=np.float32([1, -1]))[0].tolist() == [-1, -2]


def test_hostile_sizes_are_not_materialised():
    huge = np.array([100000, 100000, 100000], np.int64)
    graph = Graph.from_model(model([node("ConstantOfShape", "s", "k"), node("Add", "x k", "y")], {"x": [1]}, {"y": None}, {"s": huge}))
    assert "ConstantOfShape" in [n.op_type for n in fold_constants(graph).nodes]


def test_random_operators_are_no_constants():
    graph = Graph.from_model(model([node("RandomNormal", "", "r", shape=[2]), node("Add", "x r", "y")], {"x": [2]}, {"y": [2]}))
    graph.nodes[0].ClearField("input")
    assert "RandomNormal" in [n.op_type for n in fold_constants(graph).nodes]


def test_dequantized_weights_keep_their_quantisation():
    nodes = [node("DequantizeLinear", "q s z", "w"), node("MatMul", "x w", "y")]
    weights = {"q": np.ones((4, 3), np.int8), "s": np.float32(0.5), "z": np.int8(0)}
    graph = Graph.from_model(model(nodes, {"x": [2, 4]}, {"y": [2, 3]}, weights))
    assert "DequantizeLinear" in [n.op_type for n in fold(graph).nodes]


def test_an_operator_unknown_to_onnx_runtime_is_left_to_the_parser():
    nodes = [node("Custom", "k", "c"), node("Add", "x c", "y")]
    nodes[0].domain = "elsewhere"
    graph = Graph.from_model(model(nodes, {"x": [2]}, {"y": [2]}, {"k": np.float32([1, 2])}))
    assert [n.op_type for n in fold_constants(graph).nodes] == ["Custom", "Add"]


def test_lists_of_constants_are_no_constants():
    """A sequence has no shape and is no initializer; what is taken from it stays, too."""
    nodes = [
        node("SequenceConstruct", "a b", "list", "pair"),
        node("SequenceAt", "list at", "first", "taken"),
        node("Identity", "b", "c", "copied"),
        node("Add", "first c", "s", "sum"),
        node("Mul", "x s", "y", "used"),
    ]
    weights = {"a": random(4, seed=1), "b": random(4, seed=2), "at": np.int64(0)}
    graph, x = Graph.from_model(model(nodes, {"x": [4]}, {"y": [4]}, weights)), random(4)
    folded = fold_constants(graph)
    assert [n.name for n in folded.nodes] == ["pair", "taken", "sum", "used"]
    np.testing.assert_allclose(run(folded, x=x)[0], x * (weights["a"] + weights["b"]), rtol=1e-6)
