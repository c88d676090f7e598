"""rewrite/activations.py: hard sigmoids and hard swishes that a model spells out."""

import numpy as np
import onnx
import pytest
from helpers import planned
from models import model, node, random

from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.pipeline.prepare import choose
from onnx2trt.rewrite.activations import name_activations
from onnx2trt.rewrite.fold import fold

VALUES = np.float32([[-1e6, -7, -3, -2.5, -1, 0, 1, 2.5, 3, 7, 1e6]])  # both bounds, and far beyond


def run(graph, x):
    (y,) = Session.from_graph(graph).run({"x": x}).values()
    return y


def spelled_out(*tail, top=6.0, offset=3.0, opset=17, shape=(), summand="x b", extra_outputs=(), dtype=np.float32, low=0.0, **weights):
    """clip(x + b, 0, top) as 'c', and what makes y of it."""
    constants = {name: np.full(shape, value, dtype) for name, value in {"b": offset, "six": 6.0, "sixth": 1 / 6, **weights}.items()}
    if opset < 11:
        clip = node("Clip", "a", "c", "clip", min=low, max=top)
    else:
        constants.update(low=dtype(low), top=dtype(top))
        clip = node("Clip", "a low top", "c", "clip")
    outputs = {name: [1, "n"] for name in ("y", *extra_outputs)}
    return Graph.from_model(model([node("Add", summand, "a", "add"), clip, *tail], {"x": [1, "n"]}, outputs, constants, opset))


def hard_swish(**arguments):
    return spelled_out(node("Mul", "x c", "m", "mul"), node("Div", "m six", "y", "div"), **arguments)


def kinds(graph):
    return [n.op_type for n in graph.nodes]


@pytest.mark.parametrize("opset", [8, 11, 17, 19])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize(
    "tail",
    [
        (node("Mul", "x c", "m", "mul"), node("Div", "m six", "y", "div")),  # as PaddlePaddle exports it
        (node("Mul", "c x", "m", "mul"), node("Mul", "sixth m", "y", "div")),
        (node("Div", "c six", "m", "div"), node("Mul", "x m", "y", "mul")),  # as PyTorch does
        (node("Mul", "c sixth", "m", "div"), node("Mul", "m x", "y", "mul")),
    ],
    ids=["x*c/6", "c*x*sixth", "c/6*x", "c*sixth*x"],
)
def test_a_hard_swish_becomes_a_hard_sigmoid_and_a_product(tail, shape, opset):
    graph = spelled_out(*tail, opset=opset, shape=shape)
    named = name_activations(graph)
    assert kinds(named) == ["HardSigmoid", "Mul"] and [n.name for n in named.nodes] == ["clip", "mul"]
    assert named.output_names == ["y"] and not named.weights, "nothing is left behind"
    np.testing.assert_allclose(run(named, VALUES), run(graph, VALUES), rtol=1e-5, atol=1e-6)
    assert kinds(graph)[0] == "Add", "the graph that was given is left alone"


@pytest.mark.parametrize("divided", [node("Div", "c six", "y", "div"), node("Mul", "sixth c", "y", "div")])
def test_a_hard_sigmoid_is_one_node(divided):
    graph = spelled_out(divided, summand="b x")
    named = name_activations(graph)
    assert kinds(named) == ["HardSigmoid"] and named.nodes[0].output[0] == "y"
    np.testing.assert_allclose(run(named, VALUES), run(graph, VALUES), rtol=1e-5, atol=1e-6)


def test_other_slopes_are_hard_sigmoids_too():
    graph = spelled_out(node("Div", "c four", "y", "div"), top=4.0, offset=-0.5, four=4.0)
    named = name_activations(graph)
    assert kinds(named) == ["HardSigmoid"]
    np.testing.assert_allclose(run(named, VALUES), run(graph, VALUES), rtol=1e-5, atol=1e-6)


