"""rewrite/element_types.py: a model that carries FP16, BF16 or FP64, in FP32."""

import numpy as np
import onnx
import pytest
from models import model, node, random
from onnx import TensorProto, helper

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.element_types import BFLOAT16, DOUBLE, FLOAT, HALF, as_float32, with_io_types

DTYPES = {HALF: np.float16, DOUBLE: np.float64}


def tensor(name: str, array: np.ndarray, elem_type: int) -> onnx.TensorProto:
    made = helper.make_tensor(name, elem_type, array.shape, np.ravel(array).tolist())
    return made


def perceptron(elem_type: int, io: int, inside=()) -> onnx.ModelProto:
    """x -> Cast -> MatMul -> Add -> Sigmoid -> Cast -> y, computed in `elem_type`, between Casts where inputs and outputs are another."""
    nodes = [
        node("Cast", "x", "xc", "in", to=elem_type),
        node("MatMul", "xc w", "m", "product"),
        node("Add", "m b", "a", "sum"),
        node("Sigmoid", "a", "s", "sigmoid"),
        *inside,
        node("Cast", "s", "y", "out", to=io),
    ]
    made = model(nodes, {"x": (io, [2, 4])}, {"y": (io, [2, 3])})
    made.graph.initializer.extend((tensor("w", random(4, 3), elem_type), tensor("b", random(3, seed=1), elem_type)))
    return made


def elem_types(graph: Graph) -> set[int]:
    return set(graph.types().values())


@pytest.mark.parametrize("elem_type", [HALF, BFLOAT16, DOUBLE])
def test_everything_becomes_fp32_and_idle_casts_go(elem_type):
    graph = as_float32(Graph.from_model(perceptron(elem_type, elem_type)), (elem_type,))
    assert elem_types(graph) == {FLOAT} and [made.op_type for made in graph.nodes] == ["MatMul", "Add", "Sigmoid", "Cast"]
    x, w, b = random(2, 4, seed=2), graph.weights["w"], graph.weights["b"]
    np.testing.assert_allclose(Session.from_graph(graph).run({"x": x})["y"], 1 / (1 + np.exp(-(x @ w + b))), atol=1e-6)


@pytest.mark.parametrize("elem_type", [HALF, DOUBLE])
def test_inputs_and_outputs_can_keep_their_types(elem_type):
    source = Graph.from_model(perceptron(elem_type, elem_type))
    graph = as_float32(source, (elem_type,), same_io=True)
    x = random(2, 4, seed=2).astype(DTYPES[elem_type])
    expected, found = Session.from_graph(source).run({"x": x})["y"], Session.from_graph(graph).run({"x": x})["y"]
    assert found.dtype == expected.dtype == DTYPES[elem_type]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert {graph.types()[name] for name in ("m", "a", "s")} == {FLOAT}


@pytest.mark.parametrize("elem_type", [HALF, BFLOAT16])
def test_the_values_are_the_same(elem_type):
    graph = Graph.from_model(perceptron(elem_type, FLOAT))
    found = as_float32(graph, (elem_type,)).weights["w"]
    assert found.dtype == np.float32 and np.array_equal(found, graph.weights["w"].astype(np.float32))


def test_fp64_beyond_fp32_stays_finite_and_what_is_not_zero_stays_so():
    values = np.array([1e300, -1e300, 1e-300, -1e-300, 0.0, np.inf, 1 / 3])
    source = model([node("Add", "x k", "y")], {"x": (DOUBLE, [7])}, {"y": (DOUBLE, [7])}, {"k": values})
    limits, found = np.finfo(np.float32), as_float32(Graph.from_model(source), (DOUBLE,)).weights["k"]
    expected = np.float32([limits.max, limits.min, limits.tiny, -limits.tiny, 0, np.inf, 1 / 3])
    assert np.array_equal(found, expected)


def test_graphs_inside_nodes_and_attributes_follow():
    branches = [
        helper.make_graph(
            [
                helper.make_node("Constant", [], ["k"], value=tensor("k", np.array([value]), BFLOAT16)),
                helper.make_node("Mul", ["s", "k"], ["out"]),
                helper.make_node("ConstantOfShape", ["shape"], ["zeros"], value=tensor("v", np.array([0.0]), BFLOAT16)),
                helper.make_node("Add", ["out", "zeros"], ["sum"]),
            ],
            name,
            [],
            [helper.make_tensor_value_info("sum", BFLOAT16, [2, 3])],
        )
        for name, value in (("then", 2.0), ("else", 3.0))
    ]
    chosen = helper.make_node("If", ["flag"], ["t"], name="if", then_branch=branches[0], else_branch=branches[1])
    source = perceptron(BFLOAT16, FLOAT, [chosen])
    source.graph.node[-1].input[0] = "t"
    source.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "shape"))
    graph = as_float32(Graph.from_model(source), (BFLOAT16,))
    x, flag = random(2, 4, seed=2), np.array(True)
    sigmoid = 1 / (1 + np.exp(-(x @ graph.weights["w"] + graph.weights["b"])))
    np.testing.assert_allclose(Session.from_graph(graph).run({"x": x, "flag": flag})["y"], 2 * sigmoid, atol=1e-6)


def test_inputs_and_outputs_become_another_type_behind_casts():
    source = Graph.from_model(perceptron(FLOAT, FLOAT))
    graph = with_io_types(source, {"x": HALF, "y": HALF, "w": HALF})
    assert [value.type.tensor_type.elem_type for value in (*graph.proto.graph.input, *graph.proto.graph.output)] == [HALF, HALF]
    x = random(2, 4, seed=2).astype(np.float16)
    expected = Session.from_graph(source).run({"x": x.astype(np.float32)})["y"]
    assert np.array_equal(Session.from_graph(graph).run({"x": x})["y"], expected.astype(np.float16))
