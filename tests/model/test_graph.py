"""model/graph.py: the working form of a model."""

import random as random_module

import numpy as np
import onnx
import pytest
from helpers import refused
from models import FLOAT, conv_net, model, node, random
from onnx import TensorProto, helper

from onnx2trt.base.errors import ExitCode
from onnx2trt.base.model_info import Profile
from onnx2trt.model import graph as graph_module
from onnx2trt.model.graph import Graph
from onnx2trt.model.nodes import reads, rename_reads
from onnx2trt.model.observe import static_shapes
from onnx2trt.model.session import Session


def branch_model():
    """An If whose branches read `scaled` from outside."""
    then = helper.make_graph([node("Relu", "scaled", "a")], "then", [], [helper.make_tensor_value_info("a", FLOAT, None)])
    other = helper.make_graph([node("Neg", "scaled", "b")], "else", [], [helper.make_tensor_value_info("b", FLOAT, None)])
    nodes = [
        node("Mul", "x two", "scaled", "scale"),
        node("ReduceSum", "x", "total", "sum", keepdims=0),
        node("Greater", "total zero", "positive", "compare"),
        helper.make_node("If", ["positive"], ["y"], name="choose", then_branch=then, else_branch=other),
    ]
    return model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, {"two": np.float32(2), "zero": np.float32(0)})


def test_who_alone_reads_a_tensor():
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Mul", "b b", "c"), node("Add", "x c", "d")]
    foreign, silent = helper.make_node("Gelu", ["d"], ["e"], domain="com.microsoft"), helper.make_node("Relu", ["e"], [])
    graph = Graph(model([*nodes, foreign, silent], {"x": [2]}, {"c": [2]}), {})
    assert {name: reader.op_type for name, reader in graph.only_readers().items()} == {"a": "Neg"}
    assert "scaled" not in Graph.from_model(branch_model()).only_readers(), "both branches of an If read it"


def test_weights_of_a_new_type_that_do_not_fit_their_shape():
    """Fuzzing, seed 12, case 315: four bytes of a scalar of one."""
    source = model([node("Mul", "x w", "y")], {"x": [4]}, {"y": [4]}, {"w": np.float32(2)})
    source.graph.initializer[0].data_type = TensorProto.FLOAT8E8M0
    with refused(ExitCode.MODEL, "tensor 'w' of type FLOAT8E8M0", hint="export the model in FP32"):
        Graph.from_model(source, ())


def test_a_node_without_its_second_input_is_the_files_fault():
    """onnx raises even where it is not strict (fuzzing, seed 12, case 212)."""
    source = model([node("Reshape", "x", "y", "odd")], {"x": [2, 3]}, {"y": [2, 3]})
    graph = Graph.from_model(source, ())
    with refused(ExitCode.MODEL, "Reshape, node name: odd", hint="onnx.checker"):
        graph.types()
    with refused(ExitCode.MODEL, "Reshape, node name: odd"):
        static_shapes(graph, ())


def test_constants_become_weights_and_nodes_get_names():
    source = model(
        [
            helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.float32([1, 2]))),
            helper.make_node("Constant", [], ["axes"], value_ints=[0]),
            node("Unsqueeze", "k axes", "u"),
            node("Add", "x u", "y"),
        ],
        {"x": [1, 2]},
        {"y": [1, 2]},
    )
    graph = Graph.from_model(source)
    assert [n.op_type for n in graph.nodes] == ["Unsqueeze", "Add"]
    assert graph.weights["k"].tolist() == [1, 2] and graph.weights["axes"].dtype == np.int64
    assert len({n.name for n in graph.nodes}) == 2 and all(n.name for n in graph.nodes)
    assert len(source.graph.node) == 4, "the given model stays as it is"


def test_nodes_out_of_order_are_sorted_and_dead_ones_dropped():
    source = model(
        [node("Relu", "m", "y", "last"), node("Neg", "x", "m", "first"), node("Abs", "x", "unused", "dead")], {"x": [2]}, {"y": [2]}
    )
    graph = Graph.from_model(source)
    assert [n.name for n in graph.nodes] == ["first", "last"]


