"""rewrite/fp16.py: FP32 -> FP16: types and names; which nodes stay is in test_keep_fp32.py."""

import weakref

import numpy as np
import onnx
import pytest
from models import FLOAT, conv_net, in_fp16, model, node, outputs_of, random, stepped
from onnx import TensorProto, helper, numpy_helper

from onnx2trt.model.bodies import inner_graphs
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.fp16 import FOLLOWING, convert, forget_halves, stays_float
from onnx2trt.rewrite.keep_fp32 import choose_kept_fp32
from onnx2trt.rewrite.simulate import simulation

HALF = TensorProto.FLOAT16


def types_of_inputs_and_outputs(graph):
    values = (*graph.proto.graph.input, *graph.proto.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_every_layer_is_half_and_inputs_and_outputs_keep_their_types():
    feed = {"x": random(2, 3, 16, 16)}
    graph, half, kept_fp32 = in_fp16(conv_net(), feed)
    types = half.types()
    assert kept_fp32 == {}
    assert types_of_inputs_and_outputs(half) == types_of_inputs_and_outputs(graph) == {"x": FLOAT, "y": FLOAT}
    assert {types[name] for name in ("c1", "r1", "c2", "r2")} == {HALF}
    assert {array.dtype.name for array in half.weights.values()} == {"float16"}
    assert [n.op_type for n in half.nodes].count("Cast") == 2, "one at the input and one at the output, none in between"
    onnx.checker.check_model(half.to_model(), full_check=True)
    np.testing.assert_allclose(outputs_of(half, feed)[0], outputs_of(graph, feed)[0], atol=2e-2)


def test_graphs_share_weights_in_16_bits_until_they_are_let_go():
    graph = Graph.from_model(conv_net())
    one, other = (convert(graph, {}).weights for _ in range(2))
    assert one.keys() == other.keys() and all(one[name] is other[name] for name in one)
    alive = [weakref.ref(array) for array in one.values()]
    del one, other
    assert all(array() is not None for array in alive), "for the next graph"
    forget_halves()
    assert all(array() is None for array in alive)


def test_float_only_slots_get_float():
    nodes = [
        node("Relu", "x", "r"),
        node("Resize", "r  scales", "z", "resize", mode="linear"),
        node("Shape", "z", "shape"),
        node("Cast", "shape", "f", to=FLOAT),
        node("Gather", "f index", "size", "gather"),
        node("Mul", "z size", "y", "mul"),
    ]
    nodes[1].input[:] = ["r", "", "scales"]
    weights = {"scales": np.float32([1, 1, 2, 2]), "index": np.array(2)}
    source = model(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 8, 8]}, weights)
    feed = {"x": random(1, 2, 4, 4)}
    graph, half, _ = in_fp16(source, feed)
    types = half.types()
    assert half.weights["scales"].dtype == np.float32 and types["z"] == HALF and types["f"] == HALF
    np.testing.assert_allclose(outputs_of(half, feed)[0], outputs_of(graph, feed)[0], rtol=5e-3, atol=1e-3)


def test_non_maximum_suppression_reads_float():
    nodes = [
        node("Relu", "boxes", "b"),
        node("Relu", "scores", "s"),
        node("NonMaxSuppression", "b s most", "y", "nms"),
    ]
    source = model(nodes, {"boxes": [1, 6, 4], "scores": [1, 1, 6]}, {"y": (TensorProto.INT64, [None, 3])}, {"most": np.array([3])})
    feed = {
        "boxes": np.sort(np.random.default_rng(0).random((1, 6, 4), np.float32)),
        "scores": np.random.default_rng(1).random((1, 1, 6), np.float32),
    }
    graph, half, _ = in_fp16(source, feed)
    assert [a.tolist() for a in outputs_of(half, feed)] == [a.tolist() for a in outputs_of(graph, feed)]


