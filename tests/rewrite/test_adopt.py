"""rewrite/adopt.py: a model as other tools write it, in the form that the rest knows."""

import numpy as np
import pytest
from foreign_models import SHAPE, qlinear, quantized_input
from helpers import inside_if, refused
from models import FLOAT, conv_net, model, node, random
from onnx import TensorProto, helper

from onnx2trt.base.errors import ExitCode
from onnx2trt.model.graph import Graph
from onnx2trt.model.session import Session
from onnx2trt.rewrite.adopt import adopt

BFLOAT16, DOUBLE = TensorProto.BFLOAT16, TensorProto.DOUBLE


def test_what_is_as_it_should_be_is_not_touched():
    source = conv_net()
    before = source.SerializeToString()
    assert adopt(source, "m.onnx") is None and source.SerializeToString() == before


@pytest.mark.parametrize("elem_type, name", [(BFLOAT16, "BF16"), (DOUBLE, "FP64")])
@pytest.mark.parametrize("where", ["input", "weight", "cast", "constant in a function"])
def test_wherever_a_type_stands_the_whole_model_is_lifted(elem_type, name, where):
    weight = helper.make_tensor("w", elem_type, [4], [1.0, 2.0, 3.0, 4.0])
    source = model([node("Mul", "x w", "y")], {"x": (elem_type, [4])}, {"y": (elem_type, [4])})
    source.graph.initializer.append(weight)
    if where != "input":
        source = model([], {"x": [4]}, {"y": [4]}, {"w": np.float32([1, 2, 3, 4])})
        source.graph.node.extend([node("Cast", "x", "c", to=elem_type), node("Cast", "c", "f", to=FLOAT), node("Mul", "f w", "y")])
    if where == "weight":
        del source.graph.node[:], source.graph.initializer[:]
        source.graph.initializer.append(weight)
        source.graph.node.extend([node("Cast", "w", "f", to=FLOAT), node("Mul", "x f", "y")])
    if where == "constant in a function":
        inner = [
            helper.make_node("Constant", [], ["k"], value=weight),
            helper.make_node("Cast", ["k"], ["kf"], to=FLOAT),
            helper.make_node("Mul", ["a", "kf"], ["b"]),
        ]
        source = model([helper.make_node("Scale", ["x"], ["y"], domain="own")], {"x": [4]}, {"y": [4]})
        source.functions.append(helper.make_function("own", "Scale", ["a"], ["b"], inner, [helper.make_opsetid("", 17)]))
        source.opset_import.append(helper.make_opsetid("own", 1))
    found = adopt(source, "m.onnx")
    assert name in found.remarks[0] and ("'x', 'y' in FP32" in found.remarks[0]) is (where == "input")
    graph = Graph.from_model(found.model)
    assert set(graph.types().values()) == {FLOAT}
    np.testing.assert_array_equal(Session.from_graph(graph).run({"x": np.ones(4, np.float32)})["y"], np.float32([1, 2, 3, 4]))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ratio, idle", [(0.0, True), (0.5, False)])
def test_dropout_in_training_that_drops_nothing_is_that_of_inference(ratio, idle, training):
    weights = {"ratio": np.float32(ratio), "training": np.array(training)}
    source = model([node("Dropout", "x ratio training", "d"), node("Relu", "d", "y")], {"x": [4]}, {"y": [4]}, weights)
    found = adopt(source, "m.onnx")
    assert (found is not None) is idle
    if idle:
        assert [list(one.input) for one in found.model.graph.node] == [["x"], ["d"]] and "Dropout" in found.remarks[0]
        x = random(4)
        assert np.array_equal(Session.from_graph(Graph.from_model(found.model)).run({"x": x})["y"], np.maximum(x, 0))


def test_an_output_that_is_an_input_gets_a_name_of_its_own():
    source = model([node("Relu", "x", "y")], {"x": [4]}, {"y": [4], "x": [4]})
    found = adopt(source, "m.onnx")
    graph = Graph.from_model(found.model)
    assert graph.output_names == ["y", "x__output"] and "'x__output'" in found.remarks[0]
    x = random(4)
    assert np.array_equal(Session.from_graph(graph).run({"x": x})["x__output"], x)