OTHERS = {
    "another divisor": hard_swish(top=5.0),
    "another lower bound": hard_swish(low=-1.0),
    "two outputs of the model": hard_swish(extra_outputs=["c"]),
    "a sum that is read elsewhere": hard_swish(extra_outputs=["a"]),
    "a constant that lends an axis": hard_swish(shape=(1, 1)),
    "a quotient the other way round": spelled_out(node("Mul", "x c", "m", "mul"), node("Div", "six m", "y", "div")),
    "a product with itself": spelled_out(node("Mul", "c c", "m", "mul"), node("Div", "m six", "y", "div")),
    "a product with something else": spelled_out(
        node("Neg", "x", "z", "neg"), node("Mul", "z c", "m", "mul"), node("Div", "m six", "y", "div")
    ),
    "a gate that is read twice": spelled_out(
        node("Mul", "x c", "m", "mul"), node("Div", "m six", "d", "div"), node("Add", "d c", "y", "sum")
    ),
    "no division": spelled_out(node("Mul", "x c", "y", "mul")),
    "no scalar": hard_swish(shape=(11,)),
    "an endless upper bound": hard_swish(top=np.inf),
    "an upper bound of zero": hard_swish(top=0.0),
    "an endless summand": hard_swish(offset=np.inf),
}


@pytest.mark.parametrize("graph", OTHERS.values(), ids=OTHERS)
def test_what_is_something_else_stays(graph):
    assert name_activations(graph) is graph


@pytest.mark.parametrize("bound", ["low", "top"])
@pytest.mark.parametrize("value", [None, np.float32([0, 6])], ids=["computed", "two values"])
def test_bounds_that_are_no_scalar_constants_stay(bound, value):
    graph = hard_swish()
    del graph.weights[bound]
    if value is not None:
        graph.weights[bound] = value
    assert name_activations(graph) is graph


def test_other_types_stay():
    proto = hard_swish().to_model()
    graph = Graph.from_model(proto)
    graph.weights.update({name: array.astype(np.float16) for name, array in graph.weights.items()})
    assert name_activations(graph) is graph


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("field", ["input", "output"])
def test_malformed_nodes_are_left_to_who_says_so(index, field):
    graph = hard_swish()
    del getattr(graph.nodes[index], field)[:]
    assert name_activations(graph) is graph


@pytest.mark.parametrize("pattern, stays", [("clip", True), ("mul", True), ("c*", True), ("*", False), ("other*", False)])
def test_nodes_that_an_override_names_in_part_stay(pattern, stays):
    graph = hard_swish()
    assert (name_activations(graph, ((pattern, "fp32"),)) is graph) == stays


def test_a_summand_of_a_hard_sigmoid_does_not_go_into_the_convolution_before():
    nodes = [
        node("Conv", "x w", "v", "conv"),
        node("Add", "v b", "a", "add"),
        node("Clip", "a low top", "c", "clip"),
        node("Div", "c six", "y", "div"),
    ]
    weights = {"w": random(4, 3, 1, 1), "b": np.float32(3), "low": np.float32(0), "top": np.float32(6), "six": np.float32(6)}
    graph = Graph.from_model(model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, weights))
    folded, x = fold(graph), random(1, 3, 8, 8, scale=4)
    assert kinds(folded) == ["Conv", "HardSigmoid"]
    np.testing.assert_allclose(run(folded, x), run(graph, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", ["weak", "rtx"])
@pytest.mark.parametrize("flags, named", [(("fp16",), True), (("fp16", "--layer-precisions", "clip:fp32"), False), (("fp32",), False)])
def test_fp16_engines_are_built_with_it_and_fp32_engines_of_the_model_as_it_is(library, flags, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = hard_swish().to_model()
    for value in (*source.graph.input, *source.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 11
    onnx.save(source, "model.onnx")
    job, quiet = planned("--precision", *flags, library=library)
    prepared = choose(job, quiet).prepared(quiet)
    assert ("HardSigmoid" in kinds(prepared.graph)) == named
    assert prepared.changed or not named, "else the parser would read the model's own file"
