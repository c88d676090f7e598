"""rewrite/fp16.py: FP32 -> FP16: types and names; which nodes stay is in test_keep_fp32.py."""

import numpy as np
import onnx
from models import FLOAT, conv_net, in_fp16, model, node, outputs_of, random
from onnx import TensorProto, helper

from onnx2trt.model.graph import Graph
from onnx2trt.rewrite.fp16 import convert
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


def test_control_flow_stays_and_reads_float():
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
        assert kept_fp32 == {"choose": "control flow"}
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