def test_an_output_that_is_listed_twice_is_there_once():
    source = model([node("Relu", "x", "y")], {"x": [4]}, {"y": [4]})
    source.graph.output.append(source.graph.output[0])
    found = adopt(source, "m.onnx")
    assert [value.name for value in found.model.graph.output] == ["y"] and "listed 2 times" in found.remarks[0]


def test_nodes_of_one_name_get_names_of_their_own():
    """ONNX Runtime does not load them else."""
    source = model([node("Relu", "x", "a", "same"), node("Neg", "a", "y", "same")], {"x": [4]}, {"y": [4]})
    found = adopt(source, "m.onnx")
    assert len({made.name for made in found.model.graph.node}) == 2 and found.remarks == ()
    branches = inside_if(node("Relu", "x", "t", "same"), node("Neg", "t", "y", "same"))
    for branch in adopt(branches, "m.onnx").model.graph.node[0].attribute:
        assert len({made.name for made in branch.g.node}) == 2
    unnamed = model([node("Relu", "x", "a"), node("Neg", "a", "y")], {"x": [4]}, {"y": [4]})
    assert adopt(unnamed, "m.onnx") is None


def test_quantized_operators_stay_where_only_onnx_runtime_computes():
    nodes, weights = quantized_input("uint8", 3)
    source = model([*nodes, node("DequantizeLinear", "xq xs xz", "y")], {"x": SHAPE}, {"y": SHAPE}, weights)
    assert adopt(source, "m.onnx", for_tensorrt=False) is None and adopt(source, "m.onnx") is not None
    dynamic = model([qlinear("DynamicQuantizeLinear", "x", "q", domain="")], {"x": SHAPE}, {"q": (TensorProto.UINT8, SHAPE)})
    assert adopt(dynamic, "m.onnx", for_tensorrt=False) is None
    with refused(ExitCode.MODEL, "DynamicQuantizeLinear"):
        adopt(dynamic, "m.onnx")


def test_sizes_that_are_computed_in_fp64_stay_what_they_are():
    """0.29 * 100 is 28.999999999999996 in FP64, and 29 in FP32."""
    nodes = [
        node("Mul", "size factor", "exact"),
        node("Floor", "exact", "whole"),
        node("Cast", "whole", "shape", to=TensorProto.INT64),
        node("Expand", "x shape", "y"),
    ]
    source = model(nodes, {"x": [1]}, {"y": ["N"]}, {"size": np.array([100.0]), "factor": np.array(0.29)})
    graph = Graph.from_model(adopt(source, "m.onnx").model)
    assert Session.from_graph(graph).run({"x": np.ones(1, np.float32)})["y"].shape == (28,)


def test_scales_in_fp16_are_lifted_with_the_model():
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    half = TensorProto.FLOAT16
    source = model(nodes, {"x": (half, [64])}, {"y": (half, [64])}, {"s": np.float16(0.05), "z": np.uint8(100)}, opset=19)
    graph = Graph.from_model(adopt(source, "m.onnx").model)
    x = random(64, scale=3.0).astype(np.float16)
    expected = (np.clip(np.rint(x.astype(np.float32) / np.float32(np.float16(0.05))) + 100, 0, 255) - 100) * np.float32(np.float16(0.05))
    found = Session.from_graph(graph).run({"x": x})["y"]
    assert found.dtype == np.float16 and np.abs(found - expected).max() < 0.01


def test_a_loop_gets_the_condition_that_tensorrt_asks_for():
    values = [
        helper.make_tensor_value_info(name, elem_type, []) for name, elem_type in (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    ]
    state, after = (helper.make_tensor_value_info(name, FLOAT, [4]) for name in ("s", "t"))
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph([node("Identity", "go", "on"), node("Add", "s s", "t")], "body", [*values, state], [on, after])
    source = model([], {"x": [4]}, {"y": [4]}, {"n": np.int64(3)})
    source.graph.node.append(helper.make_node("Loop", ["n", "", "x"], ["y"], name="loop", body=body))
    written = adopt(source, "m.onnx")
    assert written.remarks == () and written.model.graph.node[0].input[1]
    feed = {"x": random(4)}
    np.testing.assert_array_equal(Session.from_graph(Graph.from_model(written.model)).run(feed)["y"], 8 * feed["x"])
    assert adopt(source, "m.onnx", for_tensorrt=False) is None