def random_nodes(seed: int) -> list[onnx.NodeProto]:
    """Up to 40 nodes in execution order, of up to 3 inputs and 2 outputs, some of which read from within an If."""
    draw, tensors, nodes = random_module.Random(seed), ["x", "w"], []
    for index in range(draw.randint(1, 40)):
        inputs, outputs = draw.choices(tensors, k=draw.randint(0, 3)), [f"t{index}_{number}" for number in range(draw.randint(1, 2))]
        made = helper.make_node("Any", inputs, outputs, f"n{index}")
        if inputs and draw.random() < 0.2:
            body = helper.make_graph([node("Relu", inputs[0], "in")], "body", [], [helper.make_tensor_value_info("in", FLOAT, None)])
            made = helper.make_node("If", ["x"], outputs[:1], f"n{index}", then_branch=body, else_branch=body)
        nodes.append(made)
        tensors += made.output
    return nodes


def sorted_names(nodes) -> list[str]:
    graph = Graph(onnx.ModelProto(), {"w": np.zeros(1)})
    graph.proto.graph.input.append(helper.make_tensor_value_info("x", FLOAT, [1]))
    graph.nodes.extend(nodes)
    graph.sort()
    assert sorted(n.SerializeToString() for n in graph.nodes) == sorted(n.SerializeToString() for n in nodes), "the same nodes"
    return [n.name for n in graph.nodes]


def names_by_passes(nodes) -> list[str]:
    """What sort() promises, in as many passes over the list as it takes."""
    ready, waiting, taken = {"x", "w"}, list(nodes), []
    while waiting:
        later = []
        for candidate in waiting:
            if ready.issuperset(reads(candidate)):
                taken.append(candidate.name)
                ready.update(candidate.output)
            else:
                later.append(candidate)
        waiting = later
    return taken


@pytest.mark.parametrize("seed", range(50))
def test_nodes_in_order_stay_as_they_are_and_others_come_into_it(seed):
    nodes = random_nodes(seed)
    assert sorted_names(nodes) == [n.name for n in nodes]
    random_module.Random(seed).shuffle(nodes)
    names, made = sorted_names(nodes), {"x", "w"}
    for n in sorted(nodes, key=lambda n: names.index(n.name)):
        assert made.issuperset(reads(n)), "an execution order"
        made.update(n.output)
    assert names == names_by_passes(nodes)


def test_a_tensor_that_nobody_makes_keeps_no_node_waiting():
    """An input that is missing is found by whoever reads the model next, and named there."""
    assert sorted_names([node("Relu", "missing", "a", "first"), node("Relu", "a", "b", "second")]) == ["first", "second"]


@pytest.mark.parametrize(
    "nodes, name",
    [
        ([node("Add", "x b", "a"), node("Relu", "a", "b")], "'Add'"),
        ([node("Relu", "x", "a", "before"), node("Add", "a b", "b", "own"), node("Relu", "b", "c", "behind")], "'own'"),
        ([node("Relu", "c", "d", "behind"), node("Add", "a c", "b", "one"), node("Relu", "b", "c", "two")], "'one'"),
    ],
)
def test_a_cycle_is_the_models_fault_and_one_of_its_nodes_is_named(nodes, name):
    with refused(ExitCode.MODEL, f"the graph has a cycle through node {name}"):
        Graph.from_model(model(nodes, {"x": [2]}, {"b": [2]}))


def test_equal_node_names_are_told_apart():
    source = model([node("Relu", "x", "m", "same"), node("Neg", "m", "y", "same")], {"x": [2]}, {"y": [2]})
    names = [n.name for n in Graph.from_model(source).nodes]
    assert len(set(names)) == 2 and all(name.startswith("same") for name in names)


def test_subgraphs_read_from_outside():
    graph = Graph.from_model(branch_model())
    choose = graph.nodes[-1]
    assert set(reads(choose)) == {"positive", "scaled"}
    assert {n.name for n in graph.consumers()["scaled"]} == {"choose"}
    rename_reads(choose, "scaled", "other")
    assert set(reads(choose)) == {"positive", "other"}