def test_branches_are_converted_and_take_and_give_float():
    then = helper.make_graph([node("Relu", "h", "a")], "then", [], [helper.make_tensor_value_info("a", FLOAT, None)])
    other = helper.make_graph([node("Neg", "h", "b")], "else", [], [helper.make_tensor_value_info("b", FLOAT, None)])
    nodes = [
        node("Mul", "x two", "h", "scale"),
        node("ReduceSum", "x", "total", "sum", keepdims=0),
        node("Greater", "total zero", "positive", "compare"),
        helper.make_node("If", ["positive"], ["c"], name="choose", then_branch=then, else_branch=other),
        node("Add", "c h", "y", "join"),
    ]
    source = model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, {"two": np.float32(2), "zero": np.float32(0)})
    for sign in (1, -1):
        feed = {"x": np.full((2, 3), sign * 0.25, np.float32)}
        graph, half, kept_fp32 = in_fp16(source, feed)
        assert kept_fp32 == {}
        assert {FLOAT} == {half.types()[name] for name in ("c", "y")}
        inside = [inner.types() for inner in inner_graphs(half)]
        assert [types[name] for types, name in zip(inside, ("b__fp16", "a__fp16"))] == [HALF, HALF]
        assert outputs_of(half, feed)[0].tolist() == outputs_of(graph, feed)[0].tolist()
        assert outputs_of(simulation(half), feed)[0].tolist() == outputs_of(graph, feed)[0].tolist()


def test_a_constant_of_shape_follows():
    nodes = [
        node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "k", value=helper.make_tensor("v", FLOAT, [1], [0.5])),
        node("Mul", "x k", "y"),
    ]
    feed = {"x": random(2, 3)}
    graph, half, _ = in_fp16(model(nodes, {"x": ["N", 3]}, {"y": ["N", 3]}), feed)
    assert half.types()["k"] == HALF
    np.testing.assert_allclose(outputs_of(half, feed)[0], outputs_of(graph, feed)[0], rtol=2e-3)


def test_a_weight_shared_by_both_precisions_exists_in_both():
    nodes = [node("MatMul", "x w", "a", "first"), node("MatMul", "a w", "y", "second")]
    feed = {"x": random(2, 4)}
    _, half, _ = in_fp16(model(nodes, {"x": [2, 4]}, {"y": [2, 4]}, {"w": random(4, 4)}), feed, overrides=(("second", "fp32"),))
    assert sorted(array.dtype.name for array in half.weights.values()) == ["float16", "float32"]
    outputs_of(half, feed)


def test_an_output_that_is_read_again_keeps_its_name_and_type():
    nodes = [node("Relu", "x", "y1", "first"), node("Neg", "y1", "y2", "second")]
    feed = {"x": random(2, 4)}
    graph, half, _ = in_fp16(model(nodes, {"x": [2, 4]}, {"y1": [2, 4], "y2": [2, 4]}), feed)
    assert types_of_inputs_and_outputs(half) == types_of_inputs_and_outputs(graph) and half.output_names == ["y1", "y2"]
    for a, b in zip(outputs_of(half, feed), outputs_of(graph, feed)):
        np.testing.assert_allclose(a, b, rtol=2e-3)


def test_integer_tensors_stay_integers():
    nodes = [node("Gather", "table ids", "e", "embed"), node("ReduceMean", "e", "y", "mean", axes=[1], keepdims=0)]
    source = model(nodes, {"ids": (TensorProto.INT64, ["N", 3])}, {"y": ["N", 4]}, {"table": random(10, 4)})
    graph, half, _ = in_fp16(source, {"ids": np.array([[1, 2, 3]])})
    assert types_of_inputs_and_outputs(half)["ids"] == TensorProto.INT64 and half.types()["e"] == HALF


def test_a_model_that_is_half_already_is_left_as_it_is():
    source = model([node("Mul", "x w", "y")], {"x": (HALF, [2])}, {"y": (HALF, [2])}, {"w": np.float16([2, 3])})
    graph = Graph.from_model(source)
    half = convert(graph, {})
    assert [n.op_type for n in half.nodes] == ["Mul"] and types_of_inputs_and_outputs(half) == {"x": HALF, "y": HALF}


# ---- operators whose result has a type of its own: by an attribute, or by default