def test_local_functions_are_inlined():
    function = helper.make_function("own", "Double", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", 17)])
    source = model([helper.make_node("Double", ["x"], ["y"], domain="own")], {"x": [2]}, {"y": [2]})
    source.functions.append(function)
    source.opset_import.append(helper.make_opsetid("own", 1))
    graph = Graph.from_model(source)
    assert [n.op_type for n in graph.nodes] == ["Add"]
    assert Session.from_graph(graph).run({"x": np.float32([1, 2])})["y"].tolist() == [2, 4]


def test_a_round_trip_computes_the_same(tmp_path):
    source = conv_net()
    onnx.save(source, tmp_path / "a.onnx")
    x = random(2, 3, 16, 16)
    expected = Session.from_path(str(tmp_path / "a.onnx")).run({"x": x})["y"]
    graph = Graph.from_model(source)
    assert np.array_equal(Session.from_graph(graph).run({"x": x})["y"], expected)
    onnx.checker.check_model(graph.to_model(), full_check=True)


def test_external_form_is_written_beyond_the_limit_and_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_module, "INLINE_LIMIT", 100)
    graph = Graph.from_model(conv_net())
    graph.save(str(tmp_path / "m.onnx"), "m.data")
    assert (tmp_path / "m.data").stat().st_size >= graph.weights["w1"].nbytes
    x = random(1, 3, 16, 16)
    assert np.array_equal(Session.from_path(str(tmp_path / "m.onnx")).run({"x": x})["y"], Session.from_graph(graph).run({"x": x})["y"])


def test_types_of_inner_tensors():
    source = model(
        [node("Cast", "x", "i", to=TensorProto.INT64), node("Cast", "i", "h", to=TensorProto.FLOAT16), node("Cast", "h", "y", to=FLOAT)],
        {"x": [2]},
        {"y": [2]},
    )
    types = Graph.from_model(source).types()
    assert (types["x"], types["i"], types["h"], types["y"]) == (FLOAT, TensorProto.INT64, TensorProto.FLOAT16, FLOAT)


def test_unknown_rank_is_declared_from_the_profile():
    source = model([node("Relu", "x", "y")], {"x": None}, {"y": None})
    graph = Graph.from_model(source, (Profile("x", (1, 4), (2, 4), (8, 4)),))
    assert len(graph.proto.graph.input[0].type.tensor_type.shape.dim) == 2
    assert "no declared rank" in graph.repairs[0]


def test_one_symbol_with_two_sizes_loses_its_name():
    source = model([node("Relu", "x", "y")], {"x": [1, "?", "?"]}, {"y": [1, "?", "?"]})
    clash = Graph.from_model(source, (Profile("x", (1, 4, 8), (1, 4, 8), (1, 4, 8)),))
    names = [dim.dim_param for dim in clash.proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    assert len(set(names)) == 2 and "'?'" in clash.repairs[0]
    equal = Graph.from_model(source, (Profile("x", (1, 4, 4), (1, 4, 4), (1, 4, 4)),))
    assert equal.repairs == () and [d.dim_param for d in equal.proto.graph.input[0].type.tensor_type.shape.dim[1:]] == ["?", "?"]


def test_copies_do_not_share_nodes():
    graph = Graph.from_model(conv_net())
    copy = graph.copy()
    copy.nodes[0].name = "changed"
    copy.weights["new"] = np.zeros(1)
    assert graph.nodes[0].name == "stem" and "new" not in graph.weights


def test_unique_names_avoid_everything_taken():
    graph = Graph.from_model(conv_net())
    assert graph.unique("fresh") == "fresh"
    assert graph.unique("fresh") != "fresh"
    assert graph.unique("w1") != "w1" and graph.unique("stem") != "stem" and graph.unique("r1") != "r1"


def test_sparse_weights_become_dense():
    values = helper.make_tensor("s", FLOAT, [2], [5.0, 7.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [1, 3])
    source = model([node("Add", "x s", "y")], {"x": [2, 2]}, {"y": [2, 2]})
    source.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 2]))
    assert Graph.from_model(source).weights["s"].tolist() == [[0, 5], [0, 7]]