FLOAT_BY = {"dtype": FLOAT}
# name -> (operator, what it reads: tensors of `weights`, or x, attributes, opset)
OWN_TYPE = {
    "random uniform": ("RandomUniform", "", {"shape": [2, 6]}, 17),
    "random uniform, named": ("RandomUniform", "", {"shape": [2, 6], **FLOAT_BY}, 17),
    "random normal": ("RandomNormal", "", {"shape": [2, 6]}, 13),
    "uniform like": ("RandomUniformLike", "x", {}, 17),
    "uniform like, named": ("RandomUniformLike", "x", FLOAT_BY, 17),
    "uniform like integers": ("RandomUniformLike", "n", FLOAT_BY, 17),
    "normal like": ("RandomNormalLike", "r", {}, 17),
    "normal like, named": ("RandomNormalLike", "r", FLOAT_BY, 17),
    "bernoulli": ("Bernoulli", "p", {}, 17),
    "bernoulli, named": ("Bernoulli", "p", FLOAT_BY, 17),
    "hann": ("HannWindow", "size", {}, 17),
    "hann, named": ("HannWindow", "size", {"output_datatype": FLOAT}, 17),
    "hamming": ("HammingWindow", "size", {"periodic": 0}, 17),
    "blackman": ("BlackmanWindow", "size", {"output_datatype": FLOAT}, 17),
    "eye like": ("EyeLike", "r", {}, 17),
    "eye like integers": ("EyeLike", "n", FLOAT_BY, 13),
    "filled": ("ConstantOfShape", "shape", {}, 17),
    "filled, named": ("ConstantOfShape", "shape", {"value": helper.make_tensor("v", FLOAT, [1], [0.5])}, 17),
    "cast": ("Cast", "n", {"to": FLOAT}, 17),
    "cast like": ("CastLike", "n r", {}, 17),
    "dequantized": ("DequantizeLinear", "q scale", {}, 17),
    "dequantized to the type of the scale": ("DequantizeLinear", "q scale", {}, 19),
    "range": ("Range", "zero six one", {}, 17),
    "range of what is computed": ("Range", "zero top one", {}, 17),
    "mel": ("MelWeightMatrix", "bins length rate low high", {}, 17),
    "mel, named": ("MelWeightMatrix", "bins length rate low high", {"output_datatype": FLOAT}, 17),
    "one hot": ("OneHot", "index six_wide on_off", {}, 17),
}
WEIGHTS = {
    "size": np.array(6),
    "shape": np.array([2, 6]),
    "q": np.arange(12, dtype=np.int8).reshape(2, 6),
    "scale": np.float32(0.1),
    **{name: np.float32(value) for name, value in {"zero": 0, "one": 1, "six": 6, "half": 0.5, "low": 0, "high": 3000}.items()},
    **{name: np.array(value) for name, value in {"bins": 6, "length": 8, "rate": 8000, "six_wide": 6}.items()},
    "index": np.array([0, 3]),
    "on_off": np.float32([0, 1]),
}


def of_its_own_type(name: str) -> onnx.ModelProto:
    """The operator beside an ordinary one, both read by others and given as outputs."""
    op, operands, attributes, opset = OWN_TYPE[name]
    nodes = [
        node("Relu", "x", "r"),
        node("Sigmoid", "x", "p"),
        node("Cast", "r", "n", to=TensorProto.INT64),
        node("ReduceMax", "p", "most", keepdims=0),  # 0..1
        node("Sub", "six most", "nearly"),
        node("Ceil", "nearly", "top"),
        node(op, operands, "made", "made", **attributes),
        node("Mul", "made half", "small"),
        node("ReduceMean", "small", "mean", keepdims=1) if op == "MelWeightMatrix" else node("Identity", "small", "mean"),
        node("Add", "mean r", "y1"),
        node("Relu", "made", "y2"),
    ]
    made = ["n"] if op.endswith("Window") or op == "Range" else ["m", "n"]
    return model(nodes, {"x": [2, 6]}, {"y1": ["k", 6], "y2": made, "made": made}, WEIGHTS, opset)


@pytest.mark.parametrize("name", OWN_TYPE)
@pytest.mark.parametrize("kept", ["nothing", "what reads it", "the others"])
def test_operators_with_a_type_of_their_own_stay_valid(name, kept):
    graph = Graph.from_model(of_its_own_type(name))
    readers = {n.name for n in graph.nodes if "made" in n.input or "small" in n.input}
    others = {n.name for n in graph.nodes} - readers - {"made"}
    in_fp32 = {"nothing": set(), "what reads it": readers, "the others": others}[kept]
    half = convert(graph, dict.fromkeys(in_fp32, ""))
    onnx.checker.check_model(half.to_model(), full_check=True)
    onnx.shape_inference.infer_shapes(half.to_model(), check_type=True, strict_mode=True)
    assert types_of_inputs_and_outputs(half) == types_of_inputs_and_outputs(graph)
    feed = {"x": random(2, 6)}
    expected = Session.from_graph(graph).run(feed)
    for made in (Session.from_graph(half).run(feed), Session.from_graph(simulation(half)).run(feed)):
        for output, array in made.items():
            assert array.dtype == np.float32 and array.shape == expected[output].shape
            if not name.startswith(("random", "uniform", "normal", "bernoulli")):
                np.testing.assert_allclose(array, expected[output], rtol=4e-3, atol=2e-3)


def test_every_such_operator_is_among_the_tested():
    """By ONNX's schemas: float32 or float16 results whose type no operand has; lists of tensors are in the test below."""
    own = set()
    for name in {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}:
        for opset in (13, 17, 19, 21):
            schema = onnx.defs.get_schema(name, opset, "") if onnx.defs.has(name) and _exists(name, opset) else None
            if schema and stays_float(helper.make_node(name, [], []), schema):
                own.add(name)
    lists = {name for name in own if "Sequence" in name or "Optional" in name}
    assert own - lists - {"If", "Loop", "Scan", "Constant"} | FOLLOWING <= {op for op, *_ in OWN_TYPE.values()}


def _exists(name: str, opset: int) -> bool:
    try:
        return bool(onnx.defs.get_schema(name, opset, ""))
    except onnx.defs.SchemaError:
        return False


def test_lists_of_tensors_stay_float():
    nodes = [
        node("Relu", "x", "r"),
        node("SequenceEmpty", "", "empty"),
        node("SequenceInsert", "empty r", "one"),
        node("Neg", "r", "minus"),
        node("SequenceInsert", "one minus", "two"),
        node("SequenceAt", "two zero", "first"),
        node("ConcatFromSequence", "two", "all", axis=0),
        node("Mul", "first r", "y"),
        node("Mul", "all half", "z"),
    ]
    weights = {"zero": np.array(0), "half": np.float32(0.5)}
    feed = {"x": random(2, 6)}
    graph = Graph.from_model(model(nodes, {"x": [2, 6]}, {"y": [2, 6], "z": [4, 6]}, weights))
    half = convert(graph, {})
    onnx.checker.check_model(half.to_model(), full_check=True)
    for a, b in zip(outputs_of(half, feed), outputs_of(graph, feed)):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["Loop", "Scan"])
def test_loops_are_converted_and_take_and_give_float(kind):
    feed = {"x": random(4, 2, 3, seed=1), "start": random(2, 3, seed=2)}
    graph, half, kept_fp32 = in_fp16(stepped(kind), feed)
    assert kept_fp32 == {}
    (inner,) = inner_graphs(half)
    inside = {entry.op_type: inner.types()[entry.output[0]] for entry in inner.nodes}
    assert {inside[op] for op in ("MatMul", "Add", "Tanh")} == {HALF}
    for name, expected in Session.from_graph(graph).run(feed).items():
        computed, simulated = (Session.from_graph(one).run(feed)[name] for one in (half, simulation(half)))
        np.testing.assert_allclose(computed, expected, atol=4e-3)
        np.testing.assert_allclose(simulated, expected, atol=4e-3)
        assert (simulated != expected).any(), "what is rounded shows"
        assert computed.dtype == simulated.dtype == np.float32


def test_nodes_in_bodies_are_kept_by_name_by_their_weights_and_whole():
    feed = {"x": random(4, 2, 3, seed=1), "start": random(2, 3, seed=2)}
    graph = Graph.from_model(stepped("Loop"))
    kept_fp32 = choose_kept_fp32(graph, {}, (("tan*", "fp32"),))
    assert set(kept_fp32) == {"tanh"}
    types = {entry.name: inner.types()[entry.output[0]] for inner in inner_graphs(convert(graph, kept_fp32)) for entry in inner.nodes}
    assert types["tanh"] == FLOAT and types["join"] == HALF
    whole = convert(graph, {"loop": "asked for"})
    assert not any(HALF in inner.types().values() for inner in inner_graphs(whole))
    np.testing.assert_array_equal(Session.from_graph(whole).run(feed)["y"].shape, (2, 3))
    tiny = stepped("Loop")
    weights = next(tensor for tensor in tiny.graph.initializer if tensor.name == "w")
    weights.CopyFrom(numpy_helper.from_array(np.full((3, 3), 1e-9, np.float32), "w"))
    assert set(choose_kept_fp32(Graph.from_model(tiny), {}, ())) == {"matmul"}


def test_what_overflows_in_a_branch_is_seen_by_the_simulation():
    def branch(name):
        nodes = [node("Mul", "x big", f"{name}m", f"{name}/up"), node("Mul", f"{name}m small", f"{name}r", f"{name}/down")]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}r", FLOAT, None)])

    nodes = [helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch("t"), else_branch=branch("e"))]
    inputs = {"x": [2, 3], "c": (TensorProto.BOOL, [])}
    graph = Graph.from_model(model(nodes, inputs, {"y": [2, 3]}, {"big": np.float32(6e4), "small": np.float32(1e-4)}))
    feed = {"x": np.full((2, 3), 2.0, np.float32), "c": np.array(True)}
    half = convert(graph, {})
    assert np.isfinite(Session.from_graph(half).run(feed)["y"]).all(), "ONNX Runtime computes FP16 in FP32"
    assert np.isinf(Session.from_graph(simulation(half)).run(feed)["y"]).all()


def test_a_loop_in_a_branch():
    inner = stepped("Loop").graph
    then = helper.make_graph(list(inner.node), "then", [], [helper.make_tensor_value_info("y", FLOAT, None)], list(inner.initializer))
    other = helper.make_graph([node("Neg", "start", "n")], "else", [], [helper.make_tensor_value_info("n", FLOAT, None)])
    nodes = [helper.make_node("If", ["c"], ["r"], name="if", then_branch=then, else_branch=other)]
    source = model(nodes, {"x": [4, 2, 3], "start": [2, 3], "c": (TensorProto.BOOL, [])}, {"r": [2, 3]})
    for value in (True, False):
        feed = {"x": random(4, 2, 3, seed=1), "start": random(2, 3, seed=2), "c": np.array(value)}
        graph, half, kept_fp32 = in_fp16(source, feed)
        assert kept_fp32 == {} and HALF in {kind for body in inner_graphs(half) for kind in body.types().values()}
        for one in (half, simulation(half)):
            np.testing.assert_allclose(outputs_of(one, feed)[0], outputs_of(graph, feed)[0], atol=4e-3)


@pytest.mark.parametrize("before", [("Relu",), ("MatMul",), ("MatMul", "Transpose"), ()])
def test_a_recurrent_layer_in_fp32_reads_a_sum(before):
    """TensorRT-RTX builds none that reads what is cast, however values are moved in between (tests/end_to_end/test_bf16.py)."""
    nodes, name = [], "x"
    for index, operator in enumerate(before):
        more = {"MatMul": " square"}.get(operator, "")
        nodes.append(node(operator, name + more, name := f"t{index}", operator, **({"perm": [0, 1, 2]} if operator == "Transpose" else {})))
    nodes.append(node("GRU", f"{name} w r", "y", "recurrent", hidden_size=4))
    weights = {"square": random(3, 3), "w": random(1, 12, 3, seed=1), "r": random(1, 12, 4, seed=2)}
    graph = Graph.from_model(model(nodes, {"x": [5, 2, 3]}, {"y": [5, 1, 2, 4]}, weights))
    half = convert(graph, {"recurrent": "", "Transpose": ""})
    recurrent = next(one for one in half.nodes if one.name == "recurrent")
    producers = half.producers()
    if not before:
        assert recurrent.input[0] == "x" and len(half.nodes) == 1, "an input of the network is read as it is"
        return
    summed = producers[recurrent.input[0]]
    assert summed.op_type == "Add" and not half.weights[summed.input[1]].any()
    onnx.checker.check_model(half.to_model(), full_check=True)
    feed = {"x": random(5, 2, 3, seed=3)}
    np.testing.assert_allclose(outputs_of(simulation(half), feed)[0], outputs_of(graph, feed)[0], atol=1e-2)
